"""Services and SQL sets, sampled by processes of their own: what is stored, counted and shown."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE
from metrics_pipeline.core.catalog import (
    ARTIFACTS,
    DATABASE_QUERIES,
    FETCH_LATENCY,
    PIPELINE_HEALTH,
    POINTS_SPOOLED,
    POINTS_WRITTEN,
    SAMPLE_SLOTS,
    SCORE,
    SERVICE_METRICS,
)
from metrics_pipeline.core.fetches import from_label, histograms
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.core.service_counters import HEALTHY
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.exporter.serve import build_refresher
from metrics_pipeline.platform_sources import find_sampled
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.simulators.platform_database import create_platform
from metrics_pipeline.simulators.platform_services import Condition, PlatformService
from metrics_pipeline.sources.service_health import NAME as SERVICES
from metrics_pipeline.sources.sql_sets import load_sql_set
from metrics_pipeline.storage import sampling_lease, tallies
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.operational import SAMPLING_LEASE, OperationalDatabase
from metrics_pipeline_tests.exporter.exporter_process import ExporterProcess, exporter_process
from metrics_pipeline_tests.sampling_process import sampling_process
from metrics_pipeline_tests.servers import PLAIN_HTTP, victoria_metrics, wait_until
from metrics_pipeline_tests.storage.test_influx import victoria_metrics_points

SET = "scrape_pipeline"
EVALUATOR = {"rules_evaluated": 12, "alerts_created": 3}
FETCHED = (FETCH_LATENCY.name, ARTIFACTS.name, DATABASE_QUERIES.name, SAMPLE_SLOTS.name)


@pytest.fixture
def evaluator() -> Iterator[PlatformService]:
    with PlatformService(EVALUATOR) as service:
        yield service


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path))


@pytest.fixture
def document(evaluator: PlatformService, tmp_path: Path) -> dict[str, Any]:
    """Settings that sample a service and a scraper's database every second."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/scraper.sqlite")
    create_platform(engine, datetime.now(UTC), Random(5))
    engine.dispose()
    return {
        "version": 1,
        "sources": {},
        "platform": {
            "services": {"evaluator": {"url": evaluator.url}},
            "sample_every_seconds": 1,
        },
        "sql": {
            "databases": {SET: {"url": "sqlite:///scraper.sqlite"}},
            "sets": {SET: {"interval_seconds": 5}},
        },
        "store": {"kind": "embedded", "busy_timeout_seconds": 30},
        "exporter": {"port": 0, "refresh_seconds": 0.2},
    }


def load(folder: Path, document: dict[str, Any]) -> Settings:
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(document))
    return load_settings(file)


def totals_in(settings: Settings) -> dict[str, dict[str, int]]:
    with (
        closing(OperationalDatabase(settings.operational_database)) as database,
        database.reading() as connection,
    ):
        return tallies.totals(connection)


def labelled(totals: dict[str, dict[str, int]], name: str) -> Counter[tuple[str, ...]]:
    return Counter({from_label(label): n for label, n in totals.get(name, {}).items()})


def sampled_slots(settings: Settings, source: str) -> int:
    return labelled(totals_in(settings), SAMPLE_SLOTS.name)[source, "sampled"]


def stored(settings: Settings, measurement: str) -> Sequence[Point]:
    assert isinstance(settings.store, EmbeddedStoreSettings)
    with closing(EmbeddedStore(settings.store)) as store:
        return store.read(measurement, 0, 2**63 - 1)


