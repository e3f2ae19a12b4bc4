"""All echo requests of a sweep over one socket for each address family.

Sends are paced, answers are told apart by an identifier, a sequence number and a payload that only
this sweep knows, and round-trip times run from just before the send to the kernel's own stamp on
the reply: a poller that is busy does not make the network look slow.
"""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from metrics_pipeline.access.host_addresses import Address
from metrics_pipeline.access.icmp_socket import (
    PAYLOAD_BYTES,
    IcmpSocket,
    Rejection,
    Reply,
)
from metrics_pipeline.core.ports import Trace

BURST = 64
"""Requests that are sent in one go, before anything else of the process gets a turn."""

READ_LIMIT = 1024
"""Packets that are read in one go."""

READS_BEFORE_EXPIRING = 16
"""Enough to empty a full receive buffer; not endless, whatever is thrown at us."""

UNREAD_SECONDS = 0.1
"""For so long, replies at the full rate of requests find room while nobody reads them."""

FULL_WAIT_SECONDS = 0.005
"""How long to wait when the machine can take no more packets to send."""

OFFSET_TRIES = 5
OFFSET_PRECISION_NS = 5_000

_COOKIE_BYTES = 8
_NUMBER = slice(_COOKIE_BYTES, _COOKIE_BYTES + 8)
_PADDING = bytes(PAYLOAD_BYTES - _NUMBER.stop)
_SEQUENCES = 1 << 16


@dataclass(frozen=True, slots=True)
class EchoLimits:
    """How the hosts of a sweep are asked."""

    timeout_seconds: float
    """How long a reply may take."""
    tries: int
    """A host that has left so many requests unanswered, and answered none, is given up."""
    packets: int
    """Requests to a host that answers."""
    max_in_flight: int
    """Requests that wait for a reply at the same time."""
    requests_per_second: float
    """Sent at most; fewer if the kernel gives the sockets little room."""


@dataclass(eq=False, slots=True)
class Echo:
    """One host that is asked, one request after the other. `on_end` is called once."""

    address: Address
    on_end: Callable[[Echo], None]
    trace: Trace | None = None
    budget_seconds: float = math.inf
    """After so long from the first request, no other is sent: it ends with what it has."""
    rtts_ms: list[float] = field(default_factory=list)
    lost: int = 0
    rejection: Rejection | None = None
    """What somebody on the way said last."""
    problem: str = ""
    """Why it could not be asked at all."""
    number: int = 0
    sent_ns: int = 0
    first_sent_ns: int = 0
    took_seconds: float = 0.0
    """From the first request to the end."""
    has_ended: bool = False


