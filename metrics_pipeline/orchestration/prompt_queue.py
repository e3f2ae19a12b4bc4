"""Dagster's queue of runs, which is looked at as soon as a run is put into it.

Dagster's own looks every `dequeue_interval_seconds`, so a run waits for half of that on average.
What is submitted in the daemon, by schedules and sensors, wakes this one; a run that is launched
in the UI, which is another process, waits for the next look as ever.
"""

import sys
import threading
from typing import Any

import dagster as dg
from dagster._core.workspace.context import IWorkspaceProcessContext
from dagster._daemon import controller
from dagster._daemon.daemon import DaemonIterator
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon
from dagster._daemon.utils import DaemonErrorCapture

from metrics_pipeline.orchestration.run_coordinator import SUBMITTED


class PromptQueue(QueuedRunCoordinatorDaemon):
    """The thread of the daemon that launches what waits."""

    def core_loop(
        self,
        workspace_process_context: IWorkspaceProcessContext[Any],
        shutdown_event: threading.Event,
    ) -> DaemonIterator:
        """A look whenever a run was submitted, and every `dequeue_interval_seconds`."""
        while not shutdown_event.is_set():
            SUBMITTED.clear()
            try:
                if does_any_wait(workspace_process_context.instance):
                    yield from self.run_iteration(workspace_process_context)
            except Exception:  # noqa: BLE001 (the next look is to come as soon as ever)
                yield DaemonErrorCapture.process_exception(
                    exc_info=sys.exc_info(), logger=self._logger, log_message="Caught an error"
                )
            SUBMITTED.wait(self.interval_seconds)
            yield None


def does_any_wait(instance: dg.DagsterInstance) -> bool:
    """Whether a run is in the queue; Dagster's own look first reads all runs that are going on."""
    queued = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
    return bool(instance.get_run_ids(queued, limit=1))


def look_promptly() -> None:
    """Have Dagster's daemon, in this process, use it."""
    controller.QueuedRunCoordinatorDaemon = PromptQueue  # type: ignore[attr-defined]
