"""Tells of runs that failed and could not say so themselves: killed, canceled, never started.

Dagster's own run-status sensors look at one run of the event log after the other; this one asks for
all runs that ended since its last look at once, so it never falls behind. What others have been
told of is in the operational database: a failure that its run has published is not published
again, nor is one of which a tick has told whose cursor was lost. A failure that is sent twice
nevertheless (whoever sent it died before it could note that) has the same id both times.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import dagster as dg

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.catalog import EVENTS_PUBLISHED
from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.events import Event, RunIdentity, aggregation_failed
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.events.open import open_transport
from metrics_pipeline.events.settings import TransportSettings
from metrics_pipeline.events.transport import Transport
from metrics_pipeline.orchestration.run_events import explain, is_collection, job_id_of
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage import tallies, told_failures
from metrics_pipeline.storage.operational import OperationalDatabase

SENSOR = "run_failures"
INTERVAL_SECONDS = 15

GRACE_SECONDS = 3.0
"""A run that has ended is left alone for so long: its process may still be sending."""

OVERLAP_SECONDS = 120.0
"""Ends this long before the last look are looked at again: clocks of machines differ."""

MOST_TOLD = 200
"""At one look: each is two questions to Dagster's database, and a tick has a minute."""

CANCELED, FAILED = "RunCanceled", "RunFailed"
UNSUCCESSFUL = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


Runs = Sequence[dg.RunRecord]


class FailureWatch:
    """Looks for runs that ended badly and that nobody was told of, and tells of them.

    May be shared between threads: beside the daemon somebody may try a tick in the UI.
    """

    def __init__(
        self,
        transport: TransportSettings,
        database: DatabaseSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = transport
        self._transport: Transport | None = None
        self._database = OperationalDatabase(database)
        self._clock = clock
        self._lock = threading.Lock()

    def look(
        self, instance: dg.DagsterInstance, is_ours: Callable[[dg.DagsterRun], bool], since: float
    ) -> tuple[Sequence[Event], float]:
        """What was told now, and from when on to look the next time; seconds since the epoch.

        Raises MetricsPipelineError where the transport or the database is away; then the next look
        has to be from `since` on again.
        """
        with self._lock:
            now = self._clock()
            # One of the future is a look from before the clock was set back.
            found = _find_ended(instance, min(since, now))
            ended = [each for each in found if is_ours(each.dagster_run)]
            ripe = [each for each in ended if now - _end_of(each) >= GRACE_SECONDS]
            untold = self._untold(ripe)
            events = [_event(instance, record) for record in untold[:MOST_TOLD]]
            self._tell(events, now)
        if len(untold) > MOST_TOLD:
            return events, since
        return events, min([now, *(_end_of(each) for each in ended if each not in ripe)])

    def close(self) -> None:
        """Give back the connections."""
        with self._lock:
            if self._transport is not None:
                self._transport.close()
            self._database.close()

    def _untold(self, records: Runs) -> Runs:
        if not records:
            return ()
        with self._database.reading() as connection:
            ids = [record.dagster_run.run_id for record in records]
            told = told_failures.find_told(connection, ids)
        return [each for each in records if each.dagster_run.run_id not in told]

    def _tell(self, events: Sequence[Event], now: float) -> None:
        if not events:
            return
        if self._transport is None:  # not before: who loads the definitions for a run has no use
            self._transport = open_transport(self._settings)
        self._transport.send([event.to_json() for event in events])
        ids = [event.meta.correlation_id for event in events if event.meta.correlation_id]
        with self._database.writing() as connection:
            told_failures.note(connection, ids, int(now * NS_PER_SECOND))
            tallies.add(connection, EVENTS_PUBLISHED.name, {"": len(events)})


def build_run_failure_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor `run_failures`, if events go anywhere."""
    transport = settings.events.transport
    if transport is None:
        return []
    return [build_run_failure_sensor(FailureWatch(transport, settings.operational_database))]


def build_run_failure_sensor(watch: FailureWatch) -> dg.SensorDefinition:
    """`run_failures`: on by default. `watch` stays open for as long as the process lives."""

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Publishes metrics.aggregation_failed for runs that ended badly and could not "
        "say so themselves.",
    )
    def run_failures(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        since = float(context.cursor) if context.cursor else time.time()
        try:
            events, after = watch.look(context.instance, _is_of(context.repository_def), since)
        except MetricsPipelineError as error:
            if not context.cursor:
                context.update_cursor(repr(since))
            return dg.SkipReason(f"Failures wait to be told: {error}")
        said = "; ".join(f"{each.payload['job_id']}, {each.meta.correlation_id}" for each in events)
        reason = f"Told of: {said}" if said else "No run ended badly that nobody was told of."
        return dg.SensorResult(skip_reason=dg.SkipReason(reason), cursor=repr(after))

    return run_failures


def _is_of(repository: dg.RepositoryDefinition | None) -> Callable[[dg.DagsterRun], bool]:
    """Whether a run collects something for us: an instance may have other code locations."""
    assert repository is not None
    jobs, keys = set(repository.job_names), set(repository.assets_defs_by_key)

    def is_ours(run: dg.DagsterRun) -> bool:
        is_known = run.job_name in jobs and not keys.isdisjoint(run.asset_selection or keys)
        return is_known and is_collection(run)

    return is_ours


def _find_ended(instance: dg.DagsterInstance, since: float) -> Runs:
    """Those whose end is not before; a tag that was added later makes a run updated, not ended."""
    after = since - OVERLAP_SECONDS
    records = instance.get_run_records(
        dg.RunsFilter(
            statuses=list(UNSUCCESSFUL), updated_after=datetime.fromtimestamp(after, UTC)
        ),
        order_by="update_timestamp",
        ascending=True,
    )
    return [record for record in records if _end_of(record) >= after]


def _end_of(record: dg.RunRecord) -> float:
    return record.end_time or record.update_timestamp.timestamp()


def _event(instance: dg.DagsterInstance, record: dg.RunRecord) -> Event:
    run = record.dagster_run
    error_type, message = _explain(instance, run)
    return aggregation_failed(
        job_id_of(run),
        run=RunIdentity(run.run_id, record.create_timestamp.timestamp()),
        error_message=message,
        error_type=error_type,
        failed_at=_end_of(record),
    )


def _explain(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[str, str]:
    """What the first step that failed says; of a run without one, what Dagster does."""
    if run.status is dg.DagsterRunStatus.CANCELED:
        return CANCELED, _message(instance, run, dg.DagsterEventType.RUN_CANCELED)
    found = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1
    )
    if found.records:
        return explain(found.records[0].event_log_entry.get_dagster_event())
    return FAILED, _message(instance, run, dg.DagsterEventType.RUN_FAILURE)


def _message(instance: dg.DagsterInstance, run: dg.DagsterRun, kind: dg.DagsterEventType) -> str:
    found = instance.get_records_for_run(run.run_id, of_type=kind, limit=1)
    said = [each.event_log_entry.get_dagster_event().message for each in found.records]
    return (said[0] if said else None) or "Its log does not say why."
