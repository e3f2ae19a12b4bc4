"""Hosts that answer over SSH on loopback addresses, with figures that change, and with bad manners.

The handshake, the log-in and the channel are real (`asyncssh`'s server). The script that is sent
is not run: what a host prints is made up after what `sources/host_report.sh` prints on Linux, and
on FreeBSD as its manual has it. Each address, `127.0.1.1` say, is a host; all have the same port.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from random import Random

import asyncssh

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DISK_USAGE,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
)
from metrics_pipeline.simulators.loop_thread import LoopThread
from metrics_pipeline.simulators.loopback_ports import bind_all, silence, unsilence

BEGIN = "metrics-pipeline: host report 1 begins"
END = "metrics-pipeline: host report 1 ends"
TICKS_A_SECOND = 100
MEMORY_KB = 16_000_000
DISK_KB = 100_000_000
FLOOD_BYTES = 10_000_000
BACKLOG = 512

NUMBER = re.compile(r"(?<!\S)\d+(\.\d+)?(?=[\sC%-]|$)")
"""A figure, with its unit behind it or the rest of a time; no part of a name or an address."""

IMPOSSIBLE_END = END.replace("1", "9" * 30)


class Manner(StrEnum):
    """How a host behaves."""

    WELL = "well"
    SLOW = "slow"
    """It logs in at once and takes its time for the script."""
    MUTE = "mute"
    """It accepts connections and never says a word."""
    DOWN = "down"
    """It ends every connection at once."""
    LYING = "lying"
    """Every figure it gives is impossible."""
    FLOODING = "flooding"
    """It prints 10 MB that mean nothing."""
    TALKATIVE = "talkative"
    """A start-up file prints before the report does, and tells the date."""
    RESTRICTED = "restricted"
    """Its account has no shell."""
    BREAKING_OFF = "breaking off"
    """It ends the connection in the middle of its report."""


@dataclass(frozen=True, slots=True)
class HostFigures:
    """What goes on in a host at one moment. Shares are between 0 and 1."""

    system: str = "Linux"
    """`Linux` or `FreeBSD`."""
    unix_seconds: float = 1_700_000_000.0
    """What its clock says, in seconds since 1970."""
    uptime_seconds: float = 100_000.0
    busy_share: float = 0.25
    busy_ticks: int = 1_000_000
    idle_ticks: int = 9_000_000
    memory_share: float = 0.5
    disk_share: float = 0.4
    celsius: float = 45.0
    received_bytes: int = 10**12
    sent_bytes: int = 10**11

    def after(self, seconds: float) -> HostFigures:
        """The same host later, as busy as before."""
        busy = round(seconds * TICKS_A_SECOND * self.busy_share)
        return replace(
            self,
            unix_seconds=self.unix_seconds + seconds,
            uptime_seconds=self.uptime_seconds + seconds,
            busy_ticks=self.busy_ticks + busy,
            idle_ticks=self.idle_ticks + round(seconds * TICKS_A_SECOND) - busy,
        )

    def wander(self, random: Random) -> HostFigures:
        """The same host with other loads."""

        def drift(share: float, by: float) -> float:
            return round(min(0.98, max(0.02, share + random.uniform(-by, by))), 4)

        return replace(
            self,
            busy_share=drift(self.busy_share, 0.15),
            memory_share=drift(self.memory_share, 0.03),
            disk_share=drift(self.disk_share, 0.005),
            celsius=round(30 + 50 * self.busy_share, 1),
            received_bytes=self.received_bytes + random.randrange(10**8),
            sent_bytes=self.sent_bytes + random.randrange(10**7),
        )

    def values(self) -> Mapping[str, float]:
        """What a poll of this host should find."""
        return {
            CPU_UTILIZATION: 100 * self.busy_share,
            MEMORY_UTILIZATION: 100 * self.memory_share,
            TEMPERATURE: self.celsius,
            NETWORK_RECEIVE: float(self.received_bytes),
            NETWORK_TRANSMIT: float(self.sent_bytes),
            DISK_USAGE: 100 * self.disk_share,
            UPTIME: self.uptime_seconds,
        }


def report(figures: HostFigures, samples: Sequence[HostFigures]) -> str:
    """What the script prints on the host; `samples` are the moments its ticks are read at."""
    body = _freebsd_report if figures.system == "FreeBSD" else _linux_report
    return f"{BEGIN}\n{body(figures, samples)}{END}\n"


def _linux_report(figures: HostFigures, samples: Sequence[HostFigures]) -> str:
    available = round(MEMORY_KB * (1 - figures.memory_share))
    ticks = "".join(
        f"cpu  {each.busy_ticks} 0 0 {each.idle_ticks} 0 0 0 0 0 0\n" for each in samples
    )
    return (
        f"@proc_uptime\n{figures.uptime_seconds:.2f} {figures.idle_ticks / TICKS_A_SECOND:.2f}\n"
        f"@meminfo\nMemTotal: {MEMORY_KB} kB\nMemFree: {available // 2} kB\n"
        f"MemAvailable: {available} kB\nBuffers: 1000 kB\nCached: {available // 3} kB\n"
        f"@millidegrees\n{figures.celsius * 1000:.0f}\n-40000\n"
        f"@interfaces\neth0 {figures.received_bytes} {figures.sent_bytes}\n"
        f"@proc_stat\n{ticks}@df\n{_df(figures, '/dev/sda1')}"
    )


def _freebsd_report(figures: HostFigures, samples: Sequence[HostFigures]) -> str:
    minutes, seconds = divmod(int(figures.uptime_seconds), 60)
    hours, minutes = divmod(minutes, 60)
    pages = MEMORY_KB // 4
    free = round(pages * (1 - figures.memory_share))
    ticks = "".join(
        f"kern.cp_time: {each.busy_ticks} 0 0 0 {each.idle_ticks}\n" for each in samples
    )
    return (
        f"@etime\n{hours // 24}-{hours % 24:02}:{minutes:02}:{seconds:02}\n"
        f"@vm_stats\nhw.pagesize: 4096\nvm.stats.vm.v_page_count: {pages}\n"
        f"vm.stats.vm.v_free_count: {free // 2}\nvm.stats.vm.v_inactive_count: {free - free // 2}\n"
        f"@degrees\nhw.acpi.thermal.tz0.temperature: {figures.celsius:.1f}C\n"
        "@netstat\n"
        "Name Mtu Network Address Ipkts Ierrs Idrop Ibytes Opkts Oerrs Obytes Coll\n"
        f"em0 1500 <Link#1> 00:0c:29:01:02:03 1 0 0 {figures.received_bytes} 1 0"
        f" {figures.sent_bytes} 0\nlo0 16384 <Link#2> lo0 9 0 0 999 9 0 999 0\n"
        f"@cp_time\n{ticks}@df\n{_df(figures, '/dev/ada0p2')}devfs 1 1 0 100% /dev\n"
    )


def _df(figures: HostFigures, device: str) -> str:
    used = round(DISK_KB * figures.disk_share)
    return (
        "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
        f"{device} {DISK_KB} {used} {DISK_KB - used} {100 * figures.disk_share:.0f}% /\n"
    )


def lie(text: str) -> str:
    """The report with an impossible number wherever there was one."""
    head, body = text.split("\n", 1)
    return f"{head}\n{NUMBER.sub('9' * 30, body)}".replace(IMPOSSIBLE_END, END)


@dataclass(slots=True)
class SimulatedHost:
    """A host at an address. Its figures and manner may be changed at any time, by any thread."""

    address: str
    figures: HostFigures = field(default_factory=HostFigures)
    manner: Manner = Manner.WELL
    key: asyncssh.SSHKey = field(
        default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"), repr=False
    )
    authority: asyncssh.SSHKey | None = field(default=None, repr=False)
    """Who signs the host's key, if it shows a certificate."""
    known_key: asyncssh.SSHKey | None = field(default=None, repr=False)
    """The key that it is known by, if it shows another."""
    polls: int = 0
    """How often the script was begun."""


