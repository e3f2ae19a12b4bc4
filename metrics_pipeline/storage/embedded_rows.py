"""Points as rows of the embedded store, inside one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from math import isfinite

from metrics_pipeline.core.catalog import ValueType
from metrics_pipeline.core.errors import InvalidPoint, RefusedPoint
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.storage.embedded_schema import INSERT_POINT

INT64 = range(-(2**63), 2**63)
FIND_MEASUREMENT = "SELECT id FROM measurement WHERE name = ?"

_FIND_SERIES = "SELECT tags, id FROM series WHERE measurement_id = ? AND tags IN"

FIND_FIELDS = "SELECT id, name, value_type FROM field WHERE measurement_id = ?"

# No field is null, so json_patch (RFC 7396) replaces what is named and keeps the rest.
UPSERT_POINT = (
    f"{INSERT_POINT} ON CONFLICT DO UPDATE SET fields = json_patch(fields, excluded.fields)"
)

SERIES_AT_ONCE = 500
"""So many are looked up by one statement; SQLite before 3.32 takes 999 parameters at most."""

_TAGS = 16_384
"""So many series are known by their tags without another look at these."""


@dataclass(slots=True)
class _Field:
    key: str
    """How it begins in the JSON object of a point: `"12":`."""

    value_type: str
    kind: type


_KINDS = {
    ValueType.FLOAT: float,
    ValueType.INTEGER: int,
    ValueType.BOOLEAN: bool,
    ValueType.STRING: str,
}


@dataclass(slots=True)
class _Measurement:
    """What one transaction knows of a measurement: its number, its fields, and its series' numbers
    by their tags."""

    number: int
    fields: dict[str, _Field]
    series: dict[str, int] = dataclass_field(default_factory=dict)


class Catalogue:
    """The numbers of measurements, series and fields; what is new gets one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._measurements: dict[str, _Measurement] = {}

    def measurement(self, name: str) -> _Measurement:
        """`name` and its fields, once looked up."""
        known = self._measurements.get(name)
        if known is None:
            known = self._measurements[name] = self._find_measurement(name)
        return known

    def find_series(self, measurement: _Measurement, tags: Sequence[str]) -> None:
        """Look up the series that there are already, many at once."""
        for at in range(0, len(tags), SERIES_AT_ONCE):
            some = tags[at : at + SERIES_AT_ONCE]
            query = f"{_FIND_SERIES} ({','.join('?' * len(some))})"
            measurement.series.update(
                self._connection.execute(query, (measurement.number, *some)).fetchall()
            )

    def series(self, measurement: _Measurement, tags: str) -> int:
        """Of a series that `find_series` was asked for."""
        number = measurement.series.get(tags)
        if number is None:
            number = measurement.series[tags] = self._insert(
                "INSERT INTO series (measurement_id, tags) VALUES (?, ?)",
                (measurement.number, tags),
            )
        return number

    def settle(self, measurement: _Measurement, point: Point) -> None:
        """Raises InvalidPoint if a field has another type than at its first write."""
        types = {name: _value_type(value) for name, value in point.fields.items()}
        for name, value_type in types.items():
            known = measurement.fields.get(name)
            if known is not None and known.value_type != value_type:
                raise InvalidPoint(
                    "field_type_conflict",
                    f"{point.measurement}.{name} is {value_type}, "
                    f"the store holds {known.value_type}",
                )
        # Only now: a point that is refused must not settle the type of its other fields.
        for name, value_type in types.items():
            if name not in measurement.fields:
                number = self._insert(
                    "INSERT INTO field (measurement_id, name, value_type) VALUES (?, ?, ?)",
                    (measurement.number, name, value_type.value),
                )
                measurement.fields[name] = _field(number, value_type)

    def _find_measurement(self, name: str) -> _Measurement:
        found = self._connection.execute(FIND_MEASUREMENT, (name,)).fetchone()
        if found is None:
            number = self._insert("INSERT INTO measurement (name) VALUES (?)", (name,))
            return _Measurement(number, {})
        (number,) = found
        fields = self._connection.execute(FIND_FIELDS, found)
        return _Measurement(
            number, {field: _field(its_number, kind) for its_number, field, kind in fields}
        )

    def _insert(self, statement: str, row: tuple[str | int, ...]) -> int:
        new = self._connection.execute(statement, row).lastrowid
        assert new is not None
        return new


