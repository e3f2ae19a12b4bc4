"""What must hold among the counts of a fleet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.counts import (
    Counts,
    check_drop,
    check_never_negative,
    check_parts,
    counts_of,
)
from metrics_pipeline.core.points import Point


def test_counts_are_gathered_from_fleet_points_alone() -> None:
    fleet = Point("fleet_counts", {"provider": "x"}, {"device_count": 3}, 0)
    other = Point("device_status", {"device_id": "x"}, {"device_count": 9}, 0)
    assert counts_of([fleet, other]) == {"device_count": 3}


@pytest.mark.parametrize(("count", "passed"), [(-1, False), (0, True), (7, True)])
def test_a_negative_count_is_a_defect(count: int, passed: bool) -> None:
    verdict = check_never_negative({"device_count": count})
    assert verdict.passed is passed
    assert passed or verdict.seen == "device_count is -1"


@pytest.mark.parametrize(
    ("counts", "passed"),
    [
        ({"device_count": 3, "connected_device_count": 3}, True),
        ({"device_count": 3, "connected_device_count": 4}, False),
        ({"edge_device_count": 0, "connected_edge_device_count": 1}, False),
        ({"concentrator_count": 1, "connected_concentrator_count": 2}, False),
        ({"connected_device_count": 4}, True),
        ({}, True),
    ],
)
def test_no_more_are_connected_than_there_are(counts: Counts, passed: bool) -> None:
    assert check_parts(counts).passed is passed


@pytest.mark.parametrize(
    ("old", "new", "passed"), [(10, 5, True), (10, 4, False), (0, 0, True), (10, 20, True)]
)
def test_a_total_may_fall_by_the_share_and_no_more(old: int, new: int, passed: bool) -> None:
    verdict = check_drop({"device_count": old}, {"device_count": new}, share=0.5)
    assert verdict.passed is passed
    assert passed or verdict.seen == f"device_count fell from {old} to {new}"


def test_connected_ones_may_all_go_at_once() -> None:
    old, new = {"connected_device_count": 10}, {"connected_device_count": 0}
    assert check_drop(old, new, share=0.5).passed


@given(st.integers(0, 10**9), st.floats(0.01, 1))
def test_a_total_that_does_not_fall_never_warns(total: int, share: float) -> None:
    counts = {"device_count": total}
    assert check_drop(counts, counts, share).passed
