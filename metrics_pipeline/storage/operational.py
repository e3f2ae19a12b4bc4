"""The operational database: the latest values and running totals, shared by runs and exporters.

SQLite or PostgreSQL. The tables are made at first use, and those of an earlier release changed then
(`operational_schema.py`). Every failure of the database leaves here as
StoreUnavailable, and a password that is not where the settings say as StoreError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from metrics_pipeline.access.database import DatabaseSettings, cause_of, open_engine, reading
from metrics_pipeline.access.sparing_connections import be_sparing
from metrics_pipeline.core.errors import ConfigurationError, StoreError, StoreUnavailable
from metrics_pipeline.storage.operational_schema import UPGRADES, applied_version, upgrade

TABLES = sa.MetaData()

SNAPSHOTS = sa.Table(
    "asset_snapshots",  # Dagster has a table called snapshots; the two may share a database
    TABLES,
    sa.Column("asset", sa.String(256), primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
    sa.Column("complete_at_ns", sa.BigInteger),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
"""The latest points of each asset; `complete_at_ns` is when they last were all it should give."""

DEVICE_LABELS = sa.Table(
    "device_labels",
    TABLES,
    sa.Column("asset", sa.String(256), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
"""What the devices of an asset are called, as its last sweep read it from the inventory."""

PROBE_MEMORIES = sa.Table(
    "probe_memories",
    TABLES,
    sa.Column("protocol", sa.String(32), primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
"""What probes remember of devices between runs, one row a protocol."""

TALLIES = sa.Table(
    "point_tallies",
    TABLES,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("label", sa.String(256), primary_key=True),
    sa.Column("total", sa.BigInteger, nullable=False),
)
"""Totals that only grow, for the exporter's counters."""

TELEMETRY_CHECKPOINTS = sa.Table(
    "telemetry_checkpoints",
    TABLES,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("hub", sa.Text, primary_key=True),
    sa.Column("consumer_group", sa.Text, primary_key=True),
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("offset", sa.Text),
    sa.Column("sequence_number", sa.BigInteger),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
)
"""How far each partition is stored; without a position while it has only been claimed."""

TELEMETRY_LOSSES = sa.Table(
    "telemetry_losses",
    TABLES,
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("hub", sa.Text, primary_key=True),
    sa.Column("consumer_group", sa.Text, primary_key=True),
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("after_sequence_number", sa.BigInteger, nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),
)
"""Of each partition the last loss: how many events were counted as missing after which one."""

DEAD_LETTERS = sa.Table(
    "dead_letters",
    TABLES,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
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
    sa.UniqueConstraint(
        *("namespace", "hub", "consumer_group", "partition"),
        *("sequence_number", "enqueued_time_ns", "uplink_index"),
    ),
    sqlite_autoincrement=True,  # an id that a person has seen is never given to another letter
)
"""What could not be decoded or stored.

`size_bytes` is what a row counts for, `body_bytes` the whole body.
"""

