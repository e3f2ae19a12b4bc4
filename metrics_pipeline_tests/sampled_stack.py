"""The whole product as processes, whose code server samples servers of the test's own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.catalog import SAMPLE_SLOTS
from metrics_pipeline.core.fetches import from_label
from metrics_pipeline.core.platform_assets import SENSOR
from metrics_pipeline.settings import Settings
from metrics_pipeline.stack.layout import Layout
from metrics_pipeline.stack.ports import LOOPBACK, find_free_port, is_listening
from metrics_pipeline.stack.processes import Child
from metrics_pipeline.stack.stack import Stack
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.operational import SAMPLING_LEASE, OperationalDatabase
from metrics_pipeline_tests.graphql import ask
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

MODULE = "metrics_pipeline_tests.sampled_definitions"
ROOT = Path(__file__).parents[1]
CODE_SERVER = "code server"

FIND = """{ sensorOrError(sensorSelector: {repositoryLocationName: "metrics_pipeline",
  repositoryName: "__repository__", sensorName: "%s"}) {
    ... on Sensor { sensorState { id status } } } }"""
STOP = """mutation ($id: String!) { stopSensor(id: $id) {
  ... on StopSensorMutationResult { instigationState { status } } } }"""


@dataclass(frozen=True)
class SampledLayout(Layout):
    """Loads other definitions than the product's, which get `variables` in their environment."""

    module: str = MODULE
    variables: Mapping[str, str] = field(default_factory=dict)

    def code_server(self) -> Sequence[str]:
        address = ["--host", LOOPBACK, "--port", str(self.code_server_port)]
        grpc = [sys.executable, "-m", "dagster", "api", "grpc", "--module-name", self.module]
        return [*grpc, *address]

    def environment(self) -> Mapping[str, str]:
        return {**Layout.environment(self), "PYTHONPATH": str(ROOT), **self.variables}


@dataclass(slots=True)
class SampledStack:
    """A stack that runs, and what can be done to it."""

    stack: Stack

    @property
    def code_server(self) -> Child:
        """The process that samples."""
        return next(child for child in self.stack.needed if child.name == CODE_SERVER)

    def kill_code_server(self) -> None:
        """With SIGKILL; its children too."""
        child = self.code_server
        os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
        self.stack.needed.remove(child)

    def start_code_server(self) -> None:
        """Once more, on its port."""
        layout = self.stack.layout
        child = self.stack._start_needed(CODE_SERVER, layout.code_server())
        child.wait_until(lambda: is_listening(layout.code_server_port), PATIENCE_SECONDS)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The `data` of the webserver's answer."""
        return ask(self.stack.layout.webserver_url, query, **variables)

    def is_switched_off(self) -> bool:
        """What the UI shows of the sensor."""
        state = self.ask(FIND % SENSOR)["sensorOrError"]["sensorState"]
        return bool(state["status"] == "STOPPED")

    def switch_off(self) -> None:
        """The sensor, as in the UI."""
        found = self.ask(FIND % SENSOR)["sensorOrError"]["sensorState"]["id"]
        answer = self.ask(STOP, id=found)["stopSensor"]
        assert answer["instigationState"]["status"] == "STOPPED", answer

    def is_loaded(self) -> bool:
        """Whether the webserver knows the sensor: for a while after a restart it does not."""
        return "sensorState" in self.ask(FIND % SENSOR)["sensorOrError"]

    def lease_owner(self) -> str:
        """Who samples; nothing if nobody does."""
        with self._reading() as connection:
            return str(connection.scalar(sa.select(SAMPLING_LEASE.c.owner)))

    def slots(self) -> dict[tuple[str, ...], int]:
        """The total of each source and outcome."""
        with self._reading() as connection:
            totals = tallies.totals(connection).get(SAMPLE_SLOTS.name, {})
        return {from_label(label): number for label, number in totals.items()}

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with (
            closing(OperationalDatabase(self.stack.settings.operational_database)) as database,
            database.reading() as connection,
        ):
            yield connection


@contextmanager
def sampled_stack(
    folder: Path,
    settings_file: Path,
    document: Mapping[str, Any],
    variables: Mapping[str, str],
    *,
    module: str = MODULE,
    say: Callable[[str], None] = lambda _text: None,
) -> Iterator[SampledStack]:
    """Everything runs, and the daemon ticks soon. `document` is what `settings_file` says."""
    web, page, robots, code = (find_free_port() for _ in range(4))
    layout = SampledLayout(folder, settings_file, web, page, robots, code, module, variables)
    settings = Settings.model_validate(document, context={STATE_DIR_KEY: folder})
    stack = Stack(layout, settings, say, threading.Event())
    try:
        layout.prepare()
        if settings.simulator is not None:
            stack.start_simulator()
        stack.start()
        yield SampledStack(stack)
    finally:
        stack.end()