def _field(number: int, value_type: str) -> _Field:
    return _Field(f'"{number}":', value_type, _KINDS[ValueType(value_type)])


Row = tuple[int, int, int, str]
"""What stands for the question marks of UPSERT_POINT."""


def sort_out(
    catalogue: Catalogue, points: Sequence[Point]
) -> tuple[list[Row], list[Point], list[RefusedPoint]]:
    """The rows to write, the points they are from, and the other points."""
    rows: list[Row] = []
    kept: list[Point] = []
    refused: list[RefusedPoint] = []
    tags = [_tags_json(*point.tags.items()) for point in points]
    _find_all_series(catalogue, points, tags)
    for point, its_tags in zip(points, tags, strict=True):
        try:
            rows.append(_row(catalogue, point, its_tags))
        except InvalidPoint as error:
            refused.append(RefusedPoint(point, error.reason, error.detail))
        else:
            kept.append(point)
    return rows, kept, refused


def _find_all_series(catalogue: Catalogue, points: Sequence[Point], tags: Sequence[str]) -> None:
    wanted: dict[str, list[str]] = {}
    for point, its_tags in zip(points, tags, strict=True):
        wanted.setdefault(point.measurement, []).append(its_tags)
    for name, found in wanted.items():
        catalogue.find_series(catalogue.measurement(name), found)


def _row(catalogue: Catalogue, point: Point, tags: str) -> Row:
    if not point.fields or point.time_ns not in INT64:
        problem = "time_out_of_range" if point.fields else "no_fields"
        raise InvalidPoint(problem, f"a point of {point.measurement} at {point.time_ns} ns")
    measurement = catalogue.measurement(point.measurement)
    fields = _usual_json(measurement.fields, point.fields)
    if fields is None:
        catalogue.settle(measurement, point)
        fields = _any_json(measurement.fields, point.fields)
    return measurement.number, point.time_ns, catalogue.series(measurement, tags), fields


@lru_cache(_TAGS)
def _tags_json(*tags: tuple[str, str]) -> str:
    pairs = [f"{_quoted(key)}:{_quoted(value)}" for key, value in sorted(tags) if value]
    return f"{{{','.join(pairs)}}}"


def _usual_json(known: Mapping[str, _Field], fields: Mapping[str, FieldValue]) -> str | None:
    """`fields` if all are known and nothing is odd, as nearly always: else None."""
    pairs = []
    for name, value in fields.items():
        field, kind = known.get(name), type(value)
        if field is None or kind is not field.kind:
            return None
        if kind is float and isfinite(value):  # type: ignore[arg-type]
            pairs.append(f"{field.key}{value!r}")
        elif isinstance(value, str) and value.isascii():
            pairs.append(field.key + _quoted(value))
        elif kind is bool:
            pairs.append(field.key + ("true" if value else "false"))
        elif kind is int and value in INT64:
            pairs.append(f"{field.key}{value!r}")
        else:
            return None
    return f"{{{','.join(pairs)}}}"


def _any_json(known: Mapping[str, _Field], fields: Mapping[str, FieldValue]) -> str:
    """`fields` that the catalogue has settled."""
    pairs = (known[name].key + json.dumps(value) for name, value in fields.items())
    return f"{{{','.join(pairs)}}}"


def _value_type(value: FieldValue) -> ValueType:
    """The type to keep `value` as; InvalidPoint if SQLite cannot give it back as it is."""
    if type(value) is float and isfinite(value):  # nearly all of them
        return ValueType.FLOAT
    match value:
        case bool():
            return ValueType.BOOLEAN
        case float() if isfinite(value):
            return ValueType.FLOAT
        case float():
            raise InvalidPoint("not_finite", f"a field is {value}")
        case int() if value in INT64:
            return ValueType.INTEGER
        case int():
            raise InvalidPoint("out_of_range", f"{value} does not fit into 64 bits")
    if not _is_unicode(value):
        raise InvalidPoint("not_unicode", f"{value!r} has no UTF-8 form")
    return ValueType.STRING


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