DEAD_LETTER_SIZE = sa.Table(
    "dead_letter_size",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("row_count", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
)
"""One row: how much the table of dead letters holds, which would take long to count each time."""

SAMPLING_LEASE = sa.Table(
    "sampling_lease",
    TABLES,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("until_ns", sa.BigInteger, nullable=False),
)
"""The process that samples the platform, for as long as it renews this."""

SAMPLED_SLOTS = sa.Table(
    "sampled_slots",
    TABLES,
    sa.Column("source", sa.String(256), primary_key=True),
    sa.Column("slot_ns", sa.BigInteger, nullable=False),
)
"""Of each source that is sampled the newest slot that is in the totals."""

TOLD_FAILURES = sa.Table(
    "told_failures",
    TABLES,
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("told_at_ns", sa.BigInteger, nullable=False),
)
"""Runs of whose failure others were told; kept for a month."""

RUN_MARKS = sa.Table(
    "run_marks",
    TABLES,
    sa.Column("dagster_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)
"""Of each of Dagster's databases, by its id: up to which number its runs are in the totals."""

COUNTED_RUNS = sa.Table(
    "counted_runs",
    TABLES,
    sa.Column("dagster_id", sa.String(64), primary_key=True),
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("status", sa.String(16)),
)
"""The exceptions: runs beyond the mark as they were counted, and without a status those up to it
that had not ended."""


class OperationalDatabase:
    """Connections to it, with failures translated. Safe to share between threads."""

    def __init__(self, settings: DatabaseSettings, room_seconds: float | None = None) -> None:
        """Connects at first use; where the server is full it waits so long, by default 20 s."""
        self._engine = open_engine(settings)
        be_sparing(self._engine, room_seconds)
        self.name = self._engine.url.render_as_string(hide_password=True)
        self._is_made = False

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction, committed at the end."""
        with self._translating():
            self._make_tables()
            with self._engine.begin() as connection:
                yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Single statements that only read."""
        with self._translating():
            self._make_tables()
            with reading(self._engine) as connection:
                yield connection

    def what_is_due(self) -> str:
        """What the first use would do to the tables, in words; "" for nothing. Changes nothing."""
        with self._translating(), reading(self._engine) as connection:
            return _what_is_due(connection)

    def rehearse(self) -> str:
        """As `what_is_due`, after doing it in a transaction that is taken back.

        So whoever still works with the tables as they are goes on to do so.
        """
        with self._translating(), self._engine.connect() as connection:
            due = _what_is_due(connection)
            if due:
                _bring_up_to_date(connection)
            connection.rollback()
        return due

    def close(self) -> None:
        """Close the pool."""
        self._engine.dispose()

    def _has_tables(self) -> bool:
        """Looked at without a lock, so that an exporter may start while somebody writes."""
        with reading(self._engine) as connection:
            return not _what_is_due(connection)

    def _make_tables(self) -> None:
        if self._is_made or self._has_tables():
            self._is_made = True
            return
        try:
            self._upgrade()
        except (sa.exc.ProgrammingError, sa.exc.IntegrityError):
            self._upgrade()  # another process, of an earlier release, made some of them meanwhile
        self._is_made = True

    def _upgrade(self) -> None:
        with self._engine.begin() as connection:
            _bring_up_to_date(connection)

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except ConfigurationError as error:
            where = f"operational database {self.name}"
            raise StoreError(where, f"{error.where}: {error.problem}", error.fix) from error
        except (sa.exc.SQLAlchemyError, OSError) as error:
            self._is_made = False  # the file may have been replaced by an empty one
            raise StoreUnavailable(
                f"operational database {self.name}",
                cause_of(error),
                "Check operational_database in the settings: address, rights, disk, locks.",
            ) from error


def _what_is_due(connection: sa.Connection) -> str:
    """ConfigurationError if a later release made the tables."""
    missing = set(TABLES.tables) - set(sa.inspect(connection).get_table_names())
    applied, latest = applied_version(connection), len(UPGRADES)
    if len(missing) == len(TABLES.tables) and not applied:
        return "its tables will be made when the product starts"
    if applied < latest:
        return f"its tables will be upgraded from {applied} to {latest} when the product starts"
    if missing:
        return f"{', '.join(sorted(missing))} will be made when the product starts"
    return ""


def _bring_up_to_date(connection: sa.Connection) -> None:
    upgrade(connection)
    TABLES.create_all(connection)


def upsert(
    connection: sa.Connection, table: sa.Table, row: dict[str, Any], update: dict[str, Any]
) -> None:
    """Insert `row`, or set `update` where its primary key is there already."""
    connection.execute(
        _insert(connection, table, row).on_conflict_do_update(
            index_elements=list(table.primary_key), set_=update
        )
    )


def insert_if_absent(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> bool:
    """Insert `row`, unless its primary key is there already; says whether it did."""
    return connection.execute(_insert_if_absent(table, tuple(row)), row).rowcount > 0


@cache
def _insert_if_absent(table: sa.Table, names: tuple[str, ...]) -> sa.TextClause:
    """Made once: SQLAlchemy compiles an insert with ON CONFLICT anew each time.

    SQLite and PostgreSQL have the same words for it.
    """
    columns = ", ".join(f'"{name}"' for name in names)
    places = ", ".join(f":{name}" for name in names)
    text = f"INSERT INTO {table.name} ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608
    return sa.text(text).bindparams(*(sa.bindparam(n, type_=table.c[n].type) for n in names))


def _insert(
    connection: sa.Connection, table: sa.Table, row: dict[str, Any]
) -> postgresql.Insert | sqlite.Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).values(**row)
    return sqlite.insert(table).values(**row)
