"""The devices of the SNMP benchmark: what each one says at each generation, and what that means.

The numbers change with the device and with the generation, which whoever sweeps moves on by one in
a file that the agents look at. `expected` works out the product's values from them by itself.
"""

from __future__ import annotations

import mmap
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from metrics_pipeline.access.snmp_ber import encode, encode_integer, encode_oid
from metrics_pipeline.access.snmp_usm import User
from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DISK_USAGE,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
)

COMMUNITY = "public"
PASSWORD = "a password of the benchmark"
USER = User("benchmark-sha256", "sha256", PASSWORD, "aes128", PASSWORD)
"""Who we are in version 3."""
PEER_USER = User("benchmark-sha1", "sha1", PASSWORD, "aes128", PASSWORD)
"""Who the peer is: its version 0.21 knows no SHA-2."""

PORTS, PROCESSORS, SENSORS = 40, 8, 3
RAM_UNITS, CACHE_UNITS, DISK_UNITS = 0x0800_0000, 0x0100_0000, 0x4000_0000
"""Sizes in allocation units. As all of these numbers they keep their length in BER."""
HOST_IS_OLDER_TICKS = 4242
"""The host runs longer than its agent."""
FIRST_DEVICE = (127 << 24) + (64 << 16)

_INTEGER, _OCTETS, _GAUGE, _TICKS, _COUNTER_64 = 0x02, 0x04, 0x42, 0x43, 0x46
_STORAGE, _INTERFACE, _WIDE = "1.3.6.1.2.1.25.2.3.1", "1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1"
_SENSOR, _PROCESSOR = "1.3.6.1.2.1.99.1.1.1", "1.3.6.1.2.1.25.3.3.1.2"
_ETHERNET, _LOOPBACK, _VLAN, _UP, _DOWN, _CELSIUS, _VOLTS_DC = 6, 24, 135, 1, 2, 8, 4


class Numbers(NamedTuple):
    """What a device says at one generation and not at another."""

    agent_ticks: int
    host_ticks: int
    engine_seconds: int
    ram_used: int
    disk_used: int
    tenths_of_degrees: int
    received: int
    sent: int
    """The low halves of the counters of all ports."""
    loads: tuple[int, ...]

    @property
    def in_a_row(self) -> tuple[int, ...]:
        """All of them, the loads last."""
        return (*self[:-1], *self.loads)


def numbers_of(device: int, generation: int) -> Numbers:
    """What a device says at a generation."""
    ticks = 0x0100_0000 + device * 101 + generation * 30_000
    return Numbers(
        agent_ticks=ticks,
        host_ticks=ticks + HOST_IS_OLDER_TICKS,
        engine_seconds=ticks // 100 - 5,
        ram_used=0x0200_0000 + (device * 911 + generation * 12_347) % 0x0100_0000,
        disk_used=0x1000_0000 + (device * 4_099 + generation * 65_537) % 0x2000_0000,
        tenths_of_degrees=300 + (device * 3 + generation * 17) % 400,
        received=0x1000_0000 + device * 8_191 + generation * 1_000_003,
        sent=0x2000_0000 + device * 127 + generation * 99_991,
        loads=tuple((device * 7 + generation * 13 + row * 11) % 101 for row in range(PROCESSORS)),
    )


def expected(device: int, generation: int) -> Mapping[str, float]:
    """What the product must make of it, worked out here from the numbers alone."""
    said = numbers_of(device, generation)
    return {
        CPU_UTILIZATION: sum(said.loads) / PROCESSORS,
        MEMORY_UTILIZATION: 100 * (said.ram_used - CACHE_UNITS) / RAM_UNITS,
        TEMPERATURE: said.tenths_of_degrees / 10,
        NETWORK_RECEIVE: sum((_high(row) << 32) + said.received for row in range(1, PORTS + 1)),
        NETWORK_TRANSMIT: sum((_high(row) << 32) + said.sent for row in range(1, PORTS + 1)),
        DISK_USAGE: 100 * said.disk_used / DISK_UNITS,
        UPTIME: said.host_ticks / 100,
    }


def cells() -> tuple[dict[str, bytes], dict[str, int]]:
    """All that a device has, as BER, and where in `Numbers.in_a_row` what changes is."""
    found = {
        "1.3.6.1.2.1.1.2.0": encode_oid("1.3.6.1.4.1.99999.1"),
        "1.3.6.1.2.1.1.3.0": _changing(_TICKS, 4),
        "1.3.6.1.2.1.2.1.0": encode_integer(PORTS + 3),
        "1.3.6.1.2.1.25.1.1.0": _changing(_TICKS, 4),
        "1.3.6.1.2.1.47.1.4.1.0": encode(_TICKS, b"\x12\x34"),
        "1.3.6.1.6.3.10.2.1.3.0": _changing(_INTEGER, 3),
    }
    found |= {f"{_PROCESSOR}.{768 + row}": _changing(_GAUGE, 1) for row in range(PROCESSORS)}
    found |= _storage() | _ports() | _sensors()
    changing = {
        "1.3.6.1.2.1.1.3.0": 0,
        "1.3.6.1.2.1.25.1.1.0": 1,
        "1.3.6.1.6.3.10.2.1.3.0": 2,
        f"{_STORAGE}.6.1": 3,
        f"{_STORAGE}.6.31": 4,
        f"{_SENSOR}.4.1002": 5,
        **{f"{_WIDE}.6.{row}": 6 for row in range(1, PORTS + 1)},
        **{f"{_WIDE}.10.{row}": 7 for row in range(1, PORTS + 1)},
        **{f"{_PROCESSOR}.{768 + row}": 8 + row for row in range(PROCESSORS)},
    }
    return found, changing


