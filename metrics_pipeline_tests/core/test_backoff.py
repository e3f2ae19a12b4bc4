"""Waiting and trying again, on a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.backoff import Backoff, Timing, call_with_retries
from metrics_pipeline.core.errors import (
    InvalidPoint,
    MetricsPipelineError,
    PartialWrite,
    StoreError,
    StoreUnavailable,
)

WRITES = Backoff(tries=3, base_seconds=0.1, cap_seconds=5.0)


@dataclass
class Clock:
    """Moves only when somebody sleeps; remembers for how long."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def timing(self, random: float = 1.0) -> Timing:
        return Timing(lambda: self.now, self.sleep, lambda: random)


def down(retry_after_seconds: float | None = None) -> StoreUnavailable:
    return StoreUnavailable("store", "is down", "Start it.", retry_after_seconds)


def failing(errors: Sequence[MetricsPipelineError]) -> Callable[[], str]:
    """A call that raises `errors`, one at each call, and then succeeds."""
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "stored"

    return call


def test_a_call_that_works_is_made_once_and_waits_for_nothing() -> None:
    clock = Clock()
    assert call_with_retries(failing([]), WRITES, clock.timing()) == "stored"
    assert clock.slept == []


def test_the_wait_doubles_with_every_try() -> None:
    clock = Clock()
    assert call_with_retries(failing([down(), down()]), WRITES, clock.timing()) == "stored"
    assert clock.slept == [0.1, 0.2]


def test_the_last_error_is_raised_when_the_tries_are_used_up() -> None:
    clock = Clock()
    last = down()
    with pytest.raises(StoreUnavailable) as caught:
        call_with_retries(failing([down(), down(), last]), WRITES, clock.timing())
    assert caught.value is last
    assert len(clock.slept) == 2


@pytest.mark.parametrize(
    "error",
    [
        StoreError("store", "no", "Ask."),
        PartialWrite("store", 1, {"wrong_type": 1}, "no"),
        InvalidPoint("wrong_type", "no"),
    ],
)
def test_an_error_that_a_retry_does_not_help_is_raised_at_once(error: MetricsPipelineError) -> None:
    clock = Clock()
    with pytest.raises(type(error)):
        call_with_retries(failing([error]), WRITES, clock.timing())
    assert clock.slept == []


def test_an_error_that_is_not_ours_passes_through() -> None:
    def call() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call_with_retries(call, WRITES, Clock().timing())


def test_what_the_far_side_asks_for_is_honoured_beyond_the_cap() -> None:
    clock = Clock()
    call_with_retries(failing([down(retry_after_seconds=30)]), WRITES, clock.timing())
    assert clock.slept == [30]


def test_being_asked_for_no_wait_still_waits_our_own() -> None:
    clock = Clock()
    call_with_retries(failing([down(retry_after_seconds=0)]), WRITES, clock.timing())
    assert clock.slept == [0.1]


def test_a_wait_that_would_end_after_the_deadline_is_not_begun() -> None:
    clock = Clock()
    with pytest.raises(StoreUnavailable):
        call_with_retries(failing([down(30)]), WRITES, clock.timing(), deadline=29.9)
    assert clock.slept == []


def test_a_wait_that_ends_at_the_deadline_is_made() -> None:
    clock = Clock()
    call_with_retries(failing([down(30)]), WRITES, clock.timing(), deadline=30)
    assert clock.slept == [30]


@given(st.integers(1, 60), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_between_half_of_the_doubled_base_and_all_of_it(tried: int, dice: float) -> None:
    full = min(5.0, 0.1 * 2 ** (tried - 1))
    assert full / 2 <= WRITES.wait_seconds(tried, lambda: dice) <= full
