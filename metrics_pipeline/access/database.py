"""SQL databases (SQLite and PostgreSQL) through SQLAlchemy Core 2, opened in one way.

An engine connects at first use, and then raises what SQLAlchemy raises, OSError when the folder of
a SQLite file cannot be made, and ConfigurationError when the password is not where it should be.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, Field, ValidationInfo, field_validator

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import state_dir_of

DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg2")
EXPECTED_URL = "expected sqlite:///file or postgresql://user@host:port/database"
SILENCE_SECONDS = 20
"""A PostgreSQL server whose machine has gone is given up after this time."""

MS_PER_SECOND = 1000


class DatabaseSettings(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """A SQLite file of ours, or a PostgreSQL server."""

    url: str = Field(
        description="`sqlite:///file`, relative to the state directory, or "
        "`postgresql://user@host:port/database`; without password."
    )
    password: SecretReference | None = Field(
        default=None, description="Where the password is; read at each connect."
    )
    connect_timeout_seconds: int = Field(
        default=5, ge=1, le=60, description="PostgreSQL: seconds to connect in."
    )
    statement_timeout_seconds: int = Field(
        default=30, ge=1, le=600, description="PostgreSQL ends a statement that takes longer."
    )
    busy_timeout_seconds: float = Field(
        default=10,
        gt=0,
        le=60,
        description="SQLite: seconds that a write waits for another process's write.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, given: str, info: ValidationInfo) -> str:
        url = _parse_url(given)
        if url.get_backend_name() == "sqlite":
            url = url.set(database=str(state_dir_of(info) / _expanded(url.database or "")))
        return url.render_as_string()

    @property
    def is_sqlite(self) -> bool:
        """Whether this is a file of ours rather than a server."""
        return self.url.startswith("sqlite")


def _expanded(file: str) -> Path:
    try:
        return Path(file).expanduser()
    except RuntimeError:
        raise ValueError("there is no such user's home; write the path from /") from None


def _parse_url(given: str) -> sa.URL:
    """What `given` says, or a ValueError that does not repeat it: it may hold a password."""
    try:
        url = sa.engine.make_url(given)
    except (sa.exc.ArgumentError, ValueError):  # the latter is for a port that is no number
        raise ValueError(EXPECTED_URL) from None
    if url.drivername not in DRIVERS:
        raise ValueError(f"{EXPECTED_URL}, got {url.drivername}://")
    if url.password or any("password" in name.lower() for name in url.query):
        raise ValueError("take the password out of the url and name it under `password`")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("expected sqlite:///file: every process must find the same one")
    return url


def open_engine(settings: DatabaseSettings) -> sa.Engine:
    """An engine with few, checked connections; connects at first use.

    SQLite is opened in WAL mode, and every transaction takes the write lock at once, so that two
    writers wait for each other instead of failing; read with `reading`, which takes no lock.
    """
    if settings.is_sqlite:
        return _open_sqlite(settings)
    return _open_postgresql(settings)


def open_foreign_engine(settings: DatabaseSettings) -> sa.Engine:
    """An engine for a database that others keep: it makes no file and cannot change anything."""
    if settings.is_sqlite:
        return _open_foreign_sqlite(settings)
    return _open_postgresql(settings, "-c default_transaction_read_only=on")


def reading(engine: sa.Engine) -> sa.Connection:
    """A connection for single statements that only read; holds no transaction open."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def cause_of(error: Exception) -> str:
    """What the database itself says of `error`, on one line."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _open_sqlite(settings: DatabaseSettings) -> sa.Engine:
    engine = sa.create_engine(settings.url, connect_args={"timeout": settings.busy_timeout_seconds})
    sa.event.listen(engine, "do_connect", _make_folder)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_immediate)
    _watch_file(engine)
    return engine


def _open_foreign_sqlite(settings: DatabaseSettings) -> sa.Engine:
    file = Path(sa.engine.make_url(settings.url).database or "").absolute()

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            f"{file.as_uri()}?mode=ro",
            uri=True,
            timeout=settings.busy_timeout_seconds,
            check_same_thread=False,
        )

    engine = sa.create_engine(settings.url, creator=connect)
    _watch_file(engine)
    return engine


def _make_folder(_dialect: Any, _record: Any, arguments: list[Any], _parameters: Any) -> None:
    Path(arguments[0]).parent.mkdir(parents=True, exist_ok=True)


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver would begin late, and fail on the upgrade
    _use_write_ahead_log(connection)
    # What is committed survives a power cut: the checkpoint behind a dead letter may be elsewhere.
    connection.execute("PRAGMA synchronous = FULL")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Waits for others that do the same at this moment: SQLite itself would fail at once."""
    (busy_timeout_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    deadline = time.monotonic() + busy_timeout_ms / MS_PER_SECOND
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _watch_file(engine: sa.Engine) -> None:
    sa.event.listen(engine, "connect", _note_file)
    sa.event.listen(engine, "checkout", _refuse_replaced_file)


def _note_file(connection: sqlite3.Connection, record: Any) -> None:
    (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
    record.info["file"] = (path, _identity(path))


def _refuse_replaced_file(_connection: Any, record: Any, _proxy: Any) -> None:
    """A connection to a file that was removed or replaced would read the old one for ever."""
    path, identity = record.info["file"]
    if _identity(path) != identity:
        raise sa.exc.DisconnectionError(f"{path} was removed or replaced")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat() if path else None
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino) if status else None


def _begin_immediate(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _open_postgresql(settings: DatabaseSettings, options: str = "") -> sa.Engine:
    engine = sa.create_engine(
        settings.url,
        pool_pre_ping=True,
        pool_size=1,
        max_overflow=3,
        connect_args={
            "connect_timeout": settings.connect_timeout_seconds,
            "application_name": "metrics_pipeline",
            "options": f"-c statement_timeout={settings.statement_timeout_seconds}s {options}",
            "keepalives_idle": SILENCE_SECONDS // 2,
            "keepalives_interval": SILENCE_SECONDS // 4,
            "keepalives_count": 2,
            "tcp_user_timeout": SILENCE_SECONDS * MS_PER_SECOND,
        },
    )
    password = settings.password
    if password is not None:
        # Read at each connect, so that a changed secret needs no restart.
        @sa.event.listens_for(engine, "do_connect")
        def add_password(_dialect: Any, _record: Any, _args: Any, parameters: Any) -> None:
            parameters["password"] = password.read()

    return engine
