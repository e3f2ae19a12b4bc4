"""A minute's cycle, seen from outside: counts that fall, a hub that hangs, a hub that dies.

One stack, one story; each test goes on where the one before ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.simulators.loopback_server import NoAnswer
from metrics_pipeline_tests.orchestration.pipeline import FLEET
from metrics_pipeline_tests.stack.story import Story, minutely_stack

CYCLE_SECONDS = 60
HANG_SECONDS = 40
"""How long a request waits for a hub that hangs; two of them are longer than a cycle."""

SLACK_SECONDS = 40
QUEUED_LOOKS = 5
"""The queue is looked at every second: a run that may start does so in this time."""

DEVICES = "iot_hub_portal_device_count"
FAILURES = 'metrics_pipeline_runs_total{job="fleet_counts",status="failure"}'
LAST_SUCCESS = 'metrics_pipeline_last_success_timestamp_seconds{asset="fleet/device_counts"}'


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with minutely_stack(request_timeout_seconds=HANG_SECONDS) as running:
        yield running


def test_a_count_that_falls_makes_its_gauge_fall_within_one_cycle(story: Story) -> None:
    assert story.stack.gauge(DEVICES) == 15
    story.fleet.put(replace(FLEET, devices=FLEET.devices[:8]))
    story.stack.wait_until(
        lambda: story.stack.gauge(DEVICES) == 8,
        "the gauge has fallen",
        CYCLE_SECONDS + SLACK_SECONDS,
    )


def test_a_tick_while_a_run_is_in_flight_is_skipped_and_the_ui_shows_why(story: Story) -> None:
    story.wait_until_idle()
    story.hub.faults.extend([NoAnswer(), NoAnswer()])
    hanging = story.client.launch(JOB)
    story.stack.wait_until(lambda: story.status(hanging) == "STARTED", "it runs", SLACK_SECONDS)
    reason = f"Run {hanging} of {JOB} is still started; this tick is skipped"
    story.stack.wait_until(
        lambda: any(reason in shown for shown in story.skip_reasons()),
        "a tick is skipped, and says which run it is for",
        CYCLE_SECONDS + SLACK_SECONDS,
    )


def test_a_run_that_is_cancelled_gives_its_place_to_the_one_that_waits(story: Story) -> None:
    story.wait_until_idle()
    story.hub.faults.extend([NoAnswer(), NoAnswer()])
    first = story.client.launch(JOB)
    story.stack.wait_until(lambda: story.status(first) == "STARTED", "it runs", 3 * SLACK_SECONDS)
    second = story.client.launch(JOB)
    for _ in range(QUEUED_LOOKS):
        assert (story.status(first), story.status(second)) == ("STARTED", "QUEUED")
        time.sleep(1)
    story.cancel(first)
    story.hub.faults.clear()
    story.stack.wait_until(
        lambda: story.status(second) == "SUCCESS", "the second runs", 2 * SLACK_SECONDS
    )
    assert story.status(first) == "CANCELED"


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
        3 * HANG_SECONDS + SLACK_SECONDS,
    )
    success = stack.gauge(LAST_SUCCESS)
    failed = story.client.launch(JOB)
    stack.wait_until(lambda: story.status(failed) == "FAILURE", "it fails", 3 * SLACK_SECONDS)
    assert devices == 8
    assert stack.gauge(DEVICES) == devices
    assert success is not None
    assert stack.gauge(LAST_SUCCESS) == success
