"""What a day writes to Dagster's event log, and what is left of it: SQLite and PostgreSQL.

    DAGSTER_HOME=.state/dagster python -m metrics_pipeline_tests.benchmarks.event_log_day --json

The runs that have succeeded in an instance with everything on are copied until they are those of a
day at the default cadence, and so are reports of no run. Then the details of all go, as the
retention deletes them of each an hour after its end. Freshness is not counted: it is written when
it changes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.runs.schema import RunsTable

from metrics_pipeline.orchestration.dagster_rows import measure
from metrics_pipeline.orchestration.retention import thin_runs
from metrics_pipeline_tests.orchestration.dagster_instances import opened, storages
from metrics_pipeline_tests.postgresql import running_postgresql

A_DAY = {
    "fleet_counts": 288,
    "device_status": 288,
    "device_metrics": 288,
    "telemetry": 340,
    "retention": 24,
}
"""Runs of each job."""

SECONDS_PER_DAY = 86_400
TABLES = (SqlEventLogStorageTable, AssetCheckExecutionsTable)
ROWS_AT_ONCE = 1000

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """Rows of one run, or, without a run, of one report."""

    run: Row | None
    events: Sequence[Row]
    outcomes: Sequence[Row]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    with dg.DagsterInstance.get() as instance:
        day = list(read_day(instance))
    found: dict[str, Mapping[str, object]] = {"each": sizes_of(day), "sqlite": bench(day, None)}
    with running_postgresql() as server, server.database() as database:
        found["postgresql"] = bench(day, database.url)
    for name, figures in found.items():
        print(name, *(f"{key} {figure}" for key, figure in figures.items()), sep="\n  ")
    if given.json:
        print(json.dumps(found))


def read_day(instance: dg.DagsterInstance) -> Iterator[tuple[str, int, Written]]:
    """Of each job and reported asset how many there are a day, and one after the other."""
    events, runs = storages(instance)
    with runs.connect() as connection:
        succeeded = sa.select(RunsTable).where(RunsTable.c.status == "SUCCESS")
        done = [dict(row._mapping) for row in connection.execute(succeeded)]
    with events.index_connection() as connection:
        for job, number in A_DAY.items():
            of_job = [run for run in done if run["pipeline_name"] == job]
            yield from _shared(job, number, [_read(connection, run) for run in of_job])
        yield from _reports(connection)


def bench(day: Sequence[tuple[str, int, Written]], postgresql_url: str | None) -> dict[str, float]:
    """Rows and MB of the day before and after, and what the deletion took."""
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(Path(folder), postgresql_url) as instance,
    ):
        empty = _bytes(instance)
        ids = itertools.count(1)
        runs = write(instance, [c for _, n, each in day for c in copies_of(each, n, ids)])
        before = _rows(instance), _bytes(instance) - empty
        began, cpu = time.monotonic(), time.process_time()
        deleted = sum(thin_runs(instance, storages(instance)[0], time.time() + 1, ()))
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu
        after = _rows(instance), _bytes(instance) - empty
    return {
        "rows_written": before[0],
        "MB_written": round(before[1] / 1e6, 1),
        "rows_left": after[0],
        "MB_left": round(after[1] / 1e6, 1),
        "events_deleted": deleted,
        "ms_a_run": round(seconds / runs * 1000, 1),
        "cpu_ms_a_run": round(cpu_seconds / runs * 1000, 1),
    }


def sizes_of(day: Sequence[tuple[str, int, Written]]) -> dict[str, str]:
    """kB of text a run, or a report, and how many there are a day; then by type of event."""
    texts: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for name, number, written in day:
        numbers[name] += number
        for row in written.events:
            texts[name] += number * len(row["event"])
            texts[f"{name} {row['dagster_event_type'] or 'log'}"] += number * len(row["event"])
        checks = sum(len(row["evaluation_event"]) for row in written.outcomes)
        texts[name] += number * checks
        texts[f"{name} outcomes of checks"] += number * checks
    return {
        name: f"{size / numbers[job] / 1000:.1f} kB, {size / 1e6:.1f} MB a day"
        for name, size in texts.most_common()
        if size and (job := next(each for each in numbers if name.startswith(each)))
    }


def _shared(
    name: str, number: int, written: Sequence[Written]
) -> Iterator[tuple[str, int, Written]]:
    for index, each in enumerate(written):
        yield name, number // len(written) + (index < number % len(written)), each


def _read(connection: sa.Connection, run: Row) -> Written:
    events, outcomes = (
        [
            dict(row._mapping)
            for row in connection.execute(sa.select(table).where(table.c.run_id == run["run_id"]))
        ]
        for table in TABLES
    )
    return Written(run, events, outcomes)


def _reports(connection: sa.Connection) -> Iterator[tuple[str, int, Written]]:
    """Materializations of no run, as often as they came since the first."""
    event = SqlEventLogStorageTable.c
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
    query = sa.select(SqlEventLogStorageTable).where(
        event.run_id == "", event.dagster_event_type == kind
    )
    rows = [dict(row._mapping) for row in connection.execute(query.order_by(event.asset_key))]
    for asset, same in itertools.groupby(rows, lambda row: str(row["asset_key"])):
        found = list(same)
        first, *_, last = (row["timestamp"] for row in found)
        number = round(SECONDS_PER_DAY * (len(found) - 1) / (last - first).total_seconds())
        yield from _shared(asset, number, [Written(None, [row], []) for row in found])


def write(instance: dg.DagsterInstance, copies: Sequence[Written]) -> int:
    """Insert them; gives how many runs they are."""
    events, runs = storages(instance)
    made = [copy.run for copy in copies if copy.run is not None]
    with runs.connect() as connection:
        insert(connection, RunsTable, made)
    with events.index_connection() as connection:
        insert(connection, SqlEventLogStorageTable, [r for copy in copies for r in copy.events])
        insert(connection, AssetCheckExecutionsTable, [r for c in copies for r in c.outcomes])
    return len(made)


def copies_of(written: Written, number: int, ids: Iterator[int]) -> Iterator[Written]:
    """So many, each of another run and with events of the next of `ids`."""
    return (_copy(written, ids) for _ in range(number))


def _copy(written: Written, ids: Iterator[int]) -> Written:
    """Of another run, with events of other numbers."""
    if written.run is None:
        return Written(None, [{**row, "id": next(ids)} for row in written.events], [])
    old, new = written.run["run_id"], str(uuid.uuid4())
    numbers = {row["id"]: next(ids) for row in written.events}

    def of_new(row: Row, text: str, **changed: object) -> Row:
        return {**row, text: row[text].replace(old, new), "run_id": new, **changed}

    outcomes = [
        of_new(
            {name: value for name, value in row.items() if name != "id"},
            "evaluation_event",
            evaluation_event_storage_id=numbers[row["evaluation_event_storage_id"]],
        )
        for row in written.outcomes
    ]
    run = {name: value for name, value in written.run.items() if name not in ("id", "snapshot_id")}
    return Written(
        of_new(run, "run_body"),
        [of_new(row, "event", id=numbers[row["id"]]) for row in written.events],
        outcomes,
    )


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """In pieces."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        connection.execute(sa.insert(table), rows[start : start + ROWS_AT_ONCE])


def _rows(instance: dg.DagsterInstance) -> int:
    with storages(instance)[0].index_connection() as connection:
        counts = [sa.select(sa.func.count()).select_from(table) for table in TABLES]
        return sum(connection.execute(count).scalar_one() for count in counts)


def _bytes(instance: dg.DagsterInstance) -> int:
    """Of both tables, or of the file that has them, without what is free."""
    with storages(instance)[0].index_connection() as connection:
        if connection.dialect.name != "postgresql":
            size = measure(storages(instance)[0])
            return size.total_bytes - (size.free_bytes or 0)
        for table in TABLES:
            connection.exec_driver_sql(f"VACUUM FULL {table.name}")
        of_table = "SELECT pg_total_relation_size('{}')"
        sizes = [connection.exec_driver_sql(of_table.format(table.name)) for table in TABLES]
        return sum(int(size.scalar_one()) for size in sizes)


if __name__ == "__main__":
    main()
