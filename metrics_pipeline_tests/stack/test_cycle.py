"""A minute's cycle, seen from outside: counts that fall, a hub that hangs, a hub that dies.

And Ctrl-C while a run of telemetry lingers: it ends by itself, and what it has in hand is stored.
One stack, one story; each test goes on where the one before ended.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from metrics_pipeline.core.catalog import LORAWAN_DEVICES
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.core.telemetry_assets import DEVICES as LORAWAN
from metrics_pipeline.core.telemetry_assets import JOB as TELEMETRY_JOB
from metrics_pipeline.simulators.loopback_server import NoAnswer
from metrics_pipeline_tests.orchestration.pipeline import FLEET
from metrics_pipeline_tests.orchestration.telemetry_pipeline import Telemetry, telemetry
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.running_stack import RunningStack
from metrics_pipeline_tests.stack.story import Story, minutely_stack

HANG_SECONDS = 40
"""How long a request waits for a hub that hangs; two of them are longer than a cycle."""

QUEUED_LOOKS = 5
"""The queue is looked at every second: a run that may start does so in this time."""

DEVICES = "iot_hub_portal_device_count"
FAILURES = 'metrics_pipeline_runs_total{job="fleet_counts",status="failure"}'
LAST_SUCCESS = 'metrics_pipeline_last_success_timestamp_seconds{asset="fleet/device_counts"}'

WINDOW_SECONDS = 600
TELEMETRY_RUNS = "SELECT run_id, status FROM runs WHERE pipeline_name = ?"
EVENTS = "SELECT dagster_event_type FROM event_logs WHERE run_id = ? ORDER BY id"


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Telemetry]:
    """Of the stack; nothing is sent before the last test."""
    window = {"telemetry": {"window_seconds": WINDOW_SECONDS}}
    with telemetry(tmp_path_factory.mktemp("minutely"), WINDOW_SECONDS, **window) as made:
        yield made


@pytest.fixture(scope="module")
def story(it: Telemetry) -> Iterator[Story]:
    sections = yaml.safe_load((it.folder / "settings.yaml").read_text())
    with minutely_stack(
        it.folder, request_timeout_seconds=HANG_SECONDS, telemetry=sections["telemetry"]
    ) as running:
        yield running


def test_a_count_that_falls_makes_its_gauge_fall_within_one_cycle(story: Story) -> None:
    assert story.stack.gauge(DEVICES) == 15
    story.fleet.put(replace(FLEET, devices=FLEET.devices[:8]))
    fell = time.time()
    story.stack.wait_until(lambda: story.stack.gauge(DEVICES) == 8, "the gauge has fallen")
    # The next one may have begun before the gauge was looked at.
    assert len(story.started_since(fell)) in (1, 2)


def test_a_tick_while_a_run_is_in_flight_is_skipped_and_the_ui_shows_why(story: Story) -> None:
    story.wait_until_idle()
    story.hub.faults.extend([NoAnswer(), NoAnswer()])
    hanging = story.client.launch(JOB)
    story.stack.wait_until(lambda: story.status(hanging) == "STARTED", "it runs")
    reason = f"Run {hanging} of {JOB} is still started; this tick is skipped"
    story.stack.wait_until(
        lambda: any(reason in shown for shown in story.skip_reasons()),
        "a tick is skipped, and says which run it is for",
    )
    story.end(hanging)  # or the next test waits for it, a cycle longer
    story.hub.faults.clear()


def test_a_run_that_is_cancelled_gives_its_place_to_the_one_that_waits(story: Story) -> None:
    story.wait_until_idle()
    story.hub.faults.extend([NoAnswer(), NoAnswer()])
    first = story.client.launch(JOB)
    story.stack.wait_until(lambda: story.status(first) == "STARTED", "it runs")
    second = story.client.launch(JOB)
    for _ in range(QUEUED_LOOKS):
        assert (story.status(first), story.status(second)) == ("STARTED", "QUEUED")
        time.sleep(1)
    story.cancel(first)
    story.hub.faults.clear()
    story.stack.wait_until(lambda: story.status(second) == "SUCCESS", "the second runs")
    assert story.status(first) == "CANCELED"
    story.stack.wait_until(lambda: first in story.failures_told(), "others are told")


def test_a_hub_that_dies_leaves_the_gauges_and_its_age_grows(story: Story) -> None:
    stack = story.stack
    story.wait_until_idle()
    devices = stack.gauge(DEVICES)
    failures = stack.gauge(FAILURES) or 0
    story.hub.__exit__(None, None, None)
    story.client.launch(JOB)
    stack.wait_until(
        lambda: (stack.gauge(FAILURES) or 0) > failures,
        "the failure is counted",
    )
    success = stack.gauge(LAST_SUCCESS)
    failed = story.client.launch(JOB)
    stack.wait_until(lambda: story.status(failed) == "FAILURE", "it fails")
    assert devices == 8
    assert stack.gauge(DEVICES) == devices
    assert success is not None
    assert stack.gauge(LAST_SUCCESS) == success


def test_of_each_run_that_ended_badly_others_were_told_once(story: Story) -> None:
    """The sensor has looked several times since the first: one was canceled, and two failed."""
    story.stack.wait_until(lambda: len(story.failures_told()) >= 3, "others are told of all")
    assert len(story.failures_told()) == len(set(story.failures_told()))


@pytest.mark.timeout(6 * PATIENCE_SECONDS)
def test_a_run_that_lingers_ends_by_itself_long_before_its_window(
    story: Story, it: Telemetry
) -> None:
    ended_after_seconds = interrupt_while_it_lingers(it, story.stack)
    assert ended_after_seconds < WINDOW_SECONDS / 10
    assert frames_shown(it) == [10]
    assert it.checkpoints()["0"].position.sequence_number == 9
    history = it.folder / "dagster" / "history"
    ((run_id, status),) = selected(history / "runs.db", TELEMETRY_RUNS, TELEMETRY_JOB)
    # Who is killed says nothing any more: it would be STARTED for as long as nobody looks.
    assert status == "FAILURE"
    events = selected(history / "events" / "event_log.db", EVENTS, run_id)
    assert events[-2:] == [("PIPELINE_FAILURE",), ("ENGINE_EVENT",)]


def interrupt_while_it_lingers(it: Telemetry, stack: RunningStack) -> float:
    """Seconds from Ctrl-C until all processes have ended."""
    it.send(5)
    stack.wait_until(lambda: bool(it.checkpoints()), "a run stores")
    it.send(5, first=5)
    stack.wait_until(lambda: len(it.stored()) == 10, "it lingers")
    began = time.monotonic()
    assert stack.interrupt() == 0
    return time.monotonic() - began


def selected(file: Path, query: str, *values: str) -> list[tuple[str, ...]]:
    """The rows of what Dagster has in one of its SQLite files."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query, values).fetchall()


def frames_shown(it: Telemetry) -> object:
    """How many frames of the one device are in the latest values."""
    shown = it.snapshot(LORAWAN)
    rows = [p for p in shown.points if p.measurement == LORAWAN_DEVICES.name] if shown else []
    return [row.fields["frames_received_total"] for row in rows]
