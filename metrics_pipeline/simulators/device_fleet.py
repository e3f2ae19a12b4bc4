"""Devices that are not there: which there are, how they behave, and what happens to them.

Pure: dice are passed in, so that the same seed gives the same fleet. Every id begins with
`simulated-`, every address with `127.20.`. What answers for them is in `device_servers.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, cycle, islice
from random import Random

from metrics_pipeline.core.devices import Device
from metrics_pipeline.simulators.fleet import ID_PREFIX
from metrics_pipeline.simulators.snmp_objects import AgentKind
from metrics_pipeline.simulators.ssh_host import TICKS_A_SECOND, HostFigures

SNMP_CREDENTIAL = "simulated-snmp"
SSH_KEY_CREDENTIAL = "simulated-ssh-key"
SSH_PASSWORD_CREDENTIAL = "simulated-ssh-password"  # noqa: S105  (a name, not a password)
"""What the inventory calls the credentials; the settings that ship define them."""

SITES = ("north", "south", "harbour")
REBOOT_CHANCE = 0.5
"""Of what comes back, so much has restarted: its counters begin at 0."""
YEAR_SECONDS = 365.25 * 86_400
DOWN_SECONDS = (60.0, 120.0)
UP_SECONDS = (90.0, 360.0)
SMALLEST_BACK_SECONDS = 20.0


class Behaviour(StrEnum):
    """What a device is like, for ever."""

    HEALTHY = "healthy"
    FLAPPING = "flapping"
    """It is up for minutes, then down for one or two."""
    SLOW = "slow"
    """It takes its time for each answer, but answers."""
    LYING = "lying"
    """It answers at once, and its figures are impossible."""
    WRONG_TYPES = "wrong-types"
    """Its numbers come as texts, and its texts as numbers."""
    WRONG_REQUEST = "wrong-request"
    """What it answers is never what it was asked: its replies have another identifier."""
    CIRCLING = "circling"
    """Its tables never end: the next row is the same again."""
    WRONG_CLOCK = "wrong-clock"
    """Its clock is a year behind, and it says so to everybody; its figures are right."""
    CHANGED_KEY = "changed-key"
    """Its host key is not the one that it is known by."""
    DEAD = "dead"
    """It never answers."""


@dataclass(frozen=True, slots=True)
class Group:
    """Devices of one kind, with addresses 127.20.`net`.1 and up. `behaviours` come in turns."""

    count: int
    device_type: str
    net: int
    protocol: str
    credentials: tuple[str, ...] = ("",)
    behaviours: tuple[Behaviour, ...] = (Behaviour.HEALTHY,)
    agent: AgentKind | None = None
    system: str = "Linux"


_H, _F = Behaviour.HEALTHY, Behaviour.FLAPPING
_S, _L, _D = Behaviour.SLOW, Behaviour.LYING, Behaviour.DEAD
_T, _R, _C = Behaviour.WRONG_TYPES, Behaviour.WRONG_REQUEST, Behaviour.CIRCLING
_W, _K = Behaviour.WRONG_CLOCK, Behaviour.CHANGED_KEY
_SWITCHES = (_H, _F, _H, _H, _H, _S) * 2 + (_H, _F, _H, _H, _H, _C)
_ROUTERS = (_H, _H, _F, _L, _H, _H, _F, _T)
_SERVERS = (_H, _F, _H, _S, _L, _W, _F, _H, _S, _R)
_SSH = (SSH_KEY_CREDENTIAL, SSH_PASSWORD_CREDENTIAL)
GROUPS = (
    Group(18, "switch", 1, "snmp", (SNMP_CREDENTIAL,), _SWITCHES, AgentKind.CISCO),
    Group(8, "router", 2, "snmp", (SNMP_CREDENTIAL,), _ROUTERS, AgentKind.STANDARD),
    Group(4, "firewall", 3, "snmp", (SNMP_CREDENTIAL,), (_H, _H, _H, _D), AgentKind.STANDARD),
    Group(10, "linux", 4, "snmp", (SNMP_CREDENTIAL,), _SERVERS, AgentKind.NET_SNMP),
    Group(8, "linux", 5, "ssh", _SSH, (_K, _F, _H, _S, _L, _H, _W, _D)),
    Group(2, "freebsd", 6, "ssh", _SSH, (_H, _F), system="FreeBSD"),
    Group(6, "camera", 7, "tcp", behaviours=(_H, _F, _H)),
    Group(4, "printer", 8, "tcp", behaviours=(_H, _H, _F, _D)),
)
"""60 devices, a quarter of which come and go."""


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """A device at one moment. `device.port` is 0 until something listens."""

    device: Device
    behaviour: Behaviour
    figures: HostFigures
    mac_address: str
    agent: AgentKind | None = None
    is_up: bool = True
    seconds_left: float = 0.0
    """Of a flapping one: until it goes down, or comes back."""


def make_devices(
    random: Random, groups: Iterable[Group] = GROUPS, unix_seconds: float = 0.0
) -> tuple[SimulatedDevice, ...]:
    """All devices, with loads of their own; of the flapping ones some are down.

    `unix_seconds` is what a right clock says, in seconds since 1970.
    """
    return tuple(chain.from_iterable(_make_group(group, random, unix_seconds) for group in groups))


def step(
    devices: Sequence[SimulatedDevice], seconds: float, random: Random
) -> tuple[SimulatedDevice, ...]:
    """`devices` so many seconds later: loads wander, counters grow, some go down or come back."""
    return tuple(_step(device, seconds, random) for device in devices)


def _step(device: SimulatedDevice, seconds: float, random: Random) -> SimulatedDevice:
    later = replace(device, figures=device.figures.after(seconds).wander(random))
    if device.behaviour is not Behaviour.FLAPPING:
        return later
    left = device.seconds_left - seconds
    if left > 0:
        return replace(later, seconds_left=left)
    if device.is_up:
        return replace(later, is_up=False, seconds_left=random.uniform(*DOWN_SECONDS))
    return replace(
        later,
        is_up=True,
        seconds_left=random.uniform(*UP_SECONDS),
        figures=_restart(later.figures) if random.random() < REBOOT_CHANCE else later.figures,
    )


def _restart(figures: HostFigures) -> HostFigures:
    begun = replace(
        figures,
        uptime_seconds=0.0,
        busy_ticks=0,
        idle_ticks=0,
        received_bytes=0,
        sent_bytes=0,
    )
    return begun.after(SMALLEST_BACK_SECONDS)


def _make_group(group: Group, random: Random, unix_seconds: float) -> Iterator[SimulatedDevice]:
    behaviours = islice(cycle(group.behaviours), group.count)
    for number, behaviour in enumerate(behaviours, start=1):
        # Those with an agent and those with SSH are numbered apart, by their net.
        name = f"{group.device_type}-{group.net}{number:02}"
        device = Device(
            id=f"{ID_PREFIX}{name}",
            hostname=f"{name}.simulated.example",
            address=f"127.20.{group.net}.{number}",
            device_type=group.device_type,
            protocol=group.protocol,
            credential=group.credentials[number % len(group.credentials)],
            labels={"site": random.choice(SITES), "behaviour": behaviour},
        )
        is_flapping = behaviour is Behaviour.FLAPPING
        yield SimulatedDevice(
            device=device,
            behaviour=behaviour,
            figures=_first_figures(group.system, random, unix_seconds),
            mac_address=f"02:14:00:00:{group.net:02x}:{number:02x}",  # locally administered
            agent=group.agent,
            is_up=behaviour is not Behaviour.DEAD,
            seconds_left=random.uniform(0, UP_SECONDS[0]) if is_flapping else 0.0,
        )


def _first_figures(system: str, random: Random, unix_seconds: float) -> HostFigures:
    uptime_seconds = round(random.uniform(3600, 200 * 86_400), 2)
    busy_share = random.uniform(0.05, 0.6)
    ticks = round(uptime_seconds * TICKS_A_SECOND)
    figures = HostFigures(
        system=system,
        unix_seconds=unix_seconds,
        uptime_seconds=uptime_seconds,
        busy_share=busy_share,
        busy_ticks=round(ticks * busy_share),
        idle_ticks=ticks - round(ticks * busy_share),
        memory_share=random.uniform(0.2, 0.9),
        disk_share=random.uniform(0.1, 0.9),
        received_bytes=random.randrange(10**13),
        sent_bytes=random.randrange(10**12),
    )
    return figures.wander(random)


def impossible(figures: HostFigures) -> HostFigures:
    """What a device that lies makes of its figures."""
    return replace(figures, busy_share=40.0, memory_share=4.0, disk_share=3.0, celsius=5000.0)


def a_year_behind(figures: HostFigures) -> HostFigures:
    """What a device whose clock is wrong makes of its figures."""
    return replace(figures, unix_seconds=figures.unix_seconds - YEAR_SECONDS)
