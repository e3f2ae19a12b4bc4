"""Hosts with a shell, over SSH: one connection and one script a poll, nothing to install there.

The script (`host_report.sh`) goes to `/bin/sh -s` on its standard input, so that the log-in shell
does not matter and quotes nothing. An account may be held to it: with
`command="/bin/sh /usr/local/libexec/host_report.sh"` in its authorized_keys it can do nothing else,
and what is sent is ignored. What the answer means is in `host_report.py`, how a connection is made
and can fail in `ssh_session.py`.

CPU is what was used since the last poll, whose ticks are remembered from run to run; on the first
poll, and after a long time, between two samples within the script.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

import asyncssh
from pydantic import BaseModel, Field, ValidationError

from metrics_pipeline.access.host_addresses import HostAddresses, NameNotFound
from metrics_pipeline.access.hosts import SSH_PORT
from metrics_pipeline.access.known_hosts import KnownHosts
from metrics_pipeline.access.open_files import allow_open_files
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.devices import CPU_UTILIZATION, DETAILS, Device, DeviceReading, Miss
from metrics_pipeline.core.errors import ConfigurationError, excerpt
from metrics_pipeline.core.ports import Trace
from metrics_pipeline.sources.host_report import CpuTicks, HostReport, NotAReport, parse_report
from metrics_pipeline.sources.ssh_session import (
    ENCRYPTION_ALGORITHMS,
    Connection,
    Lost,
    Output,
    Peer,
    log_in,
    open_socket,
    run,
)
from metrics_pipeline.sources.ssh_settings import AGENT_VARIABLE, SshJump, SshLogin, SshSettings

NAME = "ssh"

SCRIPT = Path(__file__).with_name("host_report.sh").read_bytes()

REMEMBERED_SECONDS = 900.0
"""CPU over longer than that would say little of now: the host was away, or we were."""
JUMP_RETRY_SECONDS = 5.0
MAX_TICKS = 10**30
"""More than any report's: what is remembered and larger is not ours."""


T = TypeVar("T")


