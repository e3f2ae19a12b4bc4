"""What makes a point fit to be stored: checked once, by the writer, for every point."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from metrics_pipeline.core.catalog import (
    AnyMetric,
    Catalog,
    Measurement,
    OpenFields,
    Range,
    UsualPoints,
    ValueType,
)
from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.points import FieldValue, Point, shape_of

NS_PER_SECOND = 1_000_000_000
NS_PER_DAY = 24 * 3600 * NS_PER_SECOND
NS_PER_MINUTE = 60 * NS_PER_SECOND
INT64_MAX = 2**63 - 1
LARGEST_FLOAT = sys.float_info.max

MOST_USUAL = 1024
"""Shapes of points of a measurement that are remembered; others choose the names of some fields."""


def validate(point: Point, catalog: Catalog, now_ns: int) -> Point:
    """`point` with every field in its metric's type, or InvalidPoint with the first thing wrong.

    Integers become floats, and whole floats integers, where the metric says so: nothing is lost.
    """
    measurement = catalog.measurements.get(point.measurement)
    if measurement is None:
        raise InvalidPoint("unknown_measurement", f"{point.measurement!r} is not in the catalogue")
    check_time(point.time_ns, measurement, now_ns)
    _check_tags(point, measurement)
    if not point.fields:
        raise InvalidPoint("no_fields", f"a point of {point.measurement} has no field")
    usual = _usual_points(point, measurement, catalog)
    shape = shape_of(point.fields)
    ranges = usual.get(shape)
    if ranges is not None and _are_within(point.fields, ranges):
        return point
    typed = {name: _field(point, name, value, catalog) for name, value in point.fields.items()}
    if any(typed[name] is not value for name, value in point.fields.items()):
        return Point(point.measurement, point.tags, typed, point.time_ns)
    if len(usual) < MOST_USUAL:
        usual[shape] = tuple(_ranges(point, catalog))
    return point


def _usual_points(point: Point, measurement: Measurement, catalog: Catalog) -> UsualPoints:
    """The shapes of such points that were fit as they were."""
    selected_by = point.tags.get(measurement.selector, "") if measurement.selector else ""
    return catalog.usual_points.setdefault((measurement.name, selected_by), {})


def _ranges(point: Point, catalog: Catalog) -> Iterator[Range]:
    """Outside of which another value of this type needs a closer look. Text and flags have none."""
    for name, value in point.fields.items():
        if not isinstance(value, str | bool):
            most = INT64_MAX if isinstance(value, int) else LARGEST_FLOAT
            metric = catalog.find(point, name)
            minimum, maximum = getattr(metric, "minimum", None), getattr(metric, "maximum", None)
            yield (
                name,
                -most if minimum is None else minimum,
                most if maximum is None else maximum,
            )


def _are_within(fields: Mapping[str, Any], ranges: Iterable[Range]) -> bool:
    """NaN is in no range."""
    for name, least, most in ranges:  # noqa: SIM110  (a call for each field takes twice as long)
        if not least <= fields[name] <= most:
            return False
    return True


def check_time(time_ns: int, measurement: Measurement, now_ns: int) -> None:
    """InvalidPoint if a point of `measurement` may not have this time."""
    days, minutes = measurement.max_age_days, measurement.max_ahead_minutes
    if not now_ns - days * NS_PER_DAY <= time_ns <= now_ns + minutes * NS_PER_MINUTE:
        age_seconds = (now_ns - time_ns) / NS_PER_SECOND
        raise InvalidPoint(
            "time_out_of_range",
            f"a point of {measurement.name} is {age_seconds:.0f} s old; "
            f"accepted are {days} days back to {minutes} minutes ahead",
        )


def _check_tags(point: Point, measurement: Measurement) -> None:
    for name in measurement.tags:
        if not point.tags.get(name):
            raise InvalidPoint("empty_tag", f"a point of {point.measurement} has no {name!r}")
    known = measurement.all_tags
    for name, value in point.tags.items():
        if name not in known:
            raise InvalidPoint("unknown_tag", f"{point.measurement} has no tag {name!r}")
        if not value.isprintable():
            raise InvalidPoint("unprintable_tag", f"{point.measurement}.{name} is {value!r}")


def _field(point: Point, name: str, value: FieldValue, catalog: Catalog) -> FieldValue:
    metric = catalog.find(point, name)
    if metric is None:
        raise InvalidPoint("unknown_metric", f"{point.measurement} has no field {name!r}")
    if isinstance(metric, OpenFields):
        if type(value) is not float or not math.isfinite(value):  # nearly all of them are
            _check_open(f"{point.measurement}.{name}", value)
        return value
    typed = _typed(metric, value)
    _check_range(metric, typed)
    return typed


def _typed(metric: AnyMetric, value: FieldValue) -> FieldValue:
    if type(value) is float and metric.value_type is ValueType.FLOAT:  # nearly all of them
        return value
    match metric.value_type, value:
        case (ValueType.BOOLEAN, bool()) | (ValueType.STRING, str()):
            return value
        case (ValueType.INTEGER, int()) if not isinstance(value, bool) and abs(value) <= INT64_MAX:
            return value
        case (ValueType.INTEGER, float()) if value.is_integer() and abs(value) <= INT64_MAX:
            return int(value)
        case (ValueType.FLOAT, float()):
            return value
        case (ValueType.FLOAT, int()) if not isinstance(value, bool) and abs(value) <= INT64_MAX:
            return float(value)
    raise InvalidPoint(
        "wrong_type",
        f"{_name(metric)} is {value!r}, expected {metric.value_type}",
    )


def _check_range(metric: AnyMetric, value: FieldValue) -> None:
    if isinstance(value, str | bool):
        return
    minimum, maximum = metric.minimum, metric.maximum
    if not math.isfinite(value):
        raise InvalidPoint("not_finite", f"{_name(metric)} is {value}")
    if minimum is not None and value < minimum:
        raise InvalidPoint(
            "out_of_range", f"{_name(metric)} is {value}, at least {minimum} expected"
        )
    if maximum is not None and value > maximum:
        raise InvalidPoint(
            "out_of_range", f"{_name(metric)} is {value}, at most {maximum} expected"
        )


def _check_open(name: str, value: FieldValue) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidPoint("not_finite", f"{name} is {value}")
    if isinstance(value, int) and abs(value) > INT64_MAX:
        raise InvalidPoint("out_of_range", f"{name} does not fit into 64 bits")


def _name(metric: AnyMetric) -> str:
    return f"{metric.measurement.name}.{metric.field}"
