"""What a run leaves that could not end as it should blocks nothing that comes after."""

from __future__ import annotations

import logging
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.concurrency import execute_concurrency_slots_iteration
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from metrics_pipeline.access.environment import make_dagster_home

LONG_AGO_SECONDS = 3600
POOL = "of_one"
MONITORING = logging.getLogger("monitoring")


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
                list(execute_run_monitoring_iteration(workspace, MONITORING))
        ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.is_finished


def test_a_place_in_a_pool_is_free_again_when_the_run_that_held_it_was_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(make_dagster_home(tmp_path)))
    with dg.DagsterInstance.get() as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots(POOL, 1)
        first, second = (instance.create_run_for_job(started_from_the_asset_graph) for _ in "12")
        assert storage.claim_concurrency_slot(POOL, first.run_id, "step").is_claimed
        assert not storage.claim_concurrency_slot(POOL, second.run_id, "step").is_claimed
        target = EmptyWorkspaceTarget()
        with WorkspaceProcessContext(instance, target) as workspace:
            list(execute_concurrency_slots_iteration(workspace, MONITORING))
            assert storage.get_concurrency_info(POOL).active_run_ids == {first.run_id}
            instance.report_run_canceled(first)
            _let_time_pass(instance, first.run_id)
            list(execute_concurrency_slots_iteration(workspace, MONITORING))
        assert storage.claim_concurrency_slot(POOL, second.run_id, "step").is_claimed


def _let_time_pass(instance: dg.DagsterInstance, run_id: str) -> None:
    """Make the run an hour old, in the table that Dagster reads its age from."""
    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql(
            "UPDATE runs SET start_time = start_time - ?, end_time = end_time - ?, "
            "update_timestamp = datetime(update_timestamp, '-1 hour') WHERE run_id = ?",
            (LONG_AGO_SECONDS, LONG_AGO_SECONDS, run_id),
        )
