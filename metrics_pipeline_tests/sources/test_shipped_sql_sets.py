"""What the SQL sets that ship say of real tables that are not as one would wish."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.simulators.platform_tables import PLATFORM
from metrics_pipeline.sources.sql_sets import load_sql_set
from metrics_pipeline_tests.postgresql import PostgresqlDatabase, PostgresqlServer
from metrics_pipeline_tests.servers import wait_until
from metrics_pipeline_tests.sources.test_sql_metrics import (
    execute,
    execute_raw,
    on_postgresql,
    on_sqlite,
    read,
    values,
)

SCRAPE = load_sql_set("scrape_pipeline")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    """A database with the tables; empty."""
    settings = on_sqlite(tmp_path)
    if request.param == "postgresql":
        settings = on_postgresql(request.getfixturevalue("postgresql"), tmp_path)
    engine = open_engine(settings)
    PLATFORM.create_all(engine)
    engine.dispose()
    return settings


def test_a_run_without_a_status_is_counted_as_none_whether_that_is_null_or_empty(
    database: DatabaseSettings,
) -> None:
    ended = "datetime('now', '-1 hours')"
    if database.url.startswith("postgresql"):
        ended = "now() - interval '1 hours'"
    rows = ", ".join(
        f"(1, {status}, {ended}, {ended})" for status in ("''", "NULL", "NULL", "'success'")
    )
    into = "scrape_runs (roaster_id, status, started_at, finished_at)"
    execute(database, f"INSERT INTO {into} VALUES {rows}")
    reading = read(SCRAPE, database)
    assert reading.failures == ()
    found = values(reading)
    for tags, runs in {("none",): 3, ("success",): 1}.items():
        assert found["scrape_runs", *tags]["runs"] == runs
        assert found["roaster_scrape_runs", "1", *tags]["runs"] == runs
        assert found["scrape_run_durations", *tags]["duration_seconds"] == 0
        assert found["roaster_scrape_run_durations", "1", *tags]["duration_seconds"] == 0


def test_each_artifact_of_a_rare_status_is_counted_however_many_there_are(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    engine = sa.create_engine(postgresql.url)
    PLATFORM.create_all(engine)
    engine.dispose()
    execute_raw(
        postgresql,
        """INSERT INTO scrape_artifacts (id, roaster_id, http_status)
           SELECT i, mod(i, 2),
                  CASE WHEN i <= 100 THEN 429 WHEN i BETWEEN 200001 AND 200500 THEN 503
                       WHEN mod(i, 400) = 0 THEN NULL ELSE 200 END
           FROM generate_series(1, 400000) AS i""",
        "ANALYZE scrape_artifacts",
    )
    reading = read(SCRAPE, on_postgresql(postgresql, tmp_path))
    assert reading.failures == ()
    counts = {
        tuple(point.tags.values()): point.fields["artifacts"]
        for point in reading.points
        if "artifacts" in point.fields
    }
    none = 1000 - 1  # one of every 400th is in the burst of 503
    assert counts[("429",)] == 100
    assert counts[("503",)] == 500
    assert counts[("none",)] == none
    assert counts[("200",)] == 400_000 - 600 - none
    assert counts["1", "429"] == counts["0", "429"] == 50


# --- tables that are locked -----------------------------------------------------------------------

POSTGRES = load_sql_set("postgres")


@contextmanager
def waiting_alter(url: str, table: str) -> Iterator[None]:
    """Somebody reads `table` in a transaction that does not end, and an ALTER of it waits."""
    engine = sa.create_engine(url)
    alter = threading.Thread(
        target=execute_alone, args=(url, f"ALTER TABLE {table} ADD COLUMN extra int")
    )
    with engine.connect() as holder, engine.connect() as watcher:
        holder.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        alter.start()
        try:
            wait_until(lambda: count_waiting(watcher) == 1, "the ALTER waits")
            yield
        finally:
            holder.rollback()
            alter.join()
    engine.dispose()


def execute_alone(url: str, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def count_waiting(connection: sa.Connection) -> int:
    found = connection.exec_driver_sql(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
    )
    return int(found.scalar_one())


def sized_tables(database: DatabaseSettings) -> set[str]:
    reading = read(POSTGRES, database)
    assert reading.failures == ()
    return {p.tags["table"] for p in reading.points if p.measurement == "postgres_tables"}


def test_a_table_for_which_an_alter_waits_costs_no_other_its_size(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    execute_raw(postgresql, "CREATE TABLE busy (n int)", "CREATE TABLE free (n int)")
    database = on_postgresql(postgresql, tmp_path)
    assert sized_tables(database) == {"busy", "free"}
    with waiting_alter(postgresql.url, "busy"):
        assert sized_tables(database) == {"free"}
    assert sized_tables(database) == {"busy", "free"}


def test_a_lock_on_the_table_of_another_database_costs_nothing(
    postgresql: PostgresqlDatabase, postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    execute_raw(postgresql, "CREATE TABLE here (n int)")
    name, copy = sa.make_url(postgresql.url).database, f"copy_{secrets.token_hex(6)}"
    # A copy has the same object identifiers.
    postgresql_server.execute(f"CREATE DATABASE {copy} TEMPLATE {name} STRATEGY FILE_COPY")
    engine = sa.create_engine(postgresql_server.url(copy, postgresql.password))
    try:
        with engine.connect() as holder:
            holder.exec_driver_sql("LOCK TABLE here IN ACCESS EXCLUSIVE MODE")
            assert sized_tables(on_postgresql(postgresql, tmp_path)) == {"here"}
    finally:
        engine.dispose()
        postgresql_server.execute(f"DROP DATABASE {copy} WITH (FORCE)")
