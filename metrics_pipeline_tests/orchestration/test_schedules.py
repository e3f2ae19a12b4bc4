"""The schedule, evaluated by Dagster's own scheduler."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.daemon import SchedulerDaemon  # noqa: F401 (first, or the next is a cycle)
from dagster._scheduler.scheduler import launch_scheduled_runs

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE, make_dagster_home
from metrics_pipeline.core.device_assets import METRICS_JOB, STATUS_JOB
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.core.maintenance_assets import JOB as RETENTION_JOB
from metrics_pipeline.orchestration.run_time import SCHEDULED_TAG

NOON = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)
LOG = logging.getLogger("scheduler")


@contextmanager
def scheduler(folder: Path) -> Iterator[WorkspaceProcessContext]:
    """A workspace with our definitions, and an instance like the one that ships."""
    target = ModuleTarget(
        module_name="metrics_pipeline.definitions",
        attribute=None,
        working_directory=str(folder),
        location_name="metrics_pipeline",
    )
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, target) as workspace,
    ):
        yield workspace


def tick(workspace: WorkspaceProcessContext, now: datetime) -> None:
    """One turn of the daemon's loop."""
    list(launch_scheduled_runs(workspace, LOG, now, iteration_times={}))


def test_an_hour_without_a_daemon_is_caught_up_by_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(make_dagster_home(tmp_path)))
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path))
    with scheduler(tmp_path) as workspace:
        tick(workspace, NOON)
        tick(workspace, NOON + timedelta(minutes=5))
        before = runs_by_job(workspace.instance)
        for run in workspace.instance.get_runs():
            workspace.instance.report_run_canceled(run)
        tick(workspace, NOON + timedelta(minutes=65))
        after = runs_by_job(workspace.instance)
    assert set(after) == {JOB, STATUS_JOB, METRICS_JOB, RETENTION_JOB}
    for job, runs in after.items():
        assert len(runs) - len(before.get(job, [])) == 1
        due = datetime.fromisoformat(runs[0].tags[SCHEDULED_TAG])
        minutes = 37 if job == RETENTION_JOB else 65
        assert due == (NOON + timedelta(minutes=minutes)).replace(second=0)


def runs_by_job(instance: dg.DagsterInstance) -> dict[str, list[dg.DagsterRun]]:
    """All runs, the newest first."""
    found: dict[str, list[dg.DagsterRun]] = {}
    for run in instance.get_runs():
        found.setdefault(run.job_name, []).append(run)
    return found
