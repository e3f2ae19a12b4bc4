"""A run whose machine died is ended by its time, so that it does not block what comes after."""

from __future__ import annotations

import logging
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from metrics_pipeline.access.environment import make_dagster_home

LONG_AGO_SECONDS = 3600


@dg.job
def started_from_the_asset_graph() -> None:
    """Has no `dagster/max_runtime`, as Dagster's own job for the asset graph has none."""


def test_a_run_that_died_with_its_machine_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(make_dagster_home(tmp_path)))
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(
            started_from_the_asset_graph, status=dg.DagsterRunStatus.STARTING
        )
        started = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
        instance.report_dagster_event(started, run.run_id)
        _let_time_pass(instance, run.run_id)
        target = EmptyWorkspaceTarget()
        with WorkspaceProcessContext(instance, target) as workspace:
            for _ in range(2):  # asks it to end, then sees that nobody does
                list(execute_run_monitoring_iteration(workspace, logging.getLogger("monitoring")))
        ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.is_finished


def _let_time_pass(instance: dg.DagsterInstance, run_id: str) -> None:
    """Make the run an hour old, in the table that Dagster reads its age from."""
    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql(
            "UPDATE runs SET start_time = start_time - ?, "
            "update_timestamp = datetime(update_timestamp, '-1 hour') WHERE run_id = ?",
            (LONG_AGO_SECONDS, run_id),
        )
