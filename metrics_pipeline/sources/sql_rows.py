"""From the rows of a query to points. Pure: no database.

A NULL is no value: its field is missing from the point, unless the set says what it means. What is
wrong with a row is said without its texts, which may be anything; only numbers are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from metrics_pipeline.core.catalog import ValueType
from metrics_pipeline.core.errors import SourceError, UnexpectedReply
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.core.row_names import clean_name
from metrics_pipeline.core.validation import INT64_MAX, LARGEST_FLOAT
from metrics_pipeline.sources.sql_sets import Query

MAX_WRONG_ROWS = 5
"""So many are told one by one."""

KINDS: Mapping[type, str] = {str: "a text", type(None): "NULL"}


Rows = tuple[Sequence[str], Sequence[Sequence[object]]]
"""The names of the columns, and the rows."""


class WrongCell(ValueError):
    """A cell is not what its column should be; the text says which and what was expected."""


def read_rows(
    source: str,
    query: Query,
    result: Rows,
    own_tags: Mapping[str, str],
    time_ns: int,
) -> Reading:
    """A point for each row, and a failure for what is wrong with others, of a result.

    Rows of which two are one series, and columns that are not those of the set, give no point.
    """
    columns, rows = result
    problem = _wrong_columns(query, columns) or _wrong_count(query, rows)
    if problem:
        return Reading((), (_unexpected(source, query, problem, rows[:1]),))
    points: list[Point] = []
    wrong: list[str] = []
    for number, row in enumerate(rows, start=1):
        cells = dict(zip(columns, row, strict=True))
        try:
            points.append(_point(query, cells, own_tags, time_ns))
        except WrongCell as error:
            wrong.append(f"row {number}: {error}")
    if _has_twins(points):
        problem = f"two rows have the same {' and '.join(query.tags)}; expected one of each"
        return Reading((), (_unexpected(source, query, problem, ()),))
    failures: tuple[SourceError, ...] = ()
    if wrong:
        more = f" and {len(wrong) - MAX_WRONG_ROWS} more" if len(wrong) > MAX_WRONG_ROWS else ""
        says = f"{'; '.join(wrong[:MAX_WRONG_ROWS])}{more}"
        failures = (_unexpected(source, query, says, ()),)
    return Reading(tuple(point for point in points if point.fields), failures)


def _wrong_columns(query: Query, columns: Sequence[str]) -> str:
    expected = [*query.tags, *query.metrics]
    if Counter(columns) == Counter(expected):
        return ""
    missing = [name for name in expected if name not in columns]
    unknown = [name for name in columns if name not in expected]
    says = [f"it has no column {', '.join(missing)}"] if missing else []
    if unknown:
        says.append(f"{', '.join(unknown)}: neither a tag nor a field of the set")
    return "; ".join(says) or "a column is there twice"


def _wrong_count(query: Query, rows: Sequence[Sequence[object]]) -> str:
    if len(rows) > query.max_rows:
        return f"it gives more than {query.max_rows} rows (max_rows), so nothing of it is stored"
    if not query.tags and len(rows) > 1:
        return f"it gives {len(rows)} rows, and has no tag to tell them apart; expected one"
    return ""


def _unexpected(
    source: str, query: Query, problem: str, rows: Sequence[Sequence[object]]
) -> UnexpectedReply:
    shown = "; ".join(", ".join(map(_shown, row)) for row in rows)
    return UnexpectedReply(source, query.name, problem, shown.encode())


def _has_twins(points: Sequence[Point]) -> bool:
    return len({point.series for point in points}) < len(points)


def _point(
    query: Query, cells: Mapping[str, object], own_tags: Mapping[str, str], time_ns: int
) -> Point:
    tags = {name: _tag(name, cells[name]) for name in query.tags}
    fields: dict[str, FieldValue] = {}
    for name, metric in query.metrics.items():
        cell = cells[name]
        given = query.nulls.get(name) if cell is None else cell
        if given is not None:
            fields[name] = _field(name, given, metric.value_type)
    return Point(query.measurement.name, {**own_tags, **tags}, fields, time_ns)


def _tag(name: str, cell: object) -> str:
    match cell:
        case None:
            raise WrongCell(f"the tag {name} is NULL; write COALESCE({name}, 'none')")
        case bool():
            text = "true" if cell else "false"
        case str() | int() | Decimal() | float() | date() | UUID():
            text = clean_name(str(cell))
        case _:
            raise WrongCell(f"the tag {name} is {_shown(cell)}, expected a text or a number")
    if not text:
        raise WrongCell(f"the tag {name} is empty; write COALESCE(NULLIF({name}, ''), 'none')")
    return text


def _field(name: str, cell: object, value_type: ValueType) -> FieldValue:
    """`cell` in the type of the metric; a time is seconds since the epoch, in UTC if in none."""
    number = _number(name, cell)
    if not _is_finite(number):
        raise WrongCell(f"{name} is {_shown(number)}, expected a finite number")
    if value_type is ValueType.FLOAT:
        return float(number)
    if not -INT64_MAX <= number <= INT64_MAX:
        raise WrongCell(f"{name} is beyond 64 bits")
    if number != int(number):
        raise WrongCell(f"{name} is {_shown(number)}, expected {value_type}")
    if value_type is ValueType.INTEGER:
        return int(number)
    if number not in (0, 1):
        raise WrongCell(f"{name} is {_shown(number)}, expected true or false")
    return bool(number)


def _is_finite(number: float | Decimal) -> bool:
    if isinstance(number, Decimal):
        return number.is_finite() and abs(number) <= LARGEST_FLOAT
    return abs(number) <= LARGEST_FLOAT


def _number(name: str, cell: object) -> float | Decimal:
    match cell:
        case bool():
            return int(cell)
        case int() | float() | Decimal():
            return cell
        case datetime():
            return (cell if cell.tzinfo else cell.replace(tzinfo=UTC)).timestamp()
        case timedelta():
            return cell.total_seconds()
    raise WrongCell(f"{name} is {_shown(cell)}, expected a number")


def _shown(cell: object) -> str:
    """A number as it is; of anything else only the kind."""
    match cell:
        case Decimal():
            return f"{cell:.12g}"
        case int() if abs(cell) > INT64_MAX:
            return "a very large number"
        case bool() | float() | int():
            return repr(cell)
    return KINDS.get(type(cell), f"of the type {type(cell).__name__}")
