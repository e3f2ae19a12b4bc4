"""Looks at Dagster's runs and counts those that have ended, for good: `storage/run_counts.py`.

Done by the exporter when a run has ended, and by the retention before it deletes any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import dagster as dg
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.run_counts import RunCounts, SeenRun

ENDED: Mapping[dg.DagsterRunStatus, str] = {
    dg.DagsterRunStatus.SUCCESS: "success",
    dg.DagsterRunStatus.FAILURE: "failure",
    dg.DagsterRunStatus.CANCELED: "canceled",
}
"""What became of a run, in the words of the exporter."""

RUNS_AT_ONCE = 200

TOOK_TOO_LONG = "Canceling due to exceeding maximum runtime"
"""How run monitoring (dagster/_daemon/monitoring/run_monitoring.py) begins to say why."""

CANCELING_EVENTS = 5
"""Of one run, so many are looked at; the launcher adds one to that of who cancels."""


def count_runs(
    instance: dg.DagsterInstance, database: OperationalDatabase
) -> Mapping[str, Mapping[str, int]]:
    """How many runs have ever ended, by job and status, with those that have ended since.

    Raises StoreUnavailable where the operational database fails, and what Dagster raises for its
    own.
    """
    counts = RunCounts(database, _id_of(instance))
    progress = counts.progress()
    beyond = [_seen(instance, record) for record in _newest_down_to(instance, progress.mark)]
    counts.count([*beyond, *_find(instance, progress.waited_for)], progress)
    return counts.totals()


def _id_of(instance: dg.DagsterInstance) -> str:
    """Which of Dagster's databases it is, in Dagster's own words."""
    storage = instance.run_storage
    if not isinstance(storage, SqlRunStorage):
        return type(storage).__name__
    # The first call makes the id where there is none; of two made at once all see the same next.
    storage.get_run_storage_id()
    return str(storage.get_run_storage_id())


def _newest_down_to(instance: dg.DagsterInstance, number: int) -> Iterator[dg.RunRecord]:
    """Newest first, and always the newest."""
    cursor: str | None = None
    while True:
        records = instance.get_run_records(limit=RUNS_AT_ONCE, cursor=cursor)
        for place, record in enumerate(records):
            if record.storage_id > number or (cursor is None and place == 0):
                yield record
        if len(records) < RUNS_AT_ONCE or records[-1].storage_id <= number:
            return
        cursor = records[-1].dagster_run.run_id


def _find(instance: dg.DagsterInstance, run_ids: list[str]) -> Iterator[SeenRun]:
    for start in range(0, len(run_ids), RUNS_AT_ONCE):
        wanted = dg.RunsFilter(run_ids=run_ids[start : start + RUNS_AT_ONCE])
        yield from (_seen(instance, record) for record in instance.get_run_records(wanted))


def _seen(instance: dg.DagsterInstance, record: dg.RunRecord) -> SeenRun:
    run = record.dagster_run
    status = ENDED.get(run.status)
    if run.status is dg.DagsterRunStatus.CANCELED and _took_too_long(instance, run.run_id):
        status = ENDED[dg.DagsterRunStatus.FAILURE]
    return SeenRun(record.storage_id, run.run_id, run.job_name, status)


def _took_too_long(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether run monitoring told it to end: such a run may say itself that it was canceled."""
    found = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.RUN_CANCELING, limit=CANCELING_EVENTS
    )
    events = (record.event_log_entry.get_dagster_event() for record in found.records)
    return any((event.message or "").startswith(TOOK_TOO_LONG) for event in events)
