"""The operational database: made by whoever comes first, and readable errors when it says no."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import sqlite3
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.environment import make_dagster_home
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import StoreError, StoreUnavailable
from metrics_pipeline.core.points import Point
from metrics_pipeline.storage import snapshots, tallies
from metrics_pipeline.storage.operational import TABLES, OperationalDatabase
from metrics_pipeline_tests.at_once import at_once
from metrics_pipeline_tests.postgresql import PostgresqlDatabase
from metrics_pipeline_tests.storage.operational_databases import (
    postgresql_settings,
    sqlite_settings,
)

NOBODY = 65534
ATTEMPTS = 5


def write(given: DatabaseSettings, points: int = 1) -> str:
    """Write a snapshot and a total, as the writer does; says "" or what went wrong."""
    values = tuple(Point("fleet_counts", {"provider": f"{n}"}, {"n": n}, n) for n in range(points))
    with closing(OperationalDatabase(given)) as database, database.writing() as connection:
        tallies.add(connection, "written", {"fleet_counts": points})
        snapshots.replace(connection, "fleet/device_counts", values, 1)
    return ""


def fails_to_write(given: DatabaseSettings) -> StoreError:
    with pytest.raises(StoreError) as caught:
        write(given)
    return caught.value


# --- its tables -----------------------------------------------------------------------------------


def test_what_was_written_is_there_for_the_next_who_opens_it(settings: DatabaseSettings) -> None:
    write(settings)
    with closing(OperationalDatabase(settings)) as database, database.reading() as connection:
        assert tallies.totals(connection) == {"written": {"fleet_counts": 1}}
        assert snapshots.find(connection, "fleet/device_counts") is not None


def test_tables_can_be_made_by_several_processes_at_once(
    settings: DatabaseSettings, operational: OperationalDatabase
) -> None:
    for _ in range(ATTEMPTS):
        assert at_once(write, settings) == [""] * 6
        with operational.writing() as connection:
            for table in TABLES.tables.values():
                connection.execute(sa.schema.DropTable(table))


def test_tables_that_are_gone_are_made_again_after_the_first_failure(
    settings: DatabaseSettings, operational: OperationalDatabase
) -> None:
    with operational.writing() as connection:
        TABLES.drop_all(connection)
    with pytest.raises(StoreUnavailable), operational.reading() as connection:
        tallies.totals(connection)
    with operational.reading() as connection:
        assert tallies.totals(connection) == {}


@pytest.mark.parametrize("who_is_first", ["we", "Dagster"])
def test_it_can_share_a_database_with_dagster(
    postgresql: PostgresqlDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    who_is_first: str,
) -> None:
    import dagster as dg  # here, because every process of this module's tests would import it

    @dg.job
    def nothing() -> None: ...

    monkeypatch.setenv("DAGSTER_HOME", str(make_dagster_home(tmp_path)))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgresql.url)
    ours = postgresql_settings(postgresql, tmp_path)
    if who_is_first == "we":
        write(ours)
    with dg.DagsterInstance.get() as instance:
        assert nothing.execute_in_process(instance=instance).success
        write(ours)
        assert nothing.execute_in_process(instance=instance).success
        assert instance.get_runs_count() == 2
    assert {"runs", "event_logs", *TABLES.tables} <= set(_table_names(postgresql))
    with closing(OperationalDatabase(ours)) as database, database.reading() as connection:
        assert snapshots.find(connection, "fleet/device_counts") is not None


def _table_names(database: PostgresqlDatabase) -> list[str]:
    engine = sa.create_engine(database.url)
    try:
        return sa.inspect(engine).get_table_names()
    finally:
        engine.dispose()


# --- SQLite says no -------------------------------------------------------------------------------


def test_a_file_that_somebody_else_writes_is_unavailable_after_a_while(tmp_path: Path) -> None:
    given = sqlite_settings(tmp_path, busy_timeout_seconds=0.05)
    write(given)
    with closing(sqlite3.connect(tmp_path / "operational.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        error = fails_to_write(given)
        assert isinstance(error, StoreUnavailable)
        assert "operational.sqlite: database is locked" in str(error)
        other.rollback()
    assert write(given) == ""


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "operational.sqlite").write_bytes(b"This is no database. " * 1000)
    assert "operational.sqlite: file is not a database" in str(
        fails_to_write(sqlite_settings(tmp_path))
    )


def test_a_file_that_was_damaged_is_told(tmp_path: Path) -> None:
    given = sqlite_settings(tmp_path)
    write(given, points=1000)
    path = tmp_path / "operational.sqlite"
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (path.stat().st_size - 100))
    assert "operational.sqlite: database disk image is malformed" in str(fails_to_write(given))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    given = DatabaseSettings(url=f"sqlite:///{tmp_path}/file/operational.sqlite")
    assert "in the way" not in str(fails_to_write(given))
    assert isinstance(fails_to_write(given), StoreUnavailable)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _write_as_nobody(given: DatabaseSettings) -> str:
    if os.geteuid() == 0:  # to whom no file is read-only
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    return write(given)


def test_a_file_that_may_not_be_written_is_told(public: Path) -> None:
    given = sqlite_settings(public)
    write(given)
    for path in (*public.iterdir(), public):
        path.chmod(path.stat().st_mode & ~0o222)
    (said,) = at_once(_write_as_nobody, given, processes=1)
    assert said.startswith(f"StoreUnavailable: operational database {given.url}: ")
    assert "readonly database" in said
    public.chmod(0o755)


def test_a_folder_that_may_not_be_written_is_told(public: Path) -> None:
    given = sqlite_settings(public / "new")
    public.chmod(0o555)
    (said,) = at_once(_write_as_nobody, given, processes=1)
    assert said.startswith(f"StoreUnavailable: operational database {given.url}: ")
    assert "Permission denied" in said
    public.chmod(0o755)


def _write_on_a_full_disk(given: DatabaseSettings) -> str:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    return write(given, points=50_000)


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    given = sqlite_settings(tmp_path)
    write(given)
    (said,) = at_once(_write_on_a_full_disk, given, processes=1)
    assert said.startswith(f"StoreUnavailable: operational database {given.url}: ")
    with closing(OperationalDatabase(given)) as database, database.reading() as connection:
        assert tallies.totals(connection) == {"written": {"fleet_counts": 1}}


# --- PostgreSQL says no ---------------------------------------------------------------------------

SECRET = "not-the-password-of-anybody"


def _wrong_password(given: DatabaseSettings, folder: Path) -> DatabaseSettings:
    return given


def _wrong_port(given: DatabaseSettings, folder: Path) -> DatabaseSettings:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    return _at(given, sa.engine.make_url(given.url).set(port=port))


def _wrong_database(given: DatabaseSettings, folder: Path) -> DatabaseSettings:
    (folder / "password").write_text((folder / "right").read_text())
    return _at(given, sa.engine.make_url(given.url).set(database="nothing_of_that_name"))


def _at(given: DatabaseSettings, url: sa.URL) -> DatabaseSettings:
    return given.model_copy(update={"url": url.render_as_string()})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_wrong_password, 'password authentication failed for user "postgres"'),
        (_wrong_port, "Connection refused"),
        (_wrong_database, 'database "nothing_of_that_name" does not exist'),
    ],
)
def test_a_server_that_says_no_is_told_without_a_secret(
    emptied_postgresql: PostgresqlDatabase,
    tmp_path: Path,
    change: Callable[[DatabaseSettings, Path], DatabaseSettings],
    said: str,
) -> None:
    given = postgresql_settings(emptied_postgresql, tmp_path)
    (tmp_path / "right").write_text(emptied_postgresql.password)
    (tmp_path / "password").write_text(SECRET)
    given = change(given, tmp_path)
    error = fails_to_write(given)
    assert isinstance(error, StoreUnavailable)
    assert str(error).startswith(f"operational database {given.url}: ")
    assert said in str(error)
    shown = "".join(traceback.format_exception(error))
    assert SECRET not in shown
    assert emptied_postgresql.password not in shown


def test_a_password_that_is_not_there_is_no_reason_to_try_again(
    emptied_postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    given = postgresql_settings(emptied_postgresql, tmp_path)
    missing = SecretReference(file=tmp_path / "nothing")
    error = fails_to_write(given.model_copy(update={"password": missing}))
    assert not error.retry_helps
    assert f"file {tmp_path / 'nothing'}: cannot be read (FileNotFoundError)" in str(error)


def test_a_lock_that_somebody_holds_is_not_waited_for_for_ever(
    emptied_postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    given = postgresql_settings(emptied_postgresql, tmp_path, statement_timeout_seconds=1)
    write(given)
    with closing(OperationalDatabase(given)) as other, other.writing() as connection:
        connection.exec_driver_sql("LOCK TABLE asset_snapshots IN ACCESS EXCLUSIVE MODE")
        error = fails_to_write(given)
    assert isinstance(error, StoreUnavailable)
    assert "canceling statement due to statement timeout" in str(error)
    assert write(given) == ""
