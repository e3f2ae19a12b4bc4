"""Launches runs as Dagster's own launcher does, and can say whether the process of one is there.

A code server that is killed takes its runs with it, and nobody tells Dagster: without this such a
run is in flight until its time is over, and holds its pool. With it run monitoring, which asks
every 5 s, fails a run that has started and that its code server does not know. Of a run that has
not started it does not ask: that is done by who would wait for it (`end_if_dead`).

A code server that does not answer may be starting again, so of its runs nothing is said.
"""

import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing import parent_process
from multiprocessing.connection import wait

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

ASK_SECONDS = 5
LAUNCH_SECONDS = 20.0
"""So long after a run was last heard of its launch may still be on its way to the code server."""

END_SECONDS = 30.0
"""What a run may take to end in an orderly way once its code server has died."""


class WatchedRunLauncher(DefaultRunLauncher):
    """What `dagster.yaml` names."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: run monitoring asks."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """NOT_FOUND only where the code server that was told to start the run does not know it."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "it has ended, or was never launched")
        request = CanCancelExecutionRequest(run_id=run.run_id)
        try:
            answer = deserialize_value(
                client.can_cancel_execution(request, timeout=ASK_SECONDS), CanCancelExecutionResult
            )
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its code server does not answer")
        if answer.can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        said = "its process ended without saying so, by itself or with a code server that is gone"
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, said)


def end_if_dead(instance: dg.DagsterInstance, record: dg.RunRecord, now_seconds: float) -> bool:
    """Whether the run was being started by a code server that has died; then it is failed.

    Of one that has started run monitoring finds out by itself, of one that waits there is no
    process yet. The launcher is made only for a run that was told to a code server: that of a
    cluster needs what only the daemon has there.
    """
    run = record.dagster_run
    if run.status is not dg.DagsterRunStatus.STARTING or GRPC_INFO_TAG not in run.tags:
        return False
    if now_seconds - record.update_timestamp.timestamp() < LAUNCH_SECONDS:
        return False
    launcher = instance.run_launcher
    if not isinstance(launcher, WatchedRunLauncher):
        return False
    health = launcher.check_run_worker_health(run)
    if health.status is not WorkerStatus.NOT_FOUND:
        return False
    instance.report_run_failed(run, f"The run will not start: {health.msg}.")
    return True


def end_with_code_server(*also: int) -> None:
    """In the process of a run: end when the code server has, however that ended.

    Or when one of the file descriptors `also` can be read, which are what else it cannot do
    without. Else the run went on beside the one that follows it. Nothing in any other process, for
    only the code server starts processes by multiprocessing.
    """
    parent = parent_process()
    if parent is not None:
        ends = [parent.sentinel, *also]
        threading.Thread(
            target=_end_after, args=(ends,), name="end with code server", daemon=True
        ).start()


def _end_after(ends: Sequence[int]) -> None:
    """SIGTERM: Dagster reports that the run was interrupted. SIGKILL for one that hangs."""
    wait(ends)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
