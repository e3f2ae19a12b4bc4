"""Dagster's storage in PostgreSQL, with lean events. Slow to import, so only where it is used.

Dagster's own connects for each of its questions, a hundred times a run, and looks for its tables
whenever it is opened, which is at each tick of a sensor. Here all of a process share an engine.
"""

from collections.abc import Callable
from functools import cache

import sqlalchemy as sa
from dagster._core.storage.event_log.migration import ASSET_KEY_INDEX_COLS
from dagster._core.storage.event_log.schema import AssetEventTagsTable, SqlEventLogStorageTable
from dagster._core.storage.runs.schema import InstanceInfo, RunsTable
from dagster._core.storage.schedules.schema import JobTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from dagster_postgres.utils import retry_pg_connection_fn

from metrics_pipeline.access.sparing_connections import be_sparing
from metrics_pipeline.orchestration.lean_events import LeanEvents

TABLES = {table.name for table in (RunsTable, InstanceInfo, SqlEventLogStorageTable, JobTable)}
"""Of each storage the one that Dagster makes first, or last."""


class LeanPostgresEventLog(LeanEvents, PostgresEventLogStorage):
    """Dagster's event log in PostgreSQL, which looks for what it has once a process.

    Dagster looks in the middle of storing an asset's event, over a second connection: where the
    server is full processes would wait for each other.
    """

    def has_table(self, table_name: str) -> bool:
        """Whether it is there; asked until it is."""
        return self._knows(table_name, super().has_table)

    def has_secondary_index(self, name: str) -> bool:
        """Whether Dagster has made it; asked until it has."""
        return self._knows(name, super().has_secondary_index)

    def look_once(self) -> None:
        """For what is asked for while an asset's event is stored."""
        self.has_table(AssetEventTagsTable.name)
        self.has_secondary_index(ASSET_KEY_INDEX_COLS)

    def _knows(self, what: str, is_there: Callable[[str], bool]) -> bool:
        found = _found(self.postgres_url)
        if what not in found and is_there(what):
            found.add(what)
        return what in found


class PostgresStorage(DagsterPostgresStorage):
    """Runs, events, schedules in the database of one URL, whose tables it makes if need be."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        # Not that of the class itself, which opens an event log of its own.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]
        self.postgres_url = postgres_url
        self.should_autocreate_tables = True
        self._inst_data = inst_data
        engine = _engine_with_tables(postgres_url)
        self._run_storage = PostgresRunStorage(postgres_url, should_autocreate_tables=False)
        self._event_log_storage = LeanPostgresEventLog(postgres_url, should_autocreate_tables=False)
        self._schedule_storage = PostgresScheduleStorage(
            postgres_url, should_autocreate_tables=False
        )
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine
        self._event_log_storage.look_once()


@cache
def _found(_postgres_url: str) -> set[str]:
    """Tables and indexes that are there; they do not go away."""
    return set()


@cache
def _engine_with_tables(postgres_url: str) -> sa.Engine:
    """That of this process: it keeps one connection for as long as it is used."""
    engine = sa.create_engine(
        postgres_url,
        isolation_level="AUTOCOMMIT",
        pool_pre_ping=True,
        pool_size=1,
        max_overflow=-1,
    )
    be_sparing(engine)
    there = retry_pg_connection_fn(lambda: sa.inspect(engine).get_table_names())
    if not set(there) >= TABLES:
        PostgresRunStorage(postgres_url)
        PostgresEventLogStorage(postgres_url)
        PostgresScheduleStorage(postgres_url)
    return engine
