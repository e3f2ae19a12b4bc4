"""PostgreSQL about itself: connections, transactions, cache, standbys, tables."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import Dashboard

from metrics_pipeline.dashboards import links, norms, units
from metrics_pipeline.dashboards.layout import Section, lay_out
from metrics_pipeline.dashboards.norms import at_least, at_most
from metrics_pipeline.dashboards.panels import (
    HALF,
    THIRD,
    Column,
    Panel,
    Series,
    figure,
    rows,
    states,
    trend,
)
from metrics_pipeline.dashboards.queries import age, latest, percent, rate

_OLDEST_SECONDS = at_most(300, 3600)
_FROZEN = at_most(500_000_000, 1_500_000_000)
"""At about 2,000,000,000 the server stops (PostgreSQL, Routine Vacuuming)."""
_REPLICATION_SECONDS = at_most(10, 60)
_TABLES_SHOWN = 20


def build() -> Dashboard:
    """What the SQL set `postgres` reads every 5 s."""
    return lay_out(
        links.DATABASE,
        "Database health",
        "PostgreSQL as its own statistics views tell (SQL set postgres).",
        (
            Section("Now", _now()),
            Section("Connections and transactions", _work()),
            Section("Cache and disk", _storage()),
            Section("Replication", _replication()),
            Section("Tables", _tables()),
        ),
    )


def _now() -> Sequence[Panel]:
    return (
        figure("Healthy", "1 when it answered.", units.COUNT, latest("postgres_healthy"), norms.UP),
        figure(
            "Uptime",
            "Since the server was started.",
            units.SECONDS,
            age("postgres_start_time_seconds"),
            at_least(3600, 600),
        ),
        figure(
            "Connections",
            "Share of the connections that the server lets in.",
            units.PERCENT,
            percent(latest("postgres_connections"), latest("postgres_max_connections")),
            norms.CONNECTIONS_PERCENT,
        ),
        figure(
            "Oldest transaction",
            "While it is open, VACUUM can remove nothing that is younger.",
            units.SECONDS,
            latest("postgres_longest_transaction_seconds"),
            _OLDEST_SECONDS,
        ),
        figure("Size", "Of this database on the disk.", units.BYTES, latest(_SIZE)),
        figure(
            "Age of transaction ids",
            "Transactions since the oldest that is not frozen; near 2,000,000,000 the server "
            "stops.",
            units.COUNT,
            latest("postgres_transaction_id_age"),
            _FROZEN,
        ),
    )


_SIZE = "postgres_db_size_bytes"


def _work() -> Sequence[Panel]:
    return (
        trend(
            "Connections",
            "To the server, and what the sessions do. The highest line is what it lets in.",
            units.COUNT,
            Series(latest("postgres_max_connections"), "let in"),
            Series(latest("postgres_connections"), "all"),
            Series(latest("postgres_connections_active"), "active"),
            Series(latest("postgres_connections_idle_in_transaction"), "idle in transaction"),
            Series(latest("postgres_connections_waiting_for_lock"), "waiting for a lock"),
        ),
        trend(
            "Transactions",
            "A second, in this database.",
            units.PER_SECOND,
            Series(rate("postgres_transactions_committed_total"), "committed"),
            Series(rate("postgres_transactions_rolled_back_total"), "rolled back"),
        ),
        trend(
            "Deadlocks",
            "A second, in this database.",
            units.PER_SECOND,
            Series(rate("postgres_deadlocks_total"), "deadlocks"),
            norm=norms.ANY_RATE,
        ),
        trend(
            "Oldest transaction",
            "Age of the oldest transaction of any session.",
            units.SECONDS,
            Series(latest("postgres_longest_transaction_seconds"), "oldest"),
            norm=_OLDEST_SECONDS,
        ),
    )


def _storage() -> Sequence[Panel]:
    hit, read = rate("postgres_blocks_hit_total"), rate("postgres_blocks_read_total")
    return (
        trend(
            "Cache hits",
            "Share of blocks found in the server's cache: now, and since the statistics were "
            "reset.",
            units.SHARE,
            Series(f"{hit} / (({hit} + {read}) > 0)", "now"),
            Series(latest("postgres_cache_hit_ratio"), "since the reset"),
            norm=at_least(0.99, 0.9),
            width=THIRD,
        ),
        trend(
            "Temporary files",
            "Bytes a second that queries wrote because work_mem did not hold them.",
            units.BYTES_PER_SECOND,
            Series(rate("postgres_temporary_bytes_total"), "written"),
            width=THIRD,
        ),
        trend(
            "Size",
            "Of this database on the disk, indexes included.",
            units.BYTES,
            Series(latest(_SIZE), "database"),
            width=THIRD,
        ),
    )


def _replication() -> Sequence[Panel]:
    return (
        trend(
            "Lag of standbys in time",
            "How long the last change took until the standby had replayed it; and, where this "
            "server is a standby itself, the age of the last change that it has replayed.",
            units.SECONDS,
            Series(latest("postgres_replication_lag_seconds", "standby"), "{{standby}}"),
            Series(latest("postgres_standby_lag_seconds"), "this standby"),
            norm=_REPLICATION_SECONDS,
            width=THIRD,
        ),
        trend(
            "Lag of standbys in bytes",
            "Write-ahead log that the standby has not replayed yet.",
            units.BYTES,
            Series(latest("postgres_replication_lag_bytes", "standby"), "{{standby}}"),
            width=THIRD,
        ),
        trend(
            "Kept for replication slots",
            "Write-ahead log that cannot be removed. A slot that nobody reads fills the disk.",
            units.BYTES,
            Series(latest("postgres_slot_retained_bytes", "slot"), "{{slot}}"),
            norm=at_most(1e9, 10e9),
            width=THIRD,
        ),
        states(
            "Replication slots",
            "Up while somebody reads from the slot.",
            units.COUNT,
            Series(latest("postgres_slot_active", "slot"), "{{slot}}"),
            norms.UP,
        ),
    )


_TABLE = ("schema", "table")


def _tables() -> Sequence[Panel]:
    changed = {
        "inserted": "postgres_table_rows_inserted_total",
        "updated": "postgres_table_rows_updated_total",
        "deleted": "postgres_table_rows_deleted_total",
    }
    scans = rate("postgres_table_sequential_scans_total", *_TABLE)
    return (
        _largest_tables(),
        trend(
            "Changed rows",
            "Rows a second of all tables that are read.",
            units.PER_SECOND,
            *(Series(rate(name), title) for title, name in changed.items()),
            width=HALF,
        ),
        trend(
            "Whole tables read",
            "The five tables that are read from end to end the most often, a second.",
            units.PER_SECOND,
            Series(f"topk(5, {scans})", "{{schema}}.{{table}}"),
            width=HALF,
        ),
    )


def _largest_tables() -> Panel:
    live, dead = latest("postgres_table_rows", *_TABLE), latest("postgres_table_dead_rows", *_TABLE)
    largest = f"topk({_TABLES_SHOWN}, {latest('postgres_table_size_bytes', *_TABLE)})"
    here = f"and on (schema, table) {largest}"
    return rows(
        f"The {_TABLES_SHOWN} largest tables",
        "With their indexes. Dead rows wait for VACUUM; both numbers of rows are PostgreSQL's "
        "estimates.",
        Column("Size", largest, units.BYTES),
        Column("Rows", f"{live} {here}", units.COUNT),
        Column("Dead rows", f"{dead} {here}", units.COUNT),
        Column("Dead", f"{percent(dead, f'({live} + {dead})')} {here}", units.PERCENT, _DEAD),
        sorted_by="Size",
    )


_DEAD = at_most(20, 50)
