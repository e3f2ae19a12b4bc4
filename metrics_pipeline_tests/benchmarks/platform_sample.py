"""CPU time of one sample of the platform: four services, eleven SQL figures, and keeping both.

    python -m metrics_pipeline_tests.benchmarks.platform_sample [--json] [--samples N] [--rounds N]

The services are a process of their own, as is the PostgreSQL, whose CPU is not counted. Ours is all
of this process: its connections are kept, as between two samples of the sampler. The figures are
those of the set `platform` and the first of `scrape_pipeline`. Kept is as the sampler does: in the
embedded store, and with latest values and totals in the operational database, a SQLite file.
`PARTS` is what is measured, each part by itself.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.catalog import CATALOG, SERVICE_METRICS
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.core.service_counters import HEALTHY, KNOWN_COUNTERS
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.sampling.keeper import Keeper
from metrics_pipeline.sampling.ledger import Ledger
from metrics_pipeline.sampling.pace import USUAL
from metrics_pipeline.sampling.slot import Slot
from metrics_pipeline.simulators.platform_database import create_platform
from metrics_pipeline.simulators.platform_services import serve_platform_services
from metrics_pipeline.sources.service_health import ServiceHealth
from metrics_pipeline.sources.service_health_settings import ServiceSettings
from metrics_pipeline.sources.sql_metrics import SqlMetrics
from metrics_pipeline.sources.sql_sets import SqlSet, extend_catalog, load_sql_set
from metrics_pipeline.storage import sampling_lease
from metrics_pipeline.storage.embedded import EmbeddedStoreSettings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.interleaved import measure_cpu_seconds
from metrics_pipeline_tests.postgresql import running_postgresql

TIME_NS = 1_700_000_000_000_000_000
READY = "ready"
OWNER = "benchmark"
PASSWORD_VARIABLE = "BENCHMARK_PG_PASS"
FIGURES = ("artifact_quality", "price_changes", "prices", "stock")
"""Queries of seven figures; the set `platform` has four."""

Sample = Callable[[], object]


@contextmanager
def four_services() -> Iterator[Sample]:
    """One reading of four services; it has to find all of them healthy."""
    with ExitStack() as running:
        directory = Path(running.enter_context(TemporaryDirectory()))
        running.enter_context(_serving(directory))
        services = {
            name: ServiceSettings.model_validate({"url_from": {"file": directory / f"{name}_url"}})
            for name in KNOWN_COUNTERS
        }
        source = running.enter_context(closing(ServiceHealth(services)))

        def sample() -> None:
            reading = source.read(TIME_NS)
            if [point.fields[HEALTHY] for point in reading.points] != [1] * len(services):
                raise SystemExit(f"not all services were healthy: {reading.failures}")

        yield sample


@contextmanager
def eleven_figures() -> Iterator[Sample]:
    """One reading of eleven figures of a PostgreSQL."""
    with running_postgresql() as server, server.database() as database:
        os.environ[PASSWORD_VARIABLE] = database.password
        password = SecretReference(env=PASSWORD_VARIABLE)
        settings = DatabaseSettings(url=database.plain_url, password=password)
        with _sql_sources(settings) as sources:
            yield lambda: [_read(source) for source in sources]


@contextmanager
def keeping() -> Iterator[Sample]:
    """Keeps the readings of four services and of the eleven figures, for one slot after another."""
    with TemporaryDirectory() as name:
        store = EmbeddedStoreSettings(path=Path(name) / "embedded.sqlite")
        latest = DatabaseSettings(url=f"sqlite:///{name}/operational.sqlite")
        catalog = extend_catalog(CATALOG, eleven_figure_sets())
        with (
            closing(open_writer(store, latest, catalog)) as writer,
            closing(OperationalDatabase(latest)) as database,
            _sql_sources(DatabaseSettings(url=f"sqlite:///{name}/platform.sqlite")) as sources,
        ):
            with database.writing() as connection:
                sampling_lease.take(connection, OWNER, TIME_NS, NS_PER_SECOND)
            ledger = Ledger()
            keeper = Keeper(writer, database, ledger, owner=OWNER, pace=USUAL)
            readings = [Reading(tuple(_service_points())), *map(_read, sources)]
            day_ago_ns = time.time_ns() - 86_400 * NS_PER_SECOND
            slots_ns = itertools.count(day_ago_ns, 5 * NS_PER_SECOND)
            yield partial(_keep, keeper, ledger, readings, slots_ns)


def _service_points() -> Iterator[Point]:
    for service, counters in KNOWN_COUNTERS.items():
        fields = {HEALTHY: 1, **dict.fromkeys(counters, 7)}
        yield Point(SERVICE_METRICS.name, {"service": service}, fields, TIME_NS)


def _keep(
    keeper: Keeper, ledger: Ledger, readings: Sequence[Reading], slots_ns: Iterator[int]
) -> None:
    slot_ns = next(slots_ns)
    names = [f"source {number}" for number in range(len(readings))]
    for name, reading in zip(names, readings, strict=True):
        points = tuple(replace(point, time_ns=slot_ns) for point in reading.points)
        keeper.hand_in(Slot(name, slot_ns, Outcome.SAMPLED, reading=Reading(points)))
    stop = threading.Event()
    stop.set()
    keeper.run(stop)  # which keeps what waits
    kept = [ledger.take(name) for name in names]
    if [each.points for each in kept] != [len(reading.points) for reading in readings]:
        raise SystemExit(f"not all points were kept: {kept}")


def _read(source: SqlMetrics) -> Reading:
    reading = source.read(TIME_NS)
    if reading.failures or not reading.points:
        raise SystemExit(f"not all figures were there: {reading.failures}")
    return reading


def eleven_figure_sets() -> Sequence[SqlSet]:
    """Parts of two sets that ship, with eleven figures together."""
    platform, scrape = load_sql_set("platform"), load_sql_set("scrape_pipeline")
    queries = tuple(query for query in scrape.queries if query.name in FIGURES)
    return (platform, replace(scrape, queries=queries))


@contextmanager
def _sql_sources(database: DatabaseSettings) -> Iterator[Sequence[SqlMetrics]]:
    engine = open_engine(database)
    create_platform(engine, datetime.now(UTC), Random(1))
    engine.dispose()
    with ExitStack() as running:
        yield [
            running.enter_context(closing(SqlMetrics(each, database)))
            for each in eleven_figure_sets()
        ]


PARTS: Mapping[str, Callable[[], Any]] = {
    "services": four_services,
    "sql": eleven_figures,
    "keeping": keeping,
}
"""What a sample is made of, by the beginning of its figure's name."""


