"""The simulated hosts: OpenSSH's own client gets in, and figures wander within reason."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import asyncssh
import pytest

from metrics_pipeline.core.devices import HOST_METRICS, Miss
from metrics_pipeline.simulators.ssh_host import (
    HostFigures,
    Manner,
    SimulatedHost,
    SshHosts,
    lie,
    report,
)
from metrics_pipeline.sources import host_report
from metrics_pipeline.sources.host_report import parse_report
from metrics_pipeline.sources.ssh import SCRIPT
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import require, wait_until
from metrics_pipeline_tests.sshd import make_key

HOST = "127.0.1.1"


def ssh(hosts: SshHosts, folder: Path, command: str) -> subprocess.CompletedProcess[bytes]:
    argv = [require("ssh"), "-F", "none", "-i", str(folder / "key"), "-p", str(hosts.port)]
    argv += ["-o", f"UserKnownHostsFile={folder}/known_hosts", "-o", "BatchMode=yes"]
    argv += ["-l", "poller", HOST, command]
    return subprocess.run(argv, input=SCRIPT, capture_output=True, check=False)


def test_openssh_gets_in_and_reads_what_the_figures_mean(tmp_path: Path) -> None:
    key = asyncssh.read_private_key(make_key(tmp_path / "key"))
    with SshHosts([SimulatedHost(HOST)], authorized=[key]) as hosts:
        hosts.write_known_hosts(tmp_path / "known_hosts")
        done = ssh(hosts, tmp_path, "/bin/sh -s 0.1")
    assert (done.returncode, done.stderr) == (0, b"")
    values = parse_report(done.stdout).values
    expected = HostFigures().values()
    assert {name: values[name] for name in HOST_METRICS[1:]} == pytest.approx(
        {name: expected[name] for name in HOST_METRICS[1:]}
    )


def test_openssh_does_not_believe_a_key_that_changed(tmp_path: Path) -> None:
    key = asyncssh.read_private_key(make_key(tmp_path / "key"))
    host = SimulatedHost(HOST, known_key=asyncssh.generate_private_key("ssh-ed25519"))
    with SshHosts([host], authorized=[key]) as hosts:
        hosts.write_known_hosts(tmp_path / "known_hosts")
        done = ssh(hosts, tmp_path, "/bin/sh -s 0.1")
    assert done.returncode == 255
    assert b"REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr


def test_a_talkative_host_tells_its_date(tmp_path: Path) -> None:
    key = asyncssh.read_private_key(make_key(tmp_path / "key"))
    host = SimulatedHost(HOST, HostFigures(unix_seconds=0.0), Manner.TALKATIVE)
    with SshHosts([host], authorized=[key]) as hosts:
        hosts.write_known_hosts(tmp_path / "known_hosts")
        done = ssh(hosts, tmp_path, "/bin/sh -s 0.1")
    assert b"1970" in done.stdout
    assert parse_report(done.stdout).is_whole


def test_a_stranger_does_not_get_in(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    with SshHosts([SimulatedHost(HOST)]) as hosts:
        hosts.write_known_hosts(tmp_path / "known_hosts")
        done = ssh(hosts, tmp_path, "/bin/sh -s 0")
    assert done.returncode == 255
    assert b"Permission denied" in done.stderr


def test_hosts_that_stop_end_what_is_open(tmp_path: Path) -> None:
    key = asyncssh.read_private_key(make_key(tmp_path / "key"))
    host = SimulatedHost(HOST)
    with SshHosts([host], authorized=[key]) as hosts:
        hosts.write_known_hosts(tmp_path / "known_hosts")
        argv = [require("ssh"), "-F", "none", "-i", str(tmp_path / "key"), "-p", str(hosts.port)]
        argv += ["-o", f"UserKnownHostsFile={tmp_path}/known_hosts", "-o", "BatchMode=yes"]
        client = subprocess.Popen(
            [*argv, "-l", "poller", HOST, "/bin/sh -s 60"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: host.polls == 1, "the script has begun")
    assert client.wait(timeout=PATIENCE_SECONDS) == 255


def test_figures_wander_and_stay_possible() -> None:
    random, figures = Random(1), HostFigures()
    seen = []
    for _ in range(500):
        before = figures
        figures = figures.after(30).wander(random)
        seen.append(figures)
        assert figures.received_bytes >= before.received_bytes
        assert figures.uptime_seconds == before.uptime_seconds + 30
        text = report(figures, [before, figures])
        found = parse_report(text.encode())
        assert not found.misses
    assert min(each.busy_share for each in seen) < 0.1
    assert max(each.busy_share for each in seen) > 0.9


@pytest.mark.parametrize("system", ["Linux", "FreeBSD"])
def test_nothing_a_liar_says_is_believed(system: str) -> None:
    figures = HostFigures(system)
    found = parse_report(lie(report(figures, [figures, figures.after(1)])).encode())
    assert found.is_whole
    assert found.misses == dict.fromkeys(HOST_METRICS, Miss.PARSE)


def test_the_simulator_and_the_parser_mean_the_same_report() -> None:
    text = report(HostFigures(), [HostFigures()])
    assert text.startswith(host_report.BEGIN)
    assert text.rstrip().endswith(host_report.END)
