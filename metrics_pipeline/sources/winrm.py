"""Windows hosts over WinRM (WS-Man): nothing to install there, WQL queries on CIM classes.

Connecting is asyncio's, so that a host that is off costs no thread; logging in and asking is done
by `winrm_session.py` in `max_at_once` threads. What the answers mean is in `windows_report.py`.
How it was tried, and that no Windows was at hand: `docs/winrm.md`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from metrics_pipeline.access.host_addresses import Address, HostAddresses, NameNotFound
from metrics_pipeline.access.hosts import is_host
from metrics_pipeline.access.open_files import allow_open_files
from metrics_pipeline.core.devices import DETAILS, HOST_METRICS, Device, DeviceReading, Miss, Rows
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.ports import Trace
from metrics_pipeline.sources.windows_report import Query, Row, queries_for
from metrics_pipeline.sources.winrm_session import Conversation, Line, Lost, Peer, Refusal
from metrics_pipeline.sources.winrm_settings import WindowsLogin, WinRmSettings

NAME = "winrm"
PORTS: Mapping[str, int] = {"https": 5986, "http": 5985}
SAYING = {Miss.UNSUPPORTED: "not there", Miss.PARSE: "what cannot be right"}
NOBODY_THERE = (errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ETIMEDOUT)


@dataclass(slots=True)
class _Report:
    """What one poll gathers on its way."""

    values: dict[str, float] = field(default_factory=dict)
    misses: dict[str, Miss] = field(default_factory=dict)
    tables: dict[str, Rows] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)
    has_answered: bool = False
    lost: Lost | None = None

    def add(self, query: Query, rows: Sequence[Row]) -> None:
        """What the rows of `query` say."""
        for metric, found in query.read(rows).items():
            if isinstance(found, Miss):
                self.misses[metric] = found
                self.details.append(f"{metric}: {SAYING[found]} in {query.class_name}")
            else:
                self.values[metric] = found
        if query.read_table is not None:
            table = query.read_table(rows)
            if isinstance(table, Miss):
                self.misses[query.table] = table
            else:
                self.tables[query.table] = table

    def refuse(self, query: Query, refusal: Refusal) -> None:
        """The host has said no to `query`."""
        self.misses |= dict.fromkeys(query.answers, refusal.fault.miss)
        self.details.append(f"{query.class_name}: {refusal}")

    def lose(self, lost: Lost) -> _Report:
        """Nothing more comes. Who says that we are the wrong one, or talks nonsense, is there."""
        self.lost = lost
        self.details.append(lost.detail)
        self.has_answered |= lost.miss in (Miss.AUTH, Miss.PARSE)
        return self

    def reading(self, device: Device, metrics: Collection[str]) -> DeviceReading:
        """Each of `metrics` is a value or a miss. What could not be asked shares its reason."""
        values = {name: self.values[name] for name in metrics if name in self.values}
        tables = {name: self.tables[name] for name in metrics if name in self.tables}
        found = values.keys() | tables.keys()
        misses = {name: self._miss(name) for name in metrics if name not in found}
        reason = None if found else next(iter(misses.values()), None)
        if self.lost is not None and not found:
            reason = self.lost.miss
        detail = "; ".join(self.details)
        return DeviceReading(
            device.id, self.has_answered, values, misses, reason, detail, details=tables
        )

    def _miss(self, metric: str) -> Miss:
        if self.lost is None or metric not in (*HOST_METRICS, *DETAILS):
            return self.misses.get(metric, Miss.UNSUPPORTED)
        return self.misses.get(metric, self.lost.miss)


class _Way:
    """A log-in with what is made from it once: the TLS context costs a file with all CAs."""

    def __init__(self, login: WindowsLogin) -> None:
        self.login = login

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        """Trusts `ca_file` alone, or this system's; Lost(CREDENTIAL) if that cannot be read."""
        if self.login.transport == "http":
            return None
        try:
            return ssl.create_default_context(cafile=self.login.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise Lost(Miss.CREDENTIAL, f"ca_file {self.login.ca_file}: {error}") from error

    def peer(self, device: Device, timeout_seconds: float) -> Peer:
        """`device` as this log-in sees it; Lost(CREDENTIAL) if the password is not there."""
        try:
            password = self.login.password.read()
        except ConfigurationError as error:
            raise Lost(Miss.CREDENTIAL, str(error)) from error
        # A name for people only, or one with a port, is no name to connect to.
        is_name = is_host(device.hostname) and ":" not in device.hostname
        by_name = self.login.server_name == "hostname" and is_name
        return Peer(
            name=device.hostname if by_name else device.address,
            port=device.port or PORTS[self.login.transport],
            tls=self.tls,
            user=self.login.user,
            password=password,
            auth=self.login.auth,
            timeout_seconds=timeout_seconds,
        )


class WinRm:
    """Probe of Windows hosts. `logins` are by the name the inventory gives as `credential`."""

    name = NAME

    def __init__(self, settings: WinRmSettings, logins: Mapping[str, WindowsLogin]) -> None:
        self._settings = settings
        self._ways = {name: _Way(login) for name, login in logins.items()}

    async def __aenter__(self) -> Self:
        allow_open_files(2 * self._settings.max_in_flight)
        self._threads = ThreadPoolExecutor(self._settings.max_at_once, thread_name_prefix=NAME)
        self._addresses = HostAddresses(self._settings.timeout_seconds)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._addresses.close()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def poll(
        self, device: Device, metrics: Collection[str], trace: Trace | None = None
    ) -> DeviceReading:
        """Read `metrics` of `device`: one query per CIM class, over one connection.

        With no metrics, only connect. Cancelled, it ends the connection, and with it the thread's
        wait.
        """
        queries, tell = queries_for(metrics), _teller(trace)
        try:
            conversation = await self._open(device, tell)
        except Lost as lost:
            tell(f"{lost.miss}: {lost.detail}")
            return _Report().lose(lost).reading(device, metrics)
        if not queries:
            # Nothing was asked but whether it is there, and it took the connection.
            conversation.close()
            return _Report(has_answered=True).reading(device, metrics)
        report = await self._ask(conversation, queries, tell)
        return report.reading(device, metrics)

    async def _open(self, device: Device, tell: Trace) -> Conversation:
        way = self._ways.get(device.credential)
        if way is None:
            raise Lost(Miss.CREDENTIAL, f"no credential is called {device.credential!r}")
        seconds = self._settings.timeout_seconds
        peer = way.peer(device, seconds)
        tell(f"connecting to {device.address} port {peer.port}, as {peer.user} by {peer.auth}")
        line = Line(await _connect(await self._find(device), peer.port, seconds))
        try:
            return Conversation(peer, line)
        except ValueError as error:
            line.close()
            raise Lost(Miss.RESOLVE, f"{peer.name!r} cannot be a host: {error}") from error

    async def _find(self, device: Device) -> Sequence[Address]:
        try:
            return await self._addresses.find(device.address)
        except NameNotFound as error:
            message = f"{device.address!r} has no address: {error}"
            raise Lost(Miss.RESOLVE, message) from error

    async def _ask(self, conversation: Conversation, queries: Queries, tell: Trace) -> _Report:
        work = self._threads.submit(_gather, conversation, queries, tell)
        try:
            report = await asyncio.wrap_future(work)
        except BaseException:
            work.cancel()
            conversation.line.give_up()
            # It is closed only when no thread uses it any more: a descriptor closed under a
            # thread may come back as another host's.
            work.add_done_callback(lambda _work: conversation.close())
            raise
        conversation.close()
        return report


Queries = tuple[Query, ...]


def _teller(trace: Trace | None) -> Trace:
    """`trace` for threads: it is called on the loop that polls, in order."""
    if trace is None:
        return lambda _line: None
    loop = asyncio.get_running_loop()

    def tell(line: str) -> None:
        loop.call_soon_threadsafe(trace, line)

    return tell


def _gather(conversation: Conversation, queries: Queries, tell: Trace) -> _Report:
    """All `queries`, one after the other, in a thread; ends with the first that is Lost."""
    report = _Report()
    for query in queries:
        try:
            rows = conversation.rows(query)
        except Refusal as refusal:
            tell(f"{query.class_name}: {refusal.fault.miss}: {refusal}")
            report.refuse(query, refusal)
        except Lost as lost:
            tell(f"{query.class_name}: {lost.miss}: {lost.detail}")
            report.lose(lost)
            break
        else:
            tell(f"{query.class_name}: {len(rows)} rows")
            report.add(query, rows)
    report.has_answered |= conversation.line.received_bytes > 0
    return report


async def _connect(
    addresses: Sequence[Address], port: int, timeout_seconds: float
) -> socket.socket:
    """A connection to the first address that takes one, within the time for all of them."""
    lost = Lost(Miss.RESOLVE, "no address")
    for address in addresses:
        where = f"{address.socket_address[0]} port {port}"
        try:
            async with asyncio.timeout(timeout_seconds / len(addresses)):
                return await _connect_one(address, port)
        except TimeoutError:
            lost = Lost(Miss.TIMEOUT, f"no connection to {where} within {timeout_seconds:g} s")
        except OSError as error:
            miss = Miss.TIMEOUT if error.errno in NOBODY_THERE else Miss.REFUSED
            lost = Lost(miss, f"no connection to {where}: {os.strerror(error.errno or 0)}")
    raise lost


async def _connect_one(address: Address, port: int) -> socket.socket:
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, address.with_port(port))
    except BaseException:
        connection.close()
        raise
    return connection
