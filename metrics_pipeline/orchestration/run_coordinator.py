"""Puts runs into Dagster's queue, and says so at once to who launches them (`prompt_queue.py`)."""

import threading

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext

SUBMITTED = threading.Event()
"""A run was put into the queue by this process since the queue was last looked at."""


class PromptRunCoordinator(QueuedRunCoordinator):
    """What `dagster.yaml` names."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Put the run into the queue, and wake who launches it if that is in this process."""
        run = super().submit_run(context)
        SUBMITTED.set()
        return run
