"""The operational database of a test: a SQLite file, and one on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.postgresql import PostgresqlDatabase, PostgresqlServer


def sqlite_settings(folder: Path, **changes: Any) -> DatabaseSettings:
    """A file in `folder`."""
    return DatabaseSettings(url=f"sqlite:///{folder}/operational.sqlite", **changes)


def postgresql_settings(
    database: PostgresqlDatabase, folder: Path, **changes: Any
) -> DatabaseSettings:
    """`database`, with its password in a file of `folder`."""
    file = folder / "password"
    file.write_text(database.password)
    return DatabaseSettings(url=database.plain_url, password=SecretReference(file=file), **changes)


@pytest.fixture(scope="session")
def shared_postgresql(
    postgresql_server: PostgresqlServer,
) -> Iterator[tuple[PostgresqlDatabase, sa.Engine]]:
    """One database for all tests of this worker, as making one takes longer than most of them."""
    with postgresql_server.database() as database:
        # A test that leaves a transaction open is told by the next one.
        options = {"options": "-c lock_timeout=10s"}
        engine = sa.create_engine(database.url, isolation_level="AUTOCOMMIT", connect_args=options)
        yield database, engine
        engine.dispose()


@pytest.fixture
def emptied_postgresql(
    shared_postgresql: tuple[PostgresqlDatabase, sa.Engine],
) -> PostgresqlDatabase:
    """The shared database, without what the test before left in it."""
    database, engine = shared_postgresql
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return database


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    """Each test runs over both."""
    if request.param == "sqlite":
        return sqlite_settings(tmp_path)
    return postgresql_settings(request.getfixturevalue("emptied_postgresql"), tmp_path)


@pytest.fixture
def operational(settings: DatabaseSettings) -> Iterator[OperationalDatabase]:
    """Opened, and without tables yet."""
    with closing(OperationalDatabase(settings)) as database:
        yield database
