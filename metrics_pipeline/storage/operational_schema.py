"""Changes the tables of an operational database that an earlier release made.

New tables are made as they are to be; this is for those that are there already. The table
`operational_schema` has a row for each change that was made, or that was never needed. A change of
the past is never edited, so it has its own picture of the tables; a new one is a function at the
end of UPGRADES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from metrics_pipeline.core.errors import ConfigurationError

VERSIONS = sa.Table(
    "operational_schema",
    sa.MetaData(),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)

ADVISORY_LOCK = 0x6D70_6F70_7631
"""PostgreSQL's lock for this work, a number nobody else uses: "mpopv1" in ASCII."""


def applied_version(connection: sa.Connection) -> int:
    """0 where there is none. ConfigurationError if a later release made the tables."""
    if not sa.inspect(connection).has_table(VERSIONS.name):
        return 0
    applied = connection.execute(sa.select(sa.func.max(VERSIONS.c.version))).scalar_one() or 0
    if applied > len(UPGRADES):
        raise ConfigurationError(
            "operational_database",
            f"its tables are of version {applied}, and this release knows {len(UPGRADES)}",
            "Upgrade metrics-pipeline, or name another database.",
        )
    return int(applied)


def upgrade(connection: sa.Connection) -> None:
    """Change what is there to the latest version; in a transaction, which others wait for."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
    applied = applied_version(connection)
    connection.execute(sa.schema.CreateTable(VERSIONS, if_not_exists=True))
    for version, change in enumerate(UPGRADES[applied:], start=applied + 1):
        change(connection)
        connection.execute(sa.insert(VERSIONS).values(version=version))


def _tell_dead_letters_apart_by_time(connection: sa.Connection) -> None:
    """Version 1: a hub that is made anew under an old name counts its events from 0 again."""
    inspector = sa.inspect(connection)
    if not inspector.has_table("dead_letters"):
        return
    if connection.dialect.name == "sqlite":
        _rebuild_dead_letters(connection)
        return
    for constraint in inspector.get_unique_constraints("dead_letters"):
        connection.exec_driver_sql(
            f'ALTER TABLE dead_letters DROP CONSTRAINT "{constraint["name"]}"'
        )
    unique = ", ".join(_DEAD_LETTER_IDENTITY)
    connection.exec_driver_sql(f"ALTER TABLE dead_letters ADD UNIQUE ({unique})")


_DEAD_LETTER_IDENTITY = (
    *("namespace", "hub", "consumer_group", "partition"),
    *("sequence_number", "enqueued_time_ns", "uplink_index"),
)


def _rebuild_dead_letters(connection: sa.Connection) -> None:
    """SQLite takes no constraint away. Ids stay, also those that are not to be given again."""
    table = sa.Table(
        "dead_letters",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kept_at_ns", sa.BigInteger, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("hub", sa.Text, nullable=False),
        sa.Column("consumer_group", sa.Text, nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("sequence_number", sa.BigInteger, nullable=False),
        sa.Column("uplink_index", sa.BigInteger, nullable=False),
        sa.Column("offset", sa.Text, nullable=False),
        sa.Column("enqueued_time_ns", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("body_bytes", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.UniqueConstraint(*_DEAD_LETTER_IDENTITY),
        sqlite_autoincrement=True,
    )
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    connection.exec_driver_sql("ALTER TABLE dead_letters RENAME TO old_dead_letters")
    connection.execute(sa.schema.CreateTable(table))
    # Whose names are those of columns above.
    connection.exec_driver_sql(
        f"INSERT INTO dead_letters ({names}) SELECT {names} FROM old_dead_letters"  # noqa: S608
    )
    connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = 'dead_letters'")
    connection.exec_driver_sql(
        "UPDATE sqlite_sequence SET name = 'dead_letters' WHERE name = 'old_dead_letters'"
    )
    connection.exec_driver_sql("DROP TABLE old_dead_letters")


UPGRADES: Sequence[Callable[[sa.Connection], None]] = (_tell_dead_letters_apart_by_time,)
"""The functions that make version 1, 2, … out of the one before."""
