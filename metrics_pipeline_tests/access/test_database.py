"""Databases as they are opened here: SQLite files, and a real PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from metrics_pipeline.access.database import (
    DatabaseSettings,
    cause_of,
    open_engine,
    open_foreign_engine,
    reading,
)
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline_tests.postgresql import PostgresqlDatabase
from metrics_pipeline_tests.power_cuts import watch_syncs

SECRET = "hunter2-and-more"
PROCESSES = 6


@contextmanager
def opened(
    settings: DatabaseSettings, how: Callable[[DatabaseSettings], sa.Engine] = open_engine
) -> Iterator[sa.Engine]:
    engine = how(settings)
    try:
        yield engine
    finally:
        engine.dispose()


def sqlite(path: Path, **changes: Any) -> DatabaseSettings:
    return DatabaseSettings(url=f"sqlite:///{path}", **changes)


def server(database: PostgresqlDatabase, folder: Path, **changes: Any) -> DatabaseSettings:
    """Settings for `database`, with its password in a file of `folder`."""
    file = folder / "password"
    file.write_text(database.password)
    return DatabaseSettings(url=database.plain_url, password=SecretReference(file=file), **changes)


def answer(engine: sa.Engine, question: str) -> Any:
    with reading(engine) as connection:
        return connection.exec_driver_sql(question).scalar_one()


def execute(engine: sa.Engine, *statements: str) -> None:
    """All `statements` in one transaction."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///inventory.sqlite", "STATE/inventory.sqlite"),
        ("sqlite:///a folder/ö%20.sqlite", "STATE/a folder/ö%20.sqlite"),
        ("sqlite:////var/lib/inventory.sqlite", "/var/lib/inventory.sqlite"),
        ("sqlite+pysqlite:///inventory.sqlite", "STATE/inventory.sqlite"),
        ("sqlite:///~/inventory.sqlite", "HOME/inventory.sqlite"),
    ],
)
def test_a_sqlite_file_is_below_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, file: str
) -> None:
    state, home = tmp_path / "state", tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    settings = DatabaseSettings.model_validate({"url": url}, context={STATE_DIR_KEY: state})
    expected = file.replace("STATE", str(state)).replace("HOME", str(home))
    assert sa.engine.make_url(settings.url).database == expected
    assert settings.is_sqlite


