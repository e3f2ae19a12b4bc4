"""The sensor that launches runs of telemetry, over a hub on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from metrics_pipeline.core.telemetry_assets import JOB, UPLINKS
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.orchestration.telemetry_sensor import (
    FIRST_PAUSE_SECONDS,
    LEAD_SECONDS,
    LONGEST_PAUSE_SECONDS,
    pause_seconds,
)
from metrics_pipeline.simulators.event_hub.server import epoch_milliseconds
from metrics_pipeline_tests.orchestration.telemetry_pipeline import Telemetry, Ticks, telemetry


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Telemetry]:
    with telemetry(tmp_path) as opened:
        yield opened


def lag(it: Telemetry) -> dict[str, tuple[float, float]]:
    """Events and seconds, by partition, as the exporter would show them."""
    snapshot = it.snapshot(UPLINKS)
    assert snapshot is not None
    return {
        point.tags["partition"]: (
            float(point.fields["lag_events"]),
            float(point.fields["lag_seconds"]),
        )
        for point in snapshot.points
    }


def start(it: Telemetry, run: dg.DagsterRun, seconds_ago: float) -> None:
    """As if the run had started then."""
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
    it.instance.run_storage.handle_run_event(run.run_id, event, at)


def test_it_is_on_by_default(it: Telemetry) -> None:
    (sensor,) = build_definitions(it.settings).sensors or []
    assert isinstance(sensor, dg.SensorDefinition)
    assert sensor.name == "telemetry_backlog"
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_an_idle_hub_launches_no_run(it: Telemetry) -> None:
    ticks = Ticks(it)
    for _ in range(3):
        keys, reason = ticks.tick()
        assert keys == []
        assert reason == "Nothing to do: all events of 2 partitions are stored."
    assert lag(it) == {"0": (0, 0), "1": (0, 0)}


def test_a_backlog_launches_one_run_and_the_cursor_shows_what_was_seen(it: Telemetry) -> None:
    it.send(3, "1")
    ticks = Ticks(it)
    assert ticks.tick() == (["first"], "")
    seen = json.loads(ticks.cursor or "")
    assert (seen["0"]["newest"], seen["0"]["stored"]) == (-1, -1)
    assert (seen["1"]["newest"], seen["1"]["stored"]) == (2, -1)
    assert lag(it)["1"][0] == 3


def test_the_same_backlog_asked_for_twice_has_one_run_key(it: Telemetry) -> None:
    it.send(1)
    assert Ticks(it).tick() == Ticks(it).tick()


def test_nothing_is_launched_while_a_run_is_in_flight(it: Telemetry) -> None:
    it.send(3)
    ticks = Ticks(it)
    job = build_definitions(it.settings).resolve_job_def(JOB)
    run = it.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    keys, reason = ticks.tick()
    assert keys == []
    assert f"Run {run.run_id} is still started: 3 events in 1 of 2 partitions" in reason
    it.instance.report_run_canceled(run)
    assert ticks.tick() == ([f"after {run.run_id}"], "")


def test_a_run_whose_window_ends_soon_is_followed_once_while_it_still_reads(it: Telemetry) -> None:
    it.send(3)
    ticks = Ticks(it)
    job = build_definitions(it.settings).resolve_job_def(JOB)
    assert it.settings.telemetry is not None
    window = it.settings.telemetry.window_seconds
    run = it.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING)
    assert ticks.tick()[0] == []  # one that has not begun has no window yet
    start(it, run, seconds_ago=0)
    assert ticks.tick()[0] == []
    start(it, run, seconds_ago=window - min(LEAD_SECONDS, window / 2))
    assert ticks.tick() == ([f"after {run.run_id}"], "")
    assert ticks.tick() == ([f"after {run.run_id}"], "")  # one key: Dagster launches it once
    follower = it.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING)
    keys, reason = ticks.tick()
    assert keys == []
    assert f"Run {follower.run_id} is still starting" in reason


def test_the_lag_grows_while_nothing_is_stored(it: Telemetry) -> None:
    ticks = Ticks(it)
    it.send(1)
    ticks.tick()
    before = lag(it)["0"]
    it.send(4)
    ticks.tick()
    after = lag(it)["0"]
    assert (before[0], after[0]) == (1, 5)
    assert after[1] > before[1]


def test_after_a_run_that_failed_the_next_one_comes_later(it: Telemetry) -> None:
    it.send(1)
    ticks = Ticks(it)
    job = build_definitions(it.settings).resolve_job_def(JOB)
    run = it.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    it.instance.report_run_failed(run)
    keys, reason = ticks.tick()
    assert keys == []
    assert reason.startswith("The last run failed, the next one comes in ")


@pytest.mark.parametrize(("failed", "pause"), [(1, 10), (2, 20), (3, 40), (4, 60)])
def test_the_more_runs_failed_the_longer_is_the_pause(
    it: Telemetry, failed: int, pause: int
) -> None:
    job = build_definitions(it.settings).resolve_job_def(JOB)
    for _ in range(failed):
        run = it.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        it.instance.report_run_failed(run)
    records = it.instance.get_run_records(limit=failed)
    ended = records[0].end_time or 0.0
    assert pause_seconds(records, ended) == pytest.approx(pause)
    assert pause_seconds(records, ended + pause + 1) == 0
    assert pause_seconds(records, ended - 30) == pause  # clocks of machines differ
    # The clock was set back meanwhile: a pause until then would be one of an hour.
    assert pause_seconds(records, ended - 3600) == 0
    assert FIRST_PAUSE_SECONDS <= pause <= LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize(("lasted", "pause"), [(0, 10), (4, 6), (10, 0), (240, 0)])
def test_a_run_that_served_others_until_its_window_ended_is_followed_at_once(
    it: Telemetry, lasted: int, pause: int
) -> None:
    job = build_definitions(it.settings).resolve_job_def(JOB)
    run = it.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    it.instance.report_run_failed(run)
    (record,) = it.instance.get_run_records()
    ended = record.end_time or 0.0
    assert pause_seconds([record._replace(start_time=ended - lasted)], ended) == pause


def test_a_hub_that_does_not_answer_is_told_and_the_next_tick_asks_anew(it: Telemetry) -> None:
    it.send(2)
    ticks = Ticks(it)
    it.hub.freeze()
    keys, reason = ticks.tick()
    assert keys == []
    assert reason.startswith("How far the hub is was not found out: ")
    assert "no answer within 2 s" in reason
    it.hub.freeze(False)
    assert ticks.tick()[0] == ["first"]


def test_one_connection_is_kept_between_ticks(it: Telemetry) -> None:
    ticks = Ticks(it)
    ticks.tick()
    assert it.hub.close_connections() == 1
    assert "Nothing to do" in ticks.tick()[1]
    ticks.tick()
    assert it.hub.close_connections() == 1


def test_the_connection_string_is_read_again_after_a_failure(it: Telemetry) -> None:
    file = it.folder / "event_hub"
    right = file.read_text()
    file.write_text("Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=b")
    ticks = Ticks(it)
    assert "127.0.0.1:1" in ticks.tick()[1] or "EntityPath" in ticks.tick()[1]
    file.write_text(right)
    assert "Nothing to do" in ticks.tick()[1]


def test_the_asset_is_complete_while_nothing_waits_for_long(it: Telemetry) -> None:
    Ticks(it).tick()
    snapshot = it.snapshot(UPLINKS)
    assert snapshot is not None
    first = snapshot.complete_at_ns
    it.hub.append(b"{}", partition="0", enqueued_ms=epoch_milliseconds() - 60_000)
    Ticks(it).tick()
    snapshot = it.snapshot(UPLINKS)
    assert snapshot is not None
    assert snapshot.complete_at_ns == first
    assert snapshot.updated_at_ns > (first or 0)


def test_a_checkpoint_that_is_ahead_of_the_hub_is_told(it: Telemetry) -> None:
    it.move_checkpoint("0", 7)
    it.send(3)
    ticks = Ticks(it)
    keys, reason = ticks.tick()
    assert keys == []  # a run would read nothing
    assert reason.startswith("A run would find nothing: 3 events in 1 of 2 partitions")
    assert "the checkpoint of partition 0 is ahead of the hub" in reason
    assert "metrics-pipeline telemetry replay" in reason
    assert lag(it)["0"][0] == 3
    snapshot = it.snapshot(UPLINKS)
    assert snapshot is not None
    assert snapshot.complete_at_ns is None
    it.send(1, "1")
    assert ticks.tick()[0] == ["first"]


def test_events_that_the_hub_has_dropped_are_told(it: Telemetry) -> None:
    it.send(10)
    it.move_checkpoint("0", 2)
    it.hub.drop_before("0", 10)
    assert "7 events were gone before they were read" in Ticks(it).tick()[1]