def times(points: Sequence[Point]) -> int:
    return len({point.time_ns for point in points})


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Another holds the store, so that whoever writes to it waits."""
    assert isinstance(settings.store, EmbeddedStoreSettings)
    with closing(sqlite3.connect(settings.store.path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def let_lease_end(settings: Settings) -> None:
    """As if the time of who was killed were over."""
    with (
        closing(OperationalDatabase(settings.operational_database)) as database,
        database.writing() as connection,
    ):
        owner = connection.execute(sa.select(SAMPLING_LEASE.c.owner)).scalar_one()
        sampling_lease.give_back(connection, owner)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def sample_killed_and_anew(folder: Path, settings: Settings, service: PlatformService) -> None:
    """One process is killed when it has measured and not stored; then another goes on."""
    with sampling_process(folder) as process:
        both = (SERVICES, SET)
        wait_until(
            lambda: all(sampled_slots(settings, name) >= 1 for name in both), "both are sampled"
        )
        with locked(settings):
            asked = len(service.requests)
            # The answer to the first of them has come when the next one is asked for.
            wait_until(lambda: len(service.requests) >= asked + 3, "more was measured")
            kill(process)
    before = sampled_slots(settings, SERVICES)
    let_lease_end(settings)
    with sampling_process(folder):
        wait_until(lambda: sampled_slots(settings, SERVICES) >= before + 2, "it is sampled again")


def assert_counted_once(settings: Settings, service: PlatformService) -> None:
    totals = totals_in(settings)
    slots = labelled(totals, SAMPLE_SLOTS.name)
    found = histograms(totals)
    queries = len([query for query in load_sql_set(SET).queries if "sqlite" in query.sql])
    for source, measurement, figures in (
        (SERVICES, SERVICE_METRICS.name, 1),
        (SET, "scrape_runs", queries),
    ):
        sampled = slots[source, "sampled"]
        assert sampled == times(stored(settings, measurement))
        assert found[source,].buckets[-1] == ("+Inf", sampled)
        assert 0 < found[source,].sum_seconds < 10 * sampled
        assert labelled(totals, ARTIFACTS.name)[source, "ok"] == figures * sampled
    assert labelled(totals, DATABASE_QUERIES.name) == {
        (SET, "true"): queries * slots[SET, "sampled"]
    }
    # Those that were measured when the process was killed are in no total.
    assert len(service.requests) >= slots[SERVICES, "sampled"] + 2


def fetch_lines(url: str) -> list[str]:
    lines = PLAIN_HTTP.get(url).raise_for_status().text.splitlines()
    return sorted(line for line in lines if line.startswith(FETCHED))


def page_of(exporter: ExporterProcess) -> list[str]:
    """Once it has looked for the first time."""
    wait_until(lambda: bool(fetch_lines(exporter.url)), "the page is there")
    return fetch_lines(exporter.url)


def test_nothing_is_counted_twice_whoever_is_killed(
    tmp_path: Path, document: dict[str, Any], evaluator: PlatformService
) -> None:
    # A page is given up 0.2 s before the next sample: of one a second, a busy machine loses some.
    document["platform"]["sample_every_seconds"] = 5
    settings = load(tmp_path, document)
    sample_killed_and_anew(tmp_path, settings, evaluator)
    assert_counted_once(settings, evaluator)
    pages = []
    for _ in range(2):
        with exporter_process(tmp_path) as exporter:
            pages.append(page_of(exporter))
    assert pages[0] == pages[1]
    sampled = sampled_slots(settings, SERVICES)
    assert f'fetch_latency_seconds_count{{source="{SERVICES}"}} {sampled}.0' in pages[0]
    assert f'artifacts_total{{source="{SERVICES}",status="ok"}} {sampled}.0' in pages[0]
    services = stored(settings, SERVICE_METRICS.name)
    assert all(p.fields == {HEALTHY: 1, **EVALUATOR} for p in services)
    assert all(p.time_ns % NS_PER_SECOND == 0 for p in services)
    scores = [p for p in stored(settings, PIPELINE_HEALTH.name) if p.tags["component"] == SCORE]
    assert times(scores) == sampled_slots(settings, SET)


# --- one reading, written -------------------------------------------------------------------------


def write_once(settings: Settings) -> dict[str, tuple[Point, ...]]:
    """A reading of everything that is sampled; its points by source."""
    writer = open_writer(settings.store, settings.operational_database, settings.catalog())
    time_ns = time.time_ns() // NS_PER_SECOND * NS_PER_SECOND
    written = {}
    with closing(writer):
        for sampled in find_sampled(settings):
            with closing(sampled.build()) as source:
                reading = source.read(time_ns)
            assert writer.write(sampled.asset, reading).rejected == {}
            written[sampled.name] = reading.points
    return written


def numbers(points: Sequence[Point]) -> dict[Any, dict[str, FieldValue]]:
    """By series and time. VictoriaMetrics has floats alone, and knows no empty tags."""
    return {
        (p.series, p.time_ns): {k: pytest.approx(float(v), rel=1e-9) for k, v in p.fields.items()}  # type: ignore[misc]
        for p in points
    }


def test_victoriametrics_gives_back_what_services_and_sets_wrote(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    with victoria_metrics(tmp_path / "store") as url:
        store = {"kind": "influxdb", "url": url, "api": "v2", "org": "any"}
        written = write_once(load(tmp_path, {**document, "store": store}))
        assert written.keys() == {SERVICES, SET}
        points = [point for some in written.values() for point in some]
        measurements = {point.measurement for point in points}
        assert {SERVICE_METRICS.name, PIPELINE_HEALTH.name, "scrape_runs"} <= measurements
        for measurement in measurements:
            found = victoria_metrics_points(url, measurement)
            expected = numbers([p for p in points if p.measurement == measurement])
            # The database of a point is a label of its own there.
            assert {
                (without_database(p).series, p.time_ns): dict(p.fields) for p in found
            } == expected


def without_database(point: Point) -> Point:
    tags = {name: value for name, value in point.tags.items() if name != "db"}
    return Point(point.measurement, tags, point.fields, point.time_ns)


# --- what is not configured any more --------------------------------------------------------------


def page(settings: Settings) -> list[str]:
    with closing(build_refresher(settings)) as refresher:
        refresher.refresh()
        return refresher.page.text.plain.decode().splitlines()


def test_what_was_taken_out_of_the_settings_is_not_shown(
    tmp_path: Path, document: dict[str, Any], evaluator: PlatformService
) -> None:
    services = document["platform"]["services"]
    named = {"url": evaluator.url, "counters": ["rules_evaluated", "alerts_created"]}
    services["billing"] = named
    settings = load(tmp_path, document)
    with sampling_process(tmp_path):
        wait_until(lambda: sampled_slots(settings, SET) >= 1, "the set is sampled")
        wait_until(lambda: sampled_slots(settings, SERVICES) >= 1, "the services are sampled")
    before = page(settings)
    assert any('service="billing"' in line for line in before)
    assert "service_rules_evaluated_total" in "".join(
        line for line in before if 'service="billing"' in line
    )
    assert any(line.startswith("pipeline_health_score ") for line in before)
    assert any(f'"{SET}"' in line for line in before)

    # A service that is ill, so that no later reading is complete; the set is gone.
    evaluator.condition = Condition.WRONG_STATUS
    services["billing"] = {**named, "counters": ["rules_evaluated"]}
    without_set = {name: value for name, value in document.items() if name != "sql"}
    settings = load(tmp_path, without_set)
    after = page(settings)
    of_set = [line for line in after if SET in line or line.startswith(("pipeline_", "scrape_"))]
    # So many points of it were written, and kept in the spool before, and that stays so.
    totals = (POINTS_WRITTEN.name, POINTS_SPOOLED.name)
    assert all(line.startswith(totals) for line in of_set)
    billing = [line for line in after if 'service="billing"' in line]
    assert any(line.startswith("service_rules_evaluated_total") for line in billing)
    assert not [line for line in billing if line.startswith("service_alerts_created_total")]

    del services["billing"]
    assert not [line for line in page(load(tmp_path, without_set)) if "billing" in line]
    write_once(load(tmp_path, without_set))
    assert not [line for line in page(load(tmp_path, without_set)) if "billing" in line]
