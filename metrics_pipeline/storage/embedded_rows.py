"""Points as rows of the embedded store, inside one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from itertools import chain
from math import isfinite

import orjson

from metrics_pipeline.core.catalog import ValueType
from metrics_pipeline.core.errors import InvalidPoint, RefusedPoint
from metrics_pipeline.core.points import FieldValue, Point, Shape, shape_of
from metrics_pipeline.storage.embedded_schema import INSERT_POINT

INT64 = range(-(2**63), 2**63)
FIND_MEASUREMENT = "SELECT id FROM measurement WHERE name = ?"

_FIND_SERIES = "SELECT tags, id FROM series WHERE measurement_id = ? AND tags IN"

FIND_FIELDS = "SELECT id, name, value_type FROM field WHERE measurement_id = ?"

ROWS_AT_ONCE = 200
"""So many are written by one statement: half the CPU of one each, and Python's other threads are
let on once for all of them. SQLite before 3.32 takes 999 parameters at most."""

_ANOTHER_ROW = ", (?, ?, ?, ?)"

# No field is null, so json_patch (RFC 7396) replaces what is named and keeps the rest.
_OR_UPDATE = " ON CONFLICT DO UPDATE SET fields = json_patch(fields, excluded.fields)"

SERIES_AT_ONCE = 500
"""So many are looked up by one statement; SQLite before 3.32 takes 999 parameters at most."""

STRICT = orjson.OPT_STRICT_INTEGER
"""Integers of more than 53 bits are left to who looks whether they fit into 64."""

_TAGS = 16_384
"""So many series are known by their tags without another look at these."""


@dataclass(slots=True)
class _Field:
    key: str
    """Its number, as which it stands in the JSON object of a point."""

    value_type: str


@dataclass(slots=True)
class _Measurement:
    """What one transaction knows of a measurement: its number, its fields, its series' numbers by
    their tags, and the keys of fields by the shape of points that were fit to be stored."""

    number: int
    fields: dict[str, _Field]
    series: dict[str, int] = dataclass_field(default_factory=dict)
    keys: dict[Shape, tuple[str, ...]] = dataclass_field(default_factory=dict)


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
                measurement.fields[name] = _Field(str(number), value_type)
        measurement.keys[shape_of(point.fields)] = tuple(measurement.fields[n].key for n in types)

    def _find_measurement(self, name: str) -> _Measurement:
        found = self._connection.execute(FIND_MEASUREMENT, (name,)).fetchone()
        if found is None:
            number = self._insert("INSERT INTO measurement (name) VALUES (?)", (name,))
            return _Measurement(number, {})
        (number,) = found
        fields = self._connection.execute(FIND_FIELDS, found)
        return _Measurement(
            number, {field: _Field(str(its_number), kind) for its_number, field, kind in fields}
        )

    def _insert(self, statement: str, row: tuple[str | int, ...]) -> int:
        new = self._connection.execute(statement, row).lastrowid
        assert new is not None
        return new


Row = tuple[int, int, int, str]
"""Measurement, time, series and fields."""


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


def write_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Write `rows`; of one that is there already, the fields that the new one names."""
    for at in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[at : at + ROWS_AT_ONCE]
        statement = f"{INSERT_POINT}{_ANOTHER_ROW * (len(some) - 1)}{_OR_UPDATE}"
        connection.execute(statement, tuple(chain.from_iterable(some)))


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
    fields = _usual_json(measurement, point.fields)
    if fields is None:
        catalogue.settle(measurement, point)
        fields = _any_json(measurement.fields, point.fields)
    return measurement.number, point.time_ns, catalogue.series(measurement, tags), fields


@lru_cache(_TAGS)
def _tags_json(*tags: tuple[str, str]) -> str:
    return json.dumps({key: value for key, value in sorted(tags) if value}, separators=(",", ":"))


def _usual_json(measurement: _Measurement, fields: Mapping[str, FieldValue]) -> str | None:
    """`fields` if such were settled before and no value is odd, as nearly always: else None."""
    keys = measurement.keys.get(shape_of(fields))
    if keys is None:
        return None
    try:
        encoded = orjson.dumps(dict(zip(keys, fields.values(), strict=True)), option=STRICT)
    except orjson.JSONEncodeError:  # a large integer, half a character, a type of somebody else
        return None
    return None if b"null" in encoded else encoded.decode()  # what is not finite becomes null


def _any_json(known: Mapping[str, _Field], fields: Mapping[str, FieldValue]) -> str:
    """`fields` that the catalogue has settled."""
    return json.dumps({known[name].key: value for name, value in fields.items()})


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
