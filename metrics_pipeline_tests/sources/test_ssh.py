"""Hosts over SSH: real connections to simulated hosts, and to OpenSSH's own server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import asyncssh
import pytest
from pydantic import ValidationError

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DETAILS,
    DISK_USAGE,
    DISKS,
    HOST_METRICS,
    INTERFACES,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    PING_RTT,
    TEMPERATURE,
    UPTIME,
    Device,
    DeviceReading,
    Miss,
)
from metrics_pipeline.core.ports import RemembersDevices
from metrics_pipeline.simulators.ssh_host import HostFigures, Manner, SimulatedHost, SshHosts
from metrics_pipeline.sources.ssh import REMEMBERED_SECONDS, Ssh
from metrics_pipeline.sources.ssh_settings import AGENT_VARIABLE, SshJump, SshLogin, SshSettings
from metrics_pipeline.stack.ports import LOOPBACK, find_free_port
from metrics_pipeline_tests.descriptors import listed_descriptors
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import require, running, wait_until
from metrics_pipeline_tests.sshd import make_key, sshd

PASSWORD = "correct horse battery staple"
LINUX, FREEBSD = "127.0.1.1", "127.0.1.2"
SCRIPT_FILE = Path(__file__).parents[2] / "metrics_pipeline/sources/host_report.sh"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Network:
    """Simulated hosts, one for each manner, and what opens them."""

    hosts: SshHosts
    key: Path
    known_hosts: Path

    def settings(self, **choices: object) -> SshSettings:
        given = {"known_hosts": self.known_hosts, "cpu_window_seconds": 0.1} | choices
        return SshSettings.model_validate(given)

    def device(self, address: str, **choices: object) -> Device:
        device = Device(address, "", address, "server", "ssh", self.hosts.port, "account")
        return replace(device, **choices)  # type: ignore[arg-type]

    @property
    def login(self) -> SshLogin:
        return SshLogin(user="poller", key_file=self.key)

    def poll(self, device: Device, login: SshLogin | None = None, **choices: object) -> Reading:
        """One reading of `device`, by a probe that is entered and left."""
        probe = Ssh(self.settings(**choices), {"account": login or self.login})
        return in_probe(probe, lambda: probe.poll(device, HOST_METRICS))


Reading = DeviceReading


def in_probe(probe: Ssh, work: Callable[[], Awaitable[T]]) -> T:
    async def enter() -> T:
        async with probe:
            return await work()

    return asyncio.run(enter())


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o600)
    hosts = [SimulatedHost(LINUX), SimulatedHost(FREEBSD, HostFigures("FreeBSD"))]
    with SshHosts(hosts, authorized=[key], password=PASSWORD) as served:
        served.write_known_hosts(tmp_path / "known_hosts")
        yield Network(served, tmp_path / "key", tmp_path / "known_hosts")
        wait_until(lambda: not sum(served.connections.values()), "all connections are closed")


@pytest.mark.parametrize("address", [LINUX, FREEBSD])
def test_a_host_gives_all_its_figures(network: Network, address: str) -> None:
    figures = replace(network.hosts.hosts[address].figures, busy_share=0.3)
    network.hosts.hosts[address].figures = figures
    reading = network.poll(network.device(address))
    assert reading.is_up
    assert reading.values == pytest.approx(figures.values())
    assert not reading.misses
    assert reading.reason is None


NOW_SECONDS = 1_800_000_000.0


def remember(network: Network, memories: Mapping[str, bytes], later_seconds: float) -> Remembered:
    """A poll of LINUX by a new probe that knows `memories`, its clock so much later."""
    probe = Ssh(
        network.settings(), {"account": network.login}, clock=lambda: NOW_SECONDS + later_seconds
    )
    assert isinstance(probe, RemembersDevices)
    probe.load_memories(memories)
    told: list[str] = []
    poll = in_probe(probe, lambda: probe.poll(network.device(LINUX), HOST_METRICS, told.append))
    return Remembered(poll.values[CPU_UTILIZATION], told[-1], probe.dump_memories())


class Remembered(NamedTuple):
    """The CPU of one poll, the command that was run, and what is remembered after it."""

    cpu_percent: float
    told: str
    memories: Mapping[str, bytes]


def test_the_next_run_gives_the_cpu_since_the_last_and_samples_once(network: Network) -> None:
    host = network.hosts.hosts[LINUX]
    first = remember(network, {}, 0)
    assert first.cpu_percent == pytest.approx(20)  # 2 of 10 ticks in 0.1 s
    assert first.told.startswith("/bin/sh -s 0.1:")
    assert len(first.memories[LINUX]) < 100
    host.figures = replace(host.figures, busy_share=0.5).after(300)
    second = remember(network, first.memories, 300)
    # The host was sampled first at the end of its window of 10 ticks.
    assert second.cpu_percent == pytest.approx(50, abs=0.1)
    assert second.told.startswith("/bin/sh -s 0:")
    assert second.memories != first.memories


@pytest.mark.parametrize("later_seconds", [0.05, REMEMBERED_SECONDS + 1, -300])
def test_ticks_that_are_too_new_too_old_or_of_the_future_are_not_used(
    network: Network, later_seconds: float
) -> None:
    memories = remember(network, {}, 0).memories
    later = remember(network, memories, later_seconds)
    assert later.told.startswith("/bin/sh -s 0.1:")
    assert later.cpu_percent == pytest.approx(20)


def test_a_host_that_started_anew_gives_the_cpu_since_then(network: Network) -> None:
    host = network.hosts.hosts[LINUX]
    memories = remember(network, {}, 0).memories
    host.figures = replace(host.figures, busy_ticks=900, idle_ticks=100)
    assert remember(network, memories, 300).cpu_percent == pytest.approx(90)


@pytest.mark.parametrize(
    "known",
    [
        b"",
        b"not JSON",
        b"\xff",
        b"[]",
        b'{"idle": 1, "total": "x", "at_seconds": 1800000000}',
        b'{"idle": 1%s, "total": 1, "at_seconds": 1800000000}' % (b"0" * 400),
        b'{"idle": 1, "total": 2, "at_seconds": NaN}',
    ],
)
def test_a_memory_that_cannot_be_read_is_forgotten(network: Network, known: bytes) -> None:
    polled = remember(network, {LINUX: known, "somebody else": b"kept"}, 300)
    assert polled.told.startswith("/bin/sh -s 0.1:")
    assert polled.memories[LINUX].startswith(b'{"idle":')
    assert polled.memories["somebody else"] == b"kept"


def test_a_poll_that_fails_forgets_nothing(network: Network) -> None:
    memories = remember(network, {}, 0).memories
    probe = Ssh(network.settings(), {"account": network.login})
    probe.load_memories(memories)
    network.hosts.hosts[LINUX].manner = Manner.RESTRICTED
    in_probe(probe, lambda: probe.poll(network.device(LINUX), HOST_METRICS))
    assert probe.dump_memories() == memories


def test_only_what_is_asked_for_is_in_the_reading(network: Network) -> None:
    probe = Ssh(network.settings(), {"account": network.login})
    asked = [UPTIME, PING_RTT]
    reading = in_probe(probe, lambda: probe.poll(network.device(LINUX), asked))
    assert set(reading.values) == {UPTIME}
    assert reading.misses == {PING_RTT: Miss.UNSUPPORTED}


@pytest.mark.parametrize("address", [LINUX, FREEBSD])
def test_a_host_gives_its_interfaces_and_disks_one_by_one(network: Network, address: str) -> None:
    probe = Ssh(network.settings(), {"account": network.login})
    asked = [*HOST_METRICS, *DETAILS]
    reading = in_probe(probe, lambda: probe.poll(network.device(address), asked))
    [(_, counters)] = reading.details[INTERFACES].items()
    assert counters == {name: reading.values[name] for name in counters}
    assert reading.details[DISKS] == {"/": {DISK_USAGE: reading.values[DISK_USAGE]}}
    assert not reading.misses
    assert network.hosts.hosts[address].polls == 1


def test_tables_alone_are_an_answer(network: Network) -> None:
    probe = Ssh(network.settings(), {"account": network.login})
    reading = in_probe(probe, lambda: probe.poll(network.device(LINUX), [DISKS]))
    assert (reading.values, reading.misses, reading.reason) == ({}, {}, None)
    assert reading.details.keys() == {DISKS}


def test_to_know_whether_a_host_is_up_no_command_is_run(network: Network) -> None:
    probe = Ssh(network.settings(), {"account": network.login})
    reading = in_probe(probe, lambda: probe.poll(network.device(LINUX), []))
    assert reading == DeviceReading(LINUX, is_up=True)
    assert network.hosts.hosts[LINUX].polls == 0


@pytest.mark.parametrize(
    ("manner", "is_up", "reason"),
    [
        (Manner.WELL, True, None),
        (Manner.TALKATIVE, True, None),
        (Manner.SLOW, True, Miss.TIMEOUT),
        (Manner.MUTE, False, Miss.TIMEOUT),
        (Manner.DOWN, False, Miss.REFUSED),
        (Manner.LYING, True, Miss.PARSE),
        (Manner.FLOODING, True, Miss.PARSE),
        (Manner.RESTRICTED, True, Miss.REFUSED),
    ],
)
def test_each_manner_of_a_host_has_its_reason(
    network: Network, manner: Manner, is_up: bool, reason: Miss | None
) -> None:
    network.hosts.hosts[LINUX].manner = manner
    # Long enough for a busy machine where an answer is to come.
    seconds = 0.5 if reason is Miss.TIMEOUT else 20
    reading = network.poll(network.device(LINUX), answer_timeout_seconds=seconds)
    assert (reading.is_up, reading.reason) == (is_up, reason)
    if reason is None:
        assert set(reading.values) == set(HOST_METRICS)
    else:
        assert set(reading.misses.values()) == {reason}
        assert set(reading.misses) == set(HOST_METRICS)
        assert reading.detail


def test_what_came_before_a_report_broke_off_is_kept(network: Network) -> None:
    network.hosts.hosts[LINUX].manner = Manner.BREAKING_OFF
    reading = network.poll(network.device(LINUX))
    assert reading.values[UPTIME] == 100_000.0
    assert reading.misses[CPU_UTILIZATION] is Miss.REFUSED
    assert reading.reason is None


def test_no_more_is_read_than_the_settings_allow(network: Network) -> None:
    network.hosts.hosts[LINUX].manner = Manner.FLOODING
    reading = network.poll(network.device(LINUX), max_output_bytes=10_000)
    read_bytes = int(reading.detail.split(" bytes")[0].split()[-1])
    assert 10_000 < read_bytes < 100_000


def test_a_port_nobody_listens_on_is_refused(network: Network) -> None:
    reading = network.poll(network.device(LINUX, port=find_free_port()))
    assert (reading.is_up, reading.reason) == (False, Miss.REFUSED)


def test_a_name_without_an_address_is_not_resolved(network: Network) -> None:
    for address in ("not a name", "a..b", ""):
        reading = network.poll(replace(network.device(LINUX), address=address))
        assert (reading.is_up, reading.reason) == (False, Miss.RESOLVE)


def test_of_a_name_with_several_addresses_the_one_that_answers_is_asked(tmp_path: Path) -> None:
    with sshd(tmp_path) as server:
        login = SshLogin(user=server.user, key_file=server.user_key)
        settings = SshSettings(known_hosts=tmp_path / "new", trust_on_first_use=True)
        probe = Ssh(settings, {"account": login})
        # On many machines ::1 comes first, where nobody listens.
        device = Device("d", "", "localhost", "server", "ssh", server.port, "account")
        assert in_probe(probe, lambda: probe.poll(device, [])).is_up


# Who the host is


def test_a_host_nobody_knows_is_not_logged_in_to(network: Network) -> None:
    network.known_hosts.write_text("")
    reading = network.poll(network.device(LINUX))
    assert (reading.is_up, reading.reason) == (True, Miss.AUTH)
    assert "ssh-keyscan" in reading.detail
    assert network.known_hosts.read_text() == ""


def test_a_host_is_known_by_its_host_name_too(network: Network) -> None:
    entries = network.known_hosts.read_text().replace(LINUX, "db.example")
    network.known_hosts.write_text(entries)
    assert network.poll(network.device(LINUX, hostname="db.example")).reason is None


def test_on_first_use_a_host_is_trusted_where_the_settings_say_so(network: Network) -> None:
    network.known_hosts.unlink()
    assert network.poll(network.device(LINUX), trust_on_first_use=True).reason is None
    assert f"[{LINUX}]:{network.hosts.port} ssh-ed25519 " in network.known_hosts.read_text()
    assert network.known_hosts.stat().st_mode & 0o077 == 0
    assert network.poll(network.device(LINUX)).reason is None


@pytest.mark.parametrize("key_type", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_a_host_key_that_changed_is_never_trusted(network: Network, key_type: str) -> None:
    network.hosts.hosts[LINUX].key = asyncssh.generate_private_key(key_type)
    before = network.known_hosts.read_text()
    reading = network.poll(network.device(LINUX), trust_on_first_use=True)
    assert (reading.is_up, reading.reason) == (True, Miss.AUTH)
    assert str(network.known_hosts) in reading.detail
    assert f"ssh-keygen -R '[{LINUX}]:{network.hosts.port}'" in reading.detail
    assert network.known_hosts.read_text() == before
    assert network.hosts.hosts[LINUX].polls == 0


# Who we are


def secret(monkeypatch: pytest.MonkeyPatch, value: str) -> SecretReference:
    monkeypatch.setenv("THE_SECRET", value)
    return SecretReference(env="THE_SECRET")


def test_a_password_opens_an_account(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    login = SshLogin(user="poller", password=secret(monkeypatch, PASSWORD))
    assert network.poll(network.device(LINUX), login).reason is None


def test_a_wrong_password_is_an_auth_failure_that_does_not_tell_it(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = SshLogin(user="poller", password=secret(monkeypatch, "wrong-and-secret"))
    probe = Ssh(network.settings(), {"account": login})
    told: list[str] = []
    reading = in_probe(probe, lambda: probe.poll(network.device(LINUX), [UPTIME], told.append))
    assert (reading.is_up, reading.reason) == (True, Miss.AUTH)
    assert "poller" in reading.detail
    for text in (repr(reading), repr(probe), repr(login), *told):
        assert "wrong-and-secret" not in text


def test_a_key_the_host_does_not_know_is_an_auth_failure(network: Network, tmp_path: Path) -> None:
    login = SshLogin(user="poller", key_file=make_key(tmp_path / "stranger"))
    reading = network.poll(network.device(LINUX), login)
    assert (reading.is_up, reading.reason) == (True, Miss.AUTH)


def encrypted(network: Network) -> Path:
    """The account's key again, with PASSWORD as its passphrase."""
    path = network.key.with_name("encrypted")
    shutil.copy(network.key, path)
    argv = [require("ssh-keygen"), "-q", "-p", "-P", "", "-N", PASSWORD, "-f", str(path)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return path


def test_an_encrypted_key_is_opened_with_its_passphrase(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    passphrase = secret(monkeypatch, PASSWORD)
    login = SshLogin(user="poller", key_file=encrypted(network), passphrase=passphrase)
    assert network.poll(network.device(LINUX), login).reason is None


def test_a_credential_that_cannot_be_used_is_our_fault_and_nobody_is_asked(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    monkeypatch.delenv(AGENT_VARIABLE, raising=False)
    (tmp_path / "no-key").write_text("this is not a key")
    wrong = secret(monkeypatch, "wrong-and-secret")
    for login in (
        SshLogin(user="poller", key_file=tmp_path / "absent"),
        SshLogin(user="poller", key_file=tmp_path / "no-key"),
        SshLogin(user="poller", key_file=encrypted(network)),
        SshLogin(user="poller", key_file=encrypted(network), passphrase=wrong),
        SshLogin(user="poller", password=SecretReference(env="NOT_THERE")),
        SshLogin(user="poller", agent=True),
    ):
        reading = network.poll(network.device(LINUX), login)
        assert (reading.is_up, reading.reason) == (False, Miss.CREDENTIAL)
        assert "wrong-and-secret" not in reading.detail
    reading = network.poll(network.device(LINUX, credential="unheard-of"))
    assert reading.reason is Miss.CREDENTIAL
    assert "unheard-of" in reading.detail
    assert network.hosts.hosts[LINUX].polls == 0


def test_the_keys_of_an_agent_open_an_account(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "agent"
    with running([require("ssh-agent"), "-D", "-a", str(path)], path.exists):
        monkeypatch.setenv(AGENT_VARIABLE, str(path))
        subprocess.run([require("ssh-add"), "-q", str(network.key)], check=True)
        login = SshLogin(user="poller", agent=True)
        assert network.poll(network.device(LINUX), login).reason is None


def test_a_login_without_a_way_in_is_refused_by_the_settings() -> None:
    with pytest.raises(ValidationError, match="at least one of key_file, agent and password"):
        SshLogin(user="poller")


def test_a_failure_of_the_known_hosts_file_is_said_before_anybody_is_polled(
    network: Network,
) -> None:
    network.known_hosts.unlink()
    network.known_hosts.mkdir()
    with pytest.raises(Exception, match="known host keys cannot be read"):
        network.poll(network.device(LINUX))


# Many, slow, and cut off


def test_many_hosts_are_polled_at_once_and_none_holds_up_another(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key")
    manners = [Manner.WELL, Manner.MUTE, Manner.DOWN, Manner.LYING]
    hosts = [SimulatedHost(f"127.0.2.{i + 1}", manner=manners[i % 4]) for i in range(60)]
    hosts[0].manner = Manner.FLOODING
    with SshHosts(hosts, authorized=[key]) as served:
        served.write_known_hosts(tmp_path / "known_hosts")
        network = Network(served, tmp_path / "key", tmp_path / "known_hosts")
        probe = Ssh(network.settings(answer_timeout_seconds=4), {"account": network.login})

        async def poll_all() -> list[DeviceReading]:
            polls = (probe.poll(network.device(host.address), HOST_METRICS) for host in hosts)
            return await asyncio.gather(*polls)

        readings = in_probe(probe, poll_all)
    expected = {
        Manner.WELL: None,
        Manner.MUTE: Miss.TIMEOUT,
        Manner.DOWN: Miss.REFUSED,
        Manner.LYING: Miss.PARSE,
        Manner.FLOODING: Miss.PARSE,
    }
    assert [reading.reason for reading in readings] == [expected[host.manner] for host in hosts]


def test_hosts_that_are_off_take_no_place_of_a_log_in(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key")
    with SshHosts([SimulatedHost(LINUX), SimulatedHost(FREEBSD)], authorized=[key]) as served:
        served.write_known_hosts(tmp_path / "known_hosts")
        served.set_up(FREEBSD, is_up=False)
        network = Network(served, tmp_path / "key", tmp_path / "known_hosts")
        settings = network.settings(connect_timeout_seconds=5, max_logins=1)
        probe = Ssh(settings, {"account": network.login})

        async def poll_all() -> list[DeviceReading]:
            silent = [
                asyncio.create_task(probe.poll(network.device(FREEBSD, id=str(n)), HOST_METRICS))
                for n in range(200)
            ]
            await asyncio.sleep(0)
            living = await probe.poll(network.device(LINUX), HOST_METRICS)
            still_waiting = sum(not each.done() for each in silent)
            assert (living.reason, still_waiting) == (None, 200)
            return await asyncio.gather(*silent)

        readings = in_probe(probe, poll_all)
    assert {reading.reason for reading in readings} == {Miss.TIMEOUT}


def test_the_time_of_a_log_in_begins_with_its_place(network: Network) -> None:
    mute = "127.0.1.3"
    with SshHosts([SimulatedHost(mute, manner=Manner.MUTE)]) as served:
        settings = network.settings(max_logins=1, answer_timeout_seconds=1.5)
        probe = Ssh(settings, {"account": network.login})

        async def poll_all() -> list[DeviceReading]:
            devices = [network.device(mute, id=str(n), port=served.port) for n in range(2)]
            devices.append(network.device(LINUX))
            return await asyncio.gather(*(probe.poll(each, HOST_METRICS) for each in devices))

        readings = in_probe(probe, poll_all)
    # The last had waited for longer than its own log-in may take.
    assert [reading.reason for reading in readings] == [Miss.TIMEOUT, Miss.TIMEOUT, None]


def test_a_poll_that_is_cancelled_in_line_for_a_log_in_leaves_no_socket(network: Network) -> None:
    network.hosts.hosts[LINUX].manner = Manner.MUTE
    probe = Ssh(network.settings(max_logins=1), {"account": network.login})

    async def cancel_all() -> tuple[int, int]:
        before = sockets()
        polls = [
            asyncio.create_task(probe.poll(network.device(LINUX), HOST_METRICS)) for _ in range(20)
        ]
        while network.hosts.connections[LINUX] < len(polls):
            await asyncio.sleep(0.01)
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)
        while sum(network.hosts.connections.values()):
            await asyncio.sleep(0.01)
        return before, await left_of(before)

    before, after = in_probe(probe, cancel_all)
    assert after <= before


async def left_of(before: int) -> int:
    """How many there are once those that are being closed are closed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while sockets() > before:
                await asyncio.sleep(0.01)
    return sockets()


def sockets() -> int:
    """How many sockets this process has open."""
    return sum(opened.startswith("socket:") for _, opened in listed_descriptors())


@pytest.mark.parametrize("manner", [Manner.MUTE, Manner.SLOW, Manner.FLOODING, Manner.WELL])
def test_a_poll_that_is_cancelled_at_any_moment_leaves_nothing_open(
    network: Network, manner: Manner
) -> None:
    network.hosts.hosts[LINUX].manner = manner
    probe = Ssh(network.settings(), {"account": network.login})

    async def cancel_often() -> tuple[int, int]:
        await cut_off(0.5)  # what is made once, is made
        before = sockets()
        for hundredths in range(0, 20, 2):
            await cut_off(hundredths / 100)
        # The far side of a connection is in this process as well.
        while sum(network.hosts.connections.values()):
            await asyncio.sleep(0.01)
        return before, await left_of(before)

    async def cut_off(seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await probe.poll(network.device(LINUX), HOST_METRICS)

    before, after = in_probe(probe, cancel_often)
    assert after <= before


def test_each_step_is_told_to_the_trace(network: Network) -> None:
    told: list[str] = []
    network.known_hosts.write_text("")
    probe = Ssh(network.settings(trust_on_first_use=True), {"account": network.login})
    in_probe(probe, lambda: probe.poll(network.device(LINUX), HOST_METRICS, told.append))
    assert [line.split(" ")[0] for line in told] == [
        "connecting",
        "connected",
        "host",
        "logged",
        "/bin/sh",
    ]


# What speaks no SSH, or badly


@contextlib.contextmanager
def speaker(says: bytes, then_ends: bool = True) -> Iterator[int]:
    """A server that says `says` to whoever connects; gives its port."""
    with socket.create_server((LOOPBACK, 0)) as listener, contextlib.ExitStack() as guests:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    guest, _address = listener.accept()
                    guests.enter_context(guest)
                    with contextlib.suppress(OSError):
                        guest.sendall(says)
                        if then_ends:
                            guest.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


BANNER = b"SSH-2.0-OpenSSH_9.2\r\n"
NONSENSE = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"SSH-1.5-old\r\n",
    b"\x00" * 100_000,
    b"line\r\n" * 100_000,
    BANNER,
    BANNER + b"\xff" * 5000,
    BANNER + b"\x00\x00\x00\x0c\x0a\x14" + b"\x00" * 20,
    BANNER + b"\x00\x00\x00\x0c\x0a\x15" + b"\x00" * 20,
    BANNER + bytes(range(256)) * 20,
    BANNER + b"\x00\x00\x00\x1c\x04\x01\x00\x00\x00\x02\x00\x00\x00\x04full" + b"\x00" * 12,
]


@pytest.mark.parametrize("says", NONSENSE, ids=range(len(NONSENSE)))
def test_whatever_a_server_says_there_is_a_reading(network: Network, says: bytes) -> None:
    with speaker(says) as port:
        reading = network.poll(network.device(LOOPBACK, port=port), answer_timeout_seconds=20)
    assert reading.reason in (Miss.PARSE, Miss.REFUSED)
    assert set(reading.misses) == set(HOST_METRICS)
    assert reading.is_up == says.startswith(b"SSH-2.0")


def test_a_banner_that_dribbles_is_waited_for_no_longer_than_the_settings_say(
    network: Network,
) -> None:
    with speaker(BANNER[:7], then_ends=False) as port:
        reading = network.poll(network.device(LOOPBACK, port=port), answer_timeout_seconds=0.3)
    assert (reading.is_up, reading.reason) == (False, Miss.TIMEOUT)


# OpenSSH's own server


def poll_sshd(
    folder: Path,
    metrics: Collection[str] = HOST_METRICS,
    options: Sequence[str] = (),
    key_type: str = "ed25519",
) -> DeviceReading:
    """What this machine says of itself through sshd."""
    with sshd(folder, options=options, key_type=key_type) as server:
        login = SshLogin(user=server.user, key_file=server.user_key)
        probe = Ssh(SshSettings(known_hosts=server.known_hosts), {"account": login})
        device = Device("this", "", LOOPBACK, "server", "ssh", server.port, "account")
        return in_probe(probe, lambda: probe.poll(device, metrics))


def test_sshd_tells_of_this_machine_what_one_reads_by_hand(tmp_path: Path) -> None:
    before = float(Path("/proc/uptime").read_text().split()[0])
    reading = poll_sshd(tmp_path)
    after = float(Path("/proc/uptime").read_text().split()[0])
    assert reading.is_up
    assert before <= reading.values[UPTIME] <= after
    physical = [
        folder
        for folder in Path("/sys/class/net").iterdir()
        if (folder / "device").exists() and (folder / "operstate").read_text() == "up\n"
    ]
    if physical:
        now = sum(int((each / "statistics/rx_bytes").read_text()) for each in physical)
        assert 0 < reading.values[NETWORK_RECEIVE] <= now
    words = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    meminfo = {name: int(number) for name, number, *_kb in words}
    used = 100 * (1 - meminfo["MemAvailable:"] / meminfo["MemTotal:"])
    assert reading.values[MEMORY_UTILIZATION] == pytest.approx(used, abs=10)
    assert set(reading.misses) <= {TEMPERATURE, NETWORK_RECEIVE, "network_transmit_bytes_total"}


def interfaces_and_mounts() -> tuple[set[str], set[str]]:
    mounts = Path("/proc/mounts").read_text().splitlines()
    names = {folder.name for folder in Path("/sys/class/net").iterdir()}
    return names, {line.split()[1] for line in mounts}


def test_sshd_names_the_disks_and_interfaces_of_this_machine(tmp_path: Path) -> None:
    before = interfaces_and_mounts()
    reading = poll_sshd(tmp_path, [*HOST_METRICS, *DETAILS])
    names, mounted = map(set.union, before, interfaces_and_mounts())  # others mount meanwhile
    assert reading.details.get(INTERFACES, {}).keys() <= names
    disks = reading.details[DISKS]
    assert disks.keys() <= mounted
    assert max(row[DISK_USAGE] for row in disks.values()) == reading.values[DISK_USAGE]


@pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")
def test_sshd_with_an_rsa_key_and_an_old_key_exchange_is_understood(tmp_path: Path) -> None:
    old = ["KexAlgorithms diffie-hellman-group14-sha256", "Ciphers aes256-ctr"]
    assert poll_sshd(tmp_path, [UPTIME], old, key_type="rsa").reason is None


def test_an_account_may_be_held_to_the_script(tmp_path: Path) -> None:
    reading = poll_sshd(tmp_path, options=[f"ForceCommand /bin/sh {SCRIPT_FILE}"])
    assert CPU_UTILIZATION in reading.values
    assert UPTIME in reading.values


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/usr/sbin/nologin", Miss.REFUSED),
        ("/does/not/exist", Miss.REFUSED),
        ("/bin/true", Miss.PARSE),
        ("echo a start-up file; /bin/sh -s 0; sleep 60", None),
    ],
)
def test_what_sshd_runs_instead_of_the_script_has_its_reason(
    tmp_path: Path, command: str, reason: Miss | None
) -> None:
    reading = poll_sshd(tmp_path, [UPTIME], [f"ForceCommand {command}"])
    assert (reading.is_up, reading.reason) == (True, reason)


def test_a_host_is_reached_through_a_jump_host_over_one_connection(
    network: Network, tmp_path: Path
) -> None:
    (tmp_path / "jump").mkdir()
    with sshd(tmp_path / "jump") as jump:
        with network.known_hosts.open("a") as file:
            file.write(jump.known_hosts.read_text())
        own = SshLogin(user=jump.user, key_file=jump.user_key)
        login = SshLogin(
            user="poller",
            key_file=network.key,
            jump=SshJump(host=LOOPBACK, port=jump.port, login=own),
        )
        probe = Ssh(network.settings(), {"account": login})

        async def poll_some() -> list[DeviceReading]:
            devices = [network.device(LINUX), network.device(FREEBSD)] * 3
            devices.append(network.device(LINUX, port=find_free_port()))
            found = await asyncio.gather(*(probe.poll(each, HOST_METRICS) for each in devices))
            assert len(children(jump.pid)) == 1
            return found

        *reached, beyond = in_probe(probe, poll_some)
        assert [reading.reason for reading in reached] == [None] * 6
        assert (beyond.is_up, beyond.reason) == (False, Miss.REFUSED)
        assert "jump host" in beyond.detail


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_jump_host_that_is_down_is_named_as_the_reason(network: Network) -> None:
    port = find_free_port()
    login = network.login.model_copy(update={"jump": SshJump(host=LOOPBACK, port=port)})
    reading = network.poll(network.device(LINUX), login)
    assert (reading.is_up, reading.reason) == (False, Miss.REFUSED)
    assert f"jump host {LOOPBACK}" in reading.detail


def test_of_several_known_keys_of_a_host_one_it_still_has_will_do(network: Network) -> None:
    """A copy of an operator's known_hosts often has the RSA key alone, or an old one as well."""
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    with network.known_hosts.open("a") as file:
        file.write(f"[{LINUX}]:{network.hosts.port} {other}")
    assert network.poll(network.device(LINUX)).reason is None


def test_a_host_certificate_of_a_known_authority_is_enough(network: Network) -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    public = authority.export_public_key().decode()
    network.known_hosts.write_text(f"@cert-authority * {public}")
    network.hosts.hosts[LINUX].authority = authority
    assert network.poll(network.device(LINUX)).reason is None
    network.hosts.hosts[LINUX].authority = asyncssh.generate_private_key("ssh-ed25519")
    assert network.poll(network.device(LINUX)).reason is Miss.AUTH


def test_nothing_of_ours_is_taken_from_the_home_folder(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/config").write_text("Host *\n  ProxyCommand /bin/false\n  User nobody\n")
    (home / ".ssh/id_ed25519").write_text("not a key")
    monkeypatch.setenv("HOME", str(home))
    assert network.poll(network.device(LINUX)).reason is None
    assert os.environ["HOME"] == str(home)
