"""The embedded store's file: its tables, how it is made and how it is brought up to date."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

from metrics_pipeline.core.catalog import ValueType
from metrics_pipeline.core.points import FieldValue

APPLICATION_ID = 0x4D504950  # "MPIP": tells our files from other people's SQLite files.
SCHEMA_VERSION = 2

TABLES = (
    """
    CREATE TABLE measurement (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    )
    """,
    """
    CREATE TABLE series (
        id INTEGER PRIMARY KEY,
        measurement_id INTEGER NOT NULL REFERENCES measurement,
        tags TEXT NOT NULL,  -- a JSON object, keys sorted
        UNIQUE (measurement_id, tags)
    )
    """,
    """
    CREATE TABLE field (
        id INTEGER PRIMARY KEY,
        measurement_id INTEGER NOT NULL REFERENCES measurement,
        name TEXT NOT NULL,
        value_type TEXT NOT NULL,
        UNIQUE (measurement_id, name)
    )
    """,
    """
    CREATE TABLE point (
        measurement_id INTEGER NOT NULL REFERENCES measurement,
        time_ns INTEGER NOT NULL,
        series_id INTEGER NOT NULL REFERENCES series,
        fields TEXT NOT NULL,  -- a JSON object: the numbers of the fields, their values
        PRIMARY KEY (measurement_id, time_ns, series_id)
    ) WITHOUT ROWID
    """,
)

INSERT_POINT = "INSERT INTO point (measurement_id, time_ns, series_id, fields) VALUES (?, ?, ?, ?)"

PROGRESS_EVERY_VALUES = 100_000

_OldRow = tuple[int, int, int, int, FieldValue, str]

_FROM_SCHEMA_1 = (
    """
    INSERT INTO measurement (name)
    SELECT measurement FROM old_series UNION SELECT measurement FROM old_field
    """,
    """
    INSERT INTO series (id, measurement_id, tags) SELECT old.id, measurement.id, tags
    FROM old_series AS old JOIN measurement ON measurement.name = old.measurement
    """,
    """
    INSERT INTO field (id, measurement_id, name, value_type)
    SELECT old.id, measurement.id, old.name, value_type
    FROM old_field AS old JOIN measurement ON measurement.name = old.measurement
    """,
)


def create_file(path: Path) -> None:
    """Make the store beside `path` and move it there whole, unless another process was faster.

    Two processes that turn one file into a write-ahead-logged one at the same time would fail.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    draft.unlink(missing_ok=True)
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        # Before the first table: only then is the space of points that were deleted given back.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    finally:
        connection.close()
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def count_old_values(connection: sqlite3.Connection, at_most: int = -1) -> int:
    """How many values a file of schema 1 has; beyond `at_most` it does not look."""
    (count,) = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM point LIMIT ?)", (at_most,)
    ).fetchone()
    return int(count)


def upgrade(connection: sqlite3.Connection, progress: Callable[[int], None]) -> None:
    """Bring a file of schema 1 to this one, inside a transaction.

    Schema 1 had a row for each field of a point and the measurement's name in each series.
    `progress` is called with the number of values changed, each time it has grown by 100,000.
    """
    # Else the pages of the old tables are overwritten with zeros, by way of the log: Debian's
    # SQLite does so by default, and it took as much space again.
    connection.execute("PRAGMA secure_delete = OFF")
    for table in ("series", "field", "point"):
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in TABLES:
        connection.execute(statement)
    for statement in _FROM_SCHEMA_1:
        connection.execute(statement)
    connection.executemany(INSERT_POINT, _old_points(connection, progress))
    for table in ("point", "field", "series"):
        connection.execute(f"DROP TABLE old_{table}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _old_points(
    connection: sqlite3.Connection, progress: Callable[[int], None]
) -> Iterator[tuple[int, int, int, str]]:
    rows = connection.execute(
        "SELECT field.measurement_id, time_ns, series_id, field_id, value, value_type "
        "FROM old_point JOIN field ON field.id = field_id ORDER BY series_id, time_ns, field_id"
    )
    told = _telling(rows, progress)
    for point, values in itertools.groupby(told, key=itemgetter(0, 1, 2)):
        fields = {number: _typed(value, value_type) for *_, number, value, value_type in values}
        yield (*point, json.dumps(fields, separators=(",", ":")))


def _telling(rows: Iterable[_OldRow], progress: Callable[[int], None]) -> Iterator[_OldRow]:
    for number, row in enumerate(rows, 1):
        yield row
        if number % PROGRESS_EVERY_VALUES == 0:
            progress(number)


def _typed(value: FieldValue, value_type: str) -> FieldValue:
    # Schema 1 kept booleans as numbers.
    return bool(value) if value_type == ValueType.BOOLEAN else value
