"""Telemetry of a whole stack whose runs are killed, and whose store goes away and comes back.

Dagster's own daemon, code server and run launcher, InfluxDB's engine, and numbered events that come
all the time. One stack, one story; each test goes on where the one before ended.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from metrics_pipeline.core.catalog import LORAWAN_UPLINK
from metrics_pipeline.core.events import AGGREGATION_FAILED, parse_event
from metrics_pipeline.core.points import Point
from metrics_pipeline.simulators.event_hub.server import serve_event_hub
from metrics_pipeline_tests.ingestion.influxdb_pipeline import influxdb_settings
from metrics_pipeline_tests.ingestion.ingesting import (
    Pipeline,
    not_once,
    pipeline,
)
from metrics_pipeline_tests.ingestion.sending import Sending
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.running_stack import (
    READY,
    RunningStack,
    running_stack,
)
from metrics_pipeline_tests.soak.watching import parent_of
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import (
    Influxdb1EngineShim,
    influxdb_1_engine,
)

PARTITIONS = 2
WINDOW_SECONDS = 20
"""Of a run: short, so that one ends while the store is away."""

SHORT_LAG_SECONDS = 4.0
"""Of both partitions together, while a run stores what comes."""

RUNS = """{ runsOrError(filter: {pipelineName: "telemetry"}) { ... on Runs { results {
    runId status } } } }"""
LOG = """query ($id: ID!) { runOrError(runId: $id) { ... on Run { eventConnection { events {
    ... on MessageEvent { message }
    ... on ExecutionStepFailureEvent { error { message } } } } } } }"""
PROCESS = re.compile(r"Started process for run \(pid: (\d+)\)")
LAG = re.compile(r"^metrics_pipeline_eventhub_lag_(events|seconds)\{.*\} (\S+)$", re.MULTILINE)


@dataclass(slots=True)
class Story:
    """The stack, what it reads and where it writes."""

    folder: Path
    opened: ExitStack
    engine: Influxdb1EngineShim
    made: Pipeline
    sending: Sending
    stack: RunningStack = field(init=False)

    def start_stack(self) -> None:
        """Start it, and return once it is ready."""
        settings = self.folder / "settings.yaml"
        options = f"PORTS --no-simulator --state-dir {self.folder} --settings {settings}"
        command = ["sh", "-c", f"exec {sys.executable} -m metrics_pipeline run {options}"]
        stack = self.opened.enter_context(running_stack(command, self.folder, {}))
        stack.wait_until(lambda: READY in stack.output, "it is ready")
        self.stack = stack

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        self.stack.wait_until(condition, what)

    def runs(self) -> dict[str, str]:
        """Of telemetry, the newest first: the status of each."""
        found = self.stack.ask(RUNS)["runsOrError"]["results"]
        return {run["runId"]: run["status"] for run in found}

    def failed(self) -> set[str]:
        return {run for run, status in self.runs().items() if status == "FAILURE"}

    def newest_run(self) -> tuple[str, str]:
        """And its status; nothing before there is one."""
        return next(iter(self.runs().items()), ("", ""))

    def process(self, run_id: str) -> int:
        """That of a run."""
        found = PROCESS.search(self.log(run_id))
        assert found is not None
        return int(found[1])

    def log(self, run_id: str) -> str:
        """What Dagster has noted of a run."""
        events = self.stack.ask(LOG, id=run_id)["runOrError"]["eventConnection"]["events"]
        errors = [(each.get("error") or {}).get("message", "") for each in events]
        return "\n".join([*(each.get("message", "") for each in events), *errors])

    def wait_for_run_that_stores(self) -> str:
        """The run that has just moved a checkpoint."""
        before = self.checkpoints()
        self.wait_until(
            lambda: self.checkpoints() != before and self.newest_run()[1] == "STARTED",
            "a run moves a checkpoint",
        )
        return self.newest_run()[0]

    def stored(self) -> list[Point]:
        return self.engine.read(LORAWAN_UPLINK.name)

    def checkpoints(self) -> Mapping[str, int]:
        """The sequence number of each partition."""
        with self.made.opened() as (stream, stores):
            hub = (stream.namespace, stream.hub, stream.consumer_group)
            found = stores.checkpoints.find_all(*hub)
        return {name: each.position.sequence_number for name, each in found.items()}

    def told_failures(self) -> list[str]:
        """The runs of whose failure others were told."""
        events = map(parse_event, (self.folder / "events.jsonl").read_text().splitlines())
        return [str(e.meta.correlation_id) for e in events if e.type == AGGREGATION_FAILED]

    def lag(self, what: str) -> float:
        """The `events`, or `seconds`, on the exporter's page, of all partitions together."""
        found = LAG.findall(self.stack.page())
        return sum(float(value) for name, value in found if name == what)


