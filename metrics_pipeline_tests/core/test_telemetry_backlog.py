"""How far the store is behind the hub, from one look to the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.telemetry import Checkpoint, PartitionState, Position
from metrics_pipeline.core.telemetry_backlog import (
    MAX_MARKS,
    Backlog,
    from_cursor,
    in_words,
    lag_points,
    look,
    to_cursor,
)
from metrics_pipeline.core.validation import NS_PER_SECOND

START_NS = 1_800_000_000 * NS_PER_SECOND


def state(newest: int, seconds: float = 0, first: int = 0) -> PartitionState:
    """A partition whose newest event came so many seconds after the start."""
    time_ns = START_NS + round(seconds * NS_PER_SECOND)
    return PartitionState(first, newest, str(newest), time_ns, is_empty=newest < first)


def stored(number: int) -> dict[str, Checkpoint]:
    return {"0": Checkpoint(Position(str(number), number), 1)}


def seconds_of(backlog: Backlog, now: float) -> float:
    return backlog["0"].lag_seconds(START_NS + round(now * NS_PER_SECOND))


def test_without_a_checkpoint_everything_that_is_kept_is_waiting() -> None:
    (one,) = look({"0": state(9, first=4)}, {}, {}).values()
    assert (one.newest, one.stored, one.lag_events, one.lost_events) == (9, -1, 6, 0)


def test_a_hub_without_events_has_no_backlog() -> None:
    (one,) = look({"0": state(-1)}, {}, {}).values()
    assert (one.newest, one.lag_events, one.is_ahead, one.waiting) == (-1, 0, False, ())


def test_what_is_gone_is_lost_and_not_waiting() -> None:
    (one,) = look({"0": state(99, first=50)}, stored(9), {}).values()
    assert (one.lag_events, one.lost_events) == (50, 40)


def test_a_checkpoint_behind_the_newest_event_is_of_another_hub() -> None:
    (one,) = look({"0": state(3)}, stored(9), {}).values()
    assert one.is_ahead
    assert one.lag_events == 4
    assert one.lag_seconds(START_NS + 5 * NS_PER_SECOND) == 5
    (empty,) = look({"0": state(-1)}, stored(9), {}).values()
    assert (empty.is_ahead, empty.lag_events, empty.waiting) == (True, 0, ())


def test_the_lag_grows_while_the_checkpoint_does_not_move() -> None:
    backlog: Backlog = {}
    for now in range(0, 600, 5):
        backlog = look({"0": state(100 + now, now)}, stored(99), backlog)
        assert seconds_of(backlog, now) == now
    assert len(backlog["0"].waiting) <= MAX_MARKS


def test_the_lag_is_of_what_is_still_waiting_when_the_checkpoint_moves() -> None:
    backlog: Backlog = {}
    for number, now in ((10, 0), (20, 5), (30, 10)):
        backlog = look({"0": state(number, now)}, stored(0), backlog)
    assert seconds_of(backlog, 10) == 10
    backlog = look({"0": state(40, 15)}, stored(15), backlog)
    assert seconds_of(backlog, 15) == 10
    assert backlog["0"].lag_events == 25
    backlog = look({"0": state(40, 15)}, stored(40), backlog)
    assert seconds_of(backlog, 20) == 0
    assert backlog["0"].waiting == ()


def test_the_lag_goes_on_after_the_process_has_started_again() -> None:
    backlog = look({"0": state(10, 0)}, stored(0), {})
    again = look({"0": state(20, 30)}, stored(0), from_cursor(to_cursor(backlog)))
    assert seconds_of(again, 30) == 30


@pytest.mark.parametrize("cursor", [None, "", "{", "[]", "7", '{"0": 1}', '{"0": {"newest": 1}}'])
def test_a_cursor_that_is_none_of_ours_is_as_if_there_were_none(cursor: str | None) -> None:
    assert from_cursor(cursor) == {}


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=40))
def test_the_marks_are_few_in_order_and_never_stored(moves: list[tuple[int, int]]) -> None:
    newest, done = 0, -1
    backlog: Backlog = {}
    for now, (came, read) in enumerate(moves):
        newest, done = newest + came, min(newest, done + read)
        checkpoint = stored(done) if done >= 0 else {}
        backlog = look({"0": state(newest, now)}, checkpoint, backlog)
        marks = backlog["0"].waiting
        assert bool(marks) is bool(backlog["0"].lag_events)
        assert len(marks) <= MAX_MARKS
        assert list(marks) == sorted(marks)
        assert all(done < number <= newest for number, _ in marks)
        assert from_cursor(to_cursor(backlog))["0"].waiting == marks


def test_each_partition_has_a_point_and_the_numbers_are_in_order() -> None:
    states = {"10": state(5), "9": state(7, first=8)}
    backlog = look(states, {}, {})
    points = list(lag_points(backlog, START_NS + 2 * NS_PER_SECOND))
    assert [point.tags for point in points] == [{"partition": "9"}, {"partition": "10"}]
    assert points[1].fields == {"lag_events": 6, "lag_seconds": 2.0}


def test_in_words_the_partition_that_is_most_behind_is_named() -> None:
    backlog = look({"0": state(5), "1": state(9), "2": state(-1)}, {}, {})
    said = in_words(backlog, START_NS + 7 * NS_PER_SECOND)
    assert said == (
        "16 events in 2 of 3 partitions are not stored, for 7 s; most of them, 10, in partition 1"
    )
    assert in_words({}, 0) == "all events of 0 partitions are stored"
