"""Dagster's Celery executor with the settings of polls, and a worker's side of it.

Only loaded where `polling.workers` is set: it needs the extra `celery`.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from celery import Celery, Task, bootsteps
from celery.exceptions import Ignore
from celery.signals import worker_ready
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import unpack_value
from dagster_celery.executor import CeleryExecutor
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_task

from metrics_pipeline.orchestration.poll_broker import LOOKS_PER_LOSS, broker_options
from metrics_pipeline.orchestration.run_events import tell
from metrics_pipeline.orchestration.schedules import longest_poll_seconds
from metrics_pipeline.settings import Settings, WorkersSettings

logger = logging.getLogger(__name__)


class PollExecutor(CeleryExecutor):
    """Hands each step to a worker, and tells others of the run as it is told of any.

    The address of the broker comes from the settings and stays in this process: it is in no run
    config, no event and no message.
    """

    def __init__(self, settings: Settings, workers: WorkersSettings) -> None:
        options = broker_options(workers, longest_poll_seconds(settings.sweeps))
        super().__init__(retries=RetryMode.ENABLED, **options)  # type: ignore[no-untyped-call]
        self._settings = settings

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """The events of Dagster's executor, and of the workers."""
        events = super().execute(plan_context, execution_plan)  # type: ignore[no-untyped-call]
        return tell(self._settings, plan_context, events)


class LivingWorker(bootsteps.StartStopStep):  # type: ignore[misc]
    """Says again and again that the polls which this worker has taken are not lost.

    Redis hands a message that nobody has called done to another worker after the visibility
    time-out, which therefore would have to be longer than the longest poll. With this it is how
    long a worker may be silent. The main process says so, whatever its children are busy with;
    kombu keeps the time at which a message was handed out as its score in a sorted set.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)
    every_seconds = 1.0

    def start(self, parent: Any) -> None:
        """As soon as the worker takes messages, and again with each new connection."""
        self._timer = parent.timer.call_repeatedly(self.every_seconds, self._renew, (parent,))

    def stop(self, _parent: Any) -> None:
        """The connection is gone, or the worker ends."""
        self._timer.cancel()

    def _renew(self, consumer: Any) -> None:
        channel = consumer.task_consumer.channel
        taken = set(channel.qos._delivered) - set(channel.qos._dirty)
        if taken:
            now = time.time()
            with channel.conn_or_acquire() as client:
                # Only those that are still there: one that was given to another stays there.
                client.zadd(channel.unacked_index_key, dict.fromkeys(taken, now), xx=True)


class PollTask(Task):  # type: ignore[misc]
    """A step of a run; one whose run has ended meanwhile is left, as nobody waits for it."""

    def before_start(self, _task_id: str, _args: Any, kwargs: Mapping[str, Any]) -> None:
        """Look at the run before it is polled for."""
        step = unpack_value(kwargs["execute_step_args_packed"], as_type=ExecuteStepArgs)
        assert step.instance_ref is not None
        with dg.DagsterInstance.from_ref(step.instance_ref) as instance:
            run = instance.get_run_by_id(step.run_id)
        if run is None or run.is_finished:
            logger.warning("Run %s has ended; its poll is not done any more.", step.run_id)
            raise Ignore


def build_worker(settings: Settings, workers: WorkersSettings) -> Celery:
    """The app of a worker: what Dagster's own has, under the settings."""
    arguments = PollExecutor(settings, workers).app_args()  # type: ignore[no-untyped-call]
    app: Celery = make_app(arguments)  # type: ignore[no-untyped-call]
    create_task(app, base=PollTask)  # type: ignore[no-untyped-call]
    every_seconds = workers.lost_after_seconds / LOOKS_PER_LOSS
    step = type("LivingWorker", (LivingWorker,), {"every_seconds": every_seconds})
    app.steps["consumer"].add(step)
    return app


def work(settings: Settings, workers: WorkersSettings, at_once: int, name: str | None) -> None:
    """Take polls, so many at a time, until told to end."""
    app = build_worker(settings, workers)
    worker_ready.connect(_say_ready)
    named = ["--hostname", f"{name}@%h"] if name else []
    only_polls = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--concurrency", str(at_once), *only_polls, *named])


def _say_ready(sender: Any, **_: Any) -> None:
    logger.info("Worker %s takes polls.", sender.hostname)
