"""Sets of SQL queries against a real PostgreSQL and a SQLite file, also hostile and ill ones."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.errors import (
    CredentialRefused,
    SourceRefused,
    SourceUnreachable,
    UnexpectedReply,
)
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.core.validation import NS_PER_SECOND, validate
from metrics_pipeline.simulators.platform_database import create_platform, step_platform
from metrics_pipeline.simulators.platform_tables import DEVICE_STATE, PLATFORM, PRICES, VARIANTS
from metrics_pipeline.sources.pipeline_health_settings import LAST_SUCCESS_AGE
from metrics_pipeline.sources.sql_metrics import ASK_AGAIN_SECONDS, SqlMetrics
from metrics_pipeline.sources.sql_sets import SqlSet, extend_catalog, load_sql_set
from metrics_pipeline_tests.postgresql import (
    PostgresqlDatabase,
    PostgresqlServer,
    running_postgresql,
)
from metrics_pipeline_tests.stalling_proxy import stalling_proxy

TIME_NS = 1_700_000_000 * NS_PER_SECOND
AGAIN_NS = TIME_NS + ASK_AGAIN_SECONDS * NS_PER_SECOND
LONG_SECONDS = 20.0
NUMBER = {"type": "integer", "help": "A number."}
FLOAT = {"type": "float", "help": "A number."}


def query(sql: Any, *tags: str, **fields: Any) -> dict[str, Any]:
    return {
        "measurement": fields.pop("measurement", "m"),
        "sql": sql,
        "tags": list(tags),
        "fields": fields,
    }


def make_set(folder: Path, **queries: Any) -> SqlSet:
    """A set of `queries` as a file says it."""
    content = {
        "version": 1,
        "database": "d",
        "interval_seconds": 60,
        "timeout_seconds": queries.pop("timeout_seconds", 2),
        "healthy": queries.pop("healthy", None),
        "queries": queries,
    }
    file = folder / "set.yaml"
    file.write_text(json.dumps(content))  # which is YAML
    return load_sql_set("s", file)


def on_sqlite(folder: Path) -> DatabaseSettings:
    return DatabaseSettings(url=f"sqlite:///{folder}/foreign.sqlite")


def on_postgresql(database: PostgresqlDatabase, folder: Path, **changes: Any) -> DatabaseSettings:
    file = folder / "password"
    file.write_text(changes.pop("given_password", database.password))
    return DatabaseSettings(
        **{"url": database.plain_url, "password": SecretReference(file=file), **changes}
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    if request.param == "sqlite":
        (tmp_path / "foreign.sqlite").touch()  # a database without tables
        return on_sqlite(tmp_path)
    return on_postgresql(request.getfixturevalue("postgresql"), tmp_path)


@pytest.fixture
def server_database(postgresql: PostgresqlDatabase, tmp_path: Path) -> DatabaseSettings:
    return on_postgresql(postgresql, tmp_path)


def execute(database: DatabaseSettings, *statements: str) -> None:
    """As the owner of the database, who may write."""
    engine = open_engine(database)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


@contextmanager
def opened(sql_set: SqlSet, database: DatabaseSettings) -> Iterator[SqlMetrics]:
    with closing(SqlMetrics(sql_set, database)) as metrics:
        yield metrics


def read(sql_set: SqlSet, database: DatabaseSettings, time_ns: int = TIME_NS) -> Reading:
    """What it says; what it took is another matter."""
    with opened(sql_set, database) as metrics:
        return replace(metrics.read(time_ns), fetches=())


def values(reading: Reading) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """The fields, by the measurement and the values of the tags."""
    return {(p.measurement, *(p.tags[k] for k in sorted(p.tags))): p.fields for p in reading.points}


def execute_raw(postgresql: PostgresqlDatabase, *statements: str) -> None:
    engine = sa.create_engine(postgresql.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture
def reader(
    postgresql: PostgresqlDatabase, postgresql_server: PostgresqlServer, tmp_path: Path
) -> Iterator[DatabaseSettings]:
    """The database through a role that may only read; the tables are there."""
    role, password = f"reader_{secrets.token_hex(4)}", secrets.token_urlsafe()
    execute_raw(
        postgresql,
        f"CREATE ROLE {role} LOGIN PASSWORD '{password}'",
        f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}",
    )
    url = sa.engine.make_url(postgresql.plain_url).set(username=role).render_as_string()
    yield on_postgresql(postgresql, tmp_path, url=url, given_password=password)
    execute_raw(postgresql, f"DROP OWNED BY {role} CASCADE")
    postgresql_server.execute(f"DROP ROLE {role}")


def fill(url: str) -> None:
    engine = sa.create_engine(url)
    random = Random(7)
    create_platform(engine, datetime.now(UTC), random)
    for _ in range(3):
        step_platform(engine, datetime.now(UTC), random)
    engine.dispose()


# --- points ---------------------------------------------------------------------------------------


def test_each_row_is_a_point_and_each_column_a_tag_or_a_field(
    database: DatabaseSettings, tmp_path: Path
) -> None:
    execute(
        database,
        "CREATE TABLE t (kind text, number int)",
        "INSERT INTO t VALUES ('a', 1), ('a', 2), ('b', 5)",
    )
    sql = "SELECT kind, count(*) AS n, sum(number) AS total FROM t GROUP BY kind;"
    reading = read(make_set(tmp_path, q=query(sql, "kind", n=NUMBER, total=NUMBER)), database)
    assert reading.failures == ()
    assert sorted(reading.points, key=str) == [
        Point("m", {"kind": "a"}, {"n": 2, "total": 3}, TIME_NS),
        Point("m", {"kind": "b"}, {"n": 1, "total": 5}, TIME_NS),
    ]


def test_a_reading_is_one_fetch_of_so_many_queries(
    database: DatabaseSettings, tmp_path: Path
) -> None:
    good, also = query("SELECT 1 AS a", a=NUMBER), query("SELECT NULL AS b", b=NUMBER)
    gone, wrong = query("SELECT c FROM gone", c=NUMBER), query("SELECT 'x' AS d", d=NUMBER)
    sql_set = make_set(tmp_path, good=good, also=also, gone=gone, wrong=wrong)
    with opened(sql_set, database) as metrics:
        (first,) = metrics.read(TIME_NS).fetches
        assert metrics.answered == {"good", "also"}
        assert metrics.unanswered == {"wrong"}
        (second,) = metrics.read(TIME_NS + 1).fetches  # which leaves out what is gone
    assert (first.source, first.query_type, first.succeeded, first.failed) == ("s", "s", 2, 2)
    assert (second.succeeded, second.failed) == (2, 1)
    assert 0 < second.seconds < 60


def test_a_database_that_is_not_there_answers_no_query(tmp_path: Path) -> None:
    gone = DatabaseSettings(url=f"sqlite:///{tmp_path}/no/such.sqlite")
    one, two = query("SELECT 1 AS a", a=NUMBER), query("SELECT 2 AS b", b=NUMBER)
    with opened(make_set(tmp_path, one=one, two=two), gone) as metrics:
        (fetch,) = metrics.read(TIME_NS).fetches
        assert metrics.unanswered == {"one", "two"}
    assert (fetch.succeeded, fetch.failed) == (0, 2)


def test_queries_of_one_series_are_one_point(database: DatabaseSettings, tmp_path: Path) -> None:
    one, two = query("SELECT 1 AS a", a=NUMBER), query("SELECT 2 AS b", b=NUMBER)
    reading = read(make_set(tmp_path, one=one, two=two), database)
    (point,) = reading.points
    assert point == Point("m", {}, {"a": 1, "b": 2}, TIME_NS)
    assert reading.failures == ()
    assert set(reading.whole) == {("m", "a"), ("m", "b")}


def test_a_null_is_no_value_unless_the_set_says_what_it_means(
    database: DatabaseSettings, tmp_path: Path
) -> None:
    execute(database, "CREATE TABLE t (n int)")
    sql = "SELECT avg(n) AS a, sum(n) AS b FROM t"
    said = query(sql, a=FLOAT, b={**NUMBER, "null_is": 0})
    silent = query("SELECT max(n) AS c FROM t", measurement="other", c=NUMBER)
    reading = read(make_set(tmp_path, said=said, silent=silent), database)
    assert reading.points == (Point("m", {}, {"b": 0}, TIME_NS),)
    assert reading.failures == ()


def test_postgresql_types_become_the_types_of_the_set(
    server_database: DatabaseSettings, tmp_path: Path
) -> None:
    sql = """SELECT 12345678901234567890.5::numeric AS a, 3::numeric AS b, true AS c, false AS d,
             timestamptz '2001-09-09 01:46:40+00' AS e, timestamp '2001-09-09 01:46:40' AS f,
             interval '1 minute' AS g, 'x%y :z'::text AS tag, 1.5::real AS h"""
    fields = {"a": FLOAT, "b": NUMBER, "c": {**NUMBER, "type": "boolean"}, "d": NUMBER}
    fields |= dict.fromkeys("efgh", FLOAT)
    reading = read(make_set(tmp_path, q=query(sql, "tag", **fields)), server_database)
    assert reading.failures == ()
    (point,) = reading.points
    assert point.tags == {"tag": "x%y :z"}
    assert point.fields == {
        "a": 12345678901234567890.5,
        "b": 3,
        "c": True,
        "d": 0,
        "e": 1e9,
        "f": 1e9,
        "g": 60.0,
        "h": 1.5,
    }


def test_a_time_that_python_has_none_for_costs_that_query_alone(
    server_database: DatabaseSettings, tmp_path: Path
) -> None:
    ancient = query("SELECT timestamp '4712-01-01 BC' AS a", a=FLOAT)
    reading = read(
        make_set(tmp_path, q=ancient, ok=query("SELECT 1 AS n", n=NUMBER)), server_database
    )
    assert values(reading) == {("m",): {"n": 1}}
    assert [failure.target for failure in reading.failures] == ["q"]


# --- what is wrong with a result ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "tags", "says"),
    [
        ("SELECT 1 AS n UNION ALL SELECT 2", (), "gives 2 rows"),
        ("SELECT 'a' AS k, 1 AS n UNION ALL SELECT 'a', 2", ("k",), "the same k"),
        ("SELECT 'hunter2' AS n", (), "n is a text, expected a number"),
        ("SELECT 1.5 AS n", (), "n is 1.5, expected integer"),
        ("SELECT 1 AS other", (), "no column n; other: neither"),
        ("SELECT NULL AS k, 1 AS n", ("k",), "the tag k is NULL"),
        ("SELECT '' AS k, 1 AS n", ("k",), "the tag k is empty"),
    ],
)
def test_a_wrong_result_is_an_unexpected_reply_and_no_point(
    database: DatabaseSettings, tmp_path: Path, sql: str, tags: tuple[str, ...], says: str
) -> None:
    reading = read(make_set(tmp_path, q=query(sql, *tags, n=NUMBER)), database)
    assert reading.points == ()
    (failure,) = reading.failures
    assert isinstance(failure, UnexpectedReply)
    assert failure.target == "q"
    assert says in failure.problem
    assert "hunter2" not in str(failure)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_not_finite_is_refused(
    server_database: DatabaseSettings, tmp_path: Path, number: str
) -> None:
    fields = {"a": FLOAT, "b": FLOAT}
    sql = f"SELECT '{number}'::float8 AS a, '{number}'::numeric AS b"
    reading = read(make_set(tmp_path, q=query(sql, **fields)), server_database)
    assert reading.points == ()
    assert "expected a finite number" in reading.failures[0].problem


def test_one_wrong_row_leaves_the_others(database: DatabaseSettings, tmp_path: Path) -> None:
    sql = "SELECT 'a' AS k, 1 AS n UNION ALL SELECT NULL, 2 UNION ALL SELECT 'c', 3"
    reading = read(make_set(tmp_path, q=query(sql, "k", n=NUMBER)), database)
    assert values(reading) == {("m", "a"): {"n": 1}, ("m", "c"): {"n": 3}}
    assert len(reading.failures) == 1


def test_of_a_million_rows_none_is_stored_and_few_are_sent(
    database: DatabaseSettings, tmp_path: Path
) -> None:
    sql = """WITH RECURSIVE r(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM r WHERE k < 1000000)
             SELECT k, k AS n FROM r"""
    reading = read(make_set(tmp_path, timeout_seconds=30, q=query(sql, "k", n=NUMBER)), database)
    assert reading.points == ()
    assert "more than 1000 rows" in reading.failures[0].problem


# --- what the database refuses --------------------------------------------------------------------


def test_a_missing_table_costs_its_query_alone_and_is_told_once(
    database: DatabaseSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table, column = (
        query("SELECT count(*) AS n FROM missing", n=NUMBER),
        query("SELECT x AS o FROM t", o=NUMBER),
    )
    execute(database, "CREATE TABLE t (n int)")
    sql_set = make_set(tmp_path, table=table, column=column, ok=query("SELECT 1 AS p", p=NUMBER))
    with opened(sql_set, database) as metrics, caplog.at_level(logging.INFO):
        first = metrics.read(TIME_NS)
        assert {f.target for f in first.failures} == {"table", "column"}
        assert all(isinstance(failure, SourceRefused) for failure in first.failures)
        assert metrics.disabled.keys() == {"table", "column"}
        later = metrics.read(TIME_NS + NS_PER_SECOND)
        assert (later.failures, values(later)) == ((), {("m",): {"p": 1}})
        assert len(metrics.read(AGAIN_NS).failures) == 2
        assert len(caplog.records) == 2
        execute(database, "CREATE TABLE missing (n int)")
        repaired = metrics.read(2 * AGAIN_NS - TIME_NS)
        assert values(repaired) == {("m",): {"p": 1, "n": 0}}
        assert metrics.disabled.keys() == {"column"}
    assert "Create the table" in caplog.text
    assert "can be answered again" in caplog.text


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("name::int", "invalid text representation (SQLSTATE 22P02)"),
        ("name::timestamptz", "invalid datetime format (SQLSTATE 22007)"),
        ("to_number(name, 'FM')", "(SQLSTATE 22P02)"),
        ("jsonb(name)", "(SQLSTATE 22P02)"),
    ],
)
def test_what_a_table_holds_is_not_in_what_is_said(
    server_database: DatabaseSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    expression: str,
    says: str,
) -> None:
    execute(
        server_database,
        "CREATE TABLE t (name text)",
        "INSERT INTO t VALUES ('customer@example.com')",
    )
    wrong = query(f"SELECT count({expression}) AS n FROM t", n=NUMBER)
    with caplog.at_level(logging.DEBUG):
        reading = read(make_set(tmp_path, q=wrong), server_database)
    (failure,) = reading.failures
    assert isinstance(failure, SourceRefused)
    assert says in failure.problem
    assert "customer" not in f"{failure} {failure.problem} {failure.fix} {caplog.text}"


def test_a_set_that_writes_is_refused(server_database: DatabaseSettings, tmp_path: Path) -> None:
    execute(
        server_database,
        "CREATE TABLE t (n int)",
        "CREATE FUNCTION put() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING n'",
    )
    statements = {
        "function": "SELECT put() AS f_function",
        "cte": "WITH w AS (INSERT INTO t VALUES (2) RETURNING n) SELECT n AS f_cte FROM w",
        "locks": "SELECT n AS f_locks FROM t FOR UPDATE",
        "mode": "SELECT set_config('transaction_read_only', 'off', true)::int AS f_mode",
        "large_object": "SELECT lo_create(0) AS f_large_object",
    }
    writes = {name: query(sql, **{f"f_{name}": NUMBER}) for name, sql in statements.items()}
    counted = query("SELECT count(*) AS n FROM t", n=NUMBER)
    reading = read(make_set(tmp_path, **writes, counted=counted), server_database)
    assert values(reading) == {("m",): {"n": 0}}
    assert {failure.target for failure in reading.failures} == set(writes)
    assert all(isinstance(failure, SourceRefused) for failure in reading.failures)


@pytest.mark.parametrize(
    "sql",
    [
        r"SELECT E'a\'' AS n) AS q; {write}; SELECT * FROM (SELECT 1 AS n --'",
        "SELECT 1 AS n /* /* */ ' */) AS q; {write}; SELECT * FROM (SELECT 1 AS n --'",
        "SELECT 1 AS a$b$) AS q; {write}; SELECT * FROM (SELECT 1 AS n --$b$",
        "SELECT 1 AS n --\r) AS q; {write}; SELECT * FROM (SELECT 1 AS n",
    ],
    ids=["escape", "nested_comment", "dollar_in_a_name", "carriage_return"],
)
def test_a_text_that_hides_statements_does_not_leave_its_transaction(
    server_database: DatabaseSettings, tmp_path: Path, sql: str
) -> None:
    write = "COMMIT; BEGIN READ WRITE; CREATE TABLE hacked (i int); COMMIT"
    hidden = query(sql.format(write=write), n=NUMBER)
    tables = query("SELECT count(*) AS o FROM pg_tables WHERE tablename = 'hacked'", o=NUMBER)
    reading = read(make_set(tmp_path, hidden=hidden, tables=tables), server_database)
    assert values(reading) == {("m",): {"o": 0}}
    (failure,) = reading.failures
    assert isinstance(failure, SourceRefused)
    assert failure.target == "hidden"


def test_a_sqlite_file_is_not_written_and_not_made(tmp_path: Path) -> None:
    database = on_sqlite(tmp_path)
    sql_set = make_set(tmp_path, q=query("SELECT 1 AS n", n=NUMBER))
    (failure,) = read(sql_set, database).failures
    assert isinstance(failure, SourceUnreachable)
    assert not (tmp_path / "foreign.sqlite").exists()


def test_a_sqlite_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    database = on_sqlite(tmp_path)
    execute(database, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
    sql_set = make_set(tmp_path, q=query("SELECT n FROM t", n=NUMBER))
    with opened(sql_set, database) as metrics:
        assert values(metrics.read(TIME_NS)) == {("m",): {"n": 1}}
        (tmp_path / "foreign.sqlite").unlink()
        execute(database, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (2)")
        assert values(metrics.read(TIME_NS)) == {("m",): {"n": 2}}


def test_a_query_that_takes_too_long_is_ended(database: DatabaseSettings, tmp_path: Path) -> None:
    sql = """WITH RECURSIVE r(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM r WHERE k < 1000000000)
             SELECT count(*) AS n FROM r"""
    slow, quick = query(sql, n=NUMBER), query("SELECT 1 AS o", o=NUMBER)
    reading = read(make_set(tmp_path, timeout_seconds=0.3, slow=slow, quick=quick), database)
    assert values(reading) == {("m",): {"o": 1}}
    (failure,) = reading.failures
    assert isinstance(failure, SourceUnreachable)
    assert (failure.target, "index" in failure.fix) == ("slow", True)


# --- a role that may only read --------------------------------------------------------------------


def test_the_shipped_sets_are_read_by_a_role_that_may_only_read(
    postgresql: PostgresqlDatabase, reader: DatabaseSettings
) -> None:
    fill(postgresql.url)
    for name in ("platform", "scrape_pipeline"):
        sql_set = load_sql_set(name)
        reading = read(sql_set, reader)
        assert reading.failures == ()
        assert_all_values(sql_set, reading)


def test_the_shipped_sets_run_on_sqlite(tmp_path: Path) -> None:
    fill(on_sqlite(tmp_path).url)
    for name in ("platform", "scrape_pipeline"):
        sql_set = load_sql_set(name)
        reading = read(sql_set, on_sqlite(tmp_path))
        assert reading.failures == ()
        assert_all_values(sql_set, reading)


def assert_all_values(sql_set: SqlSet, reading: Reading) -> None:
    """Each metric of the set has a value, which validation takes."""
    catalog = extend_catalog(CATALOG, [sql_set])
    found = {
        (point.measurement, field)
        for point in reading.points
        for field in validate(point, catalog, TIME_NS).fields
    }
    assert found == {(metric.measurement.name, metric.field) for metric in sql_set.metrics}


def test_sqlite_and_postgresql_give_the_same_values(
    postgresql: PostgresqlDatabase, server_database: DatabaseSettings, tmp_path: Path
) -> None:
    fill(on_sqlite(tmp_path).url)
    copy_tables(on_sqlite(tmp_path).url, postgresql.url)
    for name in ("platform", "scrape_pipeline"):
        sql_set = load_sql_set(name)
        ours, theirs = (values(read(sql_set, d)) for d in (on_sqlite(tmp_path), server_database))
        assert ours.keys() == theirs.keys()
        for series, fields in ours.items():
            # SQLite's times are to the millisecond, and its sums are floats.
            assert without_age(fields) == pytest.approx(
                without_age(theirs[series]), rel=1e-6, abs=0.002
            )


def without_age(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Less what grows between two readings."""
    return {name: value for name, value in fields.items() if name != LAST_SUCCESS_AGE}


