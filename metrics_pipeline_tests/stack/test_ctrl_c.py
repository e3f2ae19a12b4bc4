"""Ctrl-C while a run of telemetry lingers: it ends by itself, and what it has in hand is stored."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from metrics_pipeline.core.catalog import LORAWAN_DEVICES
from metrics_pipeline.core.telemetry_assets import DEVICES, JOB
from metrics_pipeline_tests.orchestration.telemetry_pipeline import Telemetry, telemetry
from metrics_pipeline_tests.running_stack import (
    READY,
    READY_WITHIN_SECONDS,
    RunningStack,
    running_stack,
)

WINDOW_SECONDS = 600
RUN_WITHIN_SECONDS = 60.0
RUN_STATUSES = "SELECT status FROM runs WHERE pipeline_name = ?"
EVENTS = "SELECT dagster_event_type FROM event_logs ORDER BY id"


def selected(file: Path, query: str, *values: str) -> list[str]:
    """The first column of what Dagster has in one of its SQLite files."""
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute(query, values)]


def frames_shown(it: Telemetry) -> object:
    """How many frames of the one device are in the latest values."""
    shown = it.snapshot(DEVICES)
    rows = [p for p in shown.points if p.measurement == LORAWAN_DEVICES.name] if shown else []
    return [row.fields["frames_received_total"] for row in rows]


def interrupt_while_it_lingers(it: Telemetry, stack: RunningStack) -> float:
    """Seconds from Ctrl-C until all processes have ended."""
    stack.wait_until(lambda: READY in stack.output, "it is ready", READY_WITHIN_SECONDS)
    it.send(5)
    stack.wait_until(lambda: bool(it.checkpoints()), "a run stores", RUN_WITHIN_SECONDS)
    it.send(5, first=5)
    stack.wait_until(lambda: len(it.stored()) == 10, "it lingers", RUN_WITHIN_SECONDS)
    began = time.monotonic()
    assert stack.interrupt() == 0
    return time.monotonic() - began


@pytest.mark.timeout(400)
def test_a_run_that_lingers_ends_by_itself_long_before_its_window(tmp_path: Path) -> None:
    window = {"telemetry": {"window_seconds": WINDOW_SECONDS}}
    with telemetry(tmp_path, window_seconds=WINDOW_SECONDS, **window) as it:
        options = f"--no-simulator --state-dir {tmp_path} --settings {tmp_path}/settings.yaml"
        command = f"exec {sys.executable} -m metrics_pipeline run PORTS {options}"
        with running_stack(["sh", "-c", command], tmp_path, {}) as stack:
            ended_after_seconds = interrupt_while_it_lingers(it, stack)
        assert ended_after_seconds < WINDOW_SECONDS / 10
        assert frames_shown(it) == [10]
        assert it.checkpoints()["0"].position.sequence_number == 9
    history = tmp_path / "dagster" / "history"
    # Who is killed says nothing any more: it would be STARTED for as long as nobody looks.
    assert selected(history / "runs.db", RUN_STATUSES, JOB) == ["FAILURE"]
    assert selected(history / "events" / "event_log.db", EVENTS)[-2:] == [
        "PIPELINE_FAILURE",
        "ENGINE_EVENT",
    ]
