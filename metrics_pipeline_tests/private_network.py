"""A network of a test's own, and hosts in it that do what the test says.

A thread moves to a fresh network namespace (unshare(2), so Linux and root): its loopback is real,
nothing leaves it, and its rules may be changed without touching the machine's. All sockets and
threads made there belong to it.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from metrics_pipeline_tests.servers import REQUIRE_REAL_SERVERS

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_NET_RAW, _CAP_NET_ADMIN = 13, 12
_LIBC = ctypes.CDLL(None, use_errno=True)


def run_in_private_network(
    scenario: Callable[[], Coroutine[Any, Any, T]],
    sysctls: Sequence[tuple[str, str]] = (),
    is_privileged: bool = True,
) -> T:
    """What `scenario` returns, run by an event loop of its own in a network of its own.

    `sysctls` are set there first, then, unless `is_privileged`, the thread gives up its rights
    over the network: it is as if it were nobody.
    """
    outcome: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            _enter()
            for name, value in sysctls:
                Path("/proc/sys/net", name).write_text(value)
            if not is_privileged:
                _drop_network_capabilities()
            outcome.append(asyncio.run(scenario()))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the test's thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


@dataclass(frozen=True)
class Request:
    """An echo request as it arrived, and the address it was for."""

    target: str
    identifier: int
    sequence: int
    payload: bytes
    packet: bytes
    """With its IP header."""


Behaviour = Callable[[Request], Sequence[bytes]]
"""The IP packets that a host sends back."""


def keep_silent(_request: Request) -> Sequence[bytes]:
    """What a dead host does."""
    return ()


class ScriptedHosts:
    """Every address of 127.0.0.0/8 but those of `behaviour` keeps silent."""

    SYSCTLS = (("ipv4/icmp_echo_ignore_all", "1"),)
    """The kernel does not answer in their place."""

    def __init__(self) -> None:
        self.behaviour: dict[str, Behaviour] = {}
        self.requests: dict[str, list[Request]] = defaultdict(list)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_000_000)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        self._socket.setblocking(False)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer as long as the event loop runs."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self._answer)
        try:
            yield
        finally:
            loop.remove_reader(self._socket)
            self._socket.close()

    def send(self, packet: bytes) -> None:
        """Send an IP packet."""
        self._socket.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))

    def _answer(self) -> None:
        packet = self._socket.recv(4096)
        if packet[20] != 8:  # not a request: one of our own answers
            return
        identifier, sequence = struct.unpack_from("!HH", packet, 24)
        target = socket.inet_ntoa(packet[16:20])
        request = Request(target, identifier, sequence, packet[28:], packet)
        self.requests[target].append(request)
        for answer in self.behaviour.get(target, keep_silent)(request):
            self.send(answer)


def icmp(source: str, message: bytes, destination: str = "127.0.0.1") -> bytes:
    """An IP packet with an ICMP `message`, whose checksum is filled in."""
    checksum = _checksum(message[:2] + b"\0\0" + message[4:])
    message = message[:2] + checksum.to_bytes(2, "big") + message[4:]
    length = 20 + len(message)
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, 1, 0) + addresses + message


def echo_reply(
    request: Request,
    source: str | None = None,
    identifier: int | None = None,
    payload: bytes | None = None,
) -> bytes:
    """The right reply to `request`, but for what is given."""
    number = request.identifier if identifier is None else identifier
    head = struct.pack("!BBHHH", 0, 0, 0, number, request.sequence)
    body = request.payload if payload is None else payload
    return icmp(source or request.target, head + body)


def icmp_error(request: Request, kind: int, code: int, reporter: str = "127.200.0.1") -> bytes:
    """`reporter` says that `request` does not arrive, and quotes the least that RFC 792 asks."""
    return icmp(reporter, struct.pack("!BBHI", kind, code, 0, 0) + request.packet[:28])


def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _enter() -> None:
    if _LIBC.unshare(_CLONE_NEWNET) != 0:
        message = f"no network of its own: {os.strerror(ctypes.get_errno())} (root is needed)"
        if os.environ.get(REQUIRE_REAL_SERVERS) == "1":
            pytest.fail(message)
        pytest.skip(message)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _drop_network_capabilities() -> None:
    """Of this thread alone (capset(2))."""
    header = struct.pack("@Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    assert _LIBC.capget(header, data) == 0
    low = struct.unpack_from("@I", data)[0] & ~(1 << _CAP_NET_RAW | 1 << _CAP_NET_ADMIN)
    struct.pack_into("@I", data, 0, low)
    assert _LIBC.capset(header, data) == 0