def copy_tables(source: str, target: str) -> None:
    first, second = sa.create_engine(source), sa.create_engine(target)
    PLATFORM.create_all(second)
    with first.connect() as reading, second.begin() as writing:
        writing.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")
        for table in PLATFORM.sorted_tables:
            rows = [dict(row) for row in reading.execute(sa.select(table)).mappings()]
            writing.execute(sa.insert(table), rows)
    first.dispose()
    second.dispose()


def test_a_price_has_changed_if_it_is_not_the_one_before_however_old_that_is(
    database: DatabaseSettings,
) -> None:
    hours_and_prices: Mapping[int, list[tuple[int, int | None]]] = {
        1: [(80, 10), (2, 11)],  # changed: the one before is older than two days
        2: [(30, 10), (2, 11)],  # changed
        3: [(80, 10), (30, 11), (2, 11)],  # changed, but before
        4: [(2, 10)],  # the first one
        5: [(30, 10), (5, 11), (4, 11), (3, 10), (1, None)],  # changed, and back
        6: [(80, 10), (60, 11)],  # changed, but before
    }
    now, engine = datetime.now(UTC), open_engine(database)
    PLATFORM.create_all(engine)
    with engine.begin() as connection:
        for variant, prices in hours_and_prices.items():
            stocked = sa.insert(VARIANTS).values(id=variant, roaster_id=variant % 2, in_stock=True)
            connection.execute(stocked)
            for hours, price in prices:
                scraped = sa.insert(PRICES).values(variant_id=variant, price=price)
                connection.execute(scraped.values(scraped_at=now - timedelta(hours=hours)))
    engine.dispose()
    found = values(read(load_sql_set("scrape_pipeline"), database))
    assert found["scrape_pipeline",]["price_changes_24h"] == 4
    assert found["roaster_scrape_pipeline", "0"]["price_changes_24h"] == 1
    assert found["roaster_scrape_pipeline", "1"]["price_changes_24h"] == 3