def settings_of(made: Pipeline) -> dict[str, Any]:
    secret = {"file": str(made.connection_string_file)}
    return {
        "version": 1,
        "sources": {},
        "telemetry": {
            "source": {"connection_string": secret},
            "decode": {"is_iot_hub": False},
            "window_seconds": WINDOW_SECONDS,
        },
        "store": made.store.model_dump(mode="json", exclude_none=True),
        "exporter": {"refresh_seconds": 0.5},
        "events": {"transport": {"kind": "json_lines"}},
    }


@contextmanager
def story_in(folder: Path) -> Iterator[Story]:
    """The stack, ready, with events that come."""
    with ExitStack() as opened:
        hub = opened.enter_context(serve_event_hub(partition_count=PARTITIONS))
        engine = opened.enter_context(influxdb_1_engine(folder / "engine"))
        made = pipeline(hub, folder, store=influxdb_settings(engine, folder))
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings_of(made)))
        story = Story(folder, opened, engine, made, Sending(hub, PARTITIONS))
        story.start_stack()
        opened.enter_context(story.sending)
        yield story


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with tempfile.TemporaryDirectory() as name, story_in(Path(name)) as running:
        yield running


def test_a_run_whose_process_is_killed_is_found_dead_and_the_sensor_launches_the_next(
    story: Story,
) -> None:
    killed = story.wait_for_run_that_stores()
    os.kill(story.process(killed), signal.SIGKILL)
    story.wait_until(lambda: story.runs()[killed] == "FAILURE", "it is found dead")
    assert "terminated by signal 9" in story.log(killed)
    following = story.wait_for_run_that_stores()
    assert following != killed


def test_a_run_that_died_with_its_code_server_is_ended_by_the_next_one_and_another_is_launched(
    story: Story,
) -> None:
    dead = story.wait_for_run_that_stores()
    process = story.process(dead)
    forked_from = parent_of(process)
    code_server = parent_of(forked_from)
    for each in (process, forked_from):
        os.kill(each, signal.SIGSTOP)  # so that neither says anything of what comes
    for each in (code_server, forked_from, process):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    assert story.stack.process.wait(PATIENCE_SECONDS) == 1, story.stack.output
    before = story.checkpoints()
    story.start_stack()
    following = story.wait_for_run_that_stores()
    assert following != dead
    # The following one may have been taking over from it when it died.
    story.wait_until(lambda: story.runs()[dead] in ("FAILURE", "CANCELED"), "it is ended")
    assert story.checkpoints() != before


def test_while_the_store_is_away_no_checkpoint_moves_and_the_exporter_shows_the_lag(
    story: Story,
) -> None:
    story.wait_for_run_that_stores()
    story.wait_until(lambda: story.lag("seconds") < SHORT_LAG_SECONDS, "all is stored in time")
    failed = story.failed()
    with story.engine.outage():
        story.wait_until(lambda: story.lag("seconds") > SHORT_LAG_SECONDS, "a lag is shown")
        before, events, seconds = story.checkpoints(), story.lag("events"), story.lag("seconds")
        story.wait_until(lambda: story.failed() != failed, "a run fails")
        story.wait_until(lambda: story.lag("events") > events, "the lag grows")
        assert story.lag("seconds") > seconds
        assert story.checkpoints() == before
    # Two, where one was taking over from the other. It says what was away.
    ended = story.failed() - failed
    assert any(story.engine.host in story.log(run) for run in ended)
    following = story.wait_for_run_that_stores()
    assert following not in ended


def test_after_all_that_every_event_is_stored_exactly_once_and_no_lag_is_left(
    story: Story,
) -> None:
    story.sending.stop()
    count = story.sending.count
    story.wait_until(lambda: len(story.stored()) >= count, "all is stored")
    assert not_once(story.stored(), count) == {}
    story.wait_until(lambda: story.lag("events") == 0, "no lag is shown")


def test_after_all_that_others_were_told_of_each_run_that_failed_once(story: Story) -> None:
    story.wait_until(lambda: set(story.told_failures()) >= story.failed(), "all are told")
    assert len(story.told_failures()) == len(set(story.told_failures()))
