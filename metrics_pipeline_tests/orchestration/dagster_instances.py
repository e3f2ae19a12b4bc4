"""Real instances of Dagster for tests: over SQLite files as `make run` has them, and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from metrics_pipeline.access.environment import (
    DAGSTER_POSTGRES_FILE_VARIABLE,
    DAGSTER_POSTGRES_VARIABLE,
    make_dagster_home,
)


@contextmanager
def opened(folder: Path, postgresql_url: str | None = None) -> Iterator[dg.DagsterInstance]:
    """The instance with its home in `folder`, and its tables where the URL says or in files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(make_dagster_home(folder)))
        patch.delenv(DAGSTER_POSTGRES_FILE_VARIABLE, raising=False)
        patch.delenv(DAGSTER_POSTGRES_VARIABLE, raising=False)
        if postgresql_url is not None:
            patch.setenv(DAGSTER_POSTGRES_VARIABLE, postgresql_url)
        with dg.DagsterInstance.get() as instance:
            yield instance


def storages(instance: dg.DagsterInstance) -> tuple[SqlEventLogStorage, SqlRunStorage]:
    """Where its events and its runs are."""
    events, runs = instance.event_log_storage, instance.run_storage
    assert isinstance(events, SqlEventLogStorage)
    assert isinstance(runs, SqlRunStorage)
    return events, runs


def age(instance: dg.DagsterInstance, days: int) -> None:
    """Make everything that there is so much older."""
    events, runs = storages(instance)
    with events.index_connection() as connection:
        _shift(connection, "event_logs", "timestamp", days)
        _shift(connection, "asset_check_executions", "evaluation_event_timestamp", days)
    with runs.connect() as connection:
        _shift(connection, "runs", "update_timestamp", days)
        _shift(connection, "runs", "create_timestamp", days)


def rows(instance: dg.DagsterInstance, query: str) -> list[tuple[object, ...]]:
    """What the event log answers."""
    with storages(instance)[0].index_connection() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def run_rows(instance: dg.DagsterInstance, query: str) -> list[tuple[object, ...]]:
    """What the runs' tables answer."""
    with storages(instance)[1].connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def _shift(connection: sa.Connection, table: str, column: str, days: int) -> None:
    is_postgresql = connection.dialect.name == "postgresql"
    earlier = f"{column} - interval '{days} days'"
    if not is_postgresql:
        earlier = f"strftime('%Y-%m-%d %H:%M:%f000', {column}, '-{days} days')"
    connection.execute(sa.text(f"UPDATE {table} SET {column} = {earlier}"))
