"""The grid of the status sweeps: none is missed, and none overlaps, when runs change over."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.orchestration.status_grid import EVERY_SECONDS, WINDOW_SECONDS, sweep_times

NOON = 1_795_262_400


def test_a_run_sweeps_ten_times() -> None:
    assert len(list(sweep_times(NOON))) == WINDOW_SECONDS // EVERY_SECONDS


def test_two_runs_make_one_grid() -> None:
    times = [*sweep_times(NOON), *sweep_times(NOON + WINDOW_SECONDS)]
    assert {later - earlier for earlier, later in pairwise(times)} == {EVERY_SECONDS}


@given(st.floats(NOON, NOON + WINDOW_SECONDS - 0.001))
def test_a_run_that_starts_late_keeps_to_the_grid(now: float) -> None:
    times = list(sweep_times(now))
    assert set(times) <= set(sweep_times(NOON))
    assert all(now <= at for at in times)
    assert all(at + EVERY_SECONDS <= NOON + WINDOW_SECONDS + 15 for at in times)