def test_averages_over_empty_tables_are_absent_and_counts_are_zero(
    postgresql: PostgresqlDatabase, server_database: DatabaseSettings
) -> None:
    engine = sa.create_engine(postgresql.url)
    PLATFORM.create_all(engine)
    engine.dispose()
    platform = read(load_sql_set("platform"), server_database)
    assert values(platform) == {
        ("platform_metrics",): {
            "devices_online": 0, "devices_stale": 0, "alerts_open": 0, "deliveries_pending": 0,
        }
    }  # fmt: skip
    scrape = read(load_sql_set("scrape_pipeline"), server_database)
    assert scrape.failures == ()
    assert values(scrape) == {
        ("scrape_pipeline",): {
            "price_changes_24h": 0, "variants_updated_24h": 0,
            "variants_in_stock": 0, "variants_out_of_stock": 0,
        }
    }  # fmt: skip


def test_what_the_role_may_not_read_costs_that_query_alone(
    postgresql: PostgresqlDatabase, reader: DatabaseSettings
) -> None:
    fill(postgresql.url)
    role = sa.engine.make_url(reader.url).username
    execute_raw(postgresql, f"REVOKE SELECT ON fleet_alert FROM {role}")
    reading = read(load_sql_set("platform"), reader)
    assert values(reading)["platform_metrics",].keys() == {
        "devices_online", "devices_stale", "deliveries_pending",
    }  # fmt: skip
    (failure,) = reading.failures
    assert (failure.target, "GRANT SELECT" in failure.fix) == ("alerts", True)


