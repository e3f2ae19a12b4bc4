"""The benchmark of weeks of runs keeps what the retention leaves, and no more."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from dagster._core.scheduler.instigation import TickStatus

from metrics_pipeline_tests.benchmarks.steady_state import live, read
from metrics_pipeline_tests.benchmarks.test_event_log_day import run_once_and_report_twice
from metrics_pipeline_tests.orchestration.dagster_instances import opened
from metrics_pipeline_tests.orchestration.test_retention import (
    add_sensor_that_is_no_more,
    add_tick,
)


def test_after_a_day_there_is_no_more_than_before(tmp_path: Path) -> None:
    with opened(tmp_path) as instance:
        run_once_and_report_twice(instance)
        sensor = add_sensor_that_is_no_more(instance)
        for minutes in range(3):
            add_tick(instance, sensor, TickStatus.SKIPPED, time.time() - 3600 * minutes)
        day = read(instance)
    (ticks,) = day.ticks
    assert ticks.a_day == 36
    run, *reports = day.written
    few = [run, *((name, 3, written) for name, _, written in reports)]
    (first, second) = live(replace(day, written=few), 2, None)
    assert first["runs"] == second["runs"] == 24
    assert 0 < first["used_MB"] <= first["size_MB"]
