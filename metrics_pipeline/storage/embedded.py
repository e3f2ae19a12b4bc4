"""The embedded store: points in one SQLite file that several processes write at once.

Write-ahead log, `synchronous = NORMAL` and one immediate transaction per write: what was
acknowledged survives the death of any process, also by SIGKILL. A power cut can take the last
writes before it, never the file. Eight writers and a reader reached 294,000 points/s on two
cores, at about 29 bytes a point (COMPONENTS.md). The file must be on a local disk: SQLite's
write-ahead log does not work over a network file system.

As in InfluxDB, a series with a time identifies a point, a later write replaces the fields it
names, and the type of a field is settled by its first write.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from json.encoder import encode_basestring_ascii as _quoted
from math import isfinite
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.core.catalog import ValueType
from metrics_pipeline.core.errors import (
    InvalidPoint,
    PartialWrite,
    RefusedPoint,
    StoreError,
    StoreUnavailable,
)
from metrics_pipeline.core.points import FieldValue, Point

APPLICATION_ID = 0x4D504950  # "MPIP": tells our files from other people's SQLite files.
SCHEMA_VERSION = 1

INT64 = range(-(2**63), 2**63)
COUNTED_VALUES = 100_000
"""`check` counts no further than this, so that it stays cheap when the store is large."""

_SCHEMA = f"""
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL,
    tags TEXT NOT NULL,  -- a JSON object, keys sorted
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
    value NOT NULL,  -- no declared type: SQLite then keeps what it is given
    PRIMARY KEY (series_id, time_ns, field_id)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

_FIND_SERIES = "SELECT tags, id FROM series WHERE measurement = ? AND tags IN"

_INSERT = "INSERT INTO point (series_id, time_ns, field_id, value) VALUES"
_OR_UPDATE = "ON CONFLICT DO UPDATE SET value = excluded.value"

CACHE_KIB = 32_768
"""What SQLite may keep of the file in memory, so far as it is used. Points of thousands of series
go to as many places: 4,000 devices with 20 fields took 71 µs CPU a point, with 2 MB 94 µs."""

ROWS_AT_ONCE = 100
"""So many fields of a point go with one statement; SQLite before 3.32 takes 999 parameters."""

SERIES_AT_ONCE = 500
"""So many are looked up by one statement; SQLite before 3.32 takes 999 parameters at most."""

_READ = """
SELECT series.tags, point.time_ns, field.name, field.value_type, point.value
FROM series
JOIN point ON point.series_id = series.id AND point.time_ns >= ? AND point.time_ns < ?
JOIN field ON field.id = point.field_id
WHERE series.measurement = ?
ORDER BY point.time_ns, point.series_id, point.field_id
"""


class EmbeddedStoreSettings(BaseModel, frozen=True, extra="forbid"):
    """Points in one SQLite file: nothing to install, for one machine."""

    kind: Literal["embedded"] = Field(
        default="embedded", description="Chooses the embedded store (SQLite)."
    )
    path: StatePath = Field(
        default=Path("embedded.sqlite"),
        validate_default=True,
        description="The file, on a local disk; relative to the state directory.",
    )
    busy_timeout_seconds: float = Field(
        default=10,
        gt=0,
        le=60,
        description="How long a write waits for another process's write, in seconds.",
    )


