"""Dagster's storage in PostgreSQL, with lean events. Slow to import, so only where it is used."""

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage

from metrics_pipeline.orchestration.lean_events import LeanEvents


class LeanPostgresEventLog(LeanEvents, PostgresEventLogStorage):
    """Dagster's event log in PostgreSQL, which it makes where there is none."""


class PostgresStorage(DagsterPostgresStorage):
    """Runs, events, schedules in the database of one URL."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        # Not that of the class itself, which opens an event log of its own.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]
        self.postgres_url = postgres_url
        self.should_autocreate_tables = True
        self._inst_data = inst_data
        self._run_storage = PostgresRunStorage(postgres_url)
        self._event_log_storage = LeanPostgresEventLog(postgres_url)
        self._schedule_storage = PostgresScheduleStorage(postgres_url)