class EchoRequests:
    """The requests that wait: to be sent, or for a reply. Belongs to the running event loop."""

    def __init__(
        self, sockets: Mapping[socket.AddressFamily, IcmpSocket], limits: EchoLimits
    ) -> None:
        self._sockets = sockets
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._cookie = secrets.token_bytes(_COOKIE_BYTES)
        self._next_number = int.from_bytes(os.urandom(2), "big")
        self._unsent: deque[Echo] = deque()
        self._in_flight: dict[int, Echo] = {}
        self._deadlines: deque[tuple[float, int]] = deque()
        room = min(each.capacity for each in sockets.values())
        self._burst = min(BURST, room)
        rate = min(limits.requests_per_second, room / UNREAD_SECONDS)
        self._burst_seconds = self._burst / rate
        self._next_burst = 0.0
        self._sending: asyncio.TimerHandle | None = None
        self._expiring: asyncio.TimerHandle | None = None
        for each in sockets.values():
            self._loop.add_reader(each.fileno(), self._read, each)

    def close(self) -> None:
        """Stop listening; nobody waits any more."""
        for timer in (self._sending, self._expiring):
            if timer is not None:
                timer.cancel()
        for each in self._sockets.values():
            self._loop.remove_reader(each.fileno())
            each.close()

    def ask(self, echo: Echo) -> None:
        """Ask the host of `echo`, whose address is of a family that there is a socket for."""
        self._unsent.append(echo)
        if self._sending is None:
            self._sending = self._loop.call_at(self._next_burst, self._send_burst)

    def forget(self, echo: Echo) -> None:
        """Send no more for `echo`, and do not end it."""
        if echo.first_sent_ns:
            echo.took_seconds = (time.monotonic_ns() - echo.first_sent_ns) / 1e9
        echo.has_ended = True
        self._in_flight.pop(echo.number, None)

    def _send_burst(self) -> None:
        self._sending = None
        self._next_burst = self._loop.time() + self._burst_seconds
        left = min(self._burst, self._limits.max_in_flight - len(self._in_flight))
        while self._unsent and left > 0:
            echo = self._unsent.popleft()
            if echo.has_ended:
                continue
            try:
                self._send(echo)
            except BlockingIOError:
                self._unsent.appendleft(echo)
                self._next_burst = self._loop.time() + FULL_WAIT_SECONDS
                break
            left -= 1
        if self._unsent:
            self._sending = self._loop.call_at(self._next_burst, self._send_burst)

    def _send(self, echo: Echo) -> None:
        number = self._next_number
        payload = self._cookie + number.to_bytes(8, "big") + _PADDING
        family, address = echo.address
        echo.number, echo.sent_ns = number, time.monotonic_ns()
        echo.first_sent_ns = echo.first_sent_ns or echo.sent_ns
        try:
            self._sockets[family].send(address, number % _SEQUENCES, payload)
        except BlockingIOError:
            raise
        except OSError as error:
            echo.problem = f"this machine cannot send to {address[0]}: {error.strerror}"
            _tell(echo, echo.problem)
            self._end(echo)
            return
        self._next_number += 1
        self._in_flight[number] = echo
        self._expect(self._loop.time() + self._limits.timeout_seconds, number)
        _tell(echo, f"echo request to {address[0]}, sequence {number % _SEQUENCES}")

    def _expect(self, deadline: float, number: int) -> None:
        # All wait equally long, so the deadlines are in order and one timer is enough.
        self._deadlines.append((deadline, number))
        if self._expiring is None:
            self._expiring = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        # What has come in time may still wait to be read, if this process was busy.
        for each in self._sockets.values():
            for _ in range(READS_BEFORE_EXPIRING):
                if not self._read(each):
                    break
        now = self._loop.time()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = self._deadlines.popleft()
            echo = self._in_flight.pop(number, None)
            if echo is not None:
                self._count_lost(echo)
        self._expiring = None
        if self._deadlines:
            self._expiring = self._loop.call_at(self._deadlines[0][0], self._expire)

    def _read(self, from_socket: IcmpSocket) -> bool:
        """Take what has arrived; whether that was anything."""
        answers = from_socket.receive(READ_LIMIT)
        offset_ns = _monotonic_minus_clock_ns()
        now_ns = time.monotonic_ns()
        for answer in answers:
            if isinstance(answer, Reply):
                # The kernel's stamp, on the clock that nobody sets.
                arrived_ns = min(now_ns, answer.received_ns + offset_ns)
                self._take_reply(answer, arrived_ns)
            else:
                self._take_rejection(answer)
        return bool(answers)

    def _take_reply(self, reply: Reply, arrived_ns: int) -> None:
        payload = reply.payload
        if len(payload) != PAYLOAD_BYTES or not payload.startswith(self._cookie):
            return
        number = int.from_bytes(payload[_NUMBER], "big")
        echo = self._in_flight.get(number)
        if echo is None or echo.address.socket_address[0] != reply.source:
            return
        del self._in_flight[number]
        rtt_ms = max(0, arrived_ns - echo.sent_ns) / 1e6
        echo.rtts_ms.append(rtt_ms)
        _tell(echo, f"reply from {reply.source} after {rtt_ms:.3f} ms")
        self._continue(echo)

    def _take_rejection(self, rejection: Rejection) -> None:
        # The number whose sequence this is: the last one sent that ends with it.
        back = (self._next_number - 1 - rejection.sequence) % _SEQUENCES
        echo = self._in_flight.get(self._next_number - 1 - back)
        if echo is None or echo.address.socket_address[0] != rejection.target:
            return
        # A reply may come all the same: routes change, and anybody can send such a message.
        echo.rejection = rejection
        _tell(echo, f"{rejection.reporter} says: {rejection.meaning}")

    def _count_lost(self, echo: Echo) -> None:
        echo.lost += 1
        _tell(echo, f"no reply within {self._limits.timeout_seconds:g} s")
        self._continue(echo)

    def _continue(self, echo: Echo) -> None:
        """The next request, if there is to be one."""
        answered = len(echo.rtts_ms)
        wanted = self._limits.packets if answered else self._limits.tries
        echo.took_seconds = (time.monotonic_ns() - echo.first_sent_ns) / 1e9
        if answered + echo.lost >= wanted or echo.took_seconds >= echo.budget_seconds:
            self._end(echo)
        else:
            self.ask(echo)

    def _end(self, echo: Echo) -> None:
        echo.has_ended = True
        echo.on_end(echo)


def _monotonic_minus_clock_ns() -> int:
    """By how much `time.monotonic_ns` is ahead of `time.time_ns`, which may have been set anew.

    Measured again if this process was interrupted in between.
    """
    for _ in range(OFFSET_TRIES):
        before_ns, clock_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if after_ns - before_ns < OFFSET_PRECISION_NS:
            break
    return (before_ns + after_ns) // 2 - clock_ns


def _tell(echo: Echo, what: str) -> None:
    if echo.trace is not None:
        echo.trace(what)
