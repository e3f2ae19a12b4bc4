"""UDP sockets that thousands of SNMP requests share; each reply finds the request it is for.

A reply is for the request of its identifier (SNMPv3: message identifier), which nobody can guess,
and only from the address that was asked. Anything else is ignored, but if a request ends without
an answer and something that cannot be read came from its address, that is what is said.

Several sockets, because each has its own receive buffer: an ordinary user gets some 200 kB, which
is a hundred datagrams, and a thousand devices can answer at the same moment. Where the kernel
tells (Linux: IP_RECVERR, see ip(7)), an unreachable port ends the request at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from metrics_pipeline.access.snmp_ber import SEQUENCE, BerError, read_header, read_integer
from metrics_pipeline.access.snmp_messages import (
    FIRST_ID,
    RANDOM_ID_MASK,
    VERSION_1,
    VERSION_2C,
    VERSION_3,
    ReplyPdu,
    read_community_reply,
    read_version,
)

SOCKETS = 32
RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
MAX_DATAGRAM_BYTES = 65_535
DATAGRAMS_A_TURN = 200
"""So many are read from one socket before the others, and the timers, get their turn."""
SEND_AGAIN_SECONDS = 0.002
TIMER_SLACK_SECONDS = 0.005
"""What is due so soon is sent now: fewer turns of the timer."""
RANDOM_BYTES_AT_ONCE = 4096
IPV4_PARTS = 2

_IP_RECVERR, _IPV6_RECVERR, _MSG_ERRQUEUE = 11, 25, 0x2000  # linux/in.h, linux/in6.h
_ERROR_OPTIONS = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_RECVERR),
    socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_RECVERR),
}
_ANCILLARY_BYTES = 512
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; only with CAP_NET_ADMIN

Address = tuple[Any, ...]
"""A socket address as getaddrinfo gives it: (host, port), or four parts for IPv6."""


class NoAnswer(Exception):
    """No reply in time. The text says of what came instead, and is empty when nothing came.

    `strays` were replies to requests that nobody waits for: late ones, or never made.
    """

    def __init__(self, problem: str, strays: int = 0) -> None:
        super().__init__(problem)
        self.strays = strays


class Unreachable(Exception):
    """The network or the host said that nobody is there."""


class Received(NamedTuple):
    """A reply: its version, where what follows that begins, and its PDU if that is in the clear."""

    data: bytes
    version: int
    at: int
    pdu: ReplyPdu | None


@dataclass(slots=True, eq=False)
class _Request:
    """One request in flight. `problem` is what came instead of a reply, if anything did."""

    datagram: bytes
    address: Address
    udp: socket.socket
    tries_left: int
    reply: asyncio.Future[Received]
    problem: str = ""
    strays: int = 0

    def fail(self, error: NoAnswer | Unreachable) -> None:
        """End it, unless it has ended."""
        if not self.reply.done():
            self.reply.set_exception(error)


class SnmpSockets:
    """A context manager. `tries` datagrams are sent for a request, `timeout_seconds` apart."""

    def __init__(self, timeout_seconds: float, tries: int) -> None:
        self._timeout_seconds = timeout_seconds
        self._tries = tries
        self._sockets: dict[socket.AddressFamily, list[socket.socket]] = {}
        self._requests: dict[int, _Request] = {}
        self._by_address: dict[Address, _Request] = {}
        self._turn = 0
        self._random_ids: Iterator[int] = iter(())
        self._waiting: deque[tuple[float, _Request]] = deque()
        """Requests by the time at which they are sent again; all wait equally long, so in order."""
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        for opened in self._sockets.values():
            for udp in opened:
                self._loop.remove_reader(udp)
                udp.close()
        self._sockets.clear()

    def new_id(self) -> int:
        """An identifier that no request in flight has, four bytes long."""
        for random_id in self._random_ids:
            identifier = FIRST_ID + (random_id & RANDOM_ID_MASK)
            if identifier not in self._requests:
                return identifier
        # One system call for many.
        self._random_ids = iter(array("I", secrets.token_bytes(RANDOM_BYTES_AT_ONCE)))
        return self.new_id()

    async def ask(self, datagram: bytes, identifier: int, address: Address) -> Received:
        """The reply to `datagram`, which carries `identifier`. Raises NoAnswer or Unreachable."""
        udp = self._socket_for(address)
        reply: asyncio.Future[Received] = self._loop.create_future()
        request = _Request(datagram, address, udp, self._tries, reply)
        self._requests[identifier] = self._by_address[address] = request
        try:
            self._send(request)
            return await reply
        finally:
            del self._requests[identifier]
            if self._by_address.get(address) is request:
                del self._by_address[address]

    def _send(self, request: _Request) -> None:
        """Send the next try and wait; past the last one, say that there was no answer."""
        if request.reply.done():
            return
        if request.tries_left == 0:
            request.fail(NoAnswer(request.problem, request.strays))
            return
        try:
            request.udp.sendto(request.datagram, request.address)
        except (BlockingIOError, ConnectionRefusedError):
            # The buffer is full, or the kernel speaks of a datagram to somebody else.
            self._read_errors(request.udp)
            self._loop.call_later(SEND_AGAIN_SECONDS, self._send, request)
        except OSError as error:
            request.fail(Unreachable(f"sending failed: {_words(error.errno)}"))
        else:
            request.tries_left -= 1
            self._waiting.append((self._loop.time() + self._timeout_seconds, request))
            if self._timer is None:
                self._timer = self._loop.call_later(self._timeout_seconds, self._send_again)

    def _send_again(self) -> None:
        """Send again what has waited long enough: one timer for all, as they are thousands."""
        now, waiting = self._loop.time() + TIMER_SLACK_SECONDS, self._waiting
        while waiting and (waiting[0][0] <= now or waiting[0][1].reply.done()):
            self._send(waiting.popleft()[1])
        # Only now: what was just sent again waits longer than those that are still in line.
        self._timer = self._loop.call_at(waiting[0][0], self._send_again) if waiting else None

    def _socket_for(self, address: Address) -> socket.socket:
        family = socket.AF_INET6 if len(address) > IPV4_PARTS else socket.AF_INET
        if family not in self._sockets:
            self._sockets[family] = [_open(family) for _ in range(SOCKETS)]
            for udp in self._sockets[family]:
                self._loop.add_reader(udp, self._receive, udp)
        self._turn += 1
        return self._sockets[family][self._turn % SOCKETS]

    def _receive(self, udp: socket.socket) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                data, address = udp.recvfrom(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error; its queue says whose
                self._read_errors(udp)
                return
            self._deliver(data, address)

    def _deliver(self, data: bytes, address: Address) -> None:
        try:
            identifier, received = _read_head(data)
        except BerError as error:
            if (asked := self._by_address.get(address)) is not None:
                asked.problem = str(error)
            return
        request = self._requests.get(identifier)
        if request is None:
            if (asked := self._by_address.get(address)) is not None:
                asked.strays += 1
        elif request.address == address and not request.reply.done():
            request.reply.set_result(received)

    def _read_errors(self, udp: socket.socket) -> None:
        for code, address in _error_queue(udp):
            if (asked := self._by_address.get(address)) is not None and asked.udp is udp:
                asked.fail(Unreachable(f"the network says {_words(code)}"))


def _read_head(data: bytes) -> tuple[int, Received]:
    """What says which request `data` answers; BerError when it cannot be found."""
    version, at = read_version(data)
    if version in {VERSION_1, VERSION_2C}:
        pdu = read_community_reply(data, at)
        return pdu.request_id, Received(data, version, at, pdu)
    if version != VERSION_3:
        raise BerError(f"version {version} of SNMP")
    start, stop = read_header(data, at, SEQUENCE, len(data))
    return read_integer(data, start, stop)[0], Received(data, version, at, None)


def _open(family: socket.AddressFamily) -> socket.socket:
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.setblocking(False)
    if sys.platform == "linux":
        level, option = _ERROR_OPTIONS[family]
        udp.setsockopt(level, option, 1)
        try:
            udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            return udp
        except PermissionError:
            pass  # not for an ordinary user, who gets what net.core.rmem_max allows
    with contextlib.suppress(OSError):  # some systems refuse what is above their limit
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return udp


def _error_queue(udp: socket.socket) -> Iterator[tuple[int, Address]]:
    """Number and address of each ICMP error that waits; nothing where the kernel keeps none."""
    if sys.platform != "linux":
        return
    while True:
        try:
            _, ancillary, _, address = udp.recvmsg(0, _ANCILLARY_BYTES, _MSG_ERRQUEUE)
        except OSError:  # empty
            return
        for _, _, extended_error in ancillary:
            yield int.from_bytes(extended_error[:4], sys.byteorder), address


def _words(code: int | None) -> str:
    return os.strerror(code or 0)
