"""SSH connections as the probe needs them: opened, checked, given one script, closed.

Everything that can go wrong is a Lost, which says under what label it is counted, and whether
somebody was there at all: a host is there once it has said `SSH-2.0-…`. The library is `asyncssh`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import asyncssh
from cryptography.exceptions import UnsupportedAlgorithm

from metrics_pipeline.access.host_addresses import Address
from metrics_pipeline.access.known_hosts import HostKeys, KnownHosts, Verdict, host_pattern
from metrics_pipeline.core.devices import Miss
from metrics_pipeline.core.errors import excerpt
from metrics_pipeline.core.ports import Trace
from metrics_pipeline.sources import host_report

# What happens to a host is in its reading, not in the log.
asyncssh.set_log_level(logging.CRITICAL)

Connection = asyncssh.SSHClientConnection

ENCRYPTION_ALGORITHMS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""AES-GCM first, then all that the library offers: the library's own first, ChaCha20, makes a poll
cost a quarter more CPU (measured: 4.5 ms against 3.6 ms, with AES instructions). Its order of key
exchanges stays: ML-KEM with X25519, which costs no more than X25519 alone, before the slow groups.
"""

HOST_KEY_ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-rsa",
)
CERTIFICATE = "-cert-v01@openssh.com"

WINDOW_BYTES = 64 * 1024
MAX_ERROR_BYTES = 4096
NOBODY_THERE = (errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ETIMEDOUT)

STUMBLES = (
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    UnsupportedAlgorithm,
)
"""What asyncssh hands on when the far side sends what its decoders did not expect."""


