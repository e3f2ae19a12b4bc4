"""What simulated SNMP agents show of a device: objects by name, encoded, made from its figures.

Three kinds of agent, after what real ones answer: net-snmp on Linux, Cisco IOS, and one that has
nothing but the standard MIBs. Sources: SNMPv2-MIB (RFC 3418), IF-MIB (RFC 2863),
HOST-RESOURCES-MIB (RFC 2790), ENTITY-SENSOR-MIB (RFC 3433), UCD-SNMP-MIB and LM-SENSORS-MIB of
net-snmp, CISCO-PROCESS-MIB, CISCO-MEMORY-POOL-MIB, CISCO-ENVMON-MIB.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from metrics_pipeline.access.snmp_ber import (
    COUNTER_32,
    COUNTER_64,
    GAUGE_32,
    OCTETS,
    TIME_TICKS,
    encode,
    encode_integer,
    encode_oid,
)
from metrics_pipeline.simulators.ssh_host import DISK_KB, MEMORY_KB, HostFigures

Objects = Mapping[str, bytes]
"""Names of instances, and the value of each with tag and length."""
Rows = Iterator[tuple[str, bytes]]


class AgentKind(StrEnum):
    """Whose agent it is."""

    NET_SNMP = "net-snmp"
    CISCO = "cisco"
    STANDARD = "standard"


SYS_OBJECT_IDS = {
    AgentKind.NET_SNMP: "1.3.6.1.4.1.8072.3.2.10",
    AgentKind.CISCO: "1.3.6.1.4.1.9.1.1208",
    AgentKind.STANDARD: "1.3.6.1.4.1.32473.1",  # the enterprise number of RFC 5612, for examples
}
DESCRIPTIONS = {
    AgentKind.NET_SNMP: "Linux simulated 6.1.0 #1 SMP x86_64",
    AgentKind.CISCO: "Cisco IOS Software, simulated",
    AgentKind.STANDARD: "Simulated device",
}
PORTS = {AgentKind.NET_SNMP: 3, AgentKind.CISCO: 25, AgentKind.STANDARD: 9}
"""Interfaces of each; the first is one that is not physical, the last is down."""

SYSTEM = "1.3.6.1.2.1.1"
INTERFACES = "1.3.6.1.2.1.2"
IF_ENTRY = f"{INTERFACES}.2.1"
IF_X_ENTRY = "1.3.6.1.2.1.31.1.1.1"
HR_SYSTEM_UPTIME = "1.3.6.1.2.1.25.1.1.0"
HR_SYSTEM_DATE = "1.3.6.1.2.1.25.1.2.0"
HR_STORAGE = "1.3.6.1.2.1.25.2.3.1"
HR_STORAGE_TYPES = "1.3.6.1.2.1.25.2.1"
HR_PROCESSOR = "1.3.6.1.2.1.25.3.3.1"
ENTITY_SENSOR = "1.3.6.1.2.1.99.1.1.1"
UCD = "1.3.6.1.4.1.2021"
CISCO = "1.3.6.1.4.1.9.9"

LOOPBACK_TYPE, ETHERNET_TYPE = 24, 6
UP, DOWN = 1, 2
BITS_PER_SECOND = 1_000_000_000
RAM, OTHER_STORAGE, FIXED_DISK = 2, 1, 4
"""The last number of hrStorage's types."""
SENSOR_CELSIUS, SENSOR_UNITS, SENSOR_OK = 8, 9, 1
POOL_BYTES = 1_000_000_000
KB = 1024
STORAGE_UNIT_KB = 4
PROCESSORS = 4
TICKS_WRAP, COUNTER_32_WRAP, COUNTER_64_WRAP = 2**32, 2**32, 2**64


@dataclass(frozen=True, slots=True)
class Identity:
    """What an agent says of itself, whatever goes on."""

    kind: AgentKind
    name: str
    location: str = ""


def show(identity: Identity, figures: HostFigures) -> Objects:
    """All that the agent of `identity` answers at one moment.

    A poll finds what `figures.values()` has, percentages rounded, but for a disk where Cisco has
    none. Impossible figures are shown as they are.
    """
    found = dict(_system(identity, figures))
    found.update(_interfaces(PORTS[identity.kind], figures))
    found.update(_OWN_OBJECTS[identity.kind](figures))
    return found


