"""The benchmark of a day's event log copies runs, and deletes their details."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg

from metrics_pipeline_tests.benchmarks.event_log_day import bench, read_day, sizes_of
from metrics_pipeline_tests.orchestration.dagster_instances import opened


@dg.asset
def purged() -> None: ...


def run_once_and_report_twice(instance: dg.DagsterInstance) -> None:
    """A run of the job `retention`, and reports of no run."""
    job = dg.define_asset_job("retention", [purged])
    definitions = dg.Definitions([purged], jobs=[job])
    definitions.resolve_job_def("retention").execute_in_process(instance=instance)
    for _ in range(2):
        instance.report_runless_asset_event(dg.AssetMaterialization("sampled"))


def test_a_day_is_copied_of_what_there_is(tmp_path: Path) -> None:
    with opened(tmp_path) as instance:
        run_once_and_report_twice(instance)
        (run, *reports) = read_day(instance)
    day = [run, *((name, 3, written) for name, _, written in reports)]
    assert re.fullmatch(r"\d+(\.\d)? kB, 0\.\d MB a day", sizes_of(day)["retention"])
    figures = bench(day, None)
    assert figures["rows_written"] == 24 * len(run[2].events) + 6
    assert figures["rows_left"] == figures["rows_written"] - figures["events_deleted"]
    assert 0 < figures["MB_left"] <= figures["MB_written"]
