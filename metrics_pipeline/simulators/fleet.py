"""A fleet that is not there: devices that join, leave, connect, fail, and recover.

Pure but for `Fleet`, which holds the present state for several threads. All dice are passed in, so
that the same seed gives the same fleet. Every id begins with `simulated-`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TypeVar

ID_PREFIX = "simulated-"
CONCENTRATOR_TYPE = "LoRa Concentrator"
EUI_PREFIX = "FEEDFACE"
"""The first 8 of the 16 hexadecimal digits of a simulated EUI; no maker owns them."""

CONNECT_CHANCE = 0.3
DISCONNECT_CHANCE = 0.05
FAIL_CHANCE = 0.05
RECOVER_CHANCE = 0.3
STEPS_TO_SETTLE = 10

Member = TypeVar("Member", "Device", "Concentrator")


@dataclass(frozen=True, slots=True)
class Device:
    """An entry of the hub's registry. `device_type` is the tag of that name, None without one."""

    id: str
    is_edge: bool = False
    device_type: str | None = None
    is_connected: bool = False

    def twin(self) -> Mapping[str, Any]:
        """The device twin, as far as queries can see it here."""
        return {
            "deviceId": self.id,
            "status": "enabled",
            "connectionState": "Connected" if self.is_connected else "Disconnected",
            "capabilities": {"iotEdge": self.is_edge},
            "tags": {} if self.device_type is None else {"deviceType": self.device_type},
        }


@dataclass(frozen=True, slots=True)
class Concentrator:
    """A LoRaWAN concentrator; `eui` is 16 hexadecimal digits. In the hub it is a tagged device."""

    id: str
    name: str
    eui: str
    is_connected: bool = False


@dataclass(frozen=True, slots=True)
class Deployment:
    """An edge deployment, and the ids of the edge devices it failed on."""

    id: str
    is_layered: bool = False
    failed_on: frozenset[str] = frozenset()

    def configuration(self, targeted: int) -> Mapping[str, Any]:
        """What `GET /configurations` shows of it; `targeted` is the number of edge devices."""
        name = "properties.desired.modules.sensor" if self.is_layered else "properties.desired"
        return {
            "id": self.id,
            "schemaVersion": "1.0",
            "content": {"modulesContent": {"$edgeAgent": {name: {}}}},
            "targetCondition": "capabilities.iotEdge = true",
            "priority": 10,
            "systemMetrics": {
                "results": {
                    "targetedCount": targeted,
                    "appliedCount": targeted,
                    "reportedSuccessfulCount": targeted - len(self.failed_on),
                    "reportedFailedCount": len(self.failed_on),
                }
            },
        }


@dataclass(frozen=True, slots=True)
class FleetState:
    """A fleet at one moment."""

    devices: tuple[Device, ...] = ()
    concentrators: tuple[Concentrator, ...] = ()
    deployments: tuple[Deployment, ...] = ()

    def twins(self) -> list[Mapping[str, Any]]:
        """Everything in the registry, concentrators included."""
        tagged = (
            Device(each.id, device_type=CONCENTRATOR_TYPE, is_connected=each.is_connected)
            for each in self.concentrators
        )
        return [device.twin() for device in (*self.devices, *tagged)]

    def configurations(self) -> list[Mapping[str, Any]]:
        """All configurations of the hub."""
        targeted = sum(device.is_edge for device in self.devices)
        return [deployment.configuration(targeted) for deployment in self.deployments]


@dataclass(frozen=True, slots=True)
class FleetSize:
    """How many of each there are on average; at no moment more than twice as many."""

    devices: int = 40
    edge_devices: int = 10
    concentrators: int = 6
    deployments: int = 3


@dataclass(slots=True)
class Fleet:
    """The present state, safe to read while another thread steps."""

    state: FleetState
    size: FleetSize = field(default_factory=FleetSize)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def snapshot(self) -> FleetState:
        """The state now; it never changes."""
        with self._lock:
            return self.state

    def put(self, state: FleetState) -> None:
        """Make `state` the present one."""
        with self._lock:
            self.state = state

    def step(self, random: Random) -> None:
        """Let some time pass."""
        with self._lock:
            self.state = step(self.state, self.size, random)


