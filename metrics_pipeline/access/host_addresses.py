"""Host names looked up for a sweep: in a few threads, each name once.

The system's resolver blocks and may take its time, so it never runs in the event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

THREADS = 16
"""Look-ups that are waited for at the same time."""
STUCK_THREADS = 48
"""Look-ups that go on at the same time although nobody waits for them any more: a resolver that is
not there keeps a thread for ten seconds and more (resolv.conf(5): 5 s, twice, for each server)."""


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

    A look-up is waited for `timeout_seconds` at most, from when a thread takes it up: before that
    it stands in line. A name that took too long has no address until its look-up ends after all.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._threads = ThreadPoolExecutor(THREADS + STUCK_THREADS, thread_name_prefix="look-up")
        self._places = asyncio.Semaphore(THREADS)
        self._asked: dict[str, asyncio.Future[_Found]] = {}

    async def find(self, host: str) -> Sequence[Address]:
        """The addresses of `host`, at least one, in the resolver's order; else NameNotFound."""
        literal = literal_address(host)
        if literal is not None:
            return (literal,)
        if host not in self._asked:
            self._asked[host] = asyncio.create_task(self._ask(host))
        # Others may wait for the same name: giving up here does not cancel it for them.
        found = await asyncio.shield(self._asked[host])
        if isinstance(found, str):
            raise NameNotFound(found)
        return found

    def close(self) -> None:
        """Begin no further look-up. One that hangs in the resolver ends by itself."""
        for asked in self._asked.values():
            asked.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, host: str) -> _Found:
        async with self._places:
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._threads, _look_up, host)
            await asyncio.wait([work], timeout=self._timeout_seconds)
        if work.done():
            return work.result()
        work.add_done_callback(lambda late: self._asked.__setitem__(host, late))
        return f"no answer from the resolver within {self._timeout_seconds:g} s"


_Found = tuple[Address, ...] | str
"""Addresses, or what is wrong."""


def _look_up(host: str) -> _Found:
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