def test_a_server_is_no_file() -> None:
    url = "postgresql://metrics@db.example.net:5433/inventory"
    settings = DatabaseSettings(url=url)
    assert settings.url == url
    assert not settings.is_sqlite


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "expected sqlite:///file or postgresql://"),
        ("inventory.sqlite", "expected sqlite:///file or postgresql://"),
        ("postgresql://host:port/database", "expected sqlite:///file or postgresql://"),
        ("mysql://host/database", "got mysql://"),
        ("postgresql+asyncpg://host/database", "got postgresql\\+asyncpg://"),
        ("sqlite://", "every process must find the same one"),
        ("sqlite:///", "every process must find the same one"),
        ("sqlite:///:memory:", "every process must find the same one"),
        ("sqlite:///~no-such-user/file", "no such user"),
        (f"postgresql://user:{SECRET}@host/database", "take the password out of the url"),
        (f"postgresql://user@host/database?password={SECRET}", "take the password out of the url"),
        (
            f"postgresql://user@host/database?sslpassword={SECRET}",
            "take the password out of the url",
        ),
        (f"postgres://user:{SECRET}@host/database", "got postgres://"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_no_password_in_it_is_shown(
    url: str, expected: str
) -> None:
    with pytest.raises(ValidationError, match=expected) as caught:
        DatabaseSettings(url=url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# --- SQLite ---------------------------------------------------------------------------------------


def test_the_folder_of_a_sqlite_file_is_made(tmp_path: Path) -> None:
    with opened(sqlite(tmp_path / "new" / "folder" / "file")) as engine:
        assert answer(engine, "PRAGMA journal_mode") == "wal"


def test_opening_alone_makes_nothing(tmp_path: Path) -> None:
    with opened(sqlite(tmp_path / "new" / "file")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with opened(sqlite(tmp_path / "file")) as engine:
        execute(engine, "CREATE TABLE numbers (n INTEGER)")
        with pytest.raises(sa.exc.OperationalError, match="no such table: letters"):
            execute(engine, "INSERT INTO numbers VALUES (1)", "INSERT INTO letters VALUES ('a')")
        assert answer(engine, "SELECT count(*) FROM numbers") == 0


def test_a_reader_is_not_blocked_by_a_writer(tmp_path: Path) -> None:
    with opened(sqlite(tmp_path / "file", busy_timeout_seconds=0.05)) as engine:
        execute(engine, "CREATE TABLE numbers (n INTEGER)")
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO numbers VALUES (1)")
            assert answer(engine, "SELECT count(*) FROM numbers") == 0


def test_a_writer_waits_for_another_no_longer_than_the_settings_say(tmp_path: Path) -> None:
    with (
        opened(sqlite(tmp_path / "file")) as patient,
        opened(sqlite(tmp_path / "file", busy_timeout_seconds=0.05)) as hasty,
        patient.begin(),
        pytest.raises(sa.exc.OperationalError, match="database is locked"),
        hasty.begin(),
    ):
        pytest.fail("both had the write lock")


def _open_and_count(url: str, start: Any, results: Any) -> None:
    engine = open_engine(DatabaseSettings(url=url))
    start.wait()
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS numbers (n INTEGER)")
            connection.exec_driver_sql("INSERT INTO numbers VALUES (1)")
        results.put("")
    except sa.exc.SQLAlchemyError as error:
        results.put(str(error))
    engine.dispose()


def test_a_new_file_can_be_opened_by_many_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(10):
        url = f"sqlite:///{tmp_path}/{attempt}"
        start, results = context.Barrier(PROCESSES), context.SimpleQueue()
        processes = [
            context.Process(target=_open_and_count, args=(url, start, results))
            for _ in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        assert [results.get() for _ in processes] == [""] * PROCESSES
        for process in processes:
            process.join()
        with opened(DatabaseSettings(url=url)) as engine:
            assert answer(engine, "SELECT count(*) FROM numbers") == PROCESSES


COMMIT_FOR_EVER = """
import sys
from metrics_pipeline.access.database import DatabaseSettings, open_engine
engine = open_engine(DatabaseSettings(url=sys.argv[1]))
with engine.begin() as connection:
    connection.exec_driver_sql("CREATE TABLE numbers (n INTEGER)")
number = 0
while True:
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO numbers VALUES (1)")
    number += 1
    print(number, flush=True)
"""


def test_what_was_committed_to_a_file_survives_a_power_cut(tmp_path: Path) -> None:
    folder, path = tmp_path / "syncs", tmp_path / "numbers.sqlite"
    folder.mkdir()
    synced = watch_syncs(folder)
    argv = [sys.executable, "-c", COMMIT_FOR_EVER, f"sqlite:///{path}"]
    environment = {**os.environ, **synced.environment}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        committed = [int(process.stdout.readline()) for _ in range(20)][-1]
        process.kill()
    synced.cut_power(path)
    with opened(sqlite(path)) as engine:
        assert answer(engine, "SELECT count(*) FROM numbers") >= committed


@pytest.fixture
def foreign(tmp_path: Path) -> DatabaseSettings:
    """A file that somebody else has made, with one row."""
    path = tmp_path / "foreign #1 %41.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE numbers (n INTEGER)")
        connection.execute("INSERT INTO numbers VALUES (1)")
        connection.commit()
    return sqlite(path)


def test_a_foreign_file_is_read_and_not_changed(foreign: DatabaseSettings) -> None:
    path = Path(str(sa.engine.make_url(foreign.url).database))
    before = path.read_bytes()
    with opened(foreign, open_foreign_engine) as engine:
        assert answer(engine, "SELECT count(*) FROM numbers") == 1
        with (
            pytest.raises(sa.exc.OperationalError, match="readonly"),
            engine.begin() as connection,
        ):
            connection.exec_driver_sql("INSERT INTO numbers VALUES (2)")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_foreign_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with opened(sqlite(tmp_path / "new" / "file"), open_foreign_engine) as engine:
        with pytest.raises(sa.exc.OperationalError, match="unable to open"):
            answer(engine, "SELECT 1")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [open_engine, open_foreign_engine])
def test_a_file_that_was_replaced_is_opened_again(
    tmp_path: Path, how: Callable[[DatabaseSettings], sa.Engine]
) -> None:
    path = tmp_path / "file"
    for rows in (1, 2):
        with closing(sqlite3.connect(tmp_path / f"{rows}")) as connection:
            connection.execute("CREATE TABLE numbers (n INTEGER)")
            connection.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(rows)])
            connection.commit()
    with opened(sqlite(path), how) as engine:
        for rows in (1, 2):
            (tmp_path / f"{rows}").rename(path)
            assert answer(engine, "SELECT count(*) FROM numbers") == rows