def test_postgresql_tells_of_itself(
    postgresql: PostgresqlDatabase, reader: DatabaseSettings
) -> None:
    fill(postgresql.url)
    sql_set = load_sql_set("postgres")
    role = sa.engine.make_url(reader.url).username
    modest = read(sql_set, reader)
    assert modest.failures == ()
    fields = values(modest)["postgres_metrics",]
    assert fields["healthy"] == 1
    assert fields["connections"] >= 1
    assert fields["db_size_bytes"] > 1_000_000
    assert "longest_transaction_seconds" not in fields  # it cannot see others
    assert values(modest)["postgres_tables", "public", "prices"]["size_bytes"] > 0
    execute_raw(postgresql, f"GRANT pg_monitor TO {role}")
    seen = values(read(sql_set, reader))["postgres_metrics",]
    assert seen["longest_transaction_seconds"] >= 0
    assert seen.keys() - fields.keys() == {
        "longest_transaction_seconds", "connections_active",
        "connections_idle_in_transaction", "connections_waiting_for_lock",
    }  # fmt: skip
    for point in modest.points:
        validate(point, extend_catalog(CATALOG, [sql_set]), TIME_NS)


# --- a database that is ill -----------------------------------------------------------------------


def test_a_table_that_is_locked_costs_its_query_alone_and_one_connection(
    postgresql: PostgresqlDatabase, server_database: DatabaseSettings, tmp_path: Path
) -> None:
    fill(postgresql.url)
    locked = query("SELECT count(*) AS n FROM device_state", n=NUMBER)
    free = query("SELECT count(*) AS o FROM fleet_alert", o=NUMBER)
    sql_set = make_set(tmp_path, timeout_seconds=0.4, locked=locked, free=free)
    sizes = load_sql_set("postgres")
    engine = sa.create_engine(postgresql.url)
    with engine.connect() as holder, opened(sql_set, server_database) as metrics:
        holder.exec_driver_sql(f"LOCK TABLE {DEVICE_STATE.name} IN ACCESS EXCLUSIVE MODE")
        for _ in range(3):
            reading = metrics.read(TIME_NS)
            assert values(reading).keys() == {("m",)}
            (failure,) = reading.failures
            assert isinstance(failure, SourceUnreachable)
            assert (failure.target, "lock" in failure.fix) == ("locked", True)
        assert count_connections(holder) == 1
        tables = values(read(sizes, server_database))
        assert ("postgres_tables", "public", "prices") in tables
        assert ("postgres_tables", "public", "device_state") not in tables
        holder.rollback()
        assert metrics.read(TIME_NS).failures == ()
    engine.dispose()


