"""Concentrators counted in real databases, and what is said when they cannot be."""

from __future__ import annotations

import socket
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.access.inventory_tables import CONCENTRATORS, INVENTORY
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.catalog import CONCENTRATOR_COUNT, DEVICE_COUNT
from metrics_pipeline.core.errors import (
    CredentialRefused,
    SourceError,
    SourceRefused,
    SourceUnreachable,
)
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sources.inventory import NAME, Inventory, InventorySettings
from metrics_pipeline_tests.postgresql import PostgresqlDatabase, PostgresqlServer

TIME_NS = 1_700_000_000_000_000_000
SECRET = "not-the-password-of-anybody"


def on_sqlite(folder: Path, **changes: Any) -> DatabaseSettings:
    return DatabaseSettings(url=f"sqlite:///{folder}/inventory.sqlite", **changes)


def on_postgresql(
    database: PostgresqlDatabase, folder: Path, password: str | None = None, **changes: Any
) -> DatabaseSettings:
    file = folder / "password"
    file.write_text(password or database.password)
    return DatabaseSettings(
        **{"url": database.plain_url, "password": SecretReference(file=file), **changes}
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    if request.param == "sqlite":
        return on_sqlite(tmp_path)
    return on_postgresql(request.getfixturevalue("postgresql"), tmp_path)


@contextmanager
def opened(database: DatabaseSettings) -> Iterator[Inventory]:
    with closing(Inventory(InventorySettings(database=database))) as inventory:
        yield inventory


def read(database: DatabaseSettings) -> Reading:
    with opened(database) as inventory:
        return inventory.read([CONCENTRATOR_COUNT], TIME_NS)


def failure(database: DatabaseSettings) -> SourceError:
    reading = read(database)
    assert reading.points == ()
    (failure,) = reading.failures
    assert (failure.source, failure.target) == (NAME, "concentrator_count")
    return failure


def list_concentrators(database: DatabaseSettings, count: int, disabled: int = 0) -> None:
    """Make the table hold `count` concentrators, `disabled` of which are not enabled."""
    rows = [
        {"id": f"c{n}", "name": f"C {n}", "eui": f"{n:016X}", "enabled": n >= disabled}
        for n in range(count)
    ]
    engine = open_engine(database)
    INVENTORY.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.delete(CONCENTRATORS))
        if rows:
            connection.execute(sa.insert(CONCENTRATORS), rows)
    engine.dispose()


# --- counting -------------------------------------------------------------------------------------


def test_a_count_falls_and_the_next_reading_follows(database: DatabaseSettings) -> None:
    with opened(database) as inventory:
        for count in (15, 8, 0):
            list_concentrators(database, count)
            assert inventory.read([CONCENTRATOR_COUNT], TIME_NS) == Reading(
                (Point("fleet_counts", {"provider": NAME}, {"concentrator_count": count}, TIME_NS),)
            )


def test_a_disabled_concentrator_is_still_registered(database: DatabaseSettings) -> None:
    list_concentrators(database, 5, disabled=2)
    assert read(database).points[0].fields == {"concentrator_count": 5}


def test_nothing_asked_is_nothing_read(database: DatabaseSettings) -> None:
    with opened(database) as inventory:
        assert inventory.read([], TIME_NS) == Reading(())


def test_a_metric_of_another_source_is_a_failure_and_costs_no_other(
    database: DatabaseSettings,
) -> None:
    list_concentrators(database, 3)
    with opened(database) as inventory:
        reading = inventory.read([DEVICE_COUNT, CONCENTRATOR_COUNT], TIME_NS)
    assert [point.fields for point in reading.points] == [{"concentrator_count": 3}]
    assert [failure.target for failure in reading.failures] == ["device_count"]


def test_a_table_that_is_not_there_is_refused_and_not_made(database: DatabaseSettings) -> None:
    list_concentrators(database, 0)
    engine = open_engine(database)
    INVENTORY.drop_all(engine)
    error = failure(database)
    assert type(error) is SourceRefused
    assert "concentrators" in error.problem
    assert error.fix == "Create the table, or name the right database."
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


# --- SQLite ---------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_unreachable_and_not_made(tmp_path: Path) -> None:
    error = failure(on_sqlite(tmp_path / "new"))
    assert type(error) is SourceUnreachable
    assert f"{tmp_path}/new/inventory.sqlite: unable to open database file" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inventory.sqlite").write_text("This is no database. " * 100)
    error = failure(on_sqlite(tmp_path))
    assert type(error) is SourceRefused
    assert "file is not a database" in error.problem


def test_a_folder_in_the_place_of_the_file_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "inventory.sqlite").mkdir()
    assert type(failure(on_sqlite(tmp_path))) is SourceUnreachable


def test_a_file_that_somebody_locks_is_unreachable_after_a_while(tmp_path: Path) -> None:
    database = on_sqlite(tmp_path, busy_timeout_seconds=0.05)
    list_concentrators(database, 3)
    with closing(sqlite3.connect(tmp_path / "inventory.sqlite")) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        error = failure(database)
    assert type(error) is SourceUnreachable
    assert "database is locked" in error.problem
    assert read(database).failures == ()


