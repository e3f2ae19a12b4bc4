"""How long each shipped SQL query takes on a million rows of `scrape_artifacts` and `prices`.

    python -m metrics_pipeline_tests.benchmarks.sql_metrics [--json] [--rows N] [--rounds N]
                                                            [--no-indexes]

On a real PostgreSQL of its own, with the tables and indexes of `simulators/platform_tables.py`,
which are those that docs/sql-metrics.md advises, and after VACUUM ANALYZE, as autovacuum would.
The prices are of 60 days. Wall time of one query as the runner sends it, so with BEGIN, SET,
ROLLBACK and the points, is the median of the rounds; CPU time of the server's process, their mean,
is what a busy machine changes less. `artifacts_miscounted` is of how many artifacts the set counts
another HTTP status than theirs, with bursts of rare ones. `--no-indexes` shows what the advice is
worth.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.simulators.platform_tables import PLATFORM
from metrics_pipeline.sources.sql_metrics import SqlMetrics
from metrics_pipeline.sources.sql_sets import SHIPPED, SqlSet, load_sql_set
from metrics_pipeline_tests.benchmarks.command_line import parser_of
from metrics_pipeline_tests.postgresql import PostgresqlDatabase, running_postgresql

FILL = (
    """INSERT INTO device_state SELECT 'device-' || i, (ARRAY['ONLINE','STALE','OFFLINE'])[1+i%3],
       now() FROM generate_series(1, {rows} / 10) AS i""",
    """INSERT INTO fleet_alert SELECT i, CASE WHEN i % 50 = 0 THEN 'OPEN' ELSE 'CLOSED' END, now()
       FROM generate_series(1, {rows} / 10) AS i""",
    """INSERT INTO delivery_jobs SELECT i, CASE WHEN i % 100 = 0 THEN 'PENDING' ELSE 'DONE' END,
       now() FROM generate_series(1, {rows}) AS i""",
    """INSERT INTO scrape_runs SELECT i, i % 50, (ARRAY['success','failed','running'])[1+i%3],
       now() - i * interval '20 minutes', now() - i * interval '19 minutes'
       FROM generate_series(1, {rows} / 20) AS i""",
    """INSERT INTO scrape_artifacts SELECT i, i % 50, (ARRAY[200,200,200,304,404,500,NULL])[1+i%7],
       (i % 500) * 991, i % 40 = 0 FROM generate_series(1, {rows}) AS i""",
    # Bursts, as of a server that is down for a while: 1 in 2,000 and 1 in 10,000, each in a row.
    """UPDATE scrape_artifacts SET http_status = 503 WHERE id BETWEEN {rows} / 3 + 1
       AND {rows} / 3 + {rows} / 2000""",
    """UPDATE scrape_artifacts SET http_status = 429 WHERE id <= {rows} / 10000""",
    """INSERT INTO variants SELECT i, i % 50, i % 4 <> 0 FROM generate_series(1, 5000) AS i""",
    # 60 days, so that a sixtieth is of the last 24 hours.
    """INSERT INTO prices SELECT i, 1 + i % 5000, 10 + (i * 31 % 7) * 0.5,
       now() - i * (interval '60 days' / {rows}) FROM generate_series(1, {rows}) AS i""",
)


@contextmanager
def filled_database(rows: int, *, indexes: bool) -> Iterator[PostgresqlDatabase]:
    """A PostgreSQL with the tables, of which the largest have `rows` rows."""
    with running_postgresql() as server, server.database() as database:
        engine = sa.create_engine(
            database.url, isolation_level="AUTOCOMMIT", execution_options={"no_parameters": True}
        )
        try:
            with engine.connect() as connection:
                for table in PLATFORM.sorted_tables:
                    connection.execute(sa.schema.CreateTable(table))
                for statement in FILL:
                    connection.exec_driver_sql(statement.format(rows=rows))
                for table in PLATFORM.sorted_tables if indexes else ():
                    for index in sorted(table.indexes, key=lambda index: str(index.name)):
                        connection.execute(sa.schema.CreateIndex(index))
                connection.exec_driver_sql("VACUUM ANALYZE")
            yield database
        finally:
            engine.dispose()


def single_queries(name: str) -> Iterator[SqlSet]:
    """Sets of one query each, which may take long."""
    shipped = load_sql_set(name)
    for query in shipped.queries:
        alone = replace(query, timeout_seconds=60.0)
        yield replace(shipped, queries=(alone,), healthy=None, interval_seconds=100)


def measure(rows: int, rounds: int, *, indexes: bool) -> dict[str, Any]:
    """The median of each query, in milliseconds, and the slowest of these."""
    with filled_database(rows, indexes=indexes) as database:
        taken = {
            f"{name}.{one.queries[0].name}": _time_one(one, database, rounds)
            for name in SHIPPED
            for one in single_queries(name)
        }
        miscounted = _count_miscounted(database)
    wall = {name: wall_ms for name, (wall_ms, _) in taken.items()}
    cpu = {name: cpu_ms for name, (_, cpu_ms) in taken.items()}
    slowest = max(wall, key=lambda name: wall[name])
    return {
        "rows": rows,
        "rounds": rounds,
        "slowest_query": slowest,
        "slowest_query_ms": wall[slowest],
        "most_cpu_ms": max(cpu.values()),
        "artifacts_miscounted": miscounted,
        "query_ms": wall,
        "query_cpu_ms": cpu,
    }


def _time_one(one: SqlSet, database: PostgresqlDatabase, rounds: int) -> tuple[float, float]:
    """Wall time, the median, and CPU time of the server's process, the mean; in milliseconds."""
    settings = DatabaseSettings(url=database.plain_url, password=_password(database))
    seconds = []
    with closing(SqlMetrics(one, settings)) as metrics:
        metrics.read(time.time_ns())  # connects
        pid = _server_process(database)
        spent = -_cpu_seconds(pid)
        for _ in range(rounds):
            began = time.perf_counter()
            reading = metrics.read(time.time_ns())
            seconds.append(time.perf_counter() - began)
            if reading.failures:
                raise SystemExit(f"these figures would be of a failure: {reading.failures[0]}")
        spent += _cpu_seconds(pid)
    return round(statistics.median(seconds) * 1000, 2), round(spent / rounds * 1000, 1)


