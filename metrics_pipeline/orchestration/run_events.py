"""Tells others of every run: that it began, and what became of it. The one place that does.

All that happens in a run passes through its executor, whichever job it is of and whoever launched
it. This one hands on what Dagster's own executor does, and looks at it on the way. What a run that
was killed can no longer say, the sensor `run_failures` does (`run_failure_sensor.py`).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from types import TracebackType
from typing import Self

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.storage.tags import PARTITION_NAME_TAG

from metrics_pipeline.core.device_assets import part_of
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.events import (
    MS_PER_SECOND,
    RunIdentity,
    aggregation_completed,
    aggregation_failed,
    aggregation_started,
)
from metrics_pipeline.core.extras import INSTALL_EXTRAS
from metrics_pipeline.core.maintenance_assets import JOB as RETENTION_JOB
from metrics_pipeline.core.maintenance_assets import RETENTION
from metrics_pipeline.event_publishing import open_publisher
from metrics_pipeline.events.publisher import EventPublisher
from metrics_pipeline.orchestration.failures import ERROR_TYPE
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage import told_failures
from metrics_pipeline.storage.operational import OperationalDatabase

POINTS_STORED = "points_stored"
"""In the metadata of every materialization."""

RETENTION_KEY = dg.AssetKey.from_user_string(RETENTION)

INTERRUPTED = "RunInterrupted"
INTERRUPTED_TEXT = "The run was canceled, or its process was told to end."
INTERRUPTS = (dg.DagsterExecutionInterruptedError, KeyboardInterrupt)


def build_executor(settings: Settings) -> dg.ExecutorDefinition:
    """Dagster's executor in process; with a transport for events, one that tells of each run."""
    in_process = dg.in_process_executor
    if settings.events.transport is None:
        return in_process

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        assert in_process.executor_creation_fn is not None
        return TellingExecutor(in_process.executor_creation_fn(context), settings)

    return dg.ExecutorDefinition(
        name=in_process.name,
        config_schema=in_process.config_schema.as_field(),
        requirements=in_process.get_requirements,
        executor_creation_fn=create,
        description=in_process.description,
    )


def build_poll_executor(settings: Settings) -> dg.ExecutorDefinition | None:
    """Dagster's Celery executor where polls have workers; None is that of all other jobs.

    It takes no configuration of a run: what it needs is in the settings, and the broker's address
    where these say. ConfigurationError if the extra `celery` is not installed.
    """
    workers = settings.sweeps.workers
    if workers is None:
        return None
    if find_spec("dagster_celery") is None:
        raise ConfigurationError(
            "polling.workers", "dagster-celery is not installed", INSTALL_EXTRAS
        )

    def create(_context: dg.InitExecutorContext) -> dg.Executor:
        from metrics_pipeline.orchestration.celery_polls import PollExecutor  # noqa: PLC0415 (slow)

        return PollExecutor(settings, workers)

    return dg.ExecutorDefinition(
        name="celery",
        config_schema={},
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=create,
        description="Each step is polled by a worker of Celery.",
    )


class TellingExecutor(dg.Executor):
    """Executes as `inner` does, and publishes what becomes of the run."""

    def __init__(self, inner: dg.Executor, settings: Settings) -> None:
        self._inner = inner
        self._settings = settings

    @property
    def retries(self) -> RetryMode:
        """Those of `inner`."""
        return self._inner.retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """The events of `inner`."""
        return tell(self._settings, plan_context, self._inner.execute(plan_context, execution_plan))


def tell(
    settings: Settings, plan_context: PlanOrchestrationContext, events: Iterator[dg.DagsterEvent]
) -> Iterator[dg.DagsterEvent]:
    """`events` of a run, and others are told of it, if the settings name a transport."""
    run = plan_context.dagster_run
    if settings.events.transport is None or not is_collection(run):
        yield from events
        return
    identity = identify(plan_context.instance, run)
    note = _noting(settings, run.run_id)
    with RunStory(open_publisher(settings), job_id_of(run), identity, note) as story:
        for event in events:
            story.see(event)
            yield event


