"""A stack that counts a hub of the test's own every minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from metrics_pipeline.core.events import AGGREGATION_FAILED, parse_event
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.simulators.fleet import Fleet
from metrics_pipeline.simulators.iot_hub import IotHubSimulator
from metrics_pipeline.stack.webserver_client import WebserverClient
from metrics_pipeline_tests.orchestration.pipeline import FLEET, list_concentrators, make_settings
from metrics_pipeline_tests.running_stack import (
    READY,
    RunningStack,
    running_stack,
)

SELECTOR = """{repositoryLocationName: "metrics_pipeline", repositoryName: "__repository__",
    scheduleName: "fleet_every_1_minutes"}"""

EARLY_SECONDS = (5, 30)
"""Of a minute: the tick is over, and the next one is far."""


@dataclass(slots=True)
class Story:
    """The stack, and the hub it counts."""

    stack: RunningStack
    hub: IotHubSimulator
    fleet: Fleet
    folder: Path

    @property
    def client(self) -> WebserverClient:
        """Asks Dagster's webserver."""
        return WebserverClient(self.stack.webserver_url)

    def failures_told(self) -> list[str]:
        """The runs of whose failure others were told."""
        events = map(parse_event, (self.folder / "events.jsonl").read_text().splitlines())
        return [str(e.meta.correlation_id) for e in events if e.type == AGGREGATION_FAILED]

    def status(self, run_id: str) -> str:
        """Of a run."""
        query = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        return str(self.stack.ask(query, id=run_id)["runOrError"]["status"])

    def started_since(self, seconds: float) -> list[str]:
        """The counts that have started since a time, in seconds since the epoch."""
        query = f"""{{ runsOrError(filter: {{pipelineName: "{JOB}"}}) {{ ... on Runs {{
            results {{ runId startTime }} }} }} }}"""
        found = self.stack.ask(query)["runsOrError"]["results"]
        return [run["runId"] for run in found if (run["startTime"] or 0.0) > seconds]

    def cancel(self, run_id: str) -> None:
        """As the UI's button does."""
        assert self.end(run_id) == "TerminateRunSuccess"

    def end(self, run_id: str) -> str:
        """Cancel it if it has not ended; what the UI is told."""
        query = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
        return str(self.stack.ask(query, id=run_id)["terminateRun"]["__typename"])

    def wait_until_idle(self) -> None:
        """Return in the first half of a minute in which no run is on its way.

        What a test starts then is not met by the run of a tick.
        """
        self.stack.wait_until(self._is_idle, "no run is on its way")

    def _is_idle(self) -> bool:
        query = """{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED,
            CANCELING]}) { ... on Runs { results { runId } } } }"""
        is_early = EARLY_SECONDS[0] < time.time() % 60 < EARLY_SECONDS[1]
        return is_early and self.stack.ask(query)["runsOrError"]["results"] == []

    def skip_reasons(self) -> list[str]:
        """Why ticks of the schedule were skipped, as the UI shows it."""
        query = f"""{{ scheduleOrError(scheduleSelector: {SELECTOR}) {{ ... on Schedule {{
            scheduleState {{ ticks {{ skipReason }} }} }} }} }}"""
        ticks = self.stack.ask(query)["scheduleOrError"]["scheduleState"]["ticks"]
        return [tick["skipReason"] for tick in ticks if tick["skipReason"]]


@contextmanager
def minutely_stack(
    folder: Path, request_timeout_seconds: float, **sections: Any
) -> Iterator[Story]:
    """The stack in `folder`, ready, and its hub with the fleet `FLEET`.

    `sections` are added to its settings.
    """
    fleet = Fleet(FLEET)
    with IotHubSimulator(fleet) as hub:
        list_concentrators(make_settings(folder, hub), FLEET.concentrators)
        settings = folder / "settings.yaml"
        document = {**_document(folder, request_timeout_seconds), **sections}
        settings.write_text(yaml.safe_dump(document))
        options = f"PORTS --no-simulator --state-dir {folder} --settings {settings}"
        command = ["sh", "-c", f"exec {sys.executable} -m metrics_pipeline run {options}"]
        with running_stack(command, folder, {}) as stack:
            stack.wait_until(lambda: READY in stack.output, "it is ready")
            yield Story(stack, hub, fleet, folder)


def _document(folder: Path, request_timeout_seconds: float) -> dict[str, Any]:
    hub = {
        "connection_string": {"file": str(folder / "connection_string")},
        "scheme": "http",
        "tries": 1,
        "request_timeout_seconds": request_timeout_seconds,
    }
    return {
        "version": 1,
        "sources": {
            "azure_iot_hub": hub,
            "inventory": {"database": {"url": "sqlite:///inventory.sqlite"}},
        },
        "fleet": {"every_minutes": 1, "retry_delay_seconds": 0},
        "events": {"transport": {"kind": "json_lines"}},
    }