def make_fleet(size: FleetSize, random: Random) -> Fleet:
    """A fleet of exactly `size`, most of it connected."""
    state = FleetState(
        devices=_grow(size.devices, _standard_device, random)
        + _grow(size.edge_devices, _edge_device, random),
        concentrators=_grow(size.concentrators, _concentrator, random),
        deployments=tuple(
            # The first is the base, the others are layers on top of it.
            Deployment(f"{ID_PREFIX}deployment-{number}", is_layered=number > 0)
            for number in range(size.deployments)
        ),
    )
    for _ in range(STEPS_TO_SETTLE):
        state = _flip_deployments(_flip_connections(state, random), random)
    return Fleet(state, size)


def step(state: FleetState, size: FleetSize, random: Random) -> FleetState:
    """`state` some time later: devices join, leave, connect and fail around `size`."""
    standard = tuple(device for device in state.devices if not device.is_edge)
    edge = tuple(device for device in state.devices if device.is_edge)
    moved = replace(
        state,
        devices=_move(standard, size.devices, _standard_device, random)
        + _move(edge, size.edge_devices, _edge_device, random),
        concentrators=_move(state.concentrators, size.concentrators, _concentrator, random),
    )
    return _flip_deployments(_flip_connections(moved, random), random)


def _grow(count: int, make: Callable[[Random], Member], random: Random) -> tuple[Member, ...]:
    members: tuple[Member, ...] = ()
    while len(members) < count:
        members = _join(members, make, random)
    return members


def _move(
    members: tuple[Member, ...],
    average: int,
    make: Callable[[Random], Member],
    random: Random,
) -> tuple[Member, ...]:
    """One joins or one leaves. The fewer there are, the likelier one joins; at twice the average
    nobody does (Ehrenfest's urn), so the size stays around the average for ever.
    """
    if random.random() * 2 * average > len(members):
        return _join(members, make, random)
    leaving = random.randrange(len(members)) if members else 0
    return members[:leaving] + members[leaving + 1 :]


def _join(
    members: tuple[Member, ...], make: Callable[[Random], Member], random: Random
) -> tuple[Member, ...]:
    taken = {member.id for member in members}
    member = make(random)
    while member.id in taken:
        member = make(random)
    return members + (member,)  # noqa: RUF005  (keeps the type of the tuple)


def _flip_connections(state: FleetState, random: Random) -> FleetState:
    return replace(
        state,
        devices=tuple(_flip(device, random) for device in state.devices),
        concentrators=tuple(_flip(each, random) for each in state.concentrators),
    )


def _flip(member: Member, random: Random) -> Member:
    chance = DISCONNECT_CHANCE if member.is_connected else CONNECT_CHANCE
    if random.random() >= chance:
        return member
    return replace(member, is_connected=not member.is_connected)


def _flip_deployments(state: FleetState, random: Random) -> FleetState:
    edge_ids = [device.id for device in state.devices if device.is_edge]
    return replace(
        state,
        deployments=tuple(
            replace(each, failed_on=_fail_and_recover(each.failed_on, edge_ids, random))
            for each in state.deployments
        ),
    )


def _fail_and_recover(
    failed: frozenset[str], edge_ids: Sequence[str], random: Random
) -> frozenset[str]:
    """A device that has left is no longer among the failed ones."""
    stay = {id_ for id_ in edge_ids if id_ in failed and random.random() >= RECOVER_CHANCE}
    fail = {id_ for id_ in edge_ids if id_ not in failed and random.random() < FAIL_CHANCE}
    return frozenset(stay | fail)


def _standard_device(random: Random) -> Device:
    # Some devices have a tag of another kind and some have none: both count as standard devices.
    tag = random.choice((None, "LoRa Device", "Sensor"))
    return Device(f"{ID_PREFIX}device-{random.getrandbits(32):08x}", device_type=tag)


def _edge_device(random: Random) -> Device:
    return Device(f"{ID_PREFIX}edge-{random.getrandbits(32):08x}", is_edge=True)


def _concentrator(random: Random) -> Concentrator:
    digits = f"{random.getrandbits(32):08X}"
    return Concentrator(
        id=f"{ID_PREFIX}concentrator-{digits.lower()}",
        name=f"Simulated concentrator {digits}",
        eui=EUI_PREFIX + digits,
    )
