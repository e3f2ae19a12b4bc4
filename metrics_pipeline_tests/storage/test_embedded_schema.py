"""Files of earlier schemas: everything in them is there afterwards, whoever opens them and when."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.embedded_schema import APPLICATION_ID, SCHEMA_VERSION

END_NS = 2**63 - 1
TYPES = {float: "float", int: "integer", bool: "boolean", str: "string"}
ODD: dict[str, FieldValue] = {
    "whole": 3.0,
    "seventeen_digits": 0.1 + 0.2,
    "largest": 1.7976931348623157e308,
    "below_zero": -0.0,
    "count": 2**63 - 1,
    "least": -(2**63),
    "up": True,
    "down": False,
    "text": 'é "quoted" \\ \n',
    "nothing": "",
}

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


def store_of(path: Path) -> EmbeddedStore:
    return EmbeddedStore(EmbeddedStoreSettings(path=path))


def read(path: Path, measurement: str) -> tuple[Point, ...]:
    with closing(store_of(path)) as store:
        return store.read(measurement, 0, END_NS)


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "points.sqlite"


def test_every_value_of_a_file_of_schema_1_comes_back_with_its_type(path: Path) -> None:
    points = (
        Point("polls", {"device_id": "a", "site": "é"}, ODD, 1),
        Point("polls", {"device_id": "b"}, {"whole": 1.5}, 2),
        Point("polls", {}, {"whole": 2.5, "text": "x"}, 3),
    )
    other = Point("counts", {"device_id": "a"}, {"whole": 7}, 1)
    write_schema_1(path, (*points, other))
    found = read(path, "polls")
    assert found == points
    assert {name: repr(value) for name, value in found[0].fields.items()} == {
        name: repr(value) for name, value in ODD.items()
    }
    assert read(path, "counts") == (other,)
    assert version(path) == SCHEMA_VERSION


def test_writing_goes_on_where_schema_1_ended(path: Path) -> None:
    write_schema_1(path, [Point("polls", {"device_id": "a"}, {"value": 1.5, "count": 1}, 1)])
    with closing(store_of(path)) as store:
        store.write(
            [
                Point("polls", {"device_id": "a"}, {"value": 2.5}, 1),
                Point("polls", {"device_id": "b"}, {"value": 3.5}, 2),
            ]
        )
    assert read(path, "polls") == (
        Point("polls", {"device_id": "a"}, {"value": 2.5, "count": 1}, 1),
        Point("polls", {"device_id": "b"}, {"value": 3.5}, 2),
    )


def test_several_may_open_a_file_of_schema_1_at_once(path: Path) -> None:
    points = tuple(Point("polls", {"n": str(n % 7)}, {"value": n / 3}, n) for n in range(2_000))
    write_schema_1(path, points)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: read(path, "polls"), range(4)):
            assert found == points


UPGRADE = """
import sys
from pathlib import Path
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
store = EmbeddedStore(EmbeddedStoreSettings(path=Path(sys.argv[1])))
print("begins", flush=True)
store.check()
"""


def test_an_upgrade_that_is_killed_has_changed_nothing(path: Path) -> None:
    points = tuple(
        Point("polls", {"n": str(n % 7)}, {"value": n / 3, "count": n}, n) for n in range(20_000)
    )
    write_schema_1(path, points)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", UPGRADE, str(path)], stdout=subprocess.PIPE, env=os.environ
        )
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        assert version(path) in (1, SCHEMA_VERSION)
    assert read(path, "polls") == points
    assert version(path) == SCHEMA_VERSION