def count_connections(connection: sa.Connection) -> int:
    sql = """SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'metrics_pipeline'"""
    return int(connection.exec_driver_sql(sql).scalar_one())


def test_readings_are_no_rollbacks_in_the_statistics_of_the_database(
    postgresql: PostgresqlDatabase, server_database: DatabaseSettings, tmp_path: Path
) -> None:
    sql_set = make_set(tmp_path, q=query("SELECT 1 AS n", n=NUMBER))
    engine = sa.create_engine(postgresql.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as observer:
        commits, rollbacks = count_transactions(observer)
        with opened(sql_set, server_database) as metrics:
            for _ in range(20):
                assert metrics.read(TIME_NS).failures == ()
        while count_connections(observer):  # the statistics of a session are there when it has gone
            pass
        commits_now, rollbacks_now = count_transactions(observer)
    engine.dispose()
    assert commits_now - commits >= 20
    assert rollbacks_now - rollbacks <= 2  # of SQLAlchemy, when it connects


def count_transactions(connection: sa.Connection) -> tuple[int, int]:
    """Committed and rolled back."""
    sql = (
        "SELECT xact_commit, xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    )
    committed, rolled_back = connection.exec_driver_sql(sql).one()
    return committed, rolled_back


def test_a_connection_that_was_ended_meanwhile_is_made_anew(
    postgresql: PostgresqlDatabase, server_database: DatabaseSettings, tmp_path: Path
) -> None:
    sql_set = make_set(tmp_path, q=query("SELECT pg_backend_pid() AS n", n=NUMBER))
    with opened(sql_set, server_database) as metrics:
        first = values(metrics.read(TIME_NS))["m",]["n"]
        assert values(metrics.read(TIME_NS))["m",]["n"] == first
        execute_raw(postgresql, f"SELECT pg_terminate_backend({first})")
        assert values(metrics.read(TIME_NS))["m",]["n"] != first


def test_a_query_that_loses_the_connection_costs_no_other_and_comes_last_the_next_time(
    server_database: DatabaseSettings, tmp_path: Path
) -> None:
    lost = "SELECT pg_terminate_backend(pg_backend_pid())::int AS n"
    queries = {
        "before": query("SELECT 1 AS o", o=NUMBER),
        "lost": query(lost, n=NUMBER),
        "after": query("SELECT 2 AS p", p=NUMBER),
    }
    health = {"measurement": "m", "metric": "m_healthy", "help": "1 if it answered."}
    with opened(make_set(tmp_path, healthy=health, **queries), server_database) as metrics:
        first, second = metrics.read(TIME_NS), metrics.read(TIME_NS)
        assert metrics.unanswered == {"lost"}
    assert values(first) == {("m",): {"o": 1, "healthy": 1}}
    assert values(second) == {("m",): {"o": 1, "p": 2, "healthy": 1}}
    for reading in (first, second):
        (failure,) = reading.failures
        assert (type(failure), failure.target) == (SourceUnreachable, "lost")


def test_a_server_that_is_down_or_hangs_is_one_failure_and_not_healthy(tmp_path: Path) -> None:
    with running_postgresql() as server, server.database() as database:
        settings = on_postgresql(database, tmp_path, connect_timeout_seconds=1)
        shipped = load_sql_set("postgres")
        with opened(quick(shipped), settings) as metrics:
            assert metrics.read(TIME_NS).failures == ()
            assert server.process is not None
            backends = [server.process.pid, *children(server.process.pid)]
            for pid in backends:
                os.kill(pid, signal.SIGSTOP)
            try:
                assert_not_healthy(metrics.read(TIME_NS))
            finally:
                for pid in backends:
                    os.kill(pid, signal.SIGCONT)
            assert metrics.read(TIME_NS).failures == ()
            server.stop()
            assert_not_healthy(metrics.read(TIME_NS))
            server.start()
            assert metrics.read(TIME_NS).failures == ()


def test_connecting_takes_no_longer_than_a_reading_may(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # accepts, and says nothing
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d"
        settings = DatabaseSettings(url=url, connect_timeout_seconds=30)
        sql_set = quick(make_set(tmp_path, q=query("SELECT 1 AS n", n=NUMBER)))
        with opened(sql_set, settings) as metrics:
            reading = metrics.read(TIME_NS)
    (failure,) = reading.failures
    assert isinstance(failure, SourceUnreachable)
    (fetch,) = reading.fetches
    assert fetch.seconds < settings.connect_timeout_seconds / 2


def test_a_database_that_hangs_in_the_middle_of_an_answer_is_left_in_time(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    rows = query("SELECT md5(k::text) AS k, k AS n FROM generate_series(1, 900) k", "k", n=NUMBER)
    after = query("SELECT 1 AS o", o=NUMBER, measurement="later")
    sql_set = quick(make_set(tmp_path, timeout_seconds=0.5, rows=rows, after=after))
    url = sa.make_url(postgresql.plain_url)
    with stalling_proxy(str(url.host), url.port or 0) as proxy:
        there = url.set(host="127.0.0.1", port=proxy.port).render_as_string()
        settings = on_postgresql(postgresql, tmp_path, url=there)
        with opened(sql_set, settings) as metrics:
            assert len(metrics.read(TIME_NS).points) == 901
            proxy.left_bytes = 20_000  # some 400 of the rows
            hung = metrics.read(TIME_NS)
            assert proxy.has_stalled.is_set()
            assert proxy.was_left.wait(LONG_SECONDS)
            proxy.left_bytes = None
            mended = metrics.read(TIME_NS)
    assert hung.points == ()
    (failure,) = hung.failures
    assert isinstance(failure, SourceUnreachable)
    assert mended.failures == ()
    assert len(mended.points) == 901
    assert len(proxy.accepted) == 2


def quick(sql_set: SqlSet) -> SqlSet:
    """The same, of which a reading may take one second."""
    return replace(sql_set, interval_seconds=1)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in listed.split()]


def assert_not_healthy(reading: Reading) -> None:
    assert values(reading) == {("postgres_metrics",): {"healthy": 0}}
    (failure,) = reading.failures
    assert isinstance(failure, SourceUnreachable)


def test_a_wrong_password_is_not_in_what_is_said(
    postgresql: PostgresqlDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = on_postgresql(postgresql, tmp_path, given_password="hunter2")
    with opened(load_sql_set("postgres"), settings) as metrics:
        reading = metrics.read(TIME_NS)
        assert "hunter2" not in f"{reading} {metrics!r} {vars(metrics)} {caplog.text}"
    (failure,) = reading.failures
    assert isinstance(failure, CredentialRefused)


def test_a_password_that_is_not_there_says_where_it_was_looked_for(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    settings = DatabaseSettings(
        url=postgresql.plain_url, password=SecretReference(file=tmp_path / "no-such-file")
    )
    (failure,) = read(load_sql_set("postgres"), settings).failures
    assert isinstance(failure, SourceRefused)
    assert "no-such-file" in failure.problem


def test_a_file_that_is_no_database_is_one_failure(tmp_path: Path) -> None:
    (tmp_path / "foreign.sqlite").write_bytes(b"this is no database" * 100)
    (failure,) = read(load_sql_set("platform"), on_sqlite(tmp_path)).failures
    assert isinstance(failure, SourceUnreachable)


def test_a_locked_sqlite_file_is_given_up_in_time(tmp_path: Path) -> None:
    database = on_sqlite(tmp_path)
    with closing(sqlite3.connect(tmp_path / "foreign.sqlite")) as holder:
        holder.execute("CREATE TABLE t (n int)")
        holder.execute("BEGIN EXCLUSIVE")
        sql_set = make_set(tmp_path, timeout_seconds=0.2, q=query("SELECT n FROM t", n=NUMBER))
        (failure,) = read(sql_set, database).failures
    assert isinstance(failure, SourceUnreachable)
    assert failure.retry_helps


def test_what_finds_no_time_in_the_interval_is_a_failure_and_first_the_next_time(
    server_database: DatabaseSettings, tmp_path: Path
) -> None:
    slow = query("SELECT 1 AS n FROM pg_sleep(60)", n=NUMBER)
    starved = query("SELECT 2 AS o", o=NUMBER)
    sql_set = quick(make_set(tmp_path, timeout_seconds=10, slow=slow, starved=starved))
    with opened(sql_set, server_database) as metrics:
        assert [failure.target for failure in metrics.read(TIME_NS).failures] == ["slow", "starved"]
        reading = metrics.read(TIME_NS)
        assert values(reading) == {("m",): {"o": 2}}
        assert [failure.target for failure in reading.failures] == ["slow"]


def test_queries_of_which_each_takes_all_the_time_take_turns_and_starve_no_other(
    server_database: DatabaseSettings, tmp_path: Path
) -> None:
    one = query("SELECT 1 AS n FROM pg_sleep(60)", n=NUMBER)
    two = query("SELECT 1 AS p FROM pg_sleep(60)", p=NUMBER)
    good = query("SELECT 2 AS o", o=NUMBER)
    sql_set = quick(make_set(tmp_path, timeout_seconds=10, one=one, two=two, good=good))
    with opened(sql_set, server_database) as metrics:
        readings = [metrics.read(TIME_NS) for _ in range(4)]
    assert [failure.target for failure in readings[0].failures] == ["one", "two", "good"]
    assert [failure.target for failure in readings[1].failures] == ["two", "good", "one"]
    for reading, order in zip(readings[2:], (["one", "two"], ["two", "one"]), strict=True):
        assert values(reading) == {("m",): {"o": 2}}
        assert [failure.target for failure in reading.failures] == order