@contextmanager
def _serving(directory: Path) -> Iterator[None]:
    command = [sys.executable, "-m", __spec__.name, "--serve", str(directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        if server.stdout.readline().strip() != READY:
            raise SystemExit("the simulated services did not start")
        yield
        server.stdin.close()


def serve(directory: Path) -> None:
    """Be the four services until there is nothing more to read from standard input."""
    with serve_platform_services(directory=directory, step_seconds=3600, seed=1):
        print(READY, flush=True)
        sys.stdin.read()


def measure(samples: int, rounds: int) -> dict[str, Any]:
    """The figures, in milliseconds of CPU a sample, of each part and of all."""
    with ExitStack() as running:
        parts = {name: running.enter_context(part()) for name, part in PARTS.items()}
        contenders = {name: _repeated(sample, samples) for name, sample in parts.items()}
        seconds = measure_cpu_seconds(contenders, rounds)
    each = {f"{name}_cpu_ms": round(spent / samples * 1e3, 3) for name, spent in seconds.items()}
    total = round(sum(seconds.values()) / samples * 1e3, 3)
    return {"samples": samples, "rounds": rounds, **each, "cpu_ms_per_sample": total}


def _repeated(sample: Sample, times: int) -> Sample:
    def repeat() -> None:
        for _ in range(times):
            sample()

    return repeat


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--samples", type=int, default=50, help="samples in a round (50)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds to take the median of (9)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        serve(options.serve)
        return
    figures = measure(options.samples, options.rounds)
    show(figures, options)


if __name__ == "__main__":
    main()
