"""Deletes what Dagster keeps and nobody will look at again: runs, events, outcomes, ticks.

In small transactions, with as long a pause after each as it took, and for a bounded time, so that
runs and sensors hardly wait; what is left is deleted the next time. What is deleted once more, by
two at the same time or after a death in the middle, is gone already.
"""

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from metrics_pipeline.orchestration.dagster_rows import (
    delete_check_outcomes,
    delete_details,
    delete_runless_events,
    delete_runs,
    delete_ticks,
    event_log_of,
    find_detailed_runs,
    schedules_of,
)
from metrics_pipeline.settings import RetentionSettings

SECONDS_PER_DAY = 86_400

EVENTS_AT_ONCE = 200
"""So many are asked of Dagster at once."""

RUNS_DELETED_AT_ONCE = 10
"""In one transaction: some 200 events once their details are gone."""

LEAP_SECONDS = SECONDS_PER_DAY
"""A clock that has gone on by more since the last time is believed an hour later, if it stays."""

SUCCEEDED = (dg.DagsterRunStatus.SUCCESS,)
FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)

OTHER_TICKS = [TickStatus.STARTED, TickStatus.SUCCESS, TickStatus.FAILURE]

KINDS = (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION)


@dataclass(frozen=True, slots=True)
class Purged:
    """What was deleted of one kind, and whether that was all that is old."""

    what: str
    deleted: int
    is_done: bool


