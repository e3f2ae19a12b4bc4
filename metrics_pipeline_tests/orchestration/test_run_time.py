"""The time that the points of a run carry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from metrics_pipeline.orchestration.run_time import choose, to_ns

CREATED = datetime(2026, 11, 21, 12, 0, 3, tzinfo=UTC)
CADENCE = timedelta(minutes=5)


@pytest.mark.parametrize(
    ("before_creation", "is_used"),
    [
        (timedelta(0), True),
        (timedelta(seconds=3), True),
        (timedelta(minutes=4, seconds=59), True),
        (timedelta(minutes=5), False),
        (timedelta(hours=3), False),
        (timedelta(seconds=-1), False),
    ],
)
def test_the_due_time_is_used_within_one_cadence(before_creation: timedelta, is_used: bool) -> None:
    due = CREATED - before_creation
    assert choose(CREATED, due, CADENCE) == (due if is_used else CREATED)


def test_a_run_without_a_schedule_has_the_time_of_its_creation() -> None:
    assert choose(CREATED, None, CADENCE) == CREATED


def test_times_are_exact_to_the_microsecond() -> None:
    assert to_ns(CREATED + timedelta(microseconds=1)) == 1_795_262_403_000_001_000
