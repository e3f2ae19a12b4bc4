"""SQL databases (SQLite and PostgreSQL) through SQLAlchemy Core 2, opened in one way."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, Field, ValidationInfo, field_validator

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import state_dir_of

BUSY_TIMEOUT_SECONDS = 10


class DatabaseSettings(BaseModel, frozen=True, extra="forbid"):
    """A database: `sqlite:///file` (relative to the state directory) or `postgresql://user@host/db`."""

    url: str
    password: SecretReference | None = None
    connect_timeout_seconds: int = Field(default=5, ge=1, le=60)
    statement_timeout_seconds: int = Field(
        default=30, ge=1, le=600, description="PostgreSQL ends a statement that takes longer."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str, info: ValidationInfo) -> str:
        try:
            parsed = sa.engine.make_url(url)
        except sa.exc.ArgumentError:
            raise ValueError(
                "expected sqlite:///file or postgresql://user@host:port/database"
            ) from None
        if parsed.password:
            raise ValueError("take the password out of the url and name it under `password`")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ValueError(f"expected sqlite or postgresql, got {parsed.get_backend_name()}")
        if (
            parsed.get_backend_name() == "sqlite"
            and parsed.database
            and parsed.database != ":memory:"
        ):
            parsed = parsed.set(database=str(state_dir_of(info) / Path(parsed.database)))
        return parsed.render_as_string(hide_password=False)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is a file of ours rather than a server."""
        return self.url.startswith("sqlite")


def open_engine(settings: DatabaseSettings) -> sa.Engine:
    """An engine with few, checked connections; connects at first use.

    SQLite is opened in WAL mode, and every transaction takes the write lock at once, so that two
    writers wait for each other instead of failing; read with `reading`, which takes no lock.
    """
    if settings.is_sqlite:
        return _open_sqlite(settings)
    return _open_postgresql(settings)


def reading(engine: sa.Engine) -> sa.Connection:
    """A connection for single statements that only read; holds no transaction open."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _open_sqlite(settings: DatabaseSettings) -> sa.Engine:
    engine = sa.create_engine(settings.url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    sa.event.listen(engine, "do_connect", _make_folder)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_immediate)
    sa.event.listen(engine, "checkout", _refuse_replaced_file)
    return engine


def _make_folder(_dialect: Any, _record: Any, arguments: list[Any], _parameters: Any) -> None:
    if arguments[0] != ":memory:":
        Path(arguments[0]).parent.mkdir(parents=True, exist_ok=True)


def _prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # the driver would begin late, and fail on the upgrade
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
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


def _open_postgresql(settings: DatabaseSettings) -> sa.Engine:
    engine = sa.create_engine(
        settings.url,
        pool_pre_ping=True,
        pool_size=2,
        max_overflow=2,
        connect_args={
            "connect_timeout": settings.connect_timeout_seconds,
            "application_name": "metrics_pipeline",
            "options": f"-c statement_timeout={settings.statement_timeout_seconds}s",
        },
    )
    password = settings.password
    if password is not None:
        # Read at each connect, so that a changed secret needs no restart.
        @sa.event.listens_for(engine, "do_connect")
        def add_password(_dialect: Any, _record: Any, _args: Any, parameters: Any) -> None:
            parameters["password"] = password.read()

    return engine
