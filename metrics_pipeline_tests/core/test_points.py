"""Points, and the sums over them that make a snapshot of the latest values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.points import FieldValue, Point, merge_latest, without_fields


def counts(fields: Mapping[str, FieldValue], time_ns: int, provider: str = "azure") -> Point:
    return Point("fleet_counts", {"provider": provider}, fields, time_ns)


POINTS = st.builds(
    Point,
    st.sampled_from(["a", "b"]),
    st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"])),
    st.dictionaries(st.sampled_from(["f", "g", "h"]), st.integers(), min_size=1),
    st.integers(0, 100),
)


def values(points: tuple[Point, ...]) -> set[object]:
    return {(p.series, name, value) for p in points for name, value in p.fields.items()}


def test_a_series_is_the_same_whatever_the_order_of_its_tags() -> None:
    one = Point("m", {"a": "1", "b": "2"}, {"f": 1}, 0)
    other = Point("m", {"b": "2", "a": "1"}, {"g": 2}, 9)
    assert one.series == other.series == ("m", (("a", "1"), ("b", "2")))


def test_a_point_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        counts({"device_count": 1}, 0).time_ns = 1  # type: ignore[misc]


def test_a_new_value_replaces_the_old_one_of_its_series() -> None:
    old, new = counts({"device_count": 15}, 1), counts({"device_count": 8}, 2)
    assert merge_latest([old], [new]) == (new,)


def test_a_field_that_was_not_read_again_keeps_its_own_time() -> None:
    old = counts({"device_count": 15, "edge_device_count": 3}, 1)
    new = counts({"device_count": 8}, 2)
    assert merge_latest([old], [new]) == (new, counts({"edge_device_count": 3}, 1))


def test_another_series_is_left_alone() -> None:
    old, new = counts({"device_count": 15}, 1), counts({"device_count": 8}, 2, "aws")
    assert merge_latest([old], [new]) == (new, old)


def test_nothing_new_leaves_everything_as_it_was() -> None:
    old = (counts({"device_count": 15}, 1), counts({"device_count": 8}, 2, "aws"))
    assert merge_latest(old, []) == old


def test_what_is_no_more_is_gone_where_all_there_is_was_read() -> None:
    old = counts({"device_count": 15, "edge_device_count": 3}, 1)
    new = counts({"device_count": 8}, 2, "aws")
    merged = merge_latest([old], [new], {(old.measurement, "device_count")})
    assert merged == (new, counts({"edge_device_count": 3}, 1))


@given(st.lists(POINTS), st.lists(POINTS))
def test_merging_loses_no_field_and_keeps_all_that_is_new(
    old: list[Point], new: list[Point]
) -> None:
    merged = merge_latest(old, new)
    assert merged[: len(new)] == tuple(new)
    named = {(p.series, name) for p in merged for name in p.fields}
    assert named == {(p.series, name) for p in (*old, *new) for name in p.fields}
    assert values(merged) <= values((*old, *new))


@given(st.lists(POINTS), st.lists(POINTS))
def test_merging_the_same_news_twice_changes_nothing(old: list[Point], new: list[Point]) -> None:
    once = merge_latest(old, new)
    assert merge_latest(once[len(new) :], new) == once


def test_a_point_without_the_named_fields_is_given_back_as_it_is() -> None:
    point = counts({"device_count": 1}, 1)
    assert without_fields(point, {"edge_device_count"}) is point


def test_a_point_may_be_left_with_no_field() -> None:
    assert without_fields(counts({"device_count": 1}, 1), {"device_count"}).fields == {}
