"""Wall time of a scrape of the exporter, from memory, at rest and while a process writes counts.

    python -m metrics_pipeline_tests.benchmarks.exporter [--json] [--devices N] [--rounds N]

A real exporter process over a real Dagster instance with finished runs, refreshing every 3 s as by
default; one keep-alive connection that asks like Prometheus, 2 ms after each answer. Rounds at rest
rounds with the writer, and rounds with a sweep take turns. The writer stores what a run of counts
stores (three assets, validated, into the embedded store, then the latest values) again 20 ms after
each time, for as long as the round lasts; a run does it once in 5 minutes. Without that pause one
core would be the writer's, and on a small machine the figures would be those of its scheduler.

Everything is on (`everything.py`): `--devices` is how many devices are counted, how many are
polled and have ten series each, and how many LoRaWAN devices send and have six. In a round with a
sweep all of them, and every service and SQL set, have new values once, which the exporter then
reads, renders and compresses while it is scraped: once in the seconds of a round, where a pipeline
has new samples every 5 s, new statuses every 30 s and new metrics every 5 minutes. What storing
costs is not in it.
`freshness_s` is the longest that a value which was stored was not on the page yet, of a count, of a
sample and of a sweep, `--freshness` times each.
`sleep_overshoot_p99_ms` is how much longer a sleep took than asked for: the machine's own noise.
"""

from __future__ import annotations

import argparse
import os
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
from urllib.parse import urlsplit

import dagster as dg
from dagster._daemon.types import DaemonHeartbeat

from metrics_pipeline.access.environment import (
    SETTINGS_VARIABLE,
    STATE_DIR_VARIABLE,
    make_dagster_home,
)
from metrics_pipeline.core.catalog import CATALOG, FLEET_COUNTS
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.dashboards.families import families
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.writer import Writer
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.everything import (
    SETTINGS,
    pack_devices,
    queue_line,
    store_devices,
    store_samples,
    store_totals,
    uptime_line,
)
from metrics_pipeline_tests.benchmarks.figures import memory_mb_of, percentile
from metrics_pipeline_tests.exporter.exporter_process import ExporterProcess, fresh_exporter_process
from metrics_pipeline_tests.exporter.instance_fixtures import Runs
from metrics_pipeline_tests.servers import wait_until

WRITER_OPTION = "--write-while"
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "Accept-Encoding": "gzip",
}
PAUSE_SECONDS = 0.002
WRITER_PAUSE_SECONDS = 0.02
REFRESH_SECONDS = 3.0
"""As by default."""
MS = 1000.0
NOT_SHOWN = {
    "fetch_latency_seconds",  # by its buckets
    "metrics_pipeline_exporter_series_dropped",  # none is
    "metrics_pipeline_spool_oldest_timestamp_seconds",  # nothing waits
}
"""Of all families there are; every other has samples on the page."""
COUNT_GAUGE = "iot_hub_portal_device_count"
FIRST_FRESH_TURN = 10_000
"""What is stored to be looked for is stored at no other time."""


@dataclass(slots=True)
class Samples:
    """Of each scrape and of each pause before it, in milliseconds."""

    scrape_ms: list[float] = field(default_factory=list)
    overshoot_ms: list[float] = field(default_factory=list)


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


def prepare(state: Path, devices: int, refresh_seconds: float = REFRESH_SECONDS) -> None:
    """Settings, an instance with finished runs, and a value of everything."""
    settings_text = SETTINGS.replace("REFRESH_SECONDS", str(refresh_seconds))
    (state / "settings.yaml").write_text(settings_text)
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
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SCHEDULER", None, None))
    settings = load_settings()
    with closing(open_writer(settings.store, settings.operational_database, CATALOG)) as writer:
        write_counts(writer, settings, devices, 0)
    store_totals(settings)
    store_new(settings, pack_devices(devices, 0, time.time_ns()), devices, 0)


def store_new(settings: Settings, bodies: Mapping[str, bytes], devices: int, turn: int) -> None:
    """New values of everything but the counts, which the writer's process stores."""
    store_samples(settings, turn)
    store_devices(settings, bodies, devices)


