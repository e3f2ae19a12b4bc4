"""Which slot is due, and how many were missed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.sample_slots import (
    LONGEST_BEHIND_SECONDS,
    LONGEST_COUNTED_SECONDS,
    Due,
    Slots,
)
from metrics_pipeline.core.validation import NS_PER_SECOND

EPOCH_NS = 1_795_000_000 * NS_PER_SECOND


def at(seconds: float) -> int:
    return EPOCH_NS + int(seconds * NS_PER_SECOND)


def slots(every_seconds: int = 5, now: float = 0.0, last: float | None = None) -> Slots:
    return Slots.beginning(every_seconds, at(now), None if last is None else at(last))


def test_the_first_slot_is_the_next_one() -> None:
    grid = slots(now=3.5)
    assert grid.wait_seconds(at(3.5)) == 1.5
    assert grid.advance(at(4.999)) == Due()
    assert grid.advance(at(5.01)) == Due(at(5))


def test_a_slot_is_due_once() -> None:
    grid = slots()
    assert grid.advance(at(5)) == Due(at(5))
    assert grid.advance(at(5.2)) == Due()
    assert grid.wait_seconds(at(5.2)) == 4.8


def test_a_slot_that_could_not_begin_in_time_is_missed_and_not_sampled_late() -> None:
    grid = slots()
    assert grid.advance(at(5.5)) == Due(at(5))
    assert grid.advance(at(10.501)) == Due(None, 1)
    assert grid.advance(at(15)) == Due(at(15))


def test_what_is_sampled_seldom_may_begin_a_tenth_of_its_interval_late() -> None:
    assert slots(60).advance(at(60 - at(0) / NS_PER_SECOND % 60 + 66)).missed <= 1
    grid = slots(60)
    first = grid.last_ns + grid.every_ns
    assert grid.advance(first + 6 * NS_PER_SECOND) == Due(first)
    assert grid.advance(first + grid.every_ns + 6 * NS_PER_SECOND + 1) == Due(None, 1)


def test_the_slots_of_a_long_read_are_missed_but_not_the_one_that_has_just_come() -> None:
    assert slots().advance(at(20.3)) == Due(at(20), 3)


def test_what_was_accounted_for_by_others_is_not_counted_again() -> None:
    assert slots(now=31, last=20).advance(at(31)) == Due(None, 2)
    assert slots(now=31, last=30).advance(at(31)) == Due()


def test_a_clock_that_was_set_back_samples_no_slot_twice() -> None:
    grid = slots()
    taken = [grid.advance(at(t)).slot_ns for t in (5, 10, 15, 3, 5, 10, 15, 20)]
    assert taken == [at(5), at(10), at(15), None, None, None, None, at(20)]


def test_a_clock_that_was_set_back_by_far_begins_the_grid_anew() -> None:
    grid = slots(now=86_400)
    assert grid.advance(at(86_400 - LONGEST_BEHIND_SECONDS - 1)) == Due()
    grid = slots(now=86_400)
    assert grid.advance(at(0)) == Due()
    assert grid.advance(at(5)) == Due(at(5))


def test_of_a_long_gap_no_more_slots_than_of_an_hour_are_counted() -> None:
    grid = slots()
    assert grid.advance(at(30 * 86_400)) == Due(at(30 * 86_400), LONGEST_COUNTED_SECONDS // 5)


def test_while_a_source_hangs_its_slots_are_skipped_one_after_the_other() -> None:
    grid = slots()
    assert grid.advance(at(5)) == Due(at(5))
    skipped = [grid.skip(at(t) - grid.tolerance_ns) for t in (6, 10.2, 10.6, 15.4, 15.6)]
    assert skipped == [0, 0, 1, 0, 1]
    assert grid.advance(at(20)) == Due(at(20))


@given(
    st.integers(1, 100),
    st.lists(st.integers(0, 2_000 * NS_PER_SECOND), min_size=1, max_size=30),
)
def test_every_slot_is_either_begun_or_missed(every_seconds: int, steps: list[int]) -> None:
    grid = slots(every_seconds)
    first, now, accounted, begun = grid.last_ns, at(0), 0, []
    for step in steps:
        now += step
        due = grid.advance(now)
        accounted += due.missed + (due.slot_ns is not None)
        begun += [due.slot_ns] if due.slot_ns is not None else []
        if due.slot_ns is not None:
            assert 0 <= now - due.slot_ns <= grid.tolerance_ns
            assert due.slot_ns % grid.every_ns == 0
    assert begun == sorted(set(begun))
    assert accounted == (grid.last_ns - first) // grid.every_ns
