"""Dagster's daemon, as `metrics-pipeline daemon` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from metrics_pipeline.orchestration.daemon import LOOK_SECONDS, await_set_back
from metrics_pipeline_tests.faults.wrong_clock import make_wrong_clock
from metrics_pipeline_tests.orchestration.dagster_instances import opened

WITHIN_SECONDS = 120.0
HOUR = 3600
QUEUE = "QUEUED_RUN_COORDINATOR"


def seconds_set_back(steps: list[float]) -> float:
    """What is told of a clock that is set by these steps, one a look."""
    moments, passed = iter([0.0, *steps]), 0.0
    ahead = 0.0

    def wait(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    def clock() -> float:
        nonlocal ahead
        ahead += next(moments)
        return 1e9 + passed + ahead

    return await_set_back(wait, clock, lambda: passed)


def test_what_is_set_back_at_once_is_told_and_what_is_slewed_or_set_forward_is_not() -> None:
    assert seconds_set_back([0.0, -HOUR]) == HOUR
    slewed = [-0.0005 * LOOK_SECONDS] * 100_000
    assert seconds_set_back([*slewed, HOUR, -10.0, -60.0]) == 60.0


def test_a_daemon_begins_anew_in_its_process_when_the_clock_is_set_back(tmp_path: Path) -> None:
    (tmp_path / "clock").mkdir()
    clock = make_wrong_clock(tmp_path / "clock")
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    clock.set(HOUR)
    with opened(tmp_path) as instance, (tmp_path / "said").open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "metrics_pipeline", "daemon", "--workspace", str(workspace)],
            env={**os.environ, **clock.environment},
            stdout=file,
            stderr=subprocess.STDOUT,
        )

        def beats() -> dict[str, str]:
            """Which daemon said so last, by the hour that it took it for."""
            beat = instance.get_daemon_heartbeats().get(QUEUE)
            hours = round((beat.timestamp - time.time()) / HOUR) if beat else 0
            return {f"{hours:+} h": beat.daemon_id or ""} if beat else {}

        try:
            wait_until(process, lambda: "+1 h" in beats())
            before = beats()["+1 h"]
            clock.set(0)
            wait_until(process, lambda: "+0 h" in beats())
            assert beats()["+0 h"] != before
        finally:
            process.terminate()
            process.wait(WITHIN_SECONDS)
        assert process.returncode == 0
        said = (tmp_path / "said").read_text()
        assert said.count("The clock was set back by 3600 s: the daemon begins anew.") == 1


def wait_until(process: subprocess.Popen[bytes], is_so: Callable[[], bool]) -> None:
    """While the process runs."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not is_so():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