class SshHosts(LoopThread):
    """Serves `hosts` in a thread of its own while it is entered. `port` 0 takes a free one.

    Who knows `password`, or has the private key of one of `authorized`, gets in as anybody.
    """

    def __init__(
        self,
        hosts: Iterable[SimulatedHost],
        *,
        authorized: Iterable[asyncssh.SSHKey] = (),
        password: str | None = None,
        port: int = 0,
    ) -> None:
        self.hosts = {host.address: host for host in hosts}
        self.slow_seconds = 30.0
        self.connections: Counter[str] = Counter()
        """Connections that are open, by the host's address."""
        self._authorized = {key.convert_to_public() for key in authorized}
        self._password = password
        self._listeners = _listen(list(self.hosts), port)
        self.port: int = self._listeners[0].getsockname()[1]
        super().__init__("ssh-hosts")

    def wander(self, random: Random, seconds: float) -> None:
        """Let `seconds` pass in all hosts."""
        for host in self.hosts.values():
            host.figures = host.figures.after(seconds).wander(random)

    def set_up(self, address: str, is_up: bool) -> None:
        """Let the host at `address` answer, or give no sign, as if it were switched off (Linux)."""
        at = list(self.hosts).index(address)
        (unsilence if is_up else silence)(self._listeners[at])

    def known_hosts(self) -> str:
        """The keys that the hosts are known by, in OpenSSH's format."""
        return "".join(
            f"[{host.address}]:{self.port} {_public_line(host.known_key or host.key)}\n"
            for host in self.hosts.values()
        )

    def write_known_hosts(self, path: Path) -> None:
        """The keys that the hosts are known by, in OpenSSH's format."""
        path.write_text(self.known_hosts(), encoding="ascii")

    def is_welcome(self, key: asyncssh.SSHKey) -> bool:
        """Whether `key` opens the account."""
        return key in self._authorized

    def is_password(self, password: str) -> bool:
        """Whether `password` opens the account."""
        return self._password is not None and password == self._password

    @property
    def takes_passwords(self) -> bool:
        """Whether there is a password at all."""
        return self._password is not None

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            doors = [group.create_task(self._open_door(each, group)) for each in self._listeners]
            await self._stop.wait()
            for door in doors:
                door.cancel()
            for listener in self._listeners:
                listener.close()
            for guest in asyncio.all_tasks() - {asyncio.current_task()}:
                guest.cancel()

    async def _open_door(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        host = self.hosts[listener.getsockname()[0]]
        while True:
            guest, _address = await self._loop.sock_accept(listener)
            group.create_task(self._welcome(host, guest))

    async def _welcome(self, host: SimulatedHost, guest: socket.socket) -> None:
        self.connections[host.address] += 1
        try:
            if host.manner is Manner.MUTE:
                await _wait_for_the_end(self._loop, guest)
            elif host.manner is not Manner.DOWN:
                await self._speak(host, guest)
        except (OSError, asyncssh.Error):
            return  # who goes away, goes away
        finally:
            guest.close()
            self.connections[host.address] -= 1

    async def _speak(self, host: SimulatedHost, guest: socket.socket) -> None:
        async def answer(process: asyncssh.SSHServerProcess[bytes]) -> None:
            await self._answer(host, process)

        connection = await asyncssh.run_server(
            guest,
            config=None,
            server_host_keys=[_shown_key(host)],
            server_factory=lambda: _Account(self),
            process_factory=answer,
            encoding=None,
            gss_host=None,
            login_timeout=0,
        )
        try:
            await connection.wait_closed()
        finally:
            connection.abort()

    async def _answer(self, host: SimulatedHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
        host.polls += 1
        try:
            status = await self._print(host, process)
        except (BrokenPipeError, ConnectionError):
            return
        process.exit(status)

    async def _print(self, host: SimulatedHost, process: asyncssh.SSHServerProcess[bytes]) -> int:
        manner, out = host.manner, process.stdout
        if manner is Manner.RESTRICTED:
            out.write(b"This account is currently not available.\n")
            return 1
        if manner is Manner.FLOODING:
            await _flood(process)
            return 0
        if manner is Manner.TALKATIVE:
            out.write(_welcome(host.figures))
        text = await _say(host, process)
        if manner is Manner.SLOW:
            await asyncio.sleep(self.slow_seconds)
        if manner is Manner.BREAKING_OFF:
            out.write(text[: len(text) // 2].encode())
            await out.drain()
            process.channel.get_connection().abort()
            return 0
        out.write((lie(text) if manner is Manner.LYING else text).encode())
        return 0


class _Account(asyncssh.SSHServer):
    """The account that opens to a key or a password."""

    def __init__(self, owner: SshHosts) -> None:
        self._owner = owner

    def begin_auth(self, _username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, _username: str, key: asyncssh.SSHKey) -> bool:
        return self._owner.is_welcome(key)

    def password_auth_supported(self) -> bool:
        return self._owner.takes_passwords

    def validate_password(self, _username: str, password: str) -> bool:
        return self._owner.is_password(password)


def _welcome(figures: HostFigures) -> bytes:
    date = datetime.fromtimestamp(figures.unix_seconds, UTC)
    return f"Welcome, caf\xe9! It is {date:%c}.\n{BEGIN}\n@proc_uptime\n".encode("latin-1")


async def _say(host: SimulatedHost, process: asyncssh.SSHServerProcess[bytes]) -> str:
    """The report, after as long between two samples as the command asks for."""
    await process.stdin.read()
    command = (process.command or "").split()
    try:
        window_seconds = float(command[-1])
    except (ValueError, IndexError):
        window_seconds = 0.0
    before = host.figures
    if not window_seconds:
        return report(before, [before])
    await asyncio.sleep(window_seconds)
    return report(before, [before, before.after(window_seconds)])


async def _flood(process: asyncssh.SSHServerProcess[bytes]) -> None:
    line = b"x" * 999 + b"\n"
    for _ in range(FLOOD_BYTES // len(line)):
        process.stdout.write(line)
        await process.stdout.drain()


async def _wait_for_the_end(loop: asyncio.AbstractEventLoop, guest: socket.socket) -> None:
    while await loop.sock_recv(guest, 4096):
        pass


def _shown_key(
    host: SimulatedHost,
) -> asyncssh.SSHKey | tuple[asyncssh.SSHKey, asyncssh.SSHCertificate]:
    if host.authority is None:
        return host.key
    names = [host.address]
    return host.key, host.authority.generate_host_certificate(host.key, "id", principals=names)


def _public_line(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key("openssh").decode("ascii").split()[:2])


def _listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Sockets that listen on all `addresses`, on the same port."""
    found = bind_all(addresses, port, socket.SOCK_STREAM)
    for each in found:
        each.listen(BACKLOG)
    return found
