"""The time a run's points carry: when it was due, so that a retried step overwrites its points."""

from datetime import datetime, timedelta

import dagster as dg
from dagster._core.storage.tags import SCHEDULED_EXECUTION_TIME_TAG

SCHEDULED_TAG = SCHEDULED_EXECUTION_TIME_TAG
"""The tag that the scheduler gives a run; hidden in the UI."""


def time_ns(context: dg.AssetExecutionContext, cadence: timedelta) -> int:
    """When the run was due by its schedule, else when it was created, in nanoseconds.

    A run that was created more than one cadence after it was due (somebody ran an old one again)
    counts the fleet of now: it gets the time of its creation, and history stays as it was.
    """
    return to_ns(choose(*_times(context), cadence))


def is_scheduled(context: dg.AssetExecutionContext, cadence: timedelta) -> bool:
    """Whether the run has the time it was due at."""
    created, due = _times(context)
    return choose(created, due, cadence) is due


def _times(context: dg.AssetExecutionContext) -> tuple[datetime, datetime | None]:
    """When the run was created, and when it was due, if it was."""
    record = context.instance.get_run_record_by_id(context.run.run_id)
    assert record is not None
    due_tag = context.run.tags.get(SCHEDULED_TAG)
    return record.create_timestamp, datetime.fromisoformat(due_tag) if due_tag else None


def choose(created: datetime, due: datetime | None, cadence: timedelta) -> datetime:
    """`due` where it is less than one `cadence` before `created`, else `created`."""
    if due is not None and timedelta(0) <= created - due < cadence:
        return due
    return created


def to_ns(moment: datetime) -> int:
    """Nanoseconds since the epoch, exact to the microsecond."""
    return round(moment.timestamp() * 1_000_000) * 1_000