class Pace:
    """Work for at most `budget_seconds`, at most half of the time."""

    def __init__(
        self,
        budget_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._deadline = clock() + budget_seconds
        self._worked_since = clock()

    def goes_on(self) -> bool:
        """After a pause as long as the work since the last one, whether there is time left."""
        now = self._clock()
        if now >= self._deadline:
            return False
        self._sleep(min(now - self._worked_since, self._deadline - now))
        self._worked_since = self._clock()
        return True


def is_believed(now_seconds: float, last_seconds: float | None) -> bool:
    """Whether the clock may be right; one that leapt would make everything old."""
    return last_seconds is None or now_seconds - last_seconds <= LEAP_SECONDS


def purge_dagster(
    instance: dg.DagsterInstance,
    settings: RetentionSettings,
    now_seconds: float,
    make_pace: Callable[[], Pace],
) -> Iterator[Purged]:
    """Kind by kind; each has a pace of its own, so that a backlog of one holds up no other."""

    def before(days: float) -> float:
        return now_seconds - days * SECONDS_PER_DAY

    newest = find_newest_runs(instance)
    succeeded, failed = before(settings.successful_runs_days), before(settings.failed_runs_days)
    yield purge_runs(
        instance, "successful_runs", SUCCEEDED, succeeded, kept=newest, pace=make_pace()
    )
    yield purge_runs(instance, "failed_runs", FAILED, failed, kept=newest, pace=make_pace())
    event_log = event_log_of(instance)
    if event_log is not None:
        runless = delete_runless_events(event_log, before(settings.runless_events_days))
        yield work_off("runless_events", runless, make_pace())
        outcomes = delete_check_outcomes(event_log, succeeded)
        yield work_off("check_outcomes", outcomes, make_pace())
        thinned = thin_runs(instance, event_log, before(settings.run_details_days), newest)
        yield work_off("run_details", thinned, make_pace())
    ticks = purge_ticks(instance, before(settings.skipped_ticks_days), before(settings.ticks_days))
    yield work_off("ticks", ticks, make_pace())


def find_newest_runs(instance: dg.DagsterInstance) -> frozenset[str]:
    """The runs that made the newest materialization or observation of an asset or a partition."""
    keys = instance.event_log_storage.all_asset_keys()
    return frozenset(
        run for key in keys for kind in KINDS for run in _newest_of(instance, key, kind)
    )


def purge_runs(
    instance: dg.DagsterInstance,
    what: str,
    statuses: Collection[dg.DagsterRunStatus],
    before_seconds: float,
    *,
    kept: Collection[str],
    pace: Pace,
) -> Purged:
    """Delete runs that ended before, oldest first, but not those `kept`.

    Events first: a run whose deletion was interrupted is there to be deleted again.
    """
    before = datetime.fromtimestamp(before_seconds, UTC)
    old = instance.get_run_ids(dg.RunsFilter(statuses=list(statuses), updated_before=before))
    going = [run_id for run_id in reversed(old) if run_id not in kept]
    return work_off(what, _delete_runs(instance, going), pace)


def thin_runs(
    instance: dg.DagsterInstance,
    event_log: SqlEventLogStorage,
    before_seconds: float,
    kept: Collection[str],
) -> Iterator[int]:
    """Delete the details of runs that succeeded before, but not of those `kept`.

    Gives how many events went, batch by batch. Each is made when the iterator is asked.
    """
    return delete_details(event_log, _detailed_runs(instance, event_log, before_seconds, kept))


def _detailed_runs(
    instance: dg.DagsterInstance,
    event_log: SqlEventLogStorage,
    before_seconds: float,
    kept: Collection[str],
) -> Iterator[Sequence[str]]:
    old = find_detailed_runs(event_log, before_seconds)
    before = datetime.fromtimestamp(before_seconds, UTC)
    for run_ids in _in_batches([run_id for run_id in old if run_id not in kept], EVENTS_AT_ONCE):
        done = dg.RunsFilter(run_ids=run_ids, statuses=list(SUCCEEDED), updated_before=before)
        yield from _in_batches(instance.get_run_ids(done), RUNS_DELETED_AT_ONCE)


def work_off(what: str, batches: Iterable[int], pace: Pace) -> Purged:
    """Delete batch by batch, for as long as `pace` goes on; each batch says how many went."""
    deleted = 0
    try:
        for number in batches:
            deleted += number
            if not pace.goes_on():
                return Purged(what, deleted, is_done=False)
        return Purged(what, deleted, is_done=True)
    finally:
        if isinstance(batches, Generator):
            batches.close()  # and with it the connection it has kept


def purge_ticks(
    instance: dg.DagsterInstance, skipped_before_seconds: float, before_seconds: float
) -> Iterator[int]:
    """Of all schedules and sensors, also of those that are no more; gives how many, by batches.

    By `retention` in dagster.yaml the daemon purges none. Dagster itself deletes all of one in a
    single statement, and does not say how many.
    """
    storage = schedules_of(instance)
    for state in instance.all_instigator_state():
        for statuses, before in (
            ([TickStatus.SKIPPED], skipped_before_seconds),
            (OTHER_TICKS, before_seconds),
        ):
            if storage is None:
                of = (state.instigator_origin_id, state.selector_id)
                instance.purge_ticks(*of, before, statuses)
            else:
                yield from delete_ticks(storage, state.selector_id, statuses, before)


def _delete_runs(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Iterator[int]:
    event_log, runs = event_log_of(instance), instance.run_storage
    batches = _without_what_they_printed(instance, _in_batches(run_ids, RUNS_DELETED_AT_ONCE))
    if event_log is not None and isinstance(runs, SqlRunStorage):
        return delete_runs(event_log, runs, batches)
    return (sum(_delete_run(instance, run_id) for run_id in few) for few in batches)


def _without_what_they_printed(
    instance: dg.DagsterInstance, batches: Iterable[Sequence[str]]
) -> Iterator[Sequence[str]]:
    """It goes before them: nobody finds it any more when the run is gone."""
    for run_ids in batches:
        for run_id in run_ids:
            instance.compute_log_manager.delete_logs(prefix=[run_id])
        yield run_ids


def _delete_run(instance: dg.DagsterInstance, run_id: str) -> int:
    instance.event_log_storage.delete_events(run_id)
    instance.run_storage.delete_run(run_id)
    return 1


def _newest_of(
    instance: dg.DagsterInstance, key: dg.AssetKey, kind: dg.DagsterEventType
) -> Iterator[str]:
    storage = instance.event_log_storage
    is_made = kind is dg.DagsterEventType.ASSET_MATERIALIZATION
    fetch = instance.fetch_materializations if is_made else instance.fetch_observations
    by_partition = storage.get_latest_storage_id_by_partition(key, kind)
    yield from (record.run_id for record in fetch(key, limit=1).records)
    for ids in _in_batches(sorted(by_partition.values()), EVENTS_AT_ONCE):
        wanted = dg.AssetRecordsFilter(key, storage_ids=ids)
        yield from (record.run_id for record in fetch(wanted, limit=EVENTS_AT_ONCE).records)


def _in_batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
