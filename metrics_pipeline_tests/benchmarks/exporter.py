"""Wall time of a scrape of the exporter, from memory, at rest and while a process writes counts.

    python -m metrics_pipeline_tests.benchmarks.exporter [--json] [--devices N] [--rounds N]

A real exporter process over a real Dagster instance with finished runs, refreshing every 3 s as by
default; one keep-alive connection that asks like Prometheus, 2 ms after each answer. Rounds at rest
rounds with the writer, and rounds with a sweep take turns. The writer stores what a run of counts
stores (three assets, validated, into the embedded store, then the latest values) again 20 ms after
each time, for as long as the round lasts; a run does it once in 5 minutes. Without that pause one
core would be the writer's, and on a small machine the figures would be those of its scheduler.

`--devices` is how many devices are counted, and how many have gauges of their own: 8 each, the
status and 7 metrics. In a round with a sweep all of them have new values once, which the exporter
then reads, renders and compresses while it is scraped: once in the seconds of a round, where a
pipeline has new statuses every 30 s and new metrics every 5 minutes. What the sweep itself costs is
not in it.
`sleep_overshoot_p99_ms` is how much longer a sleep took than asked for: the machine's own noise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import dagster as dg
import sqlalchemy as sa

from metrics_pipeline.access.environment import (
    SETTINGS_VARIABLE,
    STATE_DIR_VARIABLE,
    make_dagster_home,
)
from metrics_pipeline.core.catalog import (
    CATALOG,
    DEVICE_METRICS,
    DEVICE_STATUS,
    FLEET_COUNTS,
    ONLINE,
)
from metrics_pipeline.core.device_assets import STATUS, metrics_asset
from metrics_pipeline.core.devices import HOST_METRICS, Device
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.storage import device_labels, snapshots
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.operational import SNAPSHOTS, OperationalDatabase
from metrics_pipeline.storage.writer import Writer
from metrics_pipeline_tests.exporter.exporter_process import ExporterProcess, exporter_process
from metrics_pipeline_tests.exporter.instance_fixtures import Runs
from metrics_pipeline_tests.servers import wait_until

SETTINGS = """\
version: 1
sources:
  azure_iot_hub: {connection_string: {file: nowhere}}
  inventory: {database: {url: sqlite:///inventory.sqlite}}
fleet: {}
exporter: {port: 0}
polling: {enabled: true}
"""
WRITER_OPTION = "--write-while"
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "Accept-Encoding": "gzip",
}
PAUSE_SECONDS = 0.002
WRITER_PAUSE_SECONDS = 0.02
MS = 1000.0


@dataclass(slots=True)
class Samples:
    """Of each scrape and of each pause before it, in milliseconds."""

    scrape_ms: list[float] = field(default_factory=list)
    overshoot_ms: list[float] = field(default_factory=list)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def write_counts(writer: Writer, settings: Settings, devices: int, turn: int) -> None:
    """What one run stores: every count of every asset, about `devices` of each."""
    now_ns = time.time_ns()
    for asset in settings.fleet_assets():
        points = tuple(
            Point(FLEET_COUNTS.name, {"provider": provider}, {m.field: devices - turn % 7}, now_ns)
            for provider, metrics in asset.asked.items()
            for m in metrics
        )
        writer.write(asset.key, Reading(points))


def pack_sweep(devices: int, turn: int) -> dict[str, bytes]:
    """What one sweep of all devices leaves, by asset, packed as it is stored."""
    random, now_ns = Random(turn), time.time_ns()
    status = (
        Point(DEVICE_STATUS.name, {"device_id": name}, {"status": ONLINE}, now_ns)
        for name in map(device_name, range(devices))
    )
    values = (
        Point(
            DEVICE_METRICS.name,
            {"device_id": name, "metric_name": metric},
            {"value": random.random() * 100},
            now_ns,
        )
        for name in map(device_name, range(devices))
        for metric in HOST_METRICS
    )
    return {STATUS: snapshots.encode(status), metrics_asset("snmp"): snapshots.encode(values)}


def device_name(number: int) -> str:
    """The id of a device."""
    return f"device-{number:05}"


def write_sweep(settings: Settings, bodies: Mapping[str, bytes], devices: int) -> None:
    """Store what was packed; the packing is the run's work, and in another process than this."""
    known = [
        Device(device_name(n), f"{device_name(n)}.example.org", "192.0.2.1", "router", "snmp")
        for n in range(devices)
    ]
    database = OperationalDatabase(settings.operational_database)
    with closing(database), database.writing() as connection:
        for asset, body in bodies.items():
            old = snapshots.replace(connection, asset, (), time.time_ns())
            is_this = SNAPSHOTS.c.asset == old.asset
            connection.execute(sa.update(SNAPSHOTS).where(is_this).values(body=body))
            device_labels.replace(connection, asset, known)


def write_while(flag: Path, devices: int) -> None:
    """The writer's process: stores counts whenever `flag` is there, until it is killed."""
    settings = load_settings()
    turn = 0
    with closing(open_writer(settings.store, settings.operational_database, CATALOG)) as writer:
        while True:
            if flag.exists():
                write_counts(writer, settings, devices, turn)
                turn += 1
            time.sleep(WRITER_PAUSE_SECONDS)


@contextmanager
def writer_process(flag: Path, devices: int) -> Iterator[None]:
    """That process, idle until `flag` is there."""
    module = [sys.executable, "-m", "metrics_pipeline_tests.benchmarks.exporter"]
    with subprocess.Popen([*module, WRITER_OPTION, str(flag), "--devices", str(devices)]) as child:
        try:
            yield
        finally:
            child.kill()


def scrape_for(seconds: float, connection: HTTPConnection, into: Samples) -> None:
    """Scrape again and again."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        before = time.perf_counter()
        time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        connection.request("GET", "/metrics", headers=HEADERS)
        reply = connection.getresponse()
        body = reply.read()
        into.scrape_ms.append((time.perf_counter() - began) * MS)
        into.overshoot_ms.append((began - before - PAUSE_SECONDS) * MS)
        assert reply.status == 200
        assert body


def prepare(state: Path, devices: int) -> None:
    """Settings, an instance with finished runs, and the counts of one run."""
    (state / "settings.yaml").write_text(SETTINGS)
    os.environ.update(
        {
            STATE_DIR_VARIABLE: str(state),
            SETTINGS_VARIABLE: str(state / "settings.yaml"),
            "DAGSTER_HOME": str(make_dagster_home(state)),
        }
    )
    with dg.DagsterInstance.get() as instance:
        runs = Runs(instance)
        for _ in range(3):
            runs.finish()
    settings = load_settings()
    with closing(open_writer(settings.store, settings.operational_database, CATALOG)) as writer:
        write_counts(writer, settings, devices, 0)
    write_sweep(settings, pack_sweep(devices, 0), devices)


def page_of(exporter: ExporterProcess) -> list[str]:
    """The samples on the page, as lines of text."""
    with closing(HTTPConnection(urlsplit(exporter.url).netloc)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def memory_mb_of(pid: int, line: str) -> float:
    """Resident memory of a process in MB (10^6 bytes), from that line of its status in /proc."""
    found = re.search(rf"{line}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def measure(devices: int, rounds: int, seconds: float) -> Mapping[str, float]:
    """The benchmark's figures."""
    at_rest, writing, sweeping = Samples(), Samples(), Samples()
    sweeps = [pack_sweep(devices, turn) for turn in range(1, 3)]
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        prepare(state, devices)
        flag = state / "write"
        with exporter_process(state) as exporter, writer_process(flag, devices):
            wait_until(lambda: _is_whole(page_of(exporter)), "every gauge is on the page")
            with closing(HTTPConnection(urlsplit(exporter.url).netloc)) as connection:
                scrape_for(1.0, connection, Samples())
                for turn in range(rounds):
                    scrape_for(seconds, connection, at_rest)
                    flag.touch()
                    scrape_for(seconds, connection, writing)
                    flag.unlink()
                    write_sweep(load_settings(), sweeps[turn % 2], devices)
                    scrape_for(seconds, connection, sweeping)
            series = len(page_of(exporter))
            memory_mb = memory_mb_of(exporter.process.pid, "VmRSS")
            peak_mb = memory_mb_of(exporter.process.pid, "VmHWM")
    return _figures(at_rest, writing, sweeping) | {
        "rss_mb": round(memory_mb, 1),
        "rss_peak_mb": round(peak_mb, 1),
        "series": series,
        "devices": devices,
    }


def _is_whole(page: Sequence[str]) -> bool:
    text = "".join(page)
    return (
        "iot_hub_portal_concentrator_count" in text
        and "device_up" in text
        and any(line.startswith("metrics_pipeline_runs_total") for line in page)
    )


def _figures(at_rest: Samples, writing: Samples, sweeping: Samples) -> dict[str, float]:
    times = {
        "p50_ms": statistics.median(at_rest.scrape_ms),
        "p99_ms": percentile(at_rest.scrape_ms, 0.99),
        "slowest_ms": max(at_rest.scrape_ms),
        "p50_while_writing_ms": statistics.median(writing.scrape_ms),
        "p99_while_writing_ms": percentile(writing.scrape_ms, 0.99),
        "slowest_while_writing_ms": max(writing.scrape_ms),
        "p50_after_sweep_ms": statistics.median(sweeping.scrape_ms),
        "p99_after_sweep_ms": percentile(sweeping.scrape_ms, 0.99),
        "slowest_after_sweep_ms": max(sweeping.scrape_ms),
        "sleep_overshoot_p99_ms": percentile(at_rest.overshoot_ms, 0.99),
        "sleep_overshoot_p99_while_writing_ms": percentile(writing.overshoot_ms, 0.99),
    }
    counts = {
        "scrapes": len(at_rest.scrape_ms),
        "scrapes_while_writing": len(writing.scrape_ms),
        "scrapes_after_sweep": len(sweeping.scrape_ms),
    }
    return {**{name: round(value, 3) for name, value in times.items()}, **counts}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=1000, help="size of the fleet (1000)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each kind (4)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round (4)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on one line")
    parser.add_argument(WRITER_OPTION, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write_while is not None:
        write_while(options.write_while, options.devices)
        return
    figures = measure(options.devices, options.rounds, options.seconds)
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:40} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
