"""One ICMP or ICMPv6 socket that sends echo requests and hands back what concerns them.

A raw socket where this process has CAP_NET_RAW, else the kernel's unprivileged datagram socket
(icmp(7), `net.ipv4.ping_group_range`). The kernel stamps what arrives, so that times do not
contain the time a packet waited to be read. Formats: RFC 792 and RFC 4443; how a host that answers
must fill them: RFC 1122 section 3.2.2.6 (same source address, identifier, sequence and data).

What a raw socket alone is told are ICMP errors: on a datagram socket an unreachable host is one
that does not answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import secrets
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

SocketAddress = tuple[Any, ...]
"""What the `socket` module takes: (address, 0) or (address, 0, 0, scope)."""

PAYLOAD_BYTES = 56
"""As `ping` sends: some gear drops echo requests of other sizes."""

RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024
BYTES_IN_BUFFER_PER_PACKET = 2304
"""What a small packet takes of the buffer: half a page of the driver and the kernel's record."""

_READ_BYTES = 256
"""Our replies are shorter, and the part of an error that is looked at as well."""

_ANCILLARY_BYTES = socket.CMSG_SPACE(16)
_HEADER = struct.Struct("!BBHHH")
_ID_AND_SEQUENCE = struct.Struct("!HH")
_WORDS = struct.Struct(f"!{(_HEADER.size + PAYLOAD_BYTES) // 2}H")
_TIMESPEC = struct.Struct("@ll")
_IPV4_PROTOCOL_BYTE = 9
_IPV6_HEADER_BYTES = 40
_IPV6_NEXT_HEADER_BYTE = 6

# Linux's numbers (asm-generic/socket.h); the module `socket` does not have them.
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("@9I")
_MEMINFO_DROPS = 8


class Reply(NamedTuple):
    """An echo reply. `received_ns` is the kernel's, on the clock `time.time_ns`."""

    source: str
    payload: bytes
    received_ns: int


class Rejection(NamedTuple):
    """Somebody on the way says that the request `sequence` to `target` does not arrive.

    `is_refusal` is whether by a rule (a firewall), not because there is no way or no host.
    """

    target: str
    sequence: int
    reporter: str
    meaning: str
    is_refusal: bool


@dataclass(frozen=True)
class IcmpVersion:
    """What differs between ICMP for IPv4 and ICMPv6."""

    family: socket.AddressFamily
    protocol: int
    request: int
    reply: int
    unreachable: int
    time_exceeded: int
    meanings: dict[int, str]
    refusals: frozenset[int]


VERSIONS = {
    socket.AF_INET: IcmpVersion(
        family=socket.AF_INET,
        protocol=socket.IPPROTO_ICMP,
        request=8,
        reply=0,
        unreachable=3,
        time_exceeded=11,
        meanings={
            0: "network unreachable",
            1: "host unreachable",
            2: "protocol unreachable",
            3: "port unreachable",
            5: "source route failed",
            6: "network unknown",
            7: "host unknown",
            9: "network prohibited",
            10: "host prohibited",
            13: "prohibited by a filter",
        },
        refusals=frozenset({2, 3, 9, 10, 13}),
    ),
    socket.AF_INET6: IcmpVersion(
        family=socket.AF_INET6,
        protocol=socket.IPPROTO_ICMPV6,
        request=128,
        reply=129,
        unreachable=1,
        time_exceeded=3,
        meanings={
            0: "no route",
            1: "prohibited by a filter",
            2: "beyond the scope of the source address",
            3: "address unreachable",
            4: "port unreachable",
            5: "source address prohibited",
            6: "route rejected",
        },
        refusals=frozenset({1, 4, 5, 6}),
    ),
}


class IcmpSocket:
    """Non-blocking, for one address family. OSError when this process may have none."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self._version = VERSIONS[family]
        self._socket, self.is_raw = _open(self._version)
        self._has_ip_header = self.is_raw and family == socket.AF_INET
        self._identifier = secrets.randbits(16)
        self._socket.setblocking(False)
        if sys.platform == "linux":
            self._prepare()

    def _prepare(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:  # then as much as net.core.rmem_max allows
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        if self.is_raw:
            _attach_filter(self._socket, self._version, self._identifier)

    @property
    def capacity(self) -> int:
        """How many packets can wait to be read before the kernel drops one."""
        size = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return max(1, size // BYTES_IN_BUFFER_PER_PACKET)

    @property
    def dropped(self) -> int:
        """How many packets the kernel dropped because too many waited to be read."""
        if sys.platform != "linux":
            return 0
        memory = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(memory)[_MEMINFO_DROPS])

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give it back."""
        self._socket.close()

    def send(self, address: SocketAddress, sequence: int, payload: bytes) -> None:
        """Send an echo request with `payload` (PAYLOAD_BYTES long) to `address`.

        BlockingIOError when the machine cannot take more now, OSError when it has no way there.
        """
        packet = build_request(self._version, self._identifier, sequence, payload)
        try:
            self._socket.sendto(packet, address)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise BlockingIOError(*error.args) from error
            raise

    def receive(self, limit: int) -> list[Reply | Rejection]:
        """What of at most `limit` waiting packets answers to requests of this socket."""
        found: list[Reply | Rejection] = []
        read = self._socket.recvmsg
        for _ in range(limit):
            try:
                packet, ancillary, _flags, source = read(_READ_BYTES, _ANCILLARY_BYTES)
            except OSError:  # nothing waits, or the kernel reports an error of no packet
                break
            answer = self._parse(packet, source[0], _stamp(ancillary))
            if answer is not None:
                found.append(answer)
        return found

    def _parse(self, packet: bytes, source: str, received_ns: int) -> Reply | Rejection | None:
        if self._has_ip_header:
            packet = packet[(packet[0] & 0x0F) * 4 :] if packet else packet
        identifier = self._identifier if self.is_raw else None
        return parse(self._version, identifier, packet, source, received_ns)


