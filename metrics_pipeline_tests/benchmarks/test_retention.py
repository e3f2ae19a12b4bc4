"""The benchmark of the retention deletes what it has copied."""

from __future__ import annotations

from metrics_pipeline_tests.benchmarks.retention import bench


def test_a_few_runs_are_deleted_and_measured() -> None:
    figures = bench(5, None)
    assert figures["runs_deleted"] == 5
    assert figures["kB_a_run"] > 10
