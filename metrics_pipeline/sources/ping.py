"""Ping: ICMP echo to every device of a sweep over one shared socket, IPv4 and IPv6.

A device is up when it answers one request. With several `packets`, its round-trip time is the
median of those that were answered. Of a host name with several addresses, the first is asked that
the resolver gives (RFC 6724's order) and that this machine has a socket for; the others are not.

Somebody on the way may say that a request does not arrive (ICMP destination unreachable, time
exceeded). If there is no reply either, the device is down with Miss.REFUSED where a rule forbids
it, and Miss.TIMEOUT where there is no way or no host; `detail` says who said what. An address that
this machine itself cannot send to (no route, a broadcast address) is Miss.REFUSED too. Unprivileged
sockets are not told of ICMP errors: there everything that does not answer is Miss.TIMEOUT.

A device whose name has no address has no status, for nobody asked it: both metrics are missing. So
it is with a name that the resolver did not come to within the budget of a sweep: devices that have
addresses do not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import replace
from typing import Self

from pydantic import BaseModel, Field

from metrics_pipeline.access.echo_requests import Echo, EchoLimits, EchoRequests
from metrics_pipeline.access.host_addresses import (
    Address,
    HostAddresses,
    NameNotFound,
    literal_address,
)
from metrics_pipeline.access.icmp_socket import IcmpSocket
from metrics_pipeline.core.devices import Device, DeviceReading, Miss
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.ports import Trace
from metrics_pipeline.sources.reachability import read_down, read_not_asked, read_up

LOG = logging.getLogger(__name__)

NAME = "ping"

STAMPS_BEGIN_SECONDS = 0.02
"""The kernel begins to stamp packets a moment after it was asked to (net_enable_timestamp leaves
that to a work queue); until then it stamps them when they are read."""

FAMILIES = (socket.AF_INET, socket.AF_INET6)


class PingSettings(BaseModel, frozen=True, extra="forbid"):
    """How devices are pinged."""

    timeout_seconds: float = Field(
        default=2.0, gt=0, le=60, description="How long a reply may take, in seconds."
    )
    tries: int = Field(
        default=2,
        ge=1,
        le=10,
        description="A device that has left so many requests unanswered, and answered none, is "
        "down. With 2, one lost packet does no harm.",
    )
    packets: int = Field(
        default=1,
        ge=1,
        le=20,
        description="Requests to a device that answers, one after the other; its round-trip time "
        "is the median of the replies.",
    )
    max_in_flight: int = Field(
        default=10_000,
        ge=1,
        le=65_535,
        description="Requests that wait for a reply at the same time. Many of them make dead "
        "devices cheap: each waits out its time.",
    )
    requests_per_second: float = Field(
        default=20_000,
        gt=0,
        description="Requests sent a second, at most; fewer where the kernel gives the socket "
        "little room for replies (net.core.rmem_max).",
    )
    resolve_timeout_seconds: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="How long to wait for the address of a host name, in seconds.",
    )


class Ping:
    """Device probe. `poll` asks one device, `sweep` many for less CPU time; both may be mixed."""

    name = NAME

    def __init__(self, settings: PingSettings) -> None:
        self._settings = settings
        self._tries_seconds = settings.tries * settings.timeout_seconds
        """What a device is given after any look-up: no lost packet shall make it seem down."""

    async def __aenter__(self) -> Self:
        """Open the sockets. ConfigurationError when this process may have none."""
        self._sockets = _open_sockets()
        self._requests = EchoRequests(
            self._sockets,
            EchoLimits(
                timeout_seconds=self._settings.timeout_seconds,
                tries=self._settings.tries,
                packets=self._settings.packets,
                max_in_flight=self._settings.max_in_flight,
                requests_per_second=self._settings.requests_per_second,
            ),
        )
        self._addresses = HostAddresses(self._settings.resolve_timeout_seconds)
        await asyncio.sleep(STAMPS_BEGIN_SECONDS)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        dropped = sum(each.dropped for each in self._sockets.values())
        if dropped:
            LOG.warning(
                "ping: the kernel dropped %d replies because the receive buffer was full. "
                "Raise net.core.rmem_max, or lower requests_per_second.",
                dropped,
            )
        self._requests.close()
        self._addresses.close()

    async def poll(
        self, device: Device, metrics: Collection[str], trace: Trace | None = None
    ) -> DeviceReading:
        """Ping `device` and wait for the outcome."""
        address = await self._find_address(device, trace)
        if isinstance(address, str):
            return read_not_asked(device, metrics, address)
        ended = asyncio.Event()
        echo = Echo(address, lambda _: ended.set(), trace)
        self._requests.ask(echo)
        try:
            await ended.wait()
        finally:
            self._requests.forget(echo)
        return _timed(device, metrics, echo)

    async def sweep(
        self, devices: Iterable[Device], metrics: Collection[str], budget_seconds: float
    ) -> AsyncIterator[DeviceReading]:
        """Ping all `devices` and give each one's reading as soon as it is known.

        Names are looked up for `budget_seconds` at most, and each device is asked for as long. One
        that was looked up late has what is left of it, but all its tries.
        """
        batch = _Batch(self._requests, metrics)
        named: list[Device] = []
        for device in devices:
            address = literal_address(device.address)
            if address is not None and address.family in self._sockets:
                batch.ask(device, address, budget_seconds)
            else:
                named.append(device)
        looking_up = [
            asyncio.create_task(self._ask_by_name(batch, device, budget_seconds))
            for device in named
        ]
        batch.expected += len(named)
        try:
            async for reading in batch.readings():
                yield reading
        finally:
            for task in looking_up:
                task.cancel()
            batch.forget()
            await asyncio.gather(*looking_up, return_exceptions=True)

    async def _ask_by_name(self, batch: _Batch, device: Device, budget_seconds: float) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(budget_seconds):
                address = await self._find_address(device, None)
        except TimeoutError:
            address = f"it was not looked up within its {budget_seconds:g} s"
        finally:
            batch.expect_one_less()
        if isinstance(address, str):
            batch.add(read_not_asked(device, batch.metrics, address))
        else:
            left_seconds = budget_seconds - (time.monotonic() - began)
            batch.ask(device, address, max(left_seconds, min(budget_seconds, self._tries_seconds)))

    async def _find_address(self, device: Device, trace: Trace | None) -> Address | str:
        """The address to ask, or why there is none."""
        try:
            found = await self._addresses.find(device.address)
        except NameNotFound as error:
            return str(error)
        addresses = ", ".join(each.socket_address[0] for each in found)
        if trace is not None:
            trace(f"{device.address} is {addresses}")
        usable = (each for each in found if each.family in self._sockets)
        return next(usable, f"this machine cannot ping {addresses}")


class _Batch:
    """The devices of one call of `sweep`, and those that are done but not yet given out."""

    def __init__(self, requests: EchoRequests, metrics: Collection[str]) -> None:
        self.metrics = metrics
        self.expected = 0
        """Readings that are still to come, those of devices in `_asked` apart."""
        self._requests = requests
        self._asked: dict[Echo, Device] = {}
        self._done: deque[DeviceReading] = deque()
        self._changed = asyncio.Event()

    def ask(self, device: Device, address: Address, budget_seconds: float) -> None:
        echo = Echo(address, self._take, budget_seconds=budget_seconds)
        self._asked[echo] = device
        self._requests.ask(echo)

    def expect_one_less(self) -> None:
        self.expected -= 1
        self._changed.set()

    def add(self, reading: DeviceReading) -> None:
        self._done.append(reading)
        self._changed.set()

    def forget(self) -> None:
        for echo in self._asked:
            self._requests.forget(echo)

    async def readings(self) -> AsyncIterator[DeviceReading]:
        while self._asked or self.expected or self._done:
            await self._changed.wait()
            self._changed.clear()
            while self._done:
                yield self._done.popleft()

    def _take(self, echo: Echo) -> None:
        self.add(_timed(self._asked.pop(echo), self.metrics, echo))


def _open_sockets() -> dict[socket.AddressFamily, IcmpSocket]:
    """One for each family this machine has; ConfigurationError if there is none at all."""
    opened: dict[socket.AddressFamily, IcmpSocket] = {}
    problems: list[str] = []
    for family in FAMILIES:
        try:
            opened[family] = IcmpSocket(family)
        except OSError as error:
            problems.append(f"{family.name}: {error.strerror}")
    if not opened:
        raise ConfigurationError(
            NAME,
            f"this process may not send ICMP echo requests ({', '.join(problems)})",
            "Give it CAP_NET_RAW (AmbientCapabilities=CAP_NET_RAW in a systemd unit, "
            "--cap-add NET_RAW for a container), or let its group ping "
            "(sysctl net.ipv4.ping_group_range='0 2147483647'), or choose the protocol tcp.",
        )
    return opened


def _timed(device: Device, metrics: Collection[str], echo: Echo) -> DeviceReading:
    return replace(_reading(device, metrics, echo), took_seconds=echo.took_seconds)


def _reading(device: Device, metrics: Collection[str], echo: Echo) -> DeviceReading:
    if echo.rtts_ms:
        return read_up(device, metrics, statistics.median(echo.rtts_ms))
    host = echo.address.socket_address[0]
    if echo.problem:
        return read_down(device, metrics, Miss.REFUSED, echo.problem)
    if echo.rejection is None:
        detail = f"no reply from {host} to {echo.lost} requests"
        return read_down(device, metrics, Miss.TIMEOUT, detail)
    reason = Miss.REFUSED if echo.rejection.is_refusal else Miss.TIMEOUT
    detail = f"{echo.rejection.reporter} says of {host}: {echo.rejection.meaning}"
    return read_down(device, metrics, reason, detail)
