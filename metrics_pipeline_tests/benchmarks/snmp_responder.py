"""SNMP agents that are not the bottleneck: every address of 127.0.0.0/8 is a device of version 2c.

    python -m metrics_pipeline_tests.benchmarks.snmp_responder PORT DEAD_EVERY

A reply is worked out once for each request that differs in more than its identifier, and kept;
then it is that reply with the identifier, and the device's own number, written into it. Several
processes share the port. One device in DEAD_EVERY (0: none) is silent.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import NamedTuple

from metrics_pipeline.access.snmp_ber import encode, encode_integer
from metrics_pipeline_tests.hostile_snmp_agent import Mib, read_question

ROWS = 10
COLUMNS = (2, 7, 8, 10, 11, 13, 14, 16, 17, 19)
TABLE = "1.3.6.1.2.1.2.2.1"
SCALARS = [f"1.3.6.1.2.1.1.{number}.0" for number in (3, 7)] + [
    f"1.3.6.1.4.1.2021.{number}.0" for number in range(1, 9)
]
OWN_NUMBER = SCALARS[0]
MARK = b"\x7e\xad\xbe\xef"
"""Where the device's own number goes."""

FIRST_DEVICE = (127 << 24) + (64 << 16)
RECEIVE_BYTES = 4 * 1024 * 1024
_SO_RCVBUFFORCE, _IP_PKTINFO = 33, 8  # asm-generic/socket.h, linux/in.h


class Kept(NamedTuple):
    """A reply, and where the identifier and the device's number go."""

    reply: bytes
    identifier_at: int
    marks: tuple[int, ...]


def cells() -> dict[str, bytes]:
    """What each device has: 100 cells of a table and 10 others."""
    found = {oid: encode(0x43 if oid == OWN_NUMBER else 0x42, MARK) for oid in SCALARS[:1]}
    found |= {oid: encode_integer(100 + at) for at, oid in enumerate(SCALARS[1:])}
    for column in COLUMNS:
        for row in range(1, ROWS + 1):
            value = (column * 40_503 + row * 2_654_435) % 2**31
            found[f"{TABLE}.{column}.{row}"] = encode(0x41, value.to_bytes(4, "big"))
    return found


def address_of(device: int) -> str:
    """The address of a device by its number."""
    return socket.inet_ntoa((FIRST_DEVICE + device).to_bytes(4, "big"))


def is_dead(device: int, dead_every: int) -> bool:
    """Whether a device is one of the silent ones."""
    return dead_every > 0 and device % dead_every == dead_every - 1


def own_number(device: int) -> int:
    """The number it answers for OWN_NUMBER."""
    return 0x0100_0000 + device


def main(port: int, dead_every: int) -> None:
    """Answer until killed."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
    except PermissionError:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    udp.bind(("0.0.0.0", port))
    kept: dict[bytes, Kept] = {}
    mib = Mib(cells())
    while True:
        data, ancillary, _, asker = udp.recvmsg(65_535, 64)
        packet_info = ancillary[0][2]
        device = int.from_bytes(packet_info[8:12], "big") - FIRST_DEVICE
        if is_dead(device, dead_every):
            continue
        at = _identifier_at(data)
        end = at + data[at - 1]
        key = data[: at - 1] + data[end:]
        known = kept.get(key)
        if known is None:
            known = kept[key] = _keep(mib, data)
        reply = bytearray(known.reply)
        reply[known.identifier_at : known.identifier_at + 4] = data[at:end].rjust(4, b"\0")
        for mark in known.marks:
            reply[mark : mark + 4] = own_number(device).to_bytes(4, "big")
        # From the address that was asked: ipi_ifindex 0, ipi_spec_dst (ip(7)).
        source = struct.pack("=I4s4s", 0, packet_info[8:12], bytes(4))
        udp.sendmsg([reply], [(socket.IPPROTO_IP, _IP_PKTINFO, source)], 0, asker)


def _identifier_at(data: bytes) -> int:
    """Where the identifier is: after version, community and three headers."""
    at = _content(data, 0)
    at += 2 + data[at + 1]
    at += 2 + data[at + 1]
    return _content(data, at) + 2


def _content(data: bytes, at: int) -> int:
    return at + 2 + (data[at + 1] & 0x7F if data[at + 1] & 0x80 else 0)


def _keep(mib: Mib, data: bytes) -> Kept:
    reply = mib(read_question(data))
    marks, at = [], reply.find(MARK)
    while at >= 0:
        marks.append(at)
        at = reply.find(MARK, at + 1)
    return Kept(reply, _identifier_at(reply), tuple(marks))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