def _count_miscounted(database: PostgresqlDatabase) -> int:
    """How far the set's counts by status are from those of the table, all together."""
    (counts,) = (s for s in single_queries("scrape_pipeline") if s.queries[0].name == "artifacts")
    settings = DatabaseSettings(url=database.plain_url, password=_password(database))
    with closing(SqlMetrics(counts, settings)) as metrics:
        points = metrics.read(time.time_ns()).points
    told = Counter({p.tags["http_status"]: int(p.fields["artifacts"]) for p in points})
    engine = sa.create_engine(database.url)
    try:
        with engine.connect() as connection:
            statuses = connection.exec_driver_sql("SELECT http_status FROM scrape_artifacts")
            true = Counter("none" if row[0] is None else str(row[0]) for row in statuses)
    finally:
        engine.dispose()
    return ((told - true) + (true - told)).total()


def _server_process(database: PostgresqlDatabase) -> int:
    """The process of the server that serves the metrics; helpers of parallel scans are others."""
    engine = sa.create_engine(database.url)
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'metrics_pipeline'"
            )
            return int(found.scalar_one())
    finally:
        engine.dispose()


def _cpu_seconds(pid: int) -> float:
    """In steps of a clock tick, 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _password(database: PostgresqlDatabase) -> SecretReference:
    os.environ["BENCHMARK_PG_PASS"] = database.password
    return SecretReference(env="BENCHMARK_PG_PASS")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of a table (1000000)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds to take the median of (9)")
    parser.add_argument("--no-indexes", action="store_true", help="without the indexes advised")
    options = parser.parse_args(arguments)
    figures = measure(options.rows, options.rounds, indexes=not options.no_indexes)
    if options.json:
        print(json.dumps(figures))
        return
    wall, cpu = figures.pop("query_ms"), figures.pop("query_cpu_ms")
    lines = {**figures, **{name: f"{wall[name]} ms, {cpu[name]} ms CPU" for name in wall}}
    print("\n".join(f"{name:44} {value}" for name, value in lines.items()))


if __name__ == "__main__":
    main()