# --- PostgreSQL -----------------------------------------------------------------------------------


def test_the_password_comes_from_the_secret_and_is_never_shown(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    settings = server(postgresql, tmp_path)
    with opened(settings) as engine:
        assert answer(engine, "SELECT 1") == 1
        shown = f"{settings!r} {settings} {engine!r} {engine.url} {settings.model_dump_json()}"
        assert postgresql.password not in shown


def test_a_changed_password_is_used_at_the_next_connect(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    settings = server(postgresql, tmp_path)
    (tmp_path / "password").write_text("yesterday's")
    with opened(settings) as engine:
        with pytest.raises(
            sa.exc.OperationalError, match="password authentication failed"
        ) as error:
            answer(engine, "SELECT 1")
        assert "yesterday" not in "".join(traceback.format_exception(error.value))
        (tmp_path / "password").write_text(postgresql.password)
        assert answer(engine, "SELECT 1") == 1


def test_a_password_that_is_not_there_is_told_when_connecting(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    settings = server(postgresql, tmp_path)
    (tmp_path / "password").unlink()
    with (
        opened(settings) as engine,
        pytest.raises(ConfigurationError, match=str(tmp_path / "password")),
    ):
        answer(engine, "SELECT 1")


@pytest.mark.parametrize("how", [open_engine, open_foreign_engine])
def test_a_statement_that_takes_too_long_is_ended_by_the_server(
    postgresql: PostgresqlDatabase,
    tmp_path: Path,
    how: Callable[[DatabaseSettings], sa.Engine],
) -> None:
    with opened(server(postgresql, tmp_path, statement_timeout_seconds=1), how) as engine:
        with pytest.raises(sa.exc.OperationalError) as caught:
            answer(engine, "SELECT pg_sleep(60)")
        assert cause_of(caught.value) == "canceling statement due to statement timeout"
        assert answer(engine, "SELECT 1") == 1


def test_a_foreign_server_is_not_changed(postgresql: PostgresqlDatabase, tmp_path: Path) -> None:
    with (
        opened(server(postgresql, tmp_path), open_foreign_engine) as engine,
        pytest.raises(sa.exc.InternalError, match="read-only transaction"),
        engine.begin() as connection,
    ):
        connection.exec_driver_sql("CREATE TABLE numbers (n INTEGER)")


def test_a_connection_that_the_server_ended_is_replaced(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    settings = server(postgresql, tmp_path)
    with opened(settings) as engine, opened(settings) as other:
        pid = answer(engine, "SELECT pg_backend_pid()")
        assert answer(other, f"SELECT pg_terminate_backend({pid}, 10000)")
        assert answer(engine, "SELECT pg_backend_pid()") != pid


def test_connections_are_few(postgresql: PostgresqlDatabase, tmp_path: Path) -> None:
    most = 4
    with opened(server(postgresql, tmp_path)) as engine:
        threads = [
            threading.Thread(target=answer, args=(engine, "SELECT pg_sleep(0.05)"))
            for _ in range(3 * most)
        ]
        for thread in threads:
            thread.start()
        counts = []
        while any(thread.is_alive() for thread in threads):
            counts.append(engine.pool.checkedout())  # type: ignore[attr-defined]
            time.sleep(0.01)
    assert max(counts) <= most


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/database"
        with (
            opened(DatabaseSettings(url=url, connect_timeout_seconds=1)) as engine,
            pytest.raises(sa.exc.OperationalError, match="timeout expired"),
        ):
            answer(engine, "SELECT 1")


def test_an_error_without_words_has_a_name() -> None:
    assert cause_of(sa.exc.OperationalError("SELECT 1", {}, sqlite3.OperationalError(""))) != ""
    assert cause_of(TimeoutError()) == "TimeoutError"