class EmbeddedStore:
    """`PointStore` over one SQLite file; may be shared between threads."""

    def __init__(self, settings: EmbeddedStoreSettings) -> None:
        self._settings = settings
        self._path = settings.path.absolute()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Where it is."""
        return f"embedded store {self._path}"

    def write(self, points: Sequence[Point]) -> None:
        """Store all `points` in one transaction.

        Raises PartialWrite for the points that cannot be kept (`field_type_conflict`,
        `not_finite`, …), StoreUnavailable when the file is locked, gone or on a full disk, and
        StoreError when it is read-only, damaged or not ours.
        """
        if not points:
            return
        with self._transaction() as connection:
            rows, kept, refused = _sort_out(_Ids(connection), points)
            for count, some in itertools.groupby(rows, len):
                connection.executemany(_upsert(count // COLUMNS), some)
        if refused:
            reasons, problem = Counter(each.reason for each in refused), refused[0].detail
            raise PartialWrite(self.name, len(kept), reasons, problem, kept=kept, refused=refused)

    def read(self, measurement: str, start_ns: int, end_ns: int) -> tuple[Point, ...]:
        """The points of `measurement` from `start_ns` until before `end_ns`, oldest first."""
        with self._session() as connection:
            rows = connection.execute(_READ, (start_ns, end_ns, measurement)).fetchall()
        return tuple(
            Point(
                measurement,
                json.loads(tags),
                {name: _typed(value, value_type) for *_, name, value_type, value in group},
                time_ns,
            )
            for (tags, time_ns), group in itertools.groupby(rows, key=lambda row: row[:2])
        )

    def check(self) -> str:
        """How much there is, after proving that a write would work."""
        with self._transaction() as connection:
            (series,) = connection.execute("SELECT count(*) FROM series").fetchone()
            (values,) = connection.execute(
                "SELECT count(*) FROM (SELECT 1 FROM point LIMIT ?)", (COUNTED_VALUES + 1,)
            ).fetchone()
        counted = f"{values}" if values <= COUNTED_VALUES else f"more than {COUNTED_VALUES}"
        return f"{self.name}, {series} series, {counted} values"

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._disconnect()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._session() as connection:
            # Takes the write lock now: a later upgrade could fail instead of waiting.
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    with suppress(sqlite3.Error):  # the first error is the one to tell
                        connection.execute("ROLLBACK")

    @contextmanager
    def _session(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connected()
            except sqlite3.Error as error:
                # Whatever it was, the next write starts from the file as it is then.
                self._disconnect()
                raise _translated(error, self.name) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._file != _identity(self._path):
            # Without this, writes would go on into a deleted file and be lost at its closing.
            self._disconnect()
        if self._connection is None:
            self._connection = self._open()
            self._file = _identity(self._path)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if not self._path.exists():
            self._create()
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._settings.busy_timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._check_schema(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        except (sqlite3.Error, StoreError):
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        if self._file is not None:
            raise StoreUnavailable(
                self.name,
                "the file was there and is gone",
                "Bring it back (is a disk not mounted?), or restart to begin an empty one.",
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _create_file(self._path)
        except OSError as error:
            raise StoreUnavailable(
                self.name,
                f"cannot be created ({error.strerror})",
                f"Make {self._path.parent} a directory this user may write to.",
            ) from error

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application_id != APPLICATION_ID:
            raise StoreError(
                self.name,
                "this SQLite file was not made by metrics_pipeline",
                "Name another file under `path`.",
            )
        if version != SCHEMA_VERSION:
            raise StoreError(
                self.name,
                f"the file has schema version {version}, this program knows {SCHEMA_VERSION}",
                "Start the newer program that wrote it, or name another file under `path`.",
            )


_SeriesKey = tuple[str, str]
"""Measurement and tags as they are in the table `series`."""


def _series_key(point: Point) -> _SeriesKey:
    tags = [
        f"{_quoted(key)}:{_quoted(value)}" for key, value in sorted(point.tags.items()) if value
    ]
    return point.measurement, f"{{{','.join(tags)}}}"


class _Ids:
    """The numbers of series and fields, inside one transaction; what is new gets one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._series: dict[_SeriesKey, int] = {}
        self._fields: dict[tuple[str, str], tuple[int, str]] = {}
        self._settled: dict[str, dict[str, tuple[int, type]]] = {}

    def find_series(self, keys: Iterable[_SeriesKey]) -> None:
        """Look up the series that there are already, many at once."""
        wanted: dict[str, list[str]] = {}
        for measurement, tags in keys:
            wanted.setdefault(measurement, []).append(tags)
        for measurement, found in wanted.items():
            for at in range(0, len(found), SERIES_AT_ONCE):
                some = found[at : at + SERIES_AT_ONCE]
                query = f"{_FIND_SERIES} ({','.join('?' * len(some))})"
                for tags, number in self._connection.execute(query, (measurement, *some)):
                    self._series[measurement, tags] = number

    def of_series(self, key: _SeriesKey) -> int:
        """Of a series that `find_series` was asked for."""
        number = self._series.get(key)
        if number is None:
            number = self._series[key] = self._insert_series(key)
        return number

    def known_row(self, point: Point, key: _SeriesKey) -> _Row | None:
        """The row of a point of which all is known and nothing is odd, as nearly all are."""
        series, settled = self._series.get(key), self._settled.get(point.measurement)
        if series is None or settled is None:
            return None
        time_ns = point.time_ns
        row: _Row = []
        for name, value in point.fields.items():
            field, kind = settled.get(name), type(value)
            if field is None or kind is not field[1]:
                return None
            if kind is float:
                is_usual = isfinite(value)  # type: ignore[arg-type]
            else:
                is_usual = value.isascii() if kind is str else value in INT64  # type: ignore[union-attr]
            if not is_usual:
                return None
            row += (series, time_ns, field[0], value)
        return row

    def of_fields(self, point: Point) -> dict[str, int]:
        """Raises InvalidPoint if a field has another type than at its first write."""
        known = {name: self._field(point.measurement, name) for name in point.fields}
        types = {name: _value_type(value) for name, value in point.fields.items()}
        for name, field in known.items():
            if field is not None and field[1] != types[name]:
                raise InvalidPoint(
                    "field_type_conflict",
                    f"{point.measurement}.{name} is {types[name]}, the store holds {field[1]}",
                )
        # Only now: a point that is refused must not settle the type of its other fields.
        numbers = {
            name: field[0] if field else self._insert_field(point.measurement, name, types[name])
            for name, field in known.items()
        }
        settled = self._settled.setdefault(point.measurement, {})
        settled |= {name: (numbers[name], type(value)) for name, value in point.fields.items()}
        return numbers

    def _field(self, measurement: str, name: str) -> tuple[int, str] | None:
        key = (measurement, name)
        if key not in self._fields:
            found = self._connection.execute(
                "SELECT id, value_type FROM field WHERE measurement = ? AND name = ?", key
            ).fetchone()
            if found is None:
                return None
            self._fields[key] = found
        return self._fields[key]

    def _insert_series(self, key: _SeriesKey) -> int:
        return self._insert("INSERT INTO series (measurement, tags) VALUES (?, ?)", key)

    def _insert_field(self, measurement: str, name: str, value_type: ValueType) -> int:
        return self._insert(
            "INSERT INTO field (measurement, name, value_type) VALUES (?, ?, ?)",
            (measurement, name, value_type.value),
        )

    def _insert(self, statement: str, row: tuple[str, ...]) -> int:
        new = self._connection.execute(statement, row).lastrowid
        assert new is not None
        return new


