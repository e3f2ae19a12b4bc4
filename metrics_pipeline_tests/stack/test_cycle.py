"""A minute's cycle, seen from outside: counts that fall, a hub that hangs, a hub that dies.

One stack, one story; each test goes on where the one before ended.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.simulators.fleet import Fleet
from metrics_pipeline.simulators.iot_hub import IotHubSimulator
from metrics_pipeline.simulators.loopback_server import NoAnswer
from metrics_pipeline.stack.webserver_client import WebserverClient
from metrics_pipeline_tests.orchestration.pipeline import FLEET, list_concentrators, make_settings
from metrics_pipeline_tests.running_stack import (
    READY,
    READY_WITHIN_SECONDS,
    RunningStack,
    running_stack,
)

CYCLE_SECONDS = 60
HANG_SECONDS = 40
"""How long a request waits for a hub that hangs; two of them are longer than a cycle."""

SLACK_SECONDS = 40
DEVICES = "iot_hub_portal_device_count"
LAST_SUCCESS = 'metrics_pipeline_last_success_timestamp_seconds{asset="fleet/device_counts"}'
SELECTOR = """{repositoryLocationName: "metrics_pipeline", repositoryName: "__repository__",
    scheduleName: "fleet_every_1_minutes"}"""

pytestmark = pytest.mark.xdist_group("cycle")


@dataclass(slots=True)
class Story:
    """The stack, and the hub it counts."""

    stack: RunningStack
    hub: IotHubSimulator
    fleet: Fleet

    @property
    def client(self) -> WebserverClient:
        return WebserverClient(self.stack.webserver_url)

    def status(self, run_id: str) -> str:
        query = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        return str(self.stack.ask(query, id=run_id)["runOrError"]["status"])

    def ticks(self) -> list[dict[str, Any]]:
        query = f"""{{ scheduleOrError(scheduleSelector: {SELECTOR}) {{ ... on Schedule {{
            scheduleState {{ ticks {{ status skipReason runIds }} }} }} }} }}"""
        found: list[dict[str, Any]] = self.stack.ask(query)["scheduleOrError"]["scheduleState"][
            "ticks"
        ]
        return found


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    fleet = Fleet(FLEET)
    with tempfile.TemporaryDirectory() as name, IotHubSimulator(fleet) as hub:
        folder = Path(name)
        list_concentrators(make_settings(folder, hub), FLEET.concentrators)
        settings = folder / "settings.yaml"
        settings.write_text(yaml.safe_dump(document(folder)))
        options = f"PORTS --no-simulator --state-dir {folder} --settings {settings}"
        command = ["sh", "-c", f"exec {sys.executable} -m metrics_pipeline run {options}"]
        with running_stack(command, folder, {}) as stack:
            stack.wait_until(lambda: READY in stack.output, "it is ready", READY_WITHIN_SECONDS)
            yield Story(stack, hub, fleet)


def document(folder: Path) -> dict[str, Any]:
    hub = {
        "connection_string": {"file": str(folder / "connection_string")},
        "scheme": "http",
        "tries": 1,
        "request_timeout_seconds": HANG_SECONDS,
    }
    return {
        "version": 1,
        "sources": {
            "azure_iot_hub": hub,
            "inventory": {"database": {"url": "sqlite:///inventory.sqlite"}},
        },
        "fleet": {"every_minutes": 1, "retry_delay_seconds": 0},
        "exporter": {"refresh_seconds": 1},
    }


def test_a_count_that_falls_makes_its_gauge_fall_within_one_cycle(story: Story) -> None:
    assert story.stack.gauge(DEVICES) == 15
    story.fleet.put(replace(FLEET, devices=FLEET.devices[:8]))
    story.stack.wait_until(
        lambda: story.stack.gauge(DEVICES) == 8,
        "the gauge has fallen",
        CYCLE_SECONDS + SLACK_SECONDS,
    )


def test_a_tick_while_a_run_is_in_flight_is_skipped_and_the_ui_shows_why(story: Story) -> None:
    story.hub.faults.extend([NoAnswer(), NoAnswer()])
    hanging = story.client.launch(JOB)
    story.stack.wait_until(lambda: story.status(hanging) == "STARTED", "it runs", SLACK_SECONDS)
    second = story.client.launch(JOB)

    def is_skipped() -> bool:
        return any(hanging in (tick["skipReason"] or "") for tick in story.ticks()) or any(
            second in (tick["skipReason"] or "") for tick in story.ticks()
        )

    story.stack.wait_until(is_skipped, "a tick is skipped", CYCLE_SECONDS + SLACK_SECONDS)
    reason = next(tick["skipReason"] for tick in story.ticks() if tick["skipReason"])
    assert f"of {JOB} is still" in reason
    if story.status(hanging) == "STARTED":
        assert story.status(second) == "QUEUED"  # the pool lets only one run at a time


def test_a_hub_that_dies_leaves_the_gauges_and_its_age_grows(story: Story) -> None:
    stack = story.stack
    story.hub.__exit__(None, None, None)
    failed = story.client.launch(JOB)
    stack.wait_until(
        lambda: story.status(failed) == "FAILURE", "the run fails", 3 * HANG_SECONDS + SLACK_SECONDS
    )
    before = stack.gauge(LAST_SUCCESS)
    assert before is not None
    stack.wait_until(
        lambda: (
            (stack.gauge('metrics_pipeline_runs_total{job="fleet_counts",status="failure"}') or 0)
            >= 1
        ),
        "the failure is counted",
        SLACK_SECONDS,
    )
    assert stack.gauge(DEVICES) == 8
    assert stack.gauge(LAST_SUCCESS) == before
    assert time.time() > before
