"""Dagster's tables in SQLite files, opened and asked with less work than Dagster's own classes do.

These read all of Dagster's migrations whenever they are opened, which is at each tick of a sensor;
open and close the file for each statement; and ask for the schema again before many of them. That
was half of what the code server and the daemon took of a machine where nothing happens.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

import sqlalchemy as sa
from dagster._core.storage import event_log
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.orchestration.deflated_texts import deflate_in
from metrics_pipeline.orchestration.lean_events import LeanEvents

EVENT_LOG_FORMAT = 0
"""What a file says as `user_version`. A release that keeps texts otherwise than `deflated_texts`
does, so that this one could not read them, says 1."""

FileId = tuple[int, int] | None


class KeptOpen:
    """Connections that stay open, and what was found out of the schema: tables do not go away."""

    _conn_string: str
    _opened: tuple[FileId, sa.Engine] | None = None

    @property
    def engine(self) -> sa.Engine:
        """Made when it is first needed, so never before a fork, and anew for another file."""
        file = _file_id(self._file)
        if self._opened is None or self._opened[0] != file:
            self.close()
            timeout = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
            engine = sa.create_engine(self._conn_string, connect_args=timeout, max_overflow=-1)
            self._prepare(engine)
            self._opened = file, engine
        return self._opened[1]

    def _prepare(self, engine: sa.Engine) -> None:
        sa.event.listen(engine, "connect", _free_without_writing)

    @cached_property
    def _file(self) -> Path:
        return _file_of(self._conn_string)

    @cached_property
    def _found(self) -> set[str]:
        return set()

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A transaction."""
        with self.engine.begin() as connection:
            yield connection

    def knows(self, what: str, is_there: Callable[[], bool]) -> bool:
        """Whether it is there; asked until it is."""
        if what not in self._found and is_there():
            self._found.add(what)
        return what in self._found

    def close(self) -> None:
        """Close the connections; the next question opens others."""
        if self._opened is not None:
            self._opened[1].dispose()


class Runs(KeptOpen, SqliteRunStorage):
    """Runs, their tags, heartbeats and cursors."""

    @classmethod
    def from_local(cls, base_dir: str, inst_data: ConfigurableClassData | None = None) -> Self:
        """With the tables made if they are not there."""
        url = create_db_conn_string(base_dir, "runs")
        return cls(url, inst_data) if _is_made(url) else super().from_local(base_dir, inst_data)

    def has_built_index(self, migration_name: str) -> bool:
        """Whether that migration of data was done."""
        ask = super().has_built_index
        return self.knows(migration_name, lambda: ask(migration_name))

    def has_run_stats_index_cols(self) -> bool:
        """Whether runs have the columns for their times."""
        return self.knows("run_stats", super().has_run_stats_index_cols)

    def dispose(self) -> None:
        """Close it."""
        self.close()


class Schedules(KeptOpen, SqliteScheduleStorage):
    """Which schedules and sensors are on, and their ticks."""

    @classmethod
    def from_local(
        cls, base_dir: str, inst_data: ConfigurableClassData | None = None
    ) -> SqliteScheduleStorage:
        """With the tables made if they are not there."""
        url = create_db_conn_string(base_dir, "schedules")
        return cls(url, inst_data) if _is_made(url) else super().from_local(base_dir, inst_data)

    def has_built_index(self, migration_name: str) -> bool:
        """Whether that migration of data was done."""
        ask = super().has_built_index
        return self.knows(migration_name, lambda: ask(migration_name))

    def has_instigators_table(self) -> bool:
        """Whether the table is there, by a connection of its own."""
        return self.knows("instigators", super().has_instigators_table)

    def _has_instigators_table(self, conn: sa.Connection) -> bool:
        ask = super()._has_instigators_table
        return self.knows("instigators", lambda: ask(conn))

    def dispose(self) -> None:
        """Close it."""
        self.close()


class ConsolidatedSqliteEventLogStorage(
    LeanEvents, KeptOpen, event_log.ConsolidatedSqliteEventLogStorage
):
    """One event log for all runs, instead of a file of 160 kB a run.

    Called as Dagster's is, for the name is shown to people.
    """

    _connect = KeptOpen.connect

    def _prepare(self, engine: sa.Engine) -> None:
        super()._prepare(engine)
        deflate_in(engine)

    def dispose(self) -> None:
        """Close it, and watch nothing any more."""
        super().dispose()  # type: ignore[no-untyped-call]
        self.close()


class ConsolidatedSqliteStorage(DagsterSqliteStorage):
    """All three, below one folder, where Dagster's own storage would have them.

    ConfigurationError if a later release wrote what this one cannot read.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        folder = Path(base_dir)
        _refuse_later(folder / "history" / "events" / "event_log.db")
        self.base_dir = base_dir
        self._run_storage = Runs.from_local(str(folder / "history"))
        events = ConsolidatedSqliteEventLogStorage(str(folder / "history" / "events"))
        self._event_log_storage = events  # type: ignore[assignment]
        self._schedule_storage = Schedules.from_local(str(folder / "schedules"))
        self._inst_data = inst_data
        DagsterStorage.__init__(self)  # type: ignore[no-untyped-call,arg-type]


def _free_without_writing(connection: sqlite3.Connection, _record: object) -> None:
    """Debian's SQLite writes zeros over each page that it frees: half of what a purge wrote."""
    connection.execute("PRAGMA secure_delete = FAST").close()


def _file_of(url: str) -> Path:
    return Path(sa.make_url(url).database or "")


def _file_id(file: Path) -> FileId:
    """What stays as long as nobody puts another file there, as who restores one does."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _refuse_later(file: Path) -> None:
    if not file.exists():
        return
    with closing(sqlite3.connect(file, SQLITE_BUSY_TIMEOUT_SECONDS)) as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > EVENT_LOG_FORMAT:
        raise ConfigurationError(
            f"Dagster's event log {file}",
            f"it is of format {found}, and this release knows {EVENT_LOG_FORMAT}",
            "Upgrade metrics-pipeline, or restore the back-up from before its upgrade.",
        )


def _is_made(url: str) -> bool:
    """Whether Dagster has noted in the file which schema it has: then its tables are all there."""
    file = _file_of(url)
    if not file.exists():
        return False
    with closing(sqlite3.connect(file, SQLITE_BUSY_TIMEOUT_SECONDS)) as connection:
        try:
            return connection.execute("SELECT 1 FROM alembic_version").fetchone() is not None
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return False
            raise