_Row = list[FieldValue]
"""What stands for the question marks of a statement: for each field of a point four values."""

COLUMNS = 4


@functools.cache
def _upsert(rows: int) -> str:
    return f"{_INSERT} {', '.join(['(?, ?, ?, ?)'] * rows)} {_OR_UPDATE}"


def _sort_out(
    ids: _Ids, points: Sequence[Point]
) -> tuple[list[_Row], list[Point], list[RefusedPoint]]:
    """The rows to write, the points they are from, and the other points."""
    rows: list[_Row] = []
    kept: list[Point] = []
    refused: list[RefusedPoint] = []
    keys = list(map(_series_key, points))
    ids.find_series(keys)
    for point, key in zip(points, keys, strict=True):
        try:
            row = ids.known_row(point, key) if point.time_ns in INT64 else None
            rows += _cut(row or _new_row(ids, point, key))
        except InvalidPoint as error:
            refused.append(RefusedPoint(point, error.reason, error.detail))
        else:
            kept.append(point)
    return rows, kept, refused


def _cut(row: _Row) -> Iterable[_Row]:
    """`row` in pieces of which each fits into one statement."""
    longest = ROWS_AT_ONCE * COLUMNS
    if len(row) <= longest:
        return (row,)
    return (row[at : at + longest] for at in range(0, len(row), longest))


def _new_row(ids: _Ids, point: Point, key: _SeriesKey) -> _Row:
    if not point.fields or point.time_ns not in INT64:
        problem = "time_out_of_range" if point.fields else "no_fields"
        raise InvalidPoint(problem, f"a point of {point.measurement} at {point.time_ns} ns")
    fields = ids.of_fields(point)
    series = ids.of_series(key)
    row: _Row = []
    for name, value in point.fields.items():
        row += (series, point.time_ns, fields[name], value)
    return row


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


def _typed(value: FieldValue, value_type: str) -> FieldValue:
    # SQLite has no booleans; all other types come back as they went in.
    return bool(value) if value_type == ValueType.BOOLEAN else value


def _create_file(path: Path) -> None:
    """Make the store beside `path` and move it there whole, unless another process was faster.

    Two processes that turn one file into a write-ahead-logged one at the same time would fail.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    draft.unlink(missing_ok=True)
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        connection.executescript(_SCHEMA)
    finally:
        connection.close()
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


_TROUBLE: Mapping[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (
        StoreUnavailable,
        "Another process has been writing for longer than busy_timeout_seconds; find it",
    ),
    sqlite3.SQLITE_FULL: (StoreUnavailable, "Free space on its disk"),
    sqlite3.SQLITE_IOERR: (
        StoreUnavailable,
        "Its disk is full, over quota or broken; the kernel's log may say which",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailable,
        "Make its directory one that exists and that this user may write to",
    ),
    sqlite3.SQLITE_READONLY: (StoreError, "Let this user write to the file and its directory"),
    sqlite3.SQLITE_NOTADB: (StoreError, "It is not a SQLite file: name another one under `path`"),
    sqlite3.SQLITE_CORRUPT: (StoreError, "Restore it from a backup, or move it away and restart"),
}


def _translated(error: sqlite3.Error, store: str) -> StoreError:
    # The low byte is the primary code, https://www.sqlite.org/rescode.html.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    kind, fix = _TROUBLE.get(
        code, (StoreError, "`PRAGMA integrity_check` in the sqlite3 shell may say more")
    )
    return kind(store, f"SQLite answers: {error}", f"{fix}.")
