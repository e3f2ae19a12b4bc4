"""What came and what was lost, in the orders that frames come in."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.frame_counts import (
    COPIES_NS,
    LATE_FRAMES,
    MAX_GAP,
    NS_PER_SECOND,
    SETTLED_NS,
    FrameCounts,
)

START_NS = 1_700_000_000 * NS_PER_SECOND
MINUTE_NS = 60 * NS_PER_SECOND


def counted(*counters: int, every_ns: int = MINUTE_NS) -> FrameCounts:
    first, *rest = counters
    frames = FrameCounts(first, START_NS)
    for place, counter in enumerate(rest, start=1):
        frames.count(counter, START_NS + place * every_ns)
    return frames


def totals(frames: FrameCounts) -> tuple[int, int, int]:
    """Received, lost or missing, duplicates."""
    return frames.received, frames.lost + frames.missing.bit_count(), frames.duplicates


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        pytest.param((7,), (1, 0, 0), id="the first frame"),
        pytest.param((7, 8, 9), (3, 0, 0), id="none missing"),
        pytest.param((7, 10), (2, 2, 0), id="a gap"),
        pytest.param((7, 10, 8), (3, 1, 0), id="one of the gap is late"),
        pytest.param((7, 10, 9, 8), (4, 0, 0), id="all of the gap, out of order"),
        pytest.param((7, 7, 8, 7, 8), (2, 0, 3), id="copies"),
        pytest.param((7, 10, 8, 8), (3, 1, 1), id="a copy of a late frame"),
        pytest.param((65_534, 65_535, 0, 1), (4, 0, 0), id="16-bit wrap"),
        pytest.param((65_534, 2), (2, 3, 0), id="16-bit wrap with a gap"),
        pytest.param((65_534, 1, 65_535, 0), (4, 0, 0), id="late over the wrap"),
        pytest.param((65_535, 65_536, 65_538), (3, 1, 0), id="32-bit counters go on"),
        pytest.param((2**32 - 1, 0), (2, 0, 0), id="32-bit wrap"),
        pytest.param((70_000, 2), (2, 0, 0), id="a reset of a 32-bit counter"),
        pytest.param((500, 0, 1, 2), (4, 0, 0), id="a reset"),
        pytest.param((500, 503, 1, 2), (4, 2, 0), id="a reset after a gap"),
        pytest.param((30, 31, 32, 0, 1), (5, 0, 0), id="a reset soon after the last, to 0"),
        pytest.param((0, 0, 0), (1, 0, 2), id="frame 0 again and again"),
        pytest.param((0, MAX_GAP), (2, MAX_GAP - 1, 0), id="the largest gap"),
        pytest.param((0, MAX_GAP + 1), (2, 0, 0), id="a jump is a new beginning"),
        pytest.param((60_000, 0), (2, 0, 0), id="too far for a wrap"),
    ],
)
def test_frames_are_counted(counters: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    assert totals(counted(*counters)) == expected


def test_the_same_frame_through_two_gateways_is_one() -> None:
    frames = FrameCounts(0, START_NS)
    for counter in range(1, 100):
        for copy in range(2):
            frames.count(counter, START_NS + counter * MINUTE_NS + copy * 300_000_000)
    assert totals(frames) == (100, 0, 99)


def test_a_copy_of_frame_0_through_another_gateway_is_no_reset() -> None:
    frames = FrameCounts(0, START_NS)
    frames.count(1, START_NS + NS_PER_SECOND)
    frames.count(0, START_NS + NS_PER_SECOND + COPIES_NS)
    assert totals(frames) == (2, 0, 1)


def test_what_the_network_server_calls_a_copy_is_one() -> None:
    frames = counted(5000, 5001)
    for counter in (5001, 5000, 0, 3, 30_000):
        frames.count(counter, START_NS + 3 * SETTLED_NS, is_copy=True)
    assert totals(frames) == (2, 0, 5)


def test_a_copy_of_what_never_came_counts_as_the_frame() -> None:
    frames = counted(5000, 5002)
    frames.count(5001, START_NS + 2 * MINUTE_NS, is_copy=True)
    assert totals(frames) == (3, 0, 0)


def test_a_frame_is_lost_once_it_is_too_far_behind() -> None:
    frames = counted(0, 2, every_ns=NS_PER_SECOND)
    for counter in range(3, LATE_FRAMES + 2):
        frames.count(counter, START_NS + counter * NS_PER_SECOND)
        assert (frames.lost, frames.missing.bit_count()) == (0, 1)
    frames.count(LATE_FRAMES + 2, START_NS + 99 * NS_PER_SECOND)
    assert (frames.lost, frames.missing) == (1, 0)


def test_a_frame_is_lost_once_ten_minutes_have_passed() -> None:
    frames = counted(0, 2)
    assert (frames.lost, frames.missing) == (0, 1)
    frames.count(3, START_NS + MINUTE_NS + SETTLED_NS + 1)
    assert (frames.lost, frames.missing) == (1, 0)


def test_an_old_number_after_ten_minutes_is_a_reset() -> None:
    frames = counted(5, 6, 7)
    frames.count(1, frames.time_ns + SETTLED_NS + 1)
    frames.count(2, frames.time_ns + MINUTE_NS)
    assert totals(frames) == (5, 0, 0)


def test_what_is_read_twice_counts_nothing_twice() -> None:
    stream = [(0, 5), (1, 7), (2, 1), (3, 4), (4, 900), (5, 2)]
    frames = FrameCounts(4, START_NS - 1)
    for minute, counter in stream:
        frames.count(counter, START_NS + minute * SETTLED_NS * 2)
    received, lost = frames.received, frames.lost
    for minute, counter in stream:
        frames.count(counter, START_NS + minute * SETTLED_NS * 2)
    assert (frames.received, frames.lost, frames.newest) == (received, lost, 2)


FRAMES = st.tuples(
    st.integers(0, 200) | st.integers(65_400, 65_600) | st.integers(0, 2**32 - 1),
    st.integers(-COPIES_NS, 2 * SETTLED_NS),
    st.booleans(),
)


@given(st.integers(0, 2**32 - 1), st.lists(FRAMES, max_size=40))
def test_no_total_ever_falls_and_the_state_goes_through_its_fields(
    first: int, stream: list[tuple[int, int, bool]]
) -> None:
    frames, time_ns = FrameCounts(first, START_NS), START_NS
    for number, (counter, pause_ns, is_copy) in enumerate(stream, start=2):
        time_ns += pause_ns
        before = frames.received, frames.lost, frames.duplicates
        frames.count(counter, time_ns, is_copy)
        after = frames.received, frames.lost, frames.duplicates
        assert all(new >= old for new, old in zip(after, before, strict=True))
        assert frames.received + frames.duplicates == number
        assert 0 <= frames.missing < 2**LATE_FRAMES
        assert FrameCounts.from_fields(frames.fields(), frames.time_ns) == frames


@given(st.sets(st.integers(1, 999)), st.integers(0), st.sampled_from([0, 65_000, 2**32 - 500]))
def test_of_frames_that_come_almost_in_order_exactly_the_lost_are_lost(
    lost: set[int], seed: int, start: int
) -> None:
    dice = random.Random(seed)
    modulus = 2**32 if start > 2**16 else 2**16
    came = [n for n in range(1, 1000) if n not in lost]
    came.sort(key=lambda n: n + dice.uniform(0, 20))
    frames = FrameCounts(start, START_NS)
    for place, n in enumerate(came, start=1):
        frames.count((start + n) % modulus, START_NS + place * NS_PER_SECOND)
    newest = max(came, default=0)
    assert totals(frames) == (len(came) + 1, newest - len(came), 0)
