"""Rows of a query, whatever drivers make of them, to points that validation takes."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.catalog import CATALOG, Catalog
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.core.validation import validate
from metrics_pipeline.sources.sql_rows import MAX_WRONG_ROWS, read_rows
from metrics_pipeline.sources.sql_sets import (
    Choices,
    Query,
    SqlField,
    SqlQuery,
    SqlSetFile,
    extend_catalog,
)
from metrics_pipeline.sources.sql_sets import _resolve as resolve

TIME_NS = 1_700_000_000_000_000_000
TYPES = ("integer", "float", "boolean")


def make(tags: tuple[str, ...] = ("k",), **fields: Any) -> tuple[Query, Catalog]:
    """A query with these columns, and the catalogue with its metrics."""
    columns = {name: SqlField(type=type_, help="A number.") for name, type_ in fields.items()}
    query = SqlQuery.model_validate(
        {"measurement": "m", "sql": "SELECT 1", "tags": tags, "fields": columns, "max_rows": 100}
    )
    content = SqlSetFile.model_validate(
        {"version": 1, "database": "d", "interval_seconds": 9, "queries": {"q": query}}
    )
    sql_set = resolve("s", Path("s.yaml"), content, Choices())
    return sql_set.queries[0], extend_catalog(CATALOG, [sql_set])


def read(query: Query, *rows: tuple[object, ...]) -> Reading:
    return read_rows("s", query, ([*query.tags, *query.metrics], rows), {}, TIME_NS)


@pytest.mark.parametrize(
    ("cell", "tag"),
    [
        ("a", "a"),
        (404, "404"),
        (True, "true"),
        (Decimal("1.50"), "1.50"),
        (date(2026, 1, 31), "2026-01-31"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("two\nlines\x00", "two lines"),
        ("x" * 1000, "x" * 200),
    ],
)
def test_a_tag_is_a_text_that_can_be_printed(cell: object, tag: str) -> None:
    query, _ = make(n="integer")
    (point,) = read(query, (cell, 1)).points
    assert point.tags == {"k": tag}


@pytest.mark.parametrize(
    ("type_", "cell", "value"),
    [
        ("integer", Decimal(7), 7),
        ("integer", 7.0, 7),
        ("integer", True, 1),
        ("float", Decimal("0.1"), 0.1),
        ("float", 2**63, 2.0**63),
        ("float", datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC), 1e9),
        ("boolean", 1, True),
        ("boolean", Decimal(0), False),
    ],
)
def test_a_field_has_the_type_of_its_metric(type_: str, cell: object, value: object) -> None:
    query, _ = make(n=type_)
    (point,) = read(query, ("a", cell)).points
    assert point.fields == {"n": value}
    assert type(point.fields["n"]) is type(value)


@pytest.mark.parametrize(
    ("type_", "cell"),
    [
        ("integer", 1.5),
        ("integer", 2**63),
        ("integer", Decimal("1e100000")),
        ("integer", "hunter2"),
        ("integer", b"hunter2"),
        ("integer", ["hunter2"]),
        ("float", Decimal("sNaN")),
        ("float", float("inf")),
        ("float", 10**400),
        ("boolean", 2),
    ],
)
def test_a_cell_that_is_no_such_number_gives_no_point(type_: str, cell: object) -> None:
    query, _ = make(n=type_)
    reading = read(query, ("a", cell))
    assert reading.points == ()
    (failure,) = reading.failures
    assert failure.problem.startswith("row 1: n is ")
    assert "hunter2" not in str(failure)


def test_of_many_wrong_rows_some_are_told() -> None:
    query, _ = make(n="integer")
    (failure,) = read(query, *((f"k{n}", "x") for n in range(50))).failures
    assert failure.problem.count("row ") == MAX_WRONG_ROWS
    assert failure.problem.endswith("and 45 more")


CELLS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes()
    | st.dates()
    | st.timedeltas()
    | st.lists(st.integers(), max_size=2)
)


@given(st.sampled_from(TYPES), st.lists(st.tuples(CELLS, CELLS), max_size=8))
def test_whatever_comes_is_a_fit_point_or_a_failure(
    type_: str, rows: list[tuple[object, object]]
) -> None:
    query, catalog = make(n=type_)
    reading = read(query, *rows)
    for point in reading.points:
        assert validate(point, catalog, TIME_NS) == point
    assert reading.points or reading.failures or all(cell is None for _, cell in rows)
