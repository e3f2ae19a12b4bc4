"""TCP connect: whether a device answers to a connection, for networks that let no ping through.

A device that accepts the connection or refuses it (RST) is up: both are its answer, and only the
host matters here, not a service on it. So a port that nothing listens on will do, unless a filter
drops what is sent to it; a filter that refuses in the host's place makes a dead host look up.

The round-trip time is the kernel's own of the handshake (`tcpi_rtt`, tcp(7)) where it gives one,
else the time from asking to the answer being noticed: for a refusal, with the wait until this busy
process looks at it.

Of a host name with several addresses, the first is asked that the resolver gives. A device whose
name has no address has no status, for nobody asked it: both metrics are missing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, Field

from metrics_pipeline.access.host_addresses import Address, HostAddresses, NameNotFound
from metrics_pipeline.access.hosts import MAX_PORT
from metrics_pipeline.access.open_files import allow_open_files
from metrics_pipeline.core.devices import Device, DeviceReading, Miss
from metrics_pipeline.core.ports import Trace
from metrics_pipeline.sources.reachability import read_down, read_not_asked, read_up

NAME = "tcp"

_TCPI_RTT_OFFSET = 68
"""Of the microseconds in Linux's `struct tcp_info` (linux/tcp.h)."""

_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL})
"""What this machine lacks for one more connection: says nothing of the device."""
_NO_WAY = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH})
"""What says that nobody answered; every other error is somebody's or this machine's refusal."""


class TcpConnectSettings(BaseModel, frozen=True, extra="forbid"):
    """How devices are asked for a connection."""

    port: int = Field(
        default=22, ge=1, le=MAX_PORT, description="The port of a device that names none."
    )
    timeout_seconds: float = Field(
        default=2.0, gt=0, le=60, description="How long an answer may take, in seconds."
    )
    tries: int = Field(
        default=2,
        ge=1,
        le=10,
        description="Connections that may go unanswered before a device is down.",
    )
    max_in_flight: int = Field(
        default=1000,
        ge=1,
        le=60_000,
        description="Devices that are asked at the same time; each takes a file descriptor, of "
        "which this process takes as many as it may have (ulimit -Hn).",
    )
    resolve_timeout_seconds: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="How long to wait for the address of a host name, in seconds.",
    )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Of one connection: its round-trip time, or why there is none; and in words."""

    words: str
    rtt_ms: float = 0.0
    reason: Miss | None = None


class TcpConnect:
    """Device probe. The device's port, or the settings', is connected to and closed at once."""

    name = NAME

    def __init__(self, settings: TcpConnectSettings) -> None:
        self._settings = settings

    async def __aenter__(self) -> Self:
        allow_open_files(self._settings.max_in_flight)
        self._addresses = HostAddresses(self._settings.resolve_timeout_seconds)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._addresses.close()

    async def poll(
        self, device: Device, metrics: Collection[str], trace: Trace | None = None
    ) -> DeviceReading:
        """Connect to `device`, several times if there is no answer."""
        try:
            address = (await self._addresses.find(device.address))[0]
        except NameNotFound as error:
            return read_not_asked(device, metrics, str(error))
        outcome = await self._ask(address, device.port or self._settings.port, trace)
        if outcome.reason is None:
            return read_up(device, metrics, outcome.rtt_ms)
        return read_down(device, metrics, outcome.reason, outcome.words)

    async def _ask(self, address: Address, port: int, trace: Trace | None) -> _Outcome:
        for _ in range(self._settings.tries):
            outcome = await self._connect(address, port)
            if trace is not None:
                trace(outcome.words)
            if outcome.reason is not Miss.TIMEOUT:
                break
        return outcome

    async def _connect(self, address: Address, port: int) -> _Outcome:
        where = f"{address.socket_address[0]} port {port}"
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        try:
            with socket.socket(address.family, socket.SOCK_STREAM) as connection:
                connection.setblocking(False)
                async with asyncio.timeout(self._settings.timeout_seconds):
                    await loop.sock_connect(connection, address.with_port(port))
                waited_ms = (time.monotonic() - started) * 1000
                return _Outcome(f"{where} accepts", _kernel_rtt_ms(connection) or waited_ms)
        except ConnectionRefusedError:
            return _Outcome(f"{where} refuses: it is up", (time.monotonic() - started) * 1000)
        except TimeoutError:
            words = f"{where} does not answer within {self._settings.timeout_seconds:g} s"
            return _Outcome(words, reason=Miss.TIMEOUT)
        except OSError as error:
            reason = Miss.TIMEOUT if error.errno in _NO_WAY else Miss.REFUSED
            reason = Miss.DEFECT if error.errno in _OUR_OWN else reason
            return _Outcome(f"{where}: {_words_of(error)}", reason=reason)


def _words_of(error: OSError) -> str:
    # asyncio's own message repeats the address; the system's says what is wrong.
    return os.strerror(error.errno) if error.errno else str(error)


def _kernel_rtt_ms(connection: socket.socket) -> float:
    """The kernel's round-trip time of a connection that has just been made; 0 if it has none."""
    if not hasattr(socket, "TCP_INFO"):
        return 0.0
    size = _TCPI_RTT_OFFSET + 4
    try:
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except OSError:  # closed by the other side in the meantime
        return 0.0
    if len(information) < size:
        return 0.0
    fields: tuple[Any, ...] = struct.unpack_from("@I", information, _TCPI_RTT_OFFSET)
    return float(fields[0]) / 1000
