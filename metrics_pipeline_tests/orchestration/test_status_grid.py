"""The grid of the status sweeps: none is missed, and none overlaps, when runs change over."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.device_assets import WINDOW_SECONDS
from metrics_pipeline.orchestration.status_grid import StatusGrid
from metrics_pipeline.settings import STATUS_CADENCES_SECONDS

NOON = 1_795_262_400
GRID = StatusGrid(30)


def test_a_run_sweeps_ten_times() -> None:
    assert len(list(GRID.slots(NOON))) == 10


@pytest.mark.parametrize("every", STATUS_CADENCES_SECONDS)
def test_two_runs_make_one_grid(every: int) -> None:
    times = [*StatusGrid(every).slots(NOON), *StatusGrid(every).slots(NOON + WINDOW_SECONDS)]
    assert {later - earlier for earlier, later in pairwise(times)} == {every}


@given(st.floats(NOON, NOON + WINDOW_SECONDS - 0.001), st.sampled_from(STATUS_CADENCES_SECONDS))
def test_a_run_that_starts_late_keeps_to_the_grid_and_sweeps_at_least_once(
    now: float, every: int
) -> None:
    times = list(StatusGrid(every).slots(now))
    assert times
    assert set(times) <= set(StatusGrid(every).slots(NOON))
    assert all(now < at + every for at in times)


def test_the_slot_that_is_going_on_is_swept_at_once() -> None:
    assert next(iter(GRID.slots(NOON + 20))) == NOON + 15


@pytest.mark.parametrize(
    ("slot", "now", "last_took", "expected"),
    [
        (15, 10, 0, True),
        (15, 20, 4, True),
        (45, 74.9, 29, True),
        (45, 75.0, 29, False),
        (285, 280, 10, True),
        (285, 280, 10.1, False),
        (285, 291, 5, False),
    ],
)
def test_a_sweep_that_would_come_late_is_left_out(
    slot: int, now: float, last_took: float, expected: bool
) -> None:
    assert GRID.is_in_time(NOON + slot, NOON + now, last_took) is expected
