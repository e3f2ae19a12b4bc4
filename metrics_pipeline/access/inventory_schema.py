"""Makes and changes the tables of the inventory database, one version after the other.

The table `inventory_schema` has a row for each version that was applied. An upgrade of the past is
never edited, so it has its own picture of the tables; a change is a new function at the end of
UPGRADES. Several processes may start at once: one upgrades, the others wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import sqlalchemy as sa

from metrics_pipeline.access.database import reading
from metrics_pipeline.core.errors import ConfigurationError

VERSIONS = sa.Table(
    "inventory_schema",
    sa.MetaData(),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)

ADVISORY_LOCK = 0x6D70_696E_7631
"""PostgreSQL's lock for this work, a number nobody else uses: "mpinv1" in ASCII."""


def upgrade_inventory(engine: sa.Engine) -> int:
    """Bring the tables of `engine` to the latest version, and return that.

    All of it or nothing. An inventory that is up to date is only read, so the right to SELECT is
    enough. Raises ConfigurationError if a later release made the tables, and what SQLAlchemy
    raises.
    """
    if find_version(engine) == len(UPGRADES):
        return len(UPGRADES)
    try:
        return _upgrade(engine)
    except (sa.exc.ProgrammingError, sa.exc.IntegrityError):
        # Somebody made a table without our lock, such as an earlier release; now it is there.
        return _upgrade(engine)


def _upgrade(engine: sa.Engine) -> int:
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        _make(connection, VERSIONS)
        applied = _applied(connection)
        _refuse_later(applied, engine)
        for version, change in enumerate(UPGRADES[applied:], start=applied + 1):
            change(connection)
            connection.execute(sa.insert(VERSIONS).values(version=version))
    return len(UPGRADES)


def find_version(engine: sa.Engine) -> int:
    """Found without a lock; 0 where nothing was ever applied.

    Raises ConfigurationError if a later release made the tables, and what SQLAlchemy raises.
    """
    with reading(engine) as connection:
        if not sa.inspect(connection).has_table(VERSIONS.name):
            return 0
        applied = _applied(connection)
    _refuse_later(applied, engine)
    return applied


def _applied(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.max(VERSIONS.c.version))).scalar_one() or 0


def _refuse_later(applied: int, engine: sa.Engine) -> None:
    if applied > len(UPGRADES):
        raise ConfigurationError(
            f"inventory {engine.url.render_as_string(hide_password=True)}",
            f"its tables are of version {applied}, and this release knows {len(UPGRADES)}",
            "Upgrade metrics-pipeline, or name another database.",
        )


def _make(connection: sa.Connection, table: sa.Table) -> None:
    connection.execute(sa.schema.CreateTable(table, if_not_exists=True))


def _time(name: str) -> sa.Column[datetime]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.current_timestamp(),
    )


def _make_concentrators(connection: sa.Connection) -> None:
    """Version 1: as earlier releases made it, without a version, where it is not there."""
    table = sa.Table(
        "concentrators",
        sa.MetaData(),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("eui", sa.String(16), nullable=False, unique=True),
        sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
        _time("created_at"),
    )
    _make(connection, table)


def _make_devices(connection: sa.Connection) -> None:
    """Version 2: the devices that are polled."""
    table = sa.Table(
        "devices",
        sa.MetaData(),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("hostname", sa.String(255), nullable=False, server_default=""),
        sa.Column("ip_address", sa.String(255), nullable=False),
        sa.Column("mac_address", sa.String(17), nullable=False, server_default=""),
        sa.Column("device_type", sa.String(64), nullable=False, server_default="unknown"),
        sa.Column("protocol", sa.String(32), nullable=False),
        sa.Column("port", sa.Integer, nullable=False, server_default="0"),
        sa.Column("credential", sa.String(128), nullable=False, server_default=""),
        sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("labels", sa.JSON, nullable=False, server_default="{}"),
        _time("created_at"),
        _time("updated_at"),
    )
    _make(connection, table)


UPGRADES: Sequence[Callable[[sa.Connection], None]] = (_make_concentrators, _make_devices)
"""The functions that make version 1, 2, … out of the one before."""
