"""The one kind of value that travels: a point of a time series, and small sums over points."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

FieldValue = float | int | bool | str
"""What a field holds. The type is kept: an `int` stays an integer in every store."""

SeriesKey = tuple[str, tuple[tuple[str, str], ...]]
"""Measurement and sorted tags: what makes two points belong to the same series."""

Column = tuple[str, str]
"""A measurement and a field."""

Shape = tuple[tuple[str, ...], tuple[type, ...]]
"""The names of a point's fields and the types of their values: few, however many points there are.
What was found out about the one is known of the other by it."""


@dataclass(frozen=True, slots=True)
class Point:
    """Fields of one series at one time.

    A series plus `time_ns` (nanoseconds since the epoch, UTC) identifies a point in every store:
    writing it again overwrites it. So `time_ns` comes from the data, never from the clock at write.
    """

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, FieldValue]
    time_ns: int

    @property
    def series(self) -> SeriesKey:
        """What this point shares with the others of its series."""
        return self.measurement, tuple(sorted(self.tags.items()))


def shape_of(fields: Mapping[str, FieldValue]) -> Shape:
    """The shape of a point with these `fields`."""
    return tuple(fields), tuple(map(type, fields.values()))


def merge_latest(
    old: Iterable[Point], new: Sequence[Point], whole: Collection[Column] = ()
) -> tuple[Point, ...]:
    """The newest value of every field: `new` as it is, and of `old` the fields `new` lacks.

    An old field keeps its own time, so that a value which was not read again shows its true age.
    Of the columns in `whole` all there is is in `new`: an old value is of what is no more.
    """
    gone: dict[str, set[str]] = {}
    for measurement, name in whole:
        gone.setdefault(measurement, set()).add(name)
    fresh: dict[SeriesKey, set[str]] = {}
    for point in new:
        fresh.setdefault(point.series, set()).update(point.fields)
    kept = (
        without_fields(point, fresh.get(point.series, set()) | gone.get(point.measurement, set()))
        for point in old
    )
    return (*new, *(point for point in kept if point.fields))


def without_fields(point: Point, names: set[str]) -> Point:
    """`point` less the fields called `names`; possibly with none left."""
    if names.isdisjoint(point.fields):
        return point
    return replace(point, fields={k: v for k, v in point.fields.items() if k not in names})
