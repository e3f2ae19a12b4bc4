"""CPU time of pinging N hosts of loopback once, against Debian's `fping` on the same hosts.

    python -m metrics_pipeline_tests.benchmarks.ping [--hosts N] [--rounds N] [--json]

Everybody's 64-byte requests go through the same kernel, which also answers them: its work for the
hosts is part of all figures. `cpu_s` is `Ping.sweep`, `poll_cpu_s` one task with `Ping.poll` for
each host, both with the default settings. What `fping` takes depends on how fast it may send:
`peer_cpu_s` is its cheapest way, all at once (-i 0); `peer_paced_cpu_s` is at our pace. The start
of its process is in its figures; the start of ours and the imports are not.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metrics_pipeline.core.devices import PING_METRICS, Device
from metrics_pipeline.sources.ping import Ping, PingSettings
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.interleaved import measure_cpu_seconds
from metrics_pipeline_tests.servers import require

SETTINGS = PingSettings()
BUDGET_SECONDS = 60.0


def make_devices(count: int) -> list[Device]:
    """One on each of `count` addresses from 127.1.0.1 on."""
    addresses = (f"127.1.{i // 250}.{i % 250 + 1}" for i in range(count))
    return [Device(each, each, each, "router", "ping") for each in addresses]


def sweep(devices: Sequence[Device]) -> int:
    """How many of `devices` are up, asked by one sweep."""

    async def ask() -> int:
        async with Ping(SETTINGS) as ping:
            found = ping.sweep(devices, PING_METRICS, BUDGET_SECONDS)
            return sum([reading.is_up async for reading in found])

    return asyncio.run(ask())


def poll(devices: Sequence[Device]) -> int:
    """How many of `devices` are up, asked by a task for each."""

    async def ask() -> int:
        async with Ping(SETTINGS) as ping:
            polls = (ping.poll(device, PING_METRICS) for device in devices)
            return sum(reading.is_up for reading in await asyncio.gather(*polls))

    return asyncio.run(ask())


def run_fping(hosts_file: Path, interval_ms: float) -> int:
    """How many of the hosts in the file are up, with a round-trip time printed for each."""
    argv = [require("fping"), "-e", "-i", f"{interval_ms:g}"]
    argv += ["-t", f"{SETTINGS.timeout_seconds * 1000:g}", "-r", str(SETTINGS.tries - 1)]
    done = subprocess.run(
        [*argv, "-f", str(hosts_file)], capture_output=True, text=True, check=False
    )
    return done.stdout.count(" is alive ")


def cpu_seconds() -> float:
    """Of this process and the ones it has started and seen end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(count: int, rounds: int) -> dict[str, Any]:
    """The benchmark's figures, in seconds; everybody must have found all hosts."""
    devices = make_devices(count)
    walls: list[float] = []

    def timed_sweep() -> int:
        started = time.monotonic()
        found = sweep(devices)
        walls.append(time.monotonic() - started)
        return found

    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(device.address for device in devices))
        file.flush()
        hosts_file = Path(file.name)
        pace_ms = 1000 / SETTINGS.requests_per_second
        contenders: dict[str, Callable[[], int]] = {
            "cpu_s": timed_sweep,
            "poll_cpu_s": lambda: poll(devices),
            "peer_cpu_s": lambda: run_fping(hosts_file, 0),
            "peer_paced_cpu_s": lambda: run_fping(hosts_file, pace_ms),
        }
        checked = {name: _finding_all(call, count) for name, call in contenders.items()}
        seconds = measure_cpu_seconds(checked, rounds, cpu_seconds)
    figures = {"hosts": count, "rounds": rounds, "sweep_s": round(statistics.median(walls), 3)}
    return figures | {name: round(value, 4) for name, value in seconds.items()}


def _finding_all(call: Callable[[], int], count: int) -> Callable[[], None]:
    def checked() -> None:
        found = call()
        if found != count:
            raise SystemExit(f"{found} of {count} hosts were found: the figures would not compare")

    return checked


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--hosts", type=int, default=10_000, help="hosts in a round (10000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of (5)")
    options = parser.parse_args(arguments)
    figures = measure(options.hosts, options.rounds)
    show(figures, options)


if __name__ == "__main__":
    main()
