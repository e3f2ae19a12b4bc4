"""Host names looked up for a sweep: in a few threads, each name once.

The system's resolver blocks and may take its time, so it never runs in the event loop.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

THREADS = 16


class Address(NamedTuple):
    """An address as the `socket` module takes it, with port 0."""

    family: socket.AddressFamily
    socket_address: tuple[Any, ...]

    def with_port(self, port: int) -> tuple[Any, ...]:
        """The same for a connection to `port`."""
        return (self.socket_address[0], port, *self.socket_address[2:])


class NameNotFound(Exception):
    """A host name that has no address; the message says what the resolver said."""


def literal_address(host: str) -> Address | None:
    """`host` if it is an IPv4 or IPv6 address, None if it must be looked up. Never blocks."""
    try:
        if ":" not in host:
            socket.inet_pton(socket.AF_INET, host)
            return Address(socket.AF_INET, (host, 0))
        packed = socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        return None
    # Written the one way in which the kernel's answers are written.
    return Address(socket.AF_INET6, (socket.inet_ntop(socket.AF_INET6, packed), 0, 0, 0))


class HostAddresses:
    """What the names of one sweep mean.

    A name is given up when for `timeout_seconds` neither its own look-up nor any other has ended:
    a thousand names may be waiting for a few threads, and only a resolver that stands still is ill.
    """

    def __init__(
        self, timeout_seconds: float, seconds_now: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._seconds_now = seconds_now
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="look-up")
        self._asked: dict[str, asyncio.Future[tuple[Address, ...] | str]] = {}
        self._last_end_seconds = 0.0

    async def find(self, host: str) -> Sequence[Address]:
        """The addresses of `host`, at least one, in the resolver's order; else NameNotFound."""
        literal = literal_address(host)
        if literal is not None:
            return (literal,)
        found = await self._wait_for(self._ask(host))
        if isinstance(found, str):
            raise NameNotFound(found)
        return found

    def _ask(self, host: str) -> asyncio.Future[tuple[Address, ...] | str]:
        asked = self._asked.get(host)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = self._asked[host] = loop.run_in_executor(self._threads, _look_up, host)
            asked.add_done_callback(self._note_end)
        return asked

    def _note_end(self, _asked: asyncio.Future[tuple[Address, ...] | str]) -> None:
        self._last_end_seconds = self._seconds_now()

    async def _wait_for(
        self, asked: asyncio.Future[tuple[Address, ...] | str]
    ) -> tuple[Address, ...] | str:
        began = self._seconds_now()
        while not asked.done():
            until = max(began, self._last_end_seconds) + self._timeout_seconds
            left = until - self._seconds_now()
            if left <= 0:
                return f"no answer from the resolver within {self._timeout_seconds:g} s"
            # Others may wait for the same name: giving up here does not cancel it for them.
            await asyncio.wait({asked}, timeout=left)
        return asked.result()

    def close(self) -> None:
        """Begin no further look-up. One that hangs in the resolver ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str) -> tuple[Address, ...] | str:
    # What is wrong is returned, not raised: perhaps nobody waits for it any more.
    if not host:
        return "the host name is empty"
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return str(error.strerror)
    except (OSError, ValueError) as error:  # a name no resolver would take: UnicodeError
        return str(error)
    return tuple(dict.fromkeys(Address(family, address) for family, *_, address in found))