def build_request(version: IcmpVersion, identifier: int, sequence: int, payload: bytes) -> bytes:
    """An echo request. The kernel fills in the checksum where it is not ICMP on a raw socket."""
    rest = _ID_AND_SEQUENCE.pack(identifier, sequence) + payload
    head = version.request << 8
    checksum = 0
    if version.family == socket.AF_INET:
        # RFC 1071; the folding is done twice, for the first may carry.
        total = sum(_WORDS.unpack(head.to_bytes(2, "big") + b"\0\0" + rest))
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~(total + (total >> 16)) & 0xFFFF
    return (head << 16 | checksum).to_bytes(4, "big") + rest


def parse(
    version: IcmpVersion, identifier: int | None, message: bytes, source: str, received_ns: int
) -> Reply | Rejection | None:
    """What an ICMP `message` (without IP header) says about a request of `identifier`.

    None for everything else, cut off and senseless messages too. `identifier` is None when the
    kernel has already compared it.
    """
    if len(message) < _HEADER.size:
        return None
    kind = message[0]
    if kind == version.reply:
        if identifier is not None and int.from_bytes(message[4:6], "big") != identifier:
            return None
        return Reply(source, message[_HEADER.size :], received_ns)
    if kind in {version.unreachable, version.time_exceeded}:
        return _parse_rejection(version, identifier, message, source)
    return None


def _parse_rejection(
    version: IcmpVersion, identifier: int | None, message: bytes, source: str
) -> Rejection | None:
    quoted = _parse_quoted(version, message[_HEADER.size :])
    if quoted is None:
        return None
    target, quoted_identifier, sequence = quoted
    if identifier is not None and quoted_identifier != identifier:
        return None
    kind, code = message[0], message[1]
    if kind == version.time_exceeded:
        return Rejection(target, sequence, source, "time to live exceeded", False)
    meaning = version.meanings.get(code, f"unreachable, code {code}")
    return Rejection(target, sequence, source, meaning, code in version.refusals)


def _parse_quoted(version: IcmpVersion, quoted: bytes) -> tuple[str, int, int] | None:
    """Target, identifier and sequence of the request in an error's quotation of it."""
    if version.family == socket.AF_INET:
        if len(quoted) < 20 or quoted[_IPV4_PROTOCOL_BYTE] != version.protocol:  # noqa: PLR2004
            return None
        start, target = (quoted[0] & 0x0F) * 4, quoted[16:20]
    else:
        if len(quoted) < _IPV6_HEADER_BYTES:
            return None
        if quoted[_IPV6_NEXT_HEADER_BYTE] != version.protocol:
            return None
        start, target = _IPV6_HEADER_BYTES, quoted[24:40]
    header = quoted[start : start + _HEADER.size]
    if len(header) < _HEADER.size or header[0] != version.request:
        return None
    identifier, sequence = _ID_AND_SEQUENCE.unpack_from(header, 4)
    return socket.inet_ntop(version.family, target), identifier, sequence


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> int:
    """When the kernel got the packet; now, if it does not say."""
    if ancillary and len(ancillary[0][2]) == _TIMESPEC.size:
        seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
        return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


def _open(version: IcmpVersion) -> tuple[socket.socket, bool]:
    """The socket, and whether it is raw."""
    with contextlib.suppress(PermissionError):
        return socket.socket(version.family, socket.SOCK_RAW, version.protocol), True
    return socket.socket(version.family, socket.SOCK_DGRAM, version.protocol), False


def _attach_filter(sock: socket.socket, version: IcmpVersion, identifier: int) -> None:
    """Let the kernel drop what is not ours before it takes room: others ping from here as well.

    Classic BPF (Documentation/networking/filter.rst): instruction, jump if true, if false, operand.
    On IPv4 the packet begins with the IP header, whose length is put in X; on IPv6 X stays 0.
    """
    is_ipv4 = version.family == socket.AF_INET
    program = [
        (0xB1, 0, 0, 0) if is_ipv4 else (0x01, 0, 0, 0),  # X = length of the IP header, or 0
        (0x50, 0, 0, 0),  # A = type
        (0x15, 4, 0, version.unreachable),
        (0x15, 3, 0, version.time_exceeded),
        (0x15, 0, 3, version.reply),
        (0x48, 0, 0, 4),  # A = identifier
        (0x15, 0, 1, identifier),
        (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
        (0x06, 0, 0, 0),  # drop
    ]
    code = b"".join(struct.pack("@HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