class RunStory:
    """What is seen of one run; publishes its beginning, and its end as it is left."""

    def __init__(
        self,
        publisher: EventPublisher,
        job_id: str,
        run: RunIdentity,
        note_failure: Callable[[], None],
    ) -> None:
        self._publisher = publisher
        self._job_id = job_id
        self._run = run
        self._note_failure = note_failure
        self._entries = 0
        self._failure: tuple[str, str] | None = None

    def __enter__(self) -> Self:
        self._began, at = time.monotonic(), time.time()
        self._publisher.publish(aggregation_started(self._job_id, run=self._run, started_at=at))
        return self

    def see(self, event: dg.DagsterEvent) -> None:
        """Count the points of a materialization; keep the first step's failure."""
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            stored = event.materialization.metadata.get(POINTS_STORED)
            self._entries += int(str(stored.value)) if stored is not None else 0
        elif event.event_type is dg.DagsterEventType.STEP_FAILURE and self._failure is None:
            self._failure = explain(event)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if error_type is GeneratorExit:
            pass  # nobody wants to know how it goes on; the sensor sees what Dagster makes of it
        elif error is not None:
            self._fail(*_of_exception(error))
        elif self._failure is not None:
            self._fail(*self._failure)
        else:
            self._complete()
        self._publisher.finish()

    def _complete(self) -> None:
        self._publisher.publish(
            aggregation_completed(
                self._job_id,
                run=self._run,
                entries_processed=self._entries,
                duration_ms=round((time.monotonic() - self._began) * MS_PER_SECOND, 3),
                completed_at=time.time(),
            )
        )

    def _fail(self, error_type: str, message: str) -> None:
        failed = aggregation_failed(
            self._job_id,
            run=self._run,
            error_message=message,
            error_type=error_type,
            failed_at=time.time(),
        )
        self._publisher.publish(failed, self._note_failure)


def is_collection(run: dg.DagsterRun) -> bool:
    """Whether it makes an asset of what others measure.

    A run of nothing but checks collects nothing, nor does one that deletes what is old.
    """
    if run.job_name == RETENTION_JOB:
        return False
    if run.asset_selection:
        return run.asset_selection != {RETENTION_KEY}
    return not run.asset_check_selection


def job_id_of(run: dg.DagsterRun) -> str:
    """The job's name, and which shard of it, where there are any."""
    return part_of(run.job_name, run.tags.get(PARTITION_NAME_TAG, ""))


def identify(instance: dg.DagsterInstance, run: dg.DagsterRun) -> RunIdentity:
    """The run, by what its record says for as long as there is one."""
    record = instance.get_run_record_by_id(run.run_id)
    assert record is not None
    return RunIdentity(run.run_id, record.create_timestamp.timestamp())


def explain(event: dg.DagsterEvent) -> tuple[str, str]:
    """Type and text of what failed a step, in the step's own words; with its secrets."""
    failure = event.step_failure_data
    said, error = failure.user_failure_data, failure.error
    while error is not None and error.cause is not None:
        error = error.cause  # what was raised; around it is which step Dagster ran
    kind = said.metadata.get(ERROR_TYPE) if said else None
    error_type = str(kind.value) if kind else (error.cls_name if error else None)
    if error_type == BaseExceptionGroup.__name__:
        # Of a group of asyncio's tasks. One of exceptions alone would be an ExceptionGroup.
        return INTERRUPTED, INTERRUPTED_TEXT
    text = (said.description if said else None) or (error.message if error else "no message")
    return error_type or "Failure", f"{event.step_key}: {text.strip()}"


def _of_exception(error: BaseException) -> tuple[str, str]:
    if _is_interrupt(error):
        return INTERRUPTED, INTERRUPTED_TEXT
    return type(error).__name__, str(error)


def _is_interrupt(error: BaseException) -> bool:
    """Also where it came as one of several, as out of a group of asyncio's tasks."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(INTERRUPTS) is not None
    return isinstance(error, INTERRUPTS)


def _noting(settings: Settings, run_id: str) -> Callable[[], None]:
    def note() -> None:
        with (
            closing(OperationalDatabase(settings.operational_database)) as database,
            database.writing() as connection,
        ):
            told_failures.note(connection, [run_id], time.time_ns())

    return note
