"""InfluxDB's engine is killed in the middle of a run and comes back before the run ends."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from metrics_pipeline.core.catalog import LORAWAN_UPLINK
from metrics_pipeline.core.errors import StoreUnavailable
from metrics_pipeline.ingestion import IngestionReport
from metrics_pipeline.simulators.event_hub.server import serve_event_hub
from metrics_pipeline_tests.ingestion.influxdb_pipeline import influxdb_settings
from metrics_pipeline_tests.ingestion.ingesting import (
    WAIT_SECONDS,
    append,
    errors,
    events,
    not_once,
    pipeline,
)
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import influxdb_1_engine

BEFORE, MEANWHILE, AFTER = 100, 200, 50
"""Numbered events: before the outage, during it, and after it."""

FAILED_WRITES = 3
"""Of the store, each after three tries of the writer: so long it is away."""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """How the run goes is told, and the hub asked, more often than usual."""
    monkeypatch.setattr("metrics_pipeline.ingestion.run.PUBLISH_SECONDS", 0.1)
    monkeypatch.setattr("metrics_pipeline.ingestion.run.ASK_SECONDS", 0.3)


def test_a_store_that_is_away_for_a_part_of_a_run_does_not_end_it_and_every_event_is_stored_once(
    tmp_path: Path,
) -> None:
    reports: list[IngestionReport] = []
    has_stored, has_failed = threading.Event(), threading.Event()
    with (
        serve_event_hub(partition_count=1) as hub,
        influxdb_1_engine(tmp_path / "engine") as engine,
    ):

        def look(report: IngestionReport) -> bool:
            reports.append(report)
            if events(report) == BEFORE:
                has_stored.set()
            if len(report.partitions["0"].failures) >= FAILED_WRITES:
                has_failed.set()
            return events(report) == BEFORE + MEANWHILE + AFTER

        def take_away() -> None:
            assert has_stored.wait(WAIT_SECONDS)
            with engine.outage():
                append(hub, range(BEFORE, BEFORE + MEANWHILE))
                assert has_failed.wait(WAIT_SECONDS)
            append(hub, range(BEFORE + MEANWHILE, BEFORE + MEANWHILE + AFTER))

        made = pipeline(hub, tmp_path, store=influxdb_settings(engine, tmp_path))
        append(hub, range(BEFORE))
        last = made.run(look, meanwhile=take_away)
        assert not_once(engine.read(LORAWAN_UPLINK.name), BEFORE + MEANWHILE + AFTER) == {}
    assert errors(last) == []
    away = [each.partitions["0"] for each in reports if each.partitions["0"].error is not None]
    assert {type(each.error) for each in away} == {StoreUnavailable}
    assert {each.checkpoint.position.sequence_number for each in away if each.checkpoint} == {
        BEFORE - 1
    }
    assert MEANWHILE in {each.lag_events for each in away}
    assert max(each.lag_seconds for each in away) > 0