def _system(identity: Identity, figures: HostFigures) -> Rows:
    yield f"{SYSTEM}.1.0", _text(DESCRIPTIONS[identity.kind])
    yield f"{SYSTEM}.2.0", encode_oid(SYS_OBJECT_IDS[identity.kind])
    yield f"{SYSTEM}.3.0", _ticks(figures)
    yield f"{SYSTEM}.4.0", _text("nobody: it is simulated")
    yield f"{SYSTEM}.5.0", _text(identity.name)
    yield f"{SYSTEM}.6.0", _text(identity.location)
    yield f"{SYSTEM}.7.0", encode_integer(72)


def _interfaces(count: int, figures: HostFigures) -> Rows:
    received = _shares(figures.received_bytes, count - 2)
    sent = _shares(figures.sent_bytes, count - 2)
    yield f"{INTERFACES}.1.0", encode_integer(count)
    yield from _interface(1, LOOPBACK_TYPE, UP, 12_345, 12_345)
    for port in range(2, count):
        yield from _interface(port, ETHERNET_TYPE, UP, received[port - 2], sent[port - 2])
    yield from _interface(count, ETHERNET_TYPE, DOWN, 0, 0)


def _interface(index: int, kind: int, status: int, received: int, sent: int) -> Rows:
    """A row of ifTable and of ifXTable."""
    yield from _what_stays(index, kind, status).items()
    yield f"{IF_ENTRY}.10.{index}", _unsigned(COUNTER_32, received % COUNTER_32_WRAP)
    yield f"{IF_ENTRY}.16.{index}", _unsigned(COUNTER_32, sent % COUNTER_32_WRAP)
    yield f"{IF_X_ENTRY}.6.{index}", _unsigned(COUNTER_64, received % COUNTER_64_WRAP)
    yield f"{IF_X_ENTRY}.10.{index}", _unsigned(COUNTER_64, sent % COUNTER_64_WRAP)