def measure_freshness(
    settings: Settings, exporter: ExporterProcess, devices: int, times: int
) -> list[float]:
    """Seconds from when a value was stored until a scrape shows it: a count, a sample, a sweep.

    The exporter has just looked when a value is stored, as it has just shown the one before: each
    waits as long as there is to wait.
    """
    waited = []
    with closing(open_writer(settings.store, settings.operational_database, CATALOG)) as writer:
        for turn in range(FIRST_FRESH_TURN, FIRST_FRESH_TURN + times):
            bodies = pack_devices(devices, turn, time.time_ns())
            write_counts(writer, settings, turn, 0)
            waited.append(_seconds_until(f"{COUNT_GAUGE} {float(turn)}", exporter))
            store_samples(settings, turn)
            waited.append(_seconds_until(queue_line(turn), exporter))
            store_devices(settings, bodies, devices)
            waited.append(_seconds_until(uptime_line(turn), exporter))
    return waited


def _seconds_until(line: str, exporter: ExporterProcess) -> float:
    began = time.perf_counter()
    wait_until(lambda: line in page_of(exporter), f"the page has {line}")
    return time.perf_counter() - began


def page_of(exporter: ExporterProcess) -> list[str]:
    """The samples on the page, as lines of text."""
    with closing(HTTPConnection(urlsplit(exporter.url).netloc)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def measure(
    devices: int,
    rounds: int,
    seconds: float,
    freshness: int,
    refresh_seconds: float = REFRESH_SECONDS,
) -> Mapping[str, float]:
    """The benchmark's figures."""
    at_rest, writing, sweeping = Samples(), Samples(), Samples()
    sweeps = [pack_devices(devices, turn, time.time_ns()) for turn in range(1, 3)]
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        prepare(state, devices, refresh_seconds)
        flag = state / "write"
        with fresh_exporter_process(state) as exporter, writer_process(flag, devices):
            wait_until(lambda: _is_whole(page_of(exporter)), "every gauge is on the page")
            with closing(HTTPConnection(urlsplit(exporter.url).netloc)) as connection:
                scrape_for(1.0, connection, Samples())
                for turn in range(rounds):
                    scrape_for(seconds, connection, at_rest)
                    flag.touch()
                    scrape_for(seconds, connection, writing)
                    flag.unlink()
                    store_new(load_settings(), sweeps[turn % 2], devices, turn)
                    scrape_for(seconds, connection, sweeping)
            fresh = measure_freshness(load_settings(), exporter, devices, freshness)
            series = len(page_of(exporter))
            memory_mb = memory_mb_of(exporter.process.pid)
            peak_mb = memory_mb_of(exporter.process.pid, "VmHWM")
    return _figures(at_rest, writing, sweeping) | {
        "rss_mb": round(memory_mb, 1),
        "rss_peak_mb": round(peak_mb, 1),
        "series": series,
        "freshness_s": round(max(fresh), 2),
        "freshness_median_s": round(statistics.median(fresh), 2),
        "devices": devices,
    }


def _is_whole(page: Sequence[str]) -> bool:
    shown = {line.partition("{")[0].partition(" ")[0] for line in page}
    return set(families()) - shown == NOT_SHOWN


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
    parser = parser_of(__doc__)
    parser.add_argument("--devices", type=int, default=1000, help="size of the fleet (1000)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each kind (4)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round (4)")
    help_text = "how often each kind of value is stored and looked for (5)"
    parser.add_argument("--freshness", type=int, default=5, help=help_text)
    help_text = "how often the exporter looks (3)"
    parser.add_argument("--refresh-seconds", type=float, default=REFRESH_SECONDS, help=help_text)
    parser.add_argument(WRITER_OPTION, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write_while is not None:
        write_while(options.write_while, options.devices)
        return
    size = (options.devices, options.rounds, options.seconds, options.freshness)
    figures = measure(*size, options.refresh_seconds)
    show(figures, options)


if __name__ == "__main__":
    main()
