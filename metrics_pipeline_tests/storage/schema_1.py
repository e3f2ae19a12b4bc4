"""Files of the embedded store as its schema 1 was."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from metrics_pipeline.core.points import Point
from metrics_pipeline.storage.embedded_schema import APPLICATION_ID

TYPES = {float: "float", int: "integer", bool: "boolean", str: "string"}

SCHEMA_1 = f"""
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL,
    tags TEXT NOT NULL,
    UNIQUE (measurement, tags)
);
CREATE TABLE field (
    id INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL,
    name TEXT NOT NULL,
    value_type TEXT NOT NULL,
    UNIQUE (measurement, name)
);
CREATE TABLE point (
    series_id INTEGER NOT NULL REFERENCES series,
    time_ns INTEGER NOT NULL,
    field_id INTEGER NOT NULL REFERENCES field,
    value NOT NULL,
    PRIMARY KEY (series_id, time_ns, field_id)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
COMMIT;
"""


def write_schema_1(path: Path, points: Sequence[Point]) -> None:
    """A file as the store of schema 1 wrote it."""
    series: dict[tuple[str, str], int] = {}
    fields: dict[tuple[str, str, str], int] = {}
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA_1)
        for point in points:
            tags = json.dumps(dict(sorted(point.tags.items())), separators=(",", ":"))
            number = series.setdefault((point.measurement, tags), len(series) + 1)
            for name, value in point.fields.items():
                kind = (point.measurement, name, TYPES[type(value)])
                row = (number, point.time_ns, fields.setdefault(kind, len(fields) + 1), value)
                connection.execute("INSERT INTO point VALUES (?, ?, ?, ?)", row)
        connection.executemany(
            "INSERT INTO series VALUES (?, ?, ?)", ((n, *key) for key, n in series.items())
        )
        connection.executemany(
            "INSERT INTO field VALUES (?, ?, ?, ?)", ((n, *key) for key, n in fields.items())
        )