@functools.cache
def _what_stays(index: int, kind: int, status: int) -> Objects:
    """What does not change of that row, which is most of what an agent shows."""
    name = "lo" if kind == LOOPBACK_TYPE else f"port{index - 1}"
    address = b"" if kind == LOOPBACK_TYPE else bytes((2, 0, 0, 0, 0, index))
    cells = {
        f"{IF_ENTRY}.1": encode_integer(index),
        f"{IF_ENTRY}.2": _text(name),
        f"{IF_ENTRY}.3": encode_integer(kind),
        f"{IF_ENTRY}.4": encode_integer(1500),
        f"{IF_ENTRY}.5": _unsigned(GAUGE_32, BITS_PER_SECOND),
        f"{IF_ENTRY}.6": encode(OCTETS, address),
        f"{IF_ENTRY}.7": encode_integer(UP),
        f"{IF_ENTRY}.8": encode_integer(status),
        f"{IF_X_ENTRY}.1": _text(name),
        f"{IF_X_ENTRY}.15": _unsigned(GAUGE_32, BITS_PER_SECOND // 1_000_000),
    }
    return {f"{column}.{index}": value for column, value in cells.items()}


def _shares(total: int, count: int) -> list[int]:
    """`total` on `count` interfaces: each grows as it grows, and they add up (Hermite)."""
    return [(total + number) // count for number in range(count)]


def _net_snmp(figures: HostFigures) -> Rows:
    available = round(MEMORY_KB * (1 - figures.memory_share))
    yield f"{UCD}.4.5.0", encode_integer(MEMORY_KB)
    yield f"{UCD}.4.6.0", encode_integer(available // 2)
    yield f"{UCD}.4.14.0", encode_integer(1000)
    yield f"{UCD}.4.15.0", encode_integer(available // 3)
    yield f"{UCD}.4.27.0", encode_integer(available)
    yield f"{UCD}.11.11.0", encode_integer(round(100 * (1 - figures.busy_share)))
    for number in (51, 52, 54, 55, 56, 61, 64):
        yield f"{UCD}.11.{number}.0", _unsigned(COUNTER_32, 0)
    yield f"{UCD}.11.50.0", _unsigned(COUNTER_32, figures.busy_ticks % COUNTER_32_WRAP)
    yield f"{UCD}.11.53.0", _unsigned(COUNTER_32, figures.idle_ticks % COUNTER_32_WRAP)
    yield f"{UCD}.13.16.2.1.1.1", encode_integer(1)
    yield f"{UCD}.13.16.2.1.2.1", _text("Core 0")
    yield f"{UCD}.13.16.2.1.3.1", _unsigned(GAUGE_32, round(1000 * figures.celsius))
    yield from _host_resources(figures)


def _cisco(figures: HostFigures) -> Rows:
    used = round(POOL_BYTES * figures.memory_share)
    yield f"{CISCO}.109.1.1.1.1.8.1", _unsigned(GAUGE_32, round(100 * figures.busy_share))
    yield f"{CISCO}.48.1.1.1.2.1", _text("Processor")
    yield f"{CISCO}.48.1.1.1.4.1", encode_integer(1)
    yield f"{CISCO}.48.1.1.1.5.1", _unsigned(GAUGE_32, used)
    yield f"{CISCO}.48.1.1.1.6.1", _unsigned(GAUGE_32, max(0, POOL_BYTES - used))
    yield f"{CISCO}.13.1.3.1.2.1", _text("chassis")
    yield f"{CISCO}.13.1.3.1.3.1", _unsigned(GAUGE_32, round(figures.celsius))
    yield f"{CISCO}.13.1.3.1.6.1", encode_integer(1)


def _standard(figures: HostFigures) -> Rows:
    yield from _host_resources(figures)
    yield f"{ENTITY_SENSOR}.1.1", encode_integer(SENSOR_CELSIUS)
    yield f"{ENTITY_SENSOR}.2.1", encode_integer(SENSOR_UNITS)
    yield f"{ENTITY_SENSOR}.3.1", encode_integer(1)
    yield f"{ENTITY_SENSOR}.4.1", encode_integer(round(10 * figures.celsius))
    yield f"{ENTITY_SENSOR}.5.1", encode_integer(SENSOR_OK)


def _host_resources(figures: HostFigures) -> Rows:
    yield HR_SYSTEM_UPTIME, _ticks(figures)
    yield HR_SYSTEM_DATE, _date(figures)
    for processor in range(PROCESSORS):
        yield f"{HR_PROCESSOR}.1.{processor + 1}", encode_oid("0.0")
        yield f"{HR_PROCESSOR}.2.{processor + 1}", encode_integer(round(100 * figures.busy_share))
    yield from _storage(1, "Physical memory", RAM, MEMORY_KB, figures.memory_share)
    yield from _storage(6, "Memory buffers", OTHER_STORAGE, MEMORY_KB, 0)
    yield from _storage(31, "/", FIXED_DISK, DISK_KB, figures.disk_share)


def _storage(index: int, name: str, kind: int, size_kb: int, used_share: float) -> Rows:
    size = size_kb // STORAGE_UNIT_KB
    yield f"{HR_STORAGE}.1.{index}", encode_integer(index)
    yield f"{HR_STORAGE}.2.{index}", encode_oid(f"{HR_STORAGE_TYPES}.{kind}")
    yield f"{HR_STORAGE}.3.{index}", _text(name)
    yield f"{HR_STORAGE}.4.{index}", encode_integer(STORAGE_UNIT_KB * KB)
    yield f"{HR_STORAGE}.5.{index}", encode_integer(size)
    yield f"{HR_STORAGE}.6.{index}", encode_integer(round(size * used_share))


def _ticks(figures: HostFigures) -> bytes:
    return _unsigned(TIME_TICKS, round(100 * figures.uptime_seconds) % TICKS_WRAP)


def _date(figures: HostFigures) -> bytes:
    """A DateAndTime (RFC 2579), in UTC."""
    date = datetime.fromtimestamp(figures.unix_seconds, UTC)
    parts = (date.month, date.day, date.hour, date.minute, date.second, 0)
    return encode(OCTETS, date.year.to_bytes(2, "big") + bytes(parts) + b"+\x00\x00")


def _text(value: str) -> bytes:
    return encode(OCTETS, value.encode())


def _unsigned(tag: int, value: int) -> bytes:
    return encode(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


_OWN_OBJECTS = {
    AgentKind.NET_SNMP: _net_snmp,
    AgentKind.CISCO: _cisco,
    AgentKind.STANDARD: _standard,
}
