"""CPU time of one poll over SSH, beside OpenSSH's `ssh` with a ControlMaster on the same hosts.

    python -m metrics_pipeline_tests.benchmarks.ssh [--hosts N] [--in-flight N] [--json]

The hosts are `simulators/ssh_host.py` in a process of its own. We make a new connection each time,
with its key exchange and log-in, and read the report. The peer's masters are connected before
anything is measured: it opens a channel on them, and what comes back is thrown away. Counted for
the peer are the `ssh` processes, and what their masters use meanwhile; it polls 100 hosts at most.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from metrics_pipeline.core.devices import HOST_METRICS, Device
from metrics_pipeline.simulators.ssh_host import SimulatedHost, SshHosts
from metrics_pipeline.sources.ssh import SCRIPT, Ssh
from metrics_pipeline.sources.ssh_settings import SshLogin, SshSettings
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.servers import require
from metrics_pipeline_tests.sshd import make_key

USER = "poller"
MAX_PEER_HOSTS = 100
PEER_IN_FLIGHT = 16
MASTER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Hosts:
    """Simulated hosts that run, and what opens them."""

    folder: Path
    addresses: tuple[str, ...]
    port: int

    @property
    def key(self) -> Path:
        """The private key of the account."""
        return self.folder / "key"

    @property
    def known_hosts(self) -> Path:
        """All their keys."""
        return self.folder / "known_hosts"


def addresses(count: int) -> tuple[str, ...]:
    """`count` loopback addresses, from 127.0.1.1 on."""
    return tuple(f"127.0.{1 + i // 250}.{1 + i % 250}" for i in range(count))


def serve(folder: Path, count: int) -> None:
    """Be the hosts until standard input ends; print the port."""
    key = asyncssh.read_private_key(folder / "key")
    with SshHosts(map(SimulatedHost, addresses(count)), authorized=[key]) as hosts:
        hosts.write_known_hosts(folder / "known_hosts")
        print(hosts.port, flush=True)
        sys.stdin.read()


def start_hosts(stack: ExitStack, count: int) -> Hosts:
    """`count` hosts in another process, until `stack` is left."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    make_key(folder / "key")
    argv = [sys.executable, "-m", __spec__.name, "--serve", str(folder), "--hosts", str(count)]
    # Left, it closes the process's standard input, which ends it, and waits.
    process = stack.enter_context(
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )
    assert process.stdout is not None
    return Hosts(folder, addresses(count), int(process.stdout.readline()))


def measure_ours(hosts: Hosts, in_flight: int) -> float:
    """CPU milliseconds of this process for one poll, over a sweep of all hosts."""
    started = time.process_time()
    asyncio.run(_sweep(hosts, in_flight))
    return (time.process_time() - started) * 1000 / len(hosts.addresses)


async def _sweep(hosts: Hosts, in_flight: int) -> None:
    settings = SshSettings(known_hosts=hosts.known_hosts, answer_timeout_seconds=60)
    login = SshLogin(user=USER, key_file=hosts.key)
    slots = asyncio.Semaphore(in_flight)
    async with Ssh(settings, {"account": login}) as probe:

        async def poll(address: str) -> None:
            device = Device(address, "", address, "server", "ssh", hosts.port, "account")
            async with slots:
                reading = await probe.poll(device, HOST_METRICS)
            if len(reading.values) != len(HOST_METRICS):
                raise SystemExit(f"{address}: {reading.detail}")

        await asyncio.gather(*map(poll, hosts.addresses))


class Peer:
    """OpenSSH's client with one master for each of the first hosts."""

    def __init__(self, hosts: Hosts, stack: ExitStack) -> None:
        self._hosts = hosts
        self.addresses = hosts.addresses[:MAX_PEER_HOSTS]
        self._ssh = [
            require("ssh"), "-F", "none", "-i", str(hosts.key), "-l", USER, "-p", str(hosts.port),
            "-o", f"UserKnownHostsFile={hosts.known_hosts}", "-o", "BatchMode=yes",
            "-o", f"ControlPath={hosts.folder}/%h", "-o", "LogLevel=ERROR",
        ]  # fmt: skip
        self._masters = [self._start_master(address, stack) for address in self.addresses]
        deadline = time.monotonic() + MASTER_SECONDS
        while not all((hosts.folder / address).exists() for address in self.addresses):
            if time.monotonic() > deadline:
                raise SystemExit("the peer's masters do not connect")
            time.sleep(0.05)

    def measure(self) -> float:
        """CPU milliseconds of one poll, over one of each host."""
        started = self._cpu_seconds()
        asyncio.run(self._sweep())
        return (self._cpu_seconds() - started) * 1000 / len(self.addresses)

    def _start_master(self, address: str, stack: ExitStack) -> int:
        process = subprocess.Popen([*self._ssh, "-M", "-N", address], stdin=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        return process.pid

    def _cpu_seconds(self) -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Masters are no ended children; the first number is their time on a processor, in ns.
        masters = (Path(f"/proc/{pid}/schedstat").read_text() for pid in self._masters)
        return usage.ru_utime + usage.ru_stime + sum(int(m.split()[0]) for m in masters) / 1e9

    async def _sweep(self) -> None:
        slots = asyncio.Semaphore(PEER_IN_FLIGHT)

        async def poll(address: str) -> None:
            async with slots:
                process = await asyncio.create_subprocess_exec(
                    *self._ssh, address, "/bin/sh -s 0", stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )  # fmt: skip
                output, _errors = await process.communicate(SCRIPT)
            if process.returncode or b"report 1 ends" not in output:
                raise SystemExit(f"the peer fails on {address}: {output[-200:]!r}")

        await asyncio.gather(*map(poll, self.addresses))


def measure(count: int, in_flight: int, rounds: int) -> dict[str, float]:
    """The benchmark's figures; ours and the peer's take turns."""
    with ExitStack() as stack:
        hosts = start_hosts(stack, count)
        peer = Peer(hosts, stack)
        ours, theirs = [], []
        measure_ours(Hosts(hosts.folder, hosts.addresses[:10], hosts.port), in_flight)
        for _ in range(rounds):
            ours.append(measure_ours(hosts, in_flight))
            theirs.append(peer.measure())
    return {
        "hosts": count,
        "in_flight": in_flight,
        "cpu_ms_per_poll": round(statistics.median(ours), 2),
        "peer_cpu_ms_per_poll": round(statistics.median(theirs), 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--hosts", type=int, default=200, help="hosts to poll (200)")
    parser.add_argument("--in-flight", type=int, default=100, help="polls at a time (100)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of (3)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve, options.hosts)
        return
    os.environ.pop("SSH_AUTH_SOCK", None)
    figures = measure(options.hosts, options.in_flight, options.rounds)
    show(figures, options)


if __name__ == "__main__":
    main()