class _Shared(Generic[T]):
    """Made when it is first asked for, for all that ask, and again when it is no longer good.

    Who gives up waiting does not take it from the others. A failure is everyone's, and stays for
    `retry_seconds`.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[T]],
        is_good: Callable[[T], bool] = lambda _made: True,
        retry_seconds: float = REMEMBERED_SECONDS,
    ) -> None:
        self._make = make
        self._is_good = is_good
        self._retry_seconds = retry_seconds
        self._task: asyncio.Task[T] | None = None
        self._failed_at = 0.0

    async def get(self) -> T:
        if self._task is None or self._is_used_up(self._task):
            self._task = asyncio.create_task(self._run())
            # Perhaps nobody waits for it any more when it fails.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._task)

    async def drop(self) -> T | None:
        """Stop making it; gives what was made."""
        task, self._task = self._task, None
        if task is None:
            return None
        task.cancel()
        await asyncio.wait([task])
        return None if task.cancelled() or task.exception() else task.result()

    async def _run(self) -> T:
        try:
            return await self._make()
        except Lost:
            self._failed_at = asyncio.get_running_loop().time()
            raise

    def _is_used_up(self, task: asyncio.Task[T]) -> bool:
        if not task.done():
            return False
        if task.cancelled() or task.exception() is not None:
            now = asyncio.get_running_loop().time()
            return now - self._failed_at > self._retry_seconds
        return not self._is_good(task.result())


class _Way:
    """A log-in with what is made from it once a sweep: the key decrypted, the jump host entered."""

    def __init__(self, login: SshLogin, probe: Ssh) -> None:
        self.options = _Shared(lambda: _make_options(login, self._agent))
        self._agent = _Shared(_open_agent)
        self._jump: _Shared[Connection] | None = None
        if login.jump is not None:
            jump = login.jump
            inner = _Way(jump.login or login.model_copy(update={"jump": None}), probe)
            self._inner: _Way | None = inner
            self._jump = _Shared(
                lambda: probe.enter_jump(jump, inner),
                is_good=lambda connection: not connection.is_closed(),
                retry_seconds=JUMP_RETRY_SECONDS,
            )
        else:
            self._inner = None

    async def jump(self) -> Connection | None:
        """The connection to the jump host, if there is one to go through."""
        return None if self._jump is None else await self._jump.get()

    async def close(self) -> None:
        """Leave the jump host, and forget the keys."""
        if self._jump is not None:
            connection = await self._jump.drop()
            if connection is not None:
                connection.close()
                await connection.wait_closed()
        if self._inner is not None:
            await self._inner.close()
        await self.options.drop()
        agent = await self._agent.drop()
        if agent is not None:
            agent.close()
            await agent.wait_closed()


_Link = socket.socket | Connection
"""A socket of its own, or the connection to the jump host, which others use as well."""


@dataclass(frozen=True, slots=True)
class _Reached:
    """A host to which a connection stands, before a word is said."""

    peer: Peer
    options: asyncssh.SSHClientConnectionOptions
    link: _Link


class _Sample(BaseModel, frozen=True, extra="forbid"):
    """Ticks of a host, and when they were had, in seconds since 1970."""

    idle: int = Field(ge=0, le=MAX_TICKS)
    total: int = Field(ge=0, le=MAX_TICKS)
    at_seconds: float


class Ssh:
    """Probe of hosts with a shell. `logins` are by the name the inventory gives as `credential`.

    `clock` gives seconds since 1970: what is remembered of a host outlives the process.
    """

    name = NAME

    def __init__(
        self,
        settings: SshSettings,
        logins: Mapping[str, SshLogin],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._ways = {name: _Way(login, self) for name, login in logins.items()}
        self._clock = clock
        self._memories: dict[str, bytes] = {}
        self._addresses: HostAddresses | None = None
        self._known_hosts: KnownHosts | None = None

    def load_memories(self, memories: Mapping[str, bytes]) -> None:
        """Know the hosts as `dump_memories` did; what cannot be read is forgotten."""
        self._memories.update(memories)

    def dump_memories(self) -> Mapping[str, bytes]:
        """The last ticks of each host, some 60 bytes of JSON, by its id."""
        return dict(self._memories)

    async def __aenter__(self) -> Self:
        """Read the known host keys; ConfigurationError if that cannot be done."""
        self._known_hosts = KnownHosts(
            self._settings.known_hosts, self._settings.trust_on_first_use
        )
        self._addresses = HostAddresses(self._settings.connect_timeout_seconds)
        allow_open_files(self._settings.max_in_flight)
        self._places = asyncio.Semaphore(self._settings.max_logins)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for way in self._ways.values():
            await way.close()
        if self._addresses is not None:
            self._addresses.close()

    async def poll(
        self, device: Device, metrics: Collection[str], trace: Trace | None = None
    ) -> DeviceReading:
        """Read `metrics` of `device`; with none, only log in. Cancelled, it leaves nothing open."""
        tell = trace or _tell_nobody
        try:
            host = await self._reach(*self._find_way(device), tell)
            async with self._place(host.link):
                report = await self._visit(host, device, metrics, tell)
        except Lost as lost:
            tell(f"{lost.miss}: {lost.detail}")
            misses = dict.fromkeys(metrics, lost.miss)
            return DeviceReading(device.id, lost.has_answered, {}, misses, lost.miss, lost.detail)
        if report is None:
            return DeviceReading(device.id, is_up=True)
        return _reading(device, metrics, report)

    async def enter_jump(self, jump: SshJump, way: _Way) -> Connection:
        """A connection to `jump`; what goes wrong is told as its failure."""
        try:
            peer = Peer((jump.host,), jump.port)
            # It takes no place: all that lie behind it would stand in line with it.
            return await self._log_in(await self._reach(peer, way, _tell_nobody), _tell_nobody)
        except Lost as lost:
            raise Lost(lost.miss, f"jump host {jump.host}: {lost.detail}") from lost

    def _find_way(self, device: Device) -> tuple[Peer, _Way]:
        way = self._ways.get(device.credential)
        if way is None:
            raise Lost(Miss.CREDENTIAL, f"no credential is called {device.credential!r}")
        names = tuple(dict.fromkeys(name for name in (device.address, device.hostname) if name))
        if not names:
            raise Lost(Miss.RESOLVE, "it has no address")
        return Peer(names, device.port or SSH_PORT), way

    async def _reach(self, peer: Peer, way: _Way, tell: Trace) -> _Reached:
        options = await way.options.get()
        tell(f"connecting to {peer} as {options.username}")
        return _Reached(peer, options, await way.jump() or await self._open_socket(peer))

    @asynccontextmanager
    async def _place(self, link: _Link) -> AsyncIterator[None]:
        """One of the places of `max_logins`; who stops waiting for one leaves no socket open."""
        try:
            await self._places.acquire()
        except asyncio.CancelledError:
            if isinstance(link, socket.socket):
                link.close()
            raise
        try:
            yield
        finally:
            self._places.release()

    async def _visit(
        self, host: _Reached, device: Device, metrics: Collection[str], tell: Trace
    ) -> HostReport | None:
        """Log in, run the script if anything is asked, and leave."""
        connection = await self._log_in(host, tell)
        try:
            return await self._ask(connection, device, metrics, tell) if metrics else None
        finally:
            connection.close()
            await connection.wait_closed()

    async def _log_in(self, host: _Reached, tell: Trace) -> Connection:
        assert self._known_hosts is not None, "the probe was not entered"
        return await log_in(
            host.peer,
            host.link,
            host.options,
            self._known_hosts,
            timeout_seconds=self._settings.answer_timeout_seconds,
            tell=tell,
        )

    async def _open_socket(self, peer: Peer) -> socket.socket:
        assert self._addresses is not None, "the probe was not entered"
        try:
            addresses = await self._addresses.find(peer.names[0])
        except NameNotFound as error:
            raise Lost(Miss.RESOLVE, f"{peer.names[0]} has no address: {error}") from error
        return await open_socket(addresses, peer.port, self._settings.connect_timeout_seconds)

    async def _ask(
        self, connection: Connection, device: Device, metrics: Collection[str], tell: Trace
    ) -> HostReport:
        now = self._clock()
        earlier = self._earlier_ticks(device, now)
        window = self._settings.cpu_window_seconds
        if earlier is not None or CPU_UTILIZATION not in metrics:
            window = 0.0
        command = f"/bin/sh -s {window:g}"
        output = await run(
            connection,
            command,
            SCRIPT,
            self._settings.max_output_bytes,
            self._settings.answer_timeout_seconds + window,
        )
        tell(f"{command}: {output}")
        report = _parse(output, earlier, [table for table in DETAILS if table in metrics])
        if report.ticks is not None:
            sample = _Sample(**report.ticks._asdict(), at_seconds=now)
            self._memories[device.id] = sample.model_dump_json().encode()
        return report

    def _earlier_ticks(self, device: Device, now_seconds: float) -> CpuTicks | None:
        try:
            sample = _Sample.model_validate_json(self._memories.get(device.id, b""))
        except ValidationError:
            return None
        age_seconds = now_seconds - sample.at_seconds
        is_fit = self._settings.cpu_window_seconds <= age_seconds <= REMEMBERED_SECONDS
        return CpuTicks(sample.idle, sample.total) if is_fit else None


def _tell_nobody(_line: str) -> None:
    """The trace of who wants none."""


def _parse(output: Output, earlier: CpuTicks | None, tables: Collection[str]) -> HostReport:
    try:
        return parse_report(output.text, earlier, output.broken_off or Miss.PARSE, tables)
    except NotAReport as error:
        is_refusal = output.broken_off is None and output.exit_status not in (0, None)
        miss = Miss.REFUSED if is_refusal else output.broken_off or Miss.PARSE
        said = f", beginning {excerpt(output.text)}" if output.text else ""
        detail = f"the script brought no report: {output}{said}"
        raise Lost(miss, detail, has_answered=True) from error


def _reading(device: Device, metrics: Collection[str], report: HostReport) -> DeviceReading:
    values = {name: report.values[name] for name in metrics if name in report.values}
    found = values.keys() | report.details.keys()
    misses = {
        name: report.misses.get(name, Miss.UNSUPPORTED) for name in metrics if name not in found
    }
    reason = None if found else next(iter(misses.values()))
    detail = "; ".join(f"{name}: {SAYING.get(miss, miss)}" for name, miss in misses.items())
    return DeviceReading(device.id, True, values, misses, reason, detail, details=report.details)


SAYING: Mapping[Miss, str] = {
    Miss.UNSUPPORTED: "the host has none",
    Miss.PARSE: "the host says what cannot be right",
    Miss.TIMEOUT: "the script took too long",
    Miss.REFUSED: "the host ended the connection",
}


async def _open_agent() -> asyncssh.SSHAgentClient:
    path = os.environ.get(AGENT_VARIABLE, "")
    try:
        agent = await asyncssh.connect_agent(path) if path else None
    except OSError as error:
        raise Lost(Miss.CREDENTIAL, f"the agent at {path} does not answer: {error}") from error
    if agent is None:
        raise Lost(Miss.CREDENTIAL, f"no agent is named by ${AGENT_VARIABLE}")
    return agent


async def _make_options(
    login: SshLogin, agent: _Shared[asyncssh.SSHAgentClient]
) -> asyncssh.SSHClientConnectionOptions:
    """What the library needs to know of `login`; Lost(CREDENTIAL) if something is not there."""
    keys: list[asyncssh.SSHKey | asyncssh.SSHKeyPair] = []
    try:
        if login.key_file is not None:
            # Undoing a passphrase takes a tenth of a second or more on purpose.
            keys.append(await asyncio.to_thread(_read_key, login.key_file, login.passphrase))
        if login.agent:
            keys += await (await agent.get()).get_keys()
        password = None if login.password is None else login.password.read()
    except ConfigurationError as error:
        raise Lost(Miss.CREDENTIAL, str(error)) from error
    methods = ["publickey"] if keys else []
    methods += ["password", "keyboard-interactive"] if password else []
    return asyncssh.SSHClientConnectionOptions(
        username=login.user,
        client_keys=keys or None,
        password=password,
        preferred_auth=methods,
        encryption_algs=ENCRYPTION_ALGORITHMS,
        compression_algs=None,
        agent_path=None,
        gss_kex=False,
        gss_auth=False,
        x509_trusted_certs=None,
        x509_trusted_cert_paths=[],
        config=None,
    )


def _read_key(path: Path, passphrase: SecretReference | None) -> asyncssh.SSHKey:
    secret = None if passphrase is None else passphrase.read()
    try:
        return asyncssh.read_private_key(path, secret)
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        problem = f"is no private key that can be used ({error})"
    raise ConfigurationError(str(path), problem, "Check key_file and passphrase.")