class Lost(Exception):
    """Nothing comes any more. `has_answered` is whether it was a host that spoke SSH."""

    def __init__(self, miss: Miss, detail: str, has_answered: bool = False) -> None:
        super().__init__(detail)
        self.miss = miss
        self.detail = detail
        self.has_answered = has_answered


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a host is: `names` are its address first, then what else it may be known as."""

    names: Sequence[str]
    port: int

    def __str__(self) -> str:
        return host_pattern(self.names[0], self.port)


@dataclass(frozen=True, slots=True)
class Output:
    """What a command said. `broken_off` is why it is not all of it, None if it is."""

    text: bytes
    errors: bytes
    exit_status: int | None
    broken_off: Miss | None = None

    def __str__(self) -> str:
        said = [f"{len(self.text)} bytes"]
        if self.exit_status is not None:
            said.append(f"exit status {self.exit_status}")
        if self.broken_off is not None:
            said.append(f"broken off ({self.broken_off})")
        if self.errors:
            said.append(f"on stderr {excerpt(self.errors)}")
        return ", ".join(said)


async def open_socket(
    addresses: Sequence[Address], port: int, timeout_seconds: float
) -> socket.socket:
    """A connection to the first of `addresses` that takes one, within the time in all."""
    lost = Lost(Miss.RESOLVE, "no address")
    for address in addresses:
        try:
            async with asyncio.timeout(timeout_seconds / len(addresses)):
                return await _open_one(address, port)
        except TimeoutError:
            lost = Lost(Miss.TIMEOUT, f"no connection to port {port} in {timeout_seconds:g} s")
        except OSError as error:
            miss = Miss.TIMEOUT if error.errno in NOBODY_THERE else Miss.REFUSED
            lost = Lost(miss, f"no connection to port {port}: {error.strerror}")
    raise lost


async def _open_one(address: Address, port: int) -> socket.socket:
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address.with_port(port))
    except BaseException:
        connection.close()
        raise
    return connection


async def log_in(
    peer: Peer,
    link: socket.socket | Connection,
    options: asyncssh.SSHClientConnectionOptions,
    known_hosts: KnownHosts,
    *,
    timeout_seconds: float,
    tell: Trace,
) -> Connection:
    """A connection on which commands can be run, over a socket or through another connection."""
    client = _Client(peer, known_hosts, tell)
    try:
        async with asyncio.timeout(timeout_seconds):
            connection = await _connect(peer, link, options, client)
    except TimeoutError:
        raise client.lost(Miss.TIMEOUT, f"no log-in in {timeout_seconds:g} s") from None
    except (asyncssh.Error, OSError, *STUMBLES) as error:
        raise _meaning(error, client) from error
    finally:
        # Nobody else has the socket if the library did not get to it.
        if isinstance(link, socket.socket) and client.connection is None:
            link.close()
    tell(f"logged in as {options.username}")
    return connection


async def _connect(
    peer: Peer,
    link: socket.socket | Connection,
    options: asyncssh.SSHClientConnectionOptions,
    client: _Client,
) -> Connection:
    known = client.known_hosts.keys_of(peer.names, peer.port)
    checks = {
        "known_hosts": (list(known.trusted), list(known.authorities), list(known.revoked)),
        "server_host_key_algs": _kinds_asked_for(known),
        "client_factory": lambda: client,
        "options": options,
        "config": None,
    }
    if isinstance(link, socket.socket):
        return await asyncssh.connect(sock=link, **checks)
    return await asyncssh.connect(peer.names[0], peer.port, tunnel=link, **checks)


def _kinds_asked_for(known: HostKeys) -> list[str]:
    """Kinds of host keys in the order of our liking: those that are known of the host come first,
    and if it has none of them any more, it shows us another, which is told as a change.
    """
    algorithms = (name.decode("ascii") for key in known.trusted for name in key.sig_algorithms)
    liked = [name for name in algorithms if name in HOST_KEY_ALGORITHMS]
    plain = list(
        dict.fromkeys([*sorted(liked, key=HOST_KEY_ALGORITHMS.index), *HOST_KEY_ALGORITHMS])
    )
    return [f"{name}{CERTIFICATE}" for name in plain if known.authorities] + plain


class _Client(asyncssh.SSHClient):
    """Judges the host's key, and remembers how far the host has come."""

    def __init__(self, peer: Peer, known_hosts: KnownHosts, tell: Trace) -> None:
        self.known_hosts = known_hosts
        self.connection: Connection | None = None
        self.objection = ""
        """What is wrong with the host's key."""
        self._peer = peer
        self._tell = tell

    def connection_made(self, conn: Connection) -> None:
        self.connection = conn
        self._tell("connected")

    def validate_host_public_key(
        self, _host: str, _addr: str, _port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Only asked about a key that is not known yet. What the library calls it is not used."""
        verdict = self.known_hosts.judge(self._peer.names, self._peer.port, key)
        self._tell(f"host key {key.get_fingerprint()}: {verdict.name.lower()}")
        if verdict in (Verdict.KNOWN, Verdict.REMEMBERED):
            return True
        self.objection = _objection(verdict, self._peer, self.known_hosts, key)
        return False

    def lost(self, miss: Miss, detail: str) -> Lost:
        """`detail`, and who it was that we spoke to."""
        spoke = None
        if self.connection is not None:
            spoke = self.connection.get_extra_info("server_version")
        if not spoke:
            return Lost(miss, f"{detail}: it did not say that it speaks SSH")
        return Lost(miss, f"{detail} (it says {spoke[:80]!r})", has_answered=True)


def _objection(verdict: Verdict, peer: Peer, known: KnownHosts, key: asyncssh.SSHKey) -> str:
    shown = f"host key {key.get_fingerprint()}"
    if verdict is Verdict.CHANGED:
        return (
            f"{shown} is not the one that {known.path} has of {peer}. If the host was set up anew,"
            f" remove the old one (ssh-keygen -R '{peer}' -f {known.path}); if not, somebody may"
            " be answering in its place"
        )
    if verdict is Verdict.REVOKED:
        return f"{shown} is revoked in {known.path}"
    return (
        f"{shown} of {peer} is not in {known.path}. Compare it with the host's own and add it"
        f" (ssh-keyscan -p {peer.port} {peer.names[0]} >> {known.path}), or set trust_on_first_use"
    )


def _meaning(error: BaseException, client: _Client) -> Lost:
    """What a connection that failed means."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return client.lost(Miss.AUTH, client.objection or str(error))
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return client.lost(Miss.REFUSED, str(error))
    if isinstance(error, asyncssh.PermissionDenied) or "authentication" in str(error):
        methods = client.connection.get_server_auth_methods() if client.connection else ()
        takes = f"; it takes {', '.join(methods)}" if methods else ""
        return client.lost(Miss.AUTH, f"{error}{takes}")
    if isinstance(error, asyncssh.ChannelOpenError):
        return Lost(*_beyond_the_jump(error))
    if isinstance(error, (asyncssh.ConnectionLost, OSError)):
        return client.lost(Miss.REFUSED, "it ended the connection before the log-in")
    return client.lost(Miss.PARSE, f"not what SSH allows ({error.__class__.__name__}: {error})")


def _beyond_the_jump(error: asyncssh.ChannelOpenError) -> tuple[Miss, str]:
    """What OpenSSH, in between, says of a host that it could not reach for us."""
    said = f"the jump host says: {error.reason}"
    if "resolution" in error.reason or "not known" in error.reason:
        return Miss.RESOLVE, said
    if "timed out" in error.reason or "No route" in error.reason:
        return Miss.TIMEOUT, said
    return Miss.REFUSED, said


async def run(
    connection: Connection, command: str, script: bytes, max_bytes: int, timeout_seconds: float
) -> Output:
    """What `command`, given `script` to read, says. Lost if the host does not let it begin."""
    session = _Session(max_bytes)
    try:
        async with asyncio.timeout(timeout_seconds):
            channel, _session = await connection.create_session(
                lambda: session, command, encoding=None, window=WINDOW_BYTES
            )
            try:
                channel.write(script)
                channel.write_eof()
            except OSError:  # a command that reads nothing may have ended already
                session.feed_is_closed = True
            await session.ended
    except TimeoutError:
        if session.channel is None:
            detail = f"it began no session in {timeout_seconds:g} s"
            raise Lost(Miss.TIMEOUT, detail, has_answered=True) from None
        return session.output(Miss.TIMEOUT)
    except (asyncssh.Error, OSError, *STUMBLES) as error:
        raise Lost(Miss.REFUSED, f"it runs no command: {error}", has_answered=True) from error
    return session.output(session.broken_off)


class _Session(asyncssh.SSHClientSession[bytes]):
    """Gathers what a command says until the report is whole, the command ends, or it is enough."""

    def __init__(self, max_bytes: int) -> None:
        self.channel: asyncssh.SSHClientChannel[bytes] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.broken_off: Miss | None = None
        self.feed_is_closed = False
        self._max_bytes = max_bytes
        self._text = bytearray()
        self._errors = bytearray()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self.channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Stderr is kept for its beginning, which says why."""
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self._errors += data[: MAX_ERROR_BYTES - len(self._errors)]
            return
        self._text += data
        if len(self._text) > self._max_bytes:
            self.broken_off = Miss.PARSE
            self._end()
        elif host_report.END.encode() in self._text[-len(data) - len(host_report.END) :]:
            # Something the host started may hold the channel open for as long as it lives.
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.broken_off is None:
            self.broken_off = Miss.REFUSED
        self._end()

    def output(self, broken_off: Miss | None) -> Output:
        """What came so far."""
        status = None if self.channel is None else self.channel.get_exit_status()
        return Output(bytes(self._text), bytes(self._errors), status, broken_off)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
            if self.channel is not None:
                self.channel.abort()
