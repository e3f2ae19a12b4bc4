"""Readings of services through the one writer: what is stored, and what the exporter shows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.service_counters import HEALTHY
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.exporter.samples import collect_points
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.simulators.platform_services import Condition, PlatformService
from metrics_pipeline.sources.service_health import ServiceHealth
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.snapshots import Snapshot
from metrics_pipeline.storage.writer import Writer

ASSET = "platform/service_health"
STEP_NS = 5 * NS_PER_SECOND
DELIVERY = {"jobs_succeeded": 9, "jobs_failed": 2, "jobs_pending": 4}


@pytest.fixture
def delivery() -> Iterator[PlatformService]:
    with PlatformService(DELIVERY) as service:
        yield service


@pytest.fixture
def billing() -> Iterator[PlatformService]:
    with PlatformService({"invoices_total": 12}) as service:
        yield service


@pytest.fixture
def settings(
    delivery: PlatformService,
    billing: PlatformService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path))
    monkeypatch.setenv("DELIVERY_HEALTH_URL", delivery.url)
    named = {"url": billing.url, "counters": ["invoices_total"]}
    content = {"version": 1, "sources": {}, "platform": {"services": {"billing": named}}}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(content))
    return load_settings(tmp_path / "settings.yaml")


@pytest.fixture
def writer(settings: Settings) -> Iterator[Writer]:
    opened = open_writer(settings.store, settings.operational_database, settings.catalog())
    with closing(opened) as writer:
        yield writer


@pytest.fixture
def source(settings: Settings) -> Iterator[ServiceHealth]:
    platform = settings.platform
    with closing(ServiceHealth(platform.services, platform.ca_file)) as source:
        yield source


def stored(settings: Settings) -> list[Point]:
    assert isinstance(settings.store, EmbeddedStoreSettings)
    with closing(EmbeddedStore(settings.store)) as store:
        return list(store.read("service_metrics", 0, 2**63 - 1))


def shown(snapshot: Snapshot, settings: Settings) -> dict[str, Mapping[tuple[str, ...], float]]:
    families = collect_points([snapshot], settings.catalog())
    return {samples.family.name: samples.values for samples in families}


def test_every_slot_of_every_service_is_one_point_with_integers(
    source: ServiceHealth, writer: Writer, settings: Settings
) -> None:
    start_ns = time.time_ns() // STEP_NS * STEP_NS
    slots = [start_ns - STEP_NS, start_ns]
    for slot in slots:
        report = writer.write(ASSET, source.read(slot))
        assert (report.accepted, report.rejected) == (2, {})
    found = stored(settings)
    assert sorted((point.time_ns, point.tags["service"]) for point in found) == [
        (slot, name) for slot in slots for name in ("billing", "delivery")
    ]
    for point in found:
        counters = DELIVERY if point.tags["service"] == "delivery" else {"invoices_total": 12}
        assert point.fields == {HEALTHY: 1, **counters}
        assert {type(value) for value in point.fields.values()} == {int}


def test_the_exporter_shows_the_services_by_name_with_the_counters_that_are_named(
    source: ServiceHealth, writer: Writer, settings: Settings
) -> None:
    report = writer.write(ASSET, source.read(time.time_ns()))
    assert shown(report.snapshot, settings) == {
        "service_healthy": {("billing",): 1, ("delivery",): 1},
        "service_invoices_total": {("billing",): 12},
        "service_jobs_succeeded_total": {("delivery",): 9},
        "service_jobs_failed_total": {("delivery",): 2},
        "service_jobs_pending": {("delivery",): 4},
    }


def test_a_reading_is_one_fetch_in_which_a_service_is_ok_or_failed(
    source: ServiceHealth, delivery: PlatformService
) -> None:
    (well,) = source.read(time.time_ns()).fetches
    delivery.condition = Condition.BAD_COUNTERS
    (ill,) = source.read(time.time_ns()).fetches
    assert (well.source, well.succeeded, well.failed) == ("service_health", 2, 0)
    assert (ill.succeeded, ill.failed) == (1, 1)


def test_a_service_that_is_ill_is_0_in_the_store_and_its_gauges_keep_the_last_good_values(
    source: ServiceHealth, writer: Writer, settings: Settings, delivery: PlatformService
) -> None:
    now_ns = time.time_ns()
    writer.write(ASSET, source.read(now_ns - STEP_NS))
    delivery.condition = Condition.WRONG_STATUS
    report = writer.write(ASSET, source.read(now_ns))
    (ill,) = (
        point
        for point in stored(settings)
        if point.time_ns == now_ns and point.tags["service"] == "delivery"
    )
    assert ill.fields == {HEALTHY: 0}
    families = shown(report.snapshot, settings)
    assert families["service_healthy"] == {("billing",): 1, ("delivery",): 0}
    assert families["service_jobs_pending"] == {("delivery",): 4}
