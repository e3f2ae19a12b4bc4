"""The embedded store: points in one SQLite file that several processes write at once.

Write-ahead log, `synchronous = FULL` and one immediate transaction per write: what was acknowledged
survives the death of any process, also by SIGKILL, and a power cut. With NORMAL a cut could take
points and leave the checkpoint behind them, which is in another file. FULL costs one sync a write:
2 to 6 ms for 500 points (a seventh to a third more), 16 to 44 ms for 5,000 (8 to 22 %), 2 to 9 %
more CPU; in turns, on a disk that syncs in 0.3 to 3 ms. The file must be on a local disk: SQLite's
write-ahead log does not work over a network file system.

As in InfluxDB, a series with a time identifies a point, a later write replaces the fields it
names, and the type of a field is settled by its first write.

A point is one row, its fields a JSON object, and rows lie in the order of measurement and time:
what is written at one time goes to one place of the file, however many devices it is from. With a
row for each field, in the order of series, a point of 20 fields took four times the CPU and twice
the space (docs/benchmarks.md).

A file of an earlier schema is changed in one transaction, which nobody can write beside: at once by
whoever opens it if that takes seconds, else only by `upgrade`, as a run would be ended before it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.core.errors import PartialWrite, StoreError, StoreUnavailable
from metrics_pipeline.core.points import Point
from metrics_pipeline.storage.embedded_retention import (
    FileSize,
    delete_batch,
    file_size,
    give_back,
    measurements,
)
from metrics_pipeline.storage.embedded_rows import (
    FIND_FIELDS,
    FIND_MEASUREMENT,
    Catalogue,
    sort_out,
    write_rows,
)
from metrics_pipeline.storage.embedded_schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    count_old_values,
    create_file,
    upgrade,
)

COUNTED_POINTS = 100_000
"""`check` counts no further than this, so that it stays cheap when the store is large."""

VALUES_CHANGED_AT_OPENING = 1_000_000
"""Of a file of schema 1: so many take 4 to 6 s of CPU, far less than a run may last."""

VALUES_CHANGED_A_SECOND = 150_000
"""Of CPU time: 20,000,000 took 70 to 90 s, and 2,000,000 in a busier hour 12 s, on the machine of
docs/benchmarks.md."""

TELL_EVERY_SECONDS = 10.0

CACHE_KIB = 32_768
"""What SQLite may keep of the file in memory, so far as it is used."""

UPGRADE_COMMAND = "metrics-pipeline check --upgrade"

WRITING = "BEGIN IMMEDIATE"
"""Takes the write lock at once: doing so at the first write could fail instead of waiting."""

_READ = """
SELECT series.tags, point.time_ns, point.fields
FROM point JOIN series ON series.id = point.series_id
WHERE point.measurement_id = ? AND point.time_ns >= ? AND point.time_ns < ?
ORDER BY point.time_ns, point.series_id
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
            rows, kept, refused = sort_out(Catalogue(connection), points)
            write_rows(connection, rows)
        if refused:
            reasons, problem = Counter(each.reason for each in refused), refused[0].detail
            raise PartialWrite(self.name, len(kept), reasons, problem, kept=kept, refused=refused)

    def read(self, measurement: str, start_ns: int, end_ns: int) -> tuple[Point, ...]:
        """The points of `measurement` from `start_ns` until before `end_ns`, oldest first."""
        # One look at the file: else rows may have fields that were added since.
        with self._session() as connection, _as_one(connection, "BEGIN"):
            found = connection.execute(FIND_MEASUREMENT, (measurement,)).fetchone()
            if found is None:
                return ()
            fields = connection.execute(FIND_FIELDS, found).fetchall()
            rows = connection.execute(_READ, (*found, start_ns, end_ns)).fetchall()
        names = {str(number): name for number, name, _value_type in fields}
        return tuple(
            Point(
                measurement,
                json.loads(tags),
                {names[number]: value for number, value in json.loads(values).items()},
                time_ns,
            )
            for tags, time_ns, values in rows
        )

    def delete_before(self, time_ns: int) -> Iterator[int]:
        """Delete what is older than `time_ns`, and yield how many points each batch was.

        A batch is a transaction, made when the iterator is asked for it. Raises as `write` does.
        """
        with self._session() as connection:
            numbers = measurements(connection)
        for number in numbers:
            deleted = None
            while deleted != 0:
                with self._transaction() as connection:
                    deleted = delete_batch(connection, number, time_ns)
                yield deleted

    def give_back(self) -> Iterator[int]:
        """Give free space of the file back, but for a tenth, and yield the bytes of each step.

        A file that an earlier release made does not shrink: what is free in it is used again.
        Raises as `write` does.
        """
        steps = None
        while steps != []:
            with self._session() as connection:
                steps = list(islice(give_back(connection), 1))
            yield from steps

    def file_size(self) -> FileSize:
        """How large the file is, without its log."""
        with self._session() as connection:
            return file_size(connection)

    def upgrade(self, tell: Callable[[str], None]) -> None:
        """Bring a file of an earlier schema to this one, if it takes minutes too, and tell of it.

        For who starts everything else afterwards. Nothing where there is no file, or no need to.
        Raises StoreUnavailable and StoreError as `write` does; then nothing has changed.
        """
        if not self._path.exists():
            return
        with self._lock:
            try:
                self._open(tell).close()
            except sqlite3.Error as error:
                raise _translated(error, self.name) from error

    def check(self) -> str:
        """How much there is, after proving that a write would work.

        A file of an earlier schema stays as it is, and that is said.
        """
        if earlier := self._earlier_schema():
            return (
                f"{self.name} can be written; it will be upgraded from schema {earlier} to "
                f"{SCHEMA_VERSION} when the product starts, or by `{UPGRADE_COMMAND}` before, "
                "while nothing runs"
            )
        with self._transaction() as connection:
            (series,) = connection.execute("SELECT count(*) FROM series").fetchone()
            (points,) = connection.execute(
                "SELECT count(*) FROM (SELECT 1 FROM point LIMIT ?)", (COUNTED_POINTS + 1,)
            ).fetchone()
        counted = f"{points}" if points <= COUNTED_POINTS else f"more than {COUNTED_POINTS}"
        return f"{self.name}, {series} series, {counted} points"

    def _earlier_schema(self) -> int | None:
        """Of a file of an earlier schema its version, after taking its write lock."""
        if not self._path.exists():
            return None
        with self._lock:
            try:
                with closing(self._connect()) as connection:
                    version = _version(connection)
                    if version >= SCHEMA_VERSION:
                        return None
                    with self._waiting_for_a_change(), _as_one(connection, WRITING):
                        return version
            except sqlite3.Error as error:
                raise _translated(error, self.name) from error

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._disconnect()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._session() as connection, _as_one(connection, WRITING):
            yield connection

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

    def _open(self, tell: Callable[[str], None] | None = None) -> sqlite3.Connection:
        if not self._path.exists():
            self._create()
        connection = self._connect()
        try:
            self._check_schema(connection, tell)
        except (sqlite3.Error, StoreError):
            connection.close()
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._settings.busy_timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._require_ours(connection)
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
            create_file(self._path)
        except OSError as error:
            raise StoreUnavailable(
                self.name,
                f"cannot be created ({error.strerror})",
                f"Make {self._path.parent} a directory this user may write to.",
            ) from error

    def _require_ours(self, connection: sqlite3.Connection) -> None:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        if application_id != APPLICATION_ID:
            raise StoreError(
                self.name,
                "this SQLite file was not made by metrics_pipeline",
                "Name another file under `path`.",
            )

    def _check_schema(
        self, connection: sqlite3.Connection, tell: Callable[[str], None] | None
    ) -> None:
        if _version(connection) < SCHEMA_VERSION:
            self._upgrade(connection, tell)
        version = _version(connection)
        if version > SCHEMA_VERSION:
            raise StoreError(
                self.name,
                f"the file has schema version {version}, this program knows {SCHEMA_VERSION}",
                "Start the newer program that wrote it, or name another file under `path`.",
            )

    def _upgrade(self, connection: sqlite3.Connection, tell: Callable[[str], None] | None) -> None:
        with self._waiting_for_a_change(), _as_one(connection, WRITING):
            if _version(connection) == SCHEMA_VERSION:
                return  # another process was faster
            if tell is None:
                self._require_few_values(connection)
                upgrade(connection, lambda _changed: None)
            else:
                self._upgrade_and_tell(connection, tell)

    @contextmanager
    def _waiting_for_a_change(self) -> Iterator[None]:
        """Says what it may be that holds the write lock of a file of an earlier schema."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
            raise StoreUnavailable(
                self.name,
                f"the file is not of schema {SCHEMA_VERSION} yet, and another process has been "
                "writing to it for longer than busy_timeout_seconds",
                "That process may be changing the file: wait until it has ended.",
            ) from error

    def _require_few_values(self, connection: sqlite3.Connection) -> None:
        if count_old_values(connection, VALUES_CHANGED_AT_OPENING + 1) > VALUES_CHANGED_AT_OPENING:
            raise StoreError(
                self.name,
                f"the file is not of schema {SCHEMA_VERSION} yet, and has more than "
                f"{VALUES_CHANGED_AT_OPENING:,} values, whose change takes too long here",
                f"Back the file up, and run `{UPGRADE_COMMAND}` once while nothing else runs.",
            )

    def _upgrade_and_tell(
        self, connection: sqlite3.Connection, tell: Callable[[str], None]
    ) -> None:
        count = count_old_values(connection)
        minutes = round(count / VALUES_CHANGED_A_SECOND / 60)
        duration = f"about {minutes} min" if minutes else "less than a minute"
        tell(
            f"Changing {count:,} values of {self.name} to schema {SCHEMA_VERSION}: {duration}, "
            "more on a slow disk or a busy machine. If this is stopped, the file stays as it is."
        )
        upgrade(connection, _progress(count, tell))
        tell("All values are changed; ending the transaction.")


@contextmanager
def _as_one(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """What is read in it is of one moment; all that is written in it is kept, or nothing."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            with suppress(sqlite3.Error):  # the first error is the one to tell
                connection.execute("ROLLBACK")


def _progress(count: int, tell: Callable[[str], None]) -> Callable[[int], None]:
    told = time.monotonic()

    def progress(changed: int) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_EVERY_SECONDS:
            told = time.monotonic()
            tell(f"{changed:,} of {count:,} values are changed.")

    return progress


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


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


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's, without what an extended one adds: https://www.sqlite.org/rescode.html."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def _translated(error: sqlite3.Error, store: str) -> StoreError:
    kind, fix = _TROUBLE.get(
        primary_code(error),
        (StoreError, "`PRAGMA integrity_check` in the sqlite3 shell may say more"),
    )
    return kind(store, f"SQLite answers: {error}", f"{fix}.")