def asked_when_known() -> tuple[str, ...]:
    """The instances that the product asks of a device it knows: 110, so 4 requests of 28."""
    scalars = [oid for oid in cells()[0] if oid.endswith(".0")]
    processors = [f"{_PROCESSOR}.{768 + row}" for row in range(PROCESSORS)]
    memory = [f"{_STORAGE}.{column}.{row}" for column in (4, 5, 6) for row in (1, 7)]
    disks = [f"{_STORAGE}.{column}.{row}" for column in (5, 6) for row in (31, 32)]
    counters = [f"{_WIDE}.{column}.{row}" for column in (6, 10) for row in range(1, PORTS + 1)]
    sensors = [f"{_SENSOR}.{column}.{1001 + row}" for column in (4, 5) for row in range(SENSORS)]
    return (*scalars, *processors, *memory, *disks, *counters, *sensors)


def address_of(device: int) -> str:
    """The address of a device by its number."""
    return socket.inet_ntoa((FIRST_DEVICE + device).to_bytes(4, "big"))


def engine_id_of(device: int) -> bytes:
    """Who its SNMPv3 engine is (RFC 3411: enterprise, 1 for an IPv4 address, that)."""
    return b"\x80\x01\x86\x9f\x01" + (FIRST_DEVICE + device).to_bytes(4, "big")


def is_dead(device: int, dead_every: int) -> bool:
    """Whether a device is one of the silent ones."""
    return dead_every > 0 and device % dead_every == dead_every - 1


class Generation:
    """A number in a file that several processes see at once; a context manager."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> Self:
        with self._file.open("a+b") as opened:
            opened.truncate(4)
            self._shared = mmap.mmap(opened.fileno(), 4)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._shared.close()

    def now(self) -> int:
        """What it is."""
        return int.from_bytes(self._shared[:4], "big")

    def advance(self) -> int:
        """The next one, which holds from now on."""
        following = self.now() + 1
        self._shared[:4] = following.to_bytes(4, "big")
        return following


def _changing(tag: int, size: int) -> bytes:
    return encode(tag, bytes(size))


def _high(row: int) -> int:
    """The high half of the counters of a port, two bytes."""
    return 0x0100 + row


def _storage() -> dict[str, bytes]:
    """RAM, a cache in it, two disks, and a file system that is none."""
    ram, other, disk = (encode_oid(f"1.3.6.1.2.1.25.2.1.{kind}") for kind in (2, 1, 4))
    used = _changing(_INTEGER, 4)
    rows = {
        1: (ram, "Physical memory", RAM_UNITS, used),
        7: (other, "Cached memory", CACHE_UNITS, encode_integer(CACHE_UNITS)),
        31: (disk, "/", DISK_UNITS, used),
        32: (disk, "/boot", DISK_UNITS, encode_integer(DISK_UNITS // 8)),
        33: (disk, "/run", DISK_UNITS, encode_integer(DISK_UNITS)),
    }
    found: dict[str, bytes] = {}
    for row, (kind, name, size, in_use) in rows.items():
        values = (kind, encode(_OCTETS, name.encode()), encode_integer(4096), encode_integer(size))
        columns = enumerate((*values, in_use), start=2)
        found |= {f"{_STORAGE}.{column}.{row}": value for column, value in columns}
    return found


def _ports() -> dict[str, bytes]:
    """Ports that are up, then one that is not, a VLAN and a loopback, which do not count."""
    found = {}
    others = ((_ETHERNET, _DOWN), (_VLAN, _UP), (_LOOPBACK, _UP))
    for row, (kind, state) in enumerate([(_ETHERNET, _UP)] * PORTS + list(others), start=1):
        counter = encode(_COUNTER_64, _high(row).to_bytes(2, "big") + bytes(4))
        found[f"{_INTERFACE}.2.{row}"] = encode(_OCTETS, f"port {row}".encode())
        found[f"{_INTERFACE}.3.{row}"] = encode_integer(kind)
        found[f"{_INTERFACE}.8.{row}"] = encode_integer(state)
        found[f"{_WIDE}.6.{row}"] = found[f"{_WIDE}.10.{row}"] = counter
    return found


def _sensors() -> dict[str, bytes]:
    """Thermometers in tenths of degrees, of which the second is the hottest, and a voltmeter."""
    found = {}
    for row, (kind, value) in enumerate([(_CELSIUS, 250)] * SENSORS + [(_VOLTS_DC, 9990)]):
        values = (kind, 9, 1, value, 1)
        for column, number in enumerate(values, start=1):
            found[f"{_SENSOR}.{column}.{1001 + row}"] = encode_integer(number)
    return found
