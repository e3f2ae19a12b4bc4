"""Which failures make Dagster run a step again, and what it shows of them."""

from __future__ import annotations

import dagster as dg
import pytest

from metrics_pipeline.core.errors import (
    SourceError,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.orchestration.failures import QUICK_SECONDS, Attempt, failure, outcome

UNREACHABLE = SourceUnreachable("hub", "device_count", "no answer", "Check the address.")
THROTTLED = SourceThrottled("hub", "edge_device_count", "asked too often", "Wait.", 30)
REFUSED = SourceRefused("hub", "device_count", "401", "Name another key.")
UNEXPECTED = UnexpectedReply("hub", "device_count", "not JSON", b"<html>")
POINT = Point("fleet_counts", {"provider": "hub"}, {"device_count": 1}, 1)
FIRST = Attempt(earlier=0, took_seconds=1)
DELAY_SECONDS = 7.5


@pytest.mark.parametrize(
    ("errors", "points", "attempt", "runs_again"),
    [
        ((UNREACHABLE,), (), FIRST, True),
        ((UNREACHABLE, THROTTLED), (), FIRST, True),
        ((UNREACHABLE,), (POINT,), FIRST, False),
        ((UNREACHABLE, REFUSED), (), FIRST, False),
        ((UNEXPECTED,), (), FIRST, False),
        ((UNREACHABLE,), (), Attempt(earlier=1, took_seconds=1), False),
        ((UNREACHABLE,), (), Attempt(earlier=0, took_seconds=QUICK_SECONDS), False),
    ],
)
def test_a_step_runs_again_once_if_nothing_was_read_and_that_may_pass_quickly(
    errors: tuple[SourceError, ...], points: tuple[Point, ...], attempt: Attempt, runs_again: bool
) -> None:
    raised = outcome(Reading(points, errors), attempt, DELAY_SECONDS)
    if runs_again:
        assert isinstance(raised, dg.RetryRequested)
        assert raised.seconds_to_wait == DELAY_SECONDS
    else:
        assert isinstance(raised, dg.Failure)
        assert not raised.allow_retries


def test_a_whole_reading_raises_nothing() -> None:
    assert outcome(Reading((POINT,)), FIRST, DELAY_SECONDS) is None


def test_the_failure_shows_every_error_and_how_many_values_were_kept() -> None:
    shown = failure([UNREACHABLE, REFUSED], 3)
    assert shown.description == f"{UNREACHABLE}\n{REFUSED}"
    assert shown.metadata["values_kept"].value == 3
    assert str(shown.metadata["failed"].value).count("\n- ") == 1
