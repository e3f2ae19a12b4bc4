"""What every `PointStore` does: one suite, run over each store and each real server behind one.

A subclass gives the fixture `tested`. `ExactStoreContract` adds what VictoriaMetrics, which keeps
floats and milliseconds, cannot do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pytest

from metrics_pipeline.core.catalog import (
    Catalog,
    Family,
    Measurement,
    Metric,
    MetricType,
    ValueType,
)
from metrics_pipeline.core.errors import PartialWrite
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.core.ports import PointStore

POLLS = Measurement("polls", database="tests", tags=("device_id", "name"))
CATALOG = Catalog(
    Metric(POLLS, field, kind, "1", Family(f"polls_{field}", MetricType.GAUGE, "A test's metric."))
    for field, kind in (("value", ValueType.FLOAT), ("count", ValueType.INTEGER))
)

TIME_NS = 1_700_000_000_123_000_000
MS = 1_000_000
TAGS = ("a b", "a,b", "a=b", 'a"b', "a\\b", "#a", "é", "😀", "x" * 300, "C:\\Data x=1,y=2")


def poll(
    fields: Mapping[str, FieldValue], time_ns: int = TIME_NS, device_id: str = "a", **tags: str
) -> Point:
    return Point("polls", {"device_id": device_id, **tags}, fields, time_ns)


@dataclass(frozen=True, slots=True)
class StoreUnderTest:
    """A store, and how to see what reached it: all points of a measurement, in any order."""

    store: PointStore
    read: Callable[[str], Iterable[Point]]


class PointStoreContract:
    @pytest.fixture
    def tested(self) -> StoreUnderTest:
        raise NotImplementedError

    def assert_holds(self, tested: StoreUnderTest, *expected: Point) -> None:
        found = {(point.series, point.time_ns): point.fields for point in tested.read("polls")}
        assert found == {(point.series, point.time_ns): point.fields for point in expected}

    def test_what_is_written_is_read_back(self, tested: StoreUnderTest) -> None:
        points = [
            poll({"value": 1.5, "count": 3, "is_up": True}),
            poll({"value": -0.1}, TIME_NS + MS),
            poll({"value": 1e-9, "count": 0, "is_up": False}, device_id="b"),
        ]
        tested.store.write(points)
        self.assert_holds(tested, *points)

    def test_writing_the_same_again_changes_nothing(self, tested: StoreUnderTest) -> None:
        points = [poll({"value": 1.5}), poll({"value": 2.5}, TIME_NS + MS)]
        tested.store.write(points)
        tested.store.write(points)
        tested.store.write([*points, *points])
        self.assert_holds(tested, *points)

    def test_a_tag_comes_back_as_it_is(self, tested: StoreUnderTest) -> None:
        points = [poll({"value": 1.5}, name=tag) for tag in TAGS]
        tested.store.write(points)
        self.assert_holds(tested, *points)

    def test_an_empty_tag_is_no_tag(self, tested: StoreUnderTest) -> None:
        tested.store.write([poll({"value": 1.5}, name="")])
        self.assert_holds(tested, poll({"value": 1.5}))

    def test_writing_nothing_is_fine(self, tested: StoreUnderTest) -> None:
        tested.store.write([])

    def test_more_points_than_a_batch_are_all_kept(self, tested: StoreUnderTest) -> None:
        points = [poll({"value": i + 0.5}, TIME_NS + i * MS) for i in range(12_000)]
        tested.store.write(points)
        self.assert_holds(tested, *points)

    def test_a_number_that_is_not_finite_costs_only_its_own_point(
        self, tested: StoreUnderTest
    ) -> None:
        with pytest.raises(PartialWrite) as caught:
            tested.store.write([poll({"value": math.nan}), poll({"value": 1.5}, TIME_NS + MS)])
        assert caught.value.accepted == 1
        assert caught.value.rejected == {"not_finite": 1}
        assert caught.value.kept == (poll({"value": 1.5}, TIME_NS + MS),)
        self.assert_holds(tested, poll({"value": 1.5}, TIME_NS + MS))

    def test_a_healthy_store_says_where_it_is(self, tested: StoreUnderTest) -> None:
        assert tested.store.name in tested.store.check()

    def test_a_closed_store_opens_again_at_its_next_use(self, tested: StoreUnderTest) -> None:
        tested.store.write([poll({"value": 1.5})])
        tested.store.close()
        tested.store.close()
        tested.store.write([poll({"value": 2.5}, TIME_NS + MS)])
        self.assert_holds(tested, poll({"value": 1.5}), poll({"value": 2.5}, TIME_NS + MS))


class ExactStoreContract(PointStoreContract):
    def assert_holds(self, tested: StoreUnderTest, *expected: Point) -> None:
        super().assert_holds(tested, *expected)
        assert _types(tested.read("polls")) == _types(expected)

    def test_strings_and_extreme_numbers_are_kept_exactly(self, tested: StoreUnderTest) -> None:
        point = poll(
            {"count": 2**63 - 1, "low": -(2**63), "tiny": 5e-324, "text": 'a "b" \\ c, d=é😀\n'}
        )
        tested.store.write([point])
        self.assert_holds(tested, point)

    def test_points_one_nanosecond_apart_are_two(self, tested: StoreUnderTest) -> None:
        points = [poll({"value": 1.5}), poll({"value": 2.5}, TIME_NS + 1)]
        tested.store.write(points)
        self.assert_holds(tested, *points)

    def test_a_later_write_replaces_the_fields_it_names_and_keeps_the_others(
        self, tested: StoreUnderTest
    ) -> None:
        tested.store.write([poll({"value": 15.0, "count": 7})])
        tested.store.write([poll({"value": 8.0})])
        self.assert_holds(tested, poll({"value": 8.0, "count": 7}))

    def test_a_field_that_changes_its_type_is_refused_and_the_others_are_kept(
        self, tested: StoreUnderTest
    ) -> None:
        tested.store.write([poll({"value": 1.5})])
        with pytest.raises(PartialWrite) as caught:
            tested.store.write(
                [
                    poll({"value": 2.5}, TIME_NS + MS),
                    poll({"value": 3}, TIME_NS + 2 * MS),
                    poll({"value": "4"}, TIME_NS + 3 * MS),
                    poll({"value": 5.5}, TIME_NS + 4 * MS),
                ]
            )
        assert caught.value.accepted == 2
        assert caught.value.rejected == {"field_type_conflict": 2}
        self.assert_holds(
            tested,
            poll({"value": 1.5}),
            poll({"value": 2.5}, TIME_NS + MS),
            poll({"value": 5.5}, TIME_NS + 4 * MS),
        )

    def test_where_one_field_changes_its_type_it_is_known_which_points_are_kept(
        self, tested: StoreUnderTest
    ) -> None:
        tested.store.write([poll({"value": 1.5})])
        points = [
            poll({"value": value}, TIME_NS + place * MS)
            for place, value in enumerate((2.5, 3, 4.5, 5), start=1)
        ]
        with pytest.raises(PartialWrite) as caught:
            tested.store.write(points)
        assert caught.value.kept == (points[0], points[2])

    def test_a_type_that_changes_inside_the_first_write_keeps_one_of_the_two(
        self, tested: StoreUnderTest
    ) -> None:
        with pytest.raises(PartialWrite) as caught:
            tested.store.write([poll({"value": 1.5}), poll({"value": 2}, TIME_NS + MS)])
        assert caught.value.rejected == {"field_type_conflict": 1}
        self.assert_holds(tested, poll({"value": 1.5}))

    def test_a_whole_float_stays_a_float(self, tested: StoreUnderTest) -> None:
        tested.store.write([poll({"value": 1.0})])
        self.assert_holds(tested, poll({"value": 1.0}))


def _types(points: Iterable[Point]) -> Counter[tuple[str, type]]:
    return Counter((name, type(value)) for p in points for name, value in p.fields.items())