def test_reading_does_not_wait_for_somebody_who_writes(tmp_path: Path) -> None:
    database = on_sqlite(tmp_path, busy_timeout_seconds=0.05)
    list_concentrators(database, 3)
    with closing(sqlite3.connect(tmp_path / "inventory.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM concentrators")
        assert read(database).points[0].fields == {"concentrator_count": 3}


# --- PostgreSQL -----------------------------------------------------------------------------------


@pytest.fixture
def reader(
    postgresql: PostgresqlDatabase, postgresql_server: PostgresqlServer, tmp_path: Path
) -> Iterator[DatabaseSettings]:
    """Settings of a user who may connect, and no more; the table is there."""
    list_concentrators(on_postgresql(postgresql, tmp_path), 3)
    url = sa.engine.make_url(postgresql.plain_url)
    name = f"reader_of_{url.database}"
    postgresql_server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    plain = url.set(username=name).render_as_string()
    yield on_postgresql(postgresql, tmp_path, SECRET, url=plain)
    engine = open_engine(on_postgresql(postgresql, tmp_path))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name}")
    engine.dispose()
    postgresql_server.execute(f"DROP ROLE {name}")


def test_a_user_without_the_right_is_refused(reader: DatabaseSettings) -> None:
    error = failure(reader)
    assert type(error) is SourceRefused
    assert error.problem.endswith("permission denied for table concentrators")
    assert error.fix == "GRANT SELECT on the table to this user."


def test_the_right_to_select_is_enough(
    reader: DatabaseSettings, postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    name = sa.engine.make_url(reader.url).username
    engine = open_engine(on_postgresql(postgresql, tmp_path))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"GRANT SELECT ON concentrators TO {name}")
    engine.dispose()
    (tmp_path / "password").write_text(SECRET)
    assert read(reader).points[0].fields == {"concentrator_count": 3}


def test_a_wrong_password_is_refused_and_not_shown(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    error = failure(on_postgresql(postgresql, tmp_path, SECRET))
    assert type(error) is CredentialRefused
    assert 'password authentication failed for user "postgres"' in error.problem
    assert error.fix == "Check user and password."
    shown = "".join(traceback.format_exception(error))
    assert SECRET not in shown
    assert postgresql.password not in shown


def test_no_password_at_all_is_refused(postgresql: PostgresqlDatabase) -> None:
    error = failure(DatabaseSettings(url=postgresql.plain_url))
    assert type(error) is CredentialRefused
    assert "no password supplied" in error.problem


def test_a_user_who_does_not_exist_is_refused(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    url = sa.engine.make_url(postgresql.plain_url).set(username="nobody_of_that_name")
    error = failure(on_postgresql(postgresql, tmp_path, url=url.render_as_string()))
    assert type(error) is CredentialRefused


def test_a_database_that_does_not_exist_is_refused(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    url = sa.engine.make_url(postgresql.plain_url).set(database="nothing_of_that_name")
    error = failure(on_postgresql(postgresql, tmp_path, url=url.render_as_string()))
    assert type(error) is SourceRefused
    assert error.fix == "Create the database, or name the right one."


def test_a_secret_that_is_not_there_is_named(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    database = on_postgresql(postgresql, tmp_path)
    (tmp_path / "password").unlink()
    error = failure(database)
    assert type(error) is SourceRefused
    assert f"file {tmp_path / 'password'}: cannot be read (FileNotFoundError)" in error.problem


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        error = failure(DatabaseSettings(url=f"postgresql://user@127.0.0.1:{port}/inventory"))
    assert type(error) is SourceUnreachable
    assert "Connection refused" in error.problem


def test_a_table_that_somebody_locks_is_unreachable_after_a_while(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    database = on_postgresql(postgresql, tmp_path, statement_timeout_seconds=1)
    list_concentrators(database, 3)
    engine = open_engine(database)
    with opened(database) as inventory:
        with engine.begin() as other:
            other.exec_driver_sql("LOCK TABLE concentrators IN ACCESS EXCLUSIVE MODE")
            (error,) = inventory.read([CONCENTRATOR_COUNT], TIME_NS).failures
            assert inventory._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert type(error) is SourceUnreachable
        assert "canceling statement due to statement timeout" in error.problem
        assert inventory.read([CONCENTRATOR_COUNT], TIME_NS).failures == ()
    engine.dispose()


def test_reading_leaves_no_transaction_open(postgresql: PostgresqlDatabase, tmp_path: Path) -> None:
    database = on_postgresql(postgresql, tmp_path)
    list_concentrators(database, 3)
    engine = open_engine(database)
    with opened(database) as inventory:
        inventory.read([CONCENTRATOR_COUNT], TIME_NS)
        with engine.connect() as connection:
            states = connection.exec_driver_sql(
                "SELECT state FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND application_name = 'metrics_pipeline'"
            )
            assert set(states.scalars()) == {"idle"}
    engine.dispose()
