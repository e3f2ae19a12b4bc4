"""Runs one set of SQL queries against its database, over one connection that is kept.

Each query is a transaction of its own that only reads and that its text cannot end, with a
statement time-out, a lock time-out of half of it, the time zone UTC and a bounded result. Nothing
that a database does can hold up a reading: what a server that does not even end its statements
leaves unanswered is ended here, by closing the socket under it. All queries of a reading together
may take `READING_SHARE` of the interval; what could not begin by then is a failure, and those that
took too long come last at the next reading.

A query whose table or column is missing, or that is wrong or not allowed, is told once and left out
for `ASK_AGAIN_SECONDS`, for as long as this object lives. The others go on.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings, open_foreign_engine
from metrics_pipeline.core.errors import (
    ConfigurationError,
    SourceError,
    SourceRefused,
    SourceUnreachable,
)
from metrics_pipeline.core.fetches import Fetch
from metrics_pipeline.core.points import Column, FieldValue, Point, SeriesKey
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.sources.sql_errors import Meaning, explain
from metrics_pipeline.sources.sql_rows import Rows, read_rows
from metrics_pipeline.sources.sql_sets import DIALECTS, Dialect, Query, SqlSet

LOG = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 600
READING_SHARE = 0.8
LONGEST_READING_SECONDS = 120.0
GRACE_SECONDS = 1.0
"""A server has this long to end a statement itself."""
SHORTEST_SECONDS = 0.05
PROGRESS_STEPS = 1000
"""SQLite looks at the clock after so many of its instructions: some 10 µs."""
MS_PER_SECOND = 1000
PREPARE = (
    "DEALLOCATE ALL;"  # a prepared statement outlives its transaction
    "SELECT set_config('metrics_pipeline.query', %(prepared)s, true);"
    "DO LANGUAGE plpgsql 'BEGIN EXECUTE current_setting(''metrics_pipeline.query''); END'"
)


class _GaveUp(Exception):
    """No query can be answered now; `error` says why."""

    def __init__(self, error: SourceError) -> None:
        super().__init__(str(error))
        self.error = error


class SqlMetrics:
    """A set of queries and its database. Making one opens nothing. For one thread at a time."""

    def __init__(
        self,
        sql_set: SqlSet,
        database: DatabaseSettings,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = sql_set.name
        self._set = sql_set
        self._settings = database
        self._monotonic = monotonic
        self._seconds = min(LONGEST_READING_SECONDS, sql_set.interval_seconds * READING_SHARE)
        self._engine = open_foreign_engine(_in_time(database, self._seconds))
        self._dialect = _dialect_of(self._engine)
        self._where = self._engine.url.render_as_string(hide_password=True)
        self._queries = [query for query in sql_set.queries if self._dialect in query.sql]
        self._disabled: dict[str, tuple[int, str]] = {}
        self._slow: dict[str, None] = {}  # in the order in which they were
        self._asked: set[str] = set()
        self._answered: set[str] = set()
        self._watch = _Watch()
        sa.event.listen(self._engine, "connect", self._watch.take)

    @property
    def disabled(self) -> Mapping[str, str]:
        """The queries that are left out for now, and why."""
        return {name: why for name, (_, why) in self._disabled.items()}

    @property
    def answered(self) -> frozenset[str]:
        """The queries that the last reading had an answer of."""
        return frozenset(self._answered)

    @property
    def unanswered(self) -> frozenset[str]:
        """The queries that the last reading asked, or had no time to, and that may answer soon."""
        return frozenset(self._asked - self._answered - self._disabled.keys())

    def read(self, time_ns: int) -> Reading:
        """The points of all queries that could be answered, stamped `time_ns`; failures of others.

        A database that answers nothing is one failure, and `healthy` 0 where the set has it. One
        that is lost in between is the failure of the query it was lost at, which comes last the
        next time.
        """
        began = self._monotonic()
        try:
            reading = self._read_all(time_ns, began + self._seconds)
        except _GaveUp as error:
            reading = Reading(self._health(0, time_ns), (error.error,))
        else:
            points = _merge((*reading.points, *self._health(1, time_ns)))
            reading = Reading(points, reading.failures, whole=self._whole())
        return replace(reading, fetches=(self._fetch(self._monotonic() - began),))

    def _whole(self) -> frozenset[Column]:
        """The columns of queries that were answered, but for those that others have as well."""
        answered, others = set[Column](), set[Column]()
        for query in self._queries:
            columns = answered if query.name in self._answered else others
            columns.update((query.measurement.name, field) for field in query.metrics)
        return frozenset(answered - others)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _read_all(self, time_ns: int, deadline: float) -> Reading:
        total = Reading(())
        due = [query for query in self._queries if self._is_asked(query, time_ns)]
        self._asked, self._answered = {query.name for query in due}, set()
        with self._connected(deadline) as connection:
            for query in self._in_order(due):
                try:
                    total += self._read_query(connection, query, time_ns, deadline)
                except _GaveUp as error:
                    self._slow[query.name] = None  # it may be what ends the connection
                    if not self._answered:
                        raise
                    return total + Reading((), (error.error.about(query.name),))
        return total

    def _in_order(self, queries: Sequence[Query]) -> Sequence[Query]:
        """Last those that took too long, and of them last the one that did so last."""
        place = {name: number for number, name in enumerate(self._slow, start=1)}
        return sorted(queries, key=lambda query: place.get(query.name, 0))

    def _is_asked(self, query: Query, time_ns: int) -> bool:
        since, _ = self._disabled.get(query.name, (None, ""))
        return since is None or time_ns - since >= ASK_AGAIN_SECONDS * NS_PER_SECOND

    @contextmanager
    def _connected(self, deadline: float) -> Iterator[sa.Connection]:
        """A connection, with somebody who ends what does not answer."""
        seconds = max(SHORTEST_SECONDS, deadline - self._monotonic()) + GRACE_SECONDS
        with self._watch.guarding(seconds):
            try:
                connection = self._engine.connect()
            except sa.exc.SQLAlchemyError as error:
                meaning, said = explain(error)
                raise _GaveUp(self._error(meaning, self._where, said)) from error
            except ConfigurationError as error:
                problem = f"{error.where}: {error.problem}"
                raise _GaveUp(SourceRefused(self.name, self._where, problem, error.fix)) from error
            with connection:
                yield connection

    def _read_query(
        self, connection: sa.Connection, query: Query, time_ns: int, deadline: float
    ) -> Reading:
        left = deadline - self._monotonic()
        if left < SHORTEST_SECONDS:
            return Reading((), (self._no_time(query),))
        self._slow.pop(query.name, None)
        try:
            columns, rows = self._run(connection, query, min(query.timeout_seconds, left))
        except sa.exc.SQLAlchemyError as error:
            return Reading((), self._explain(error, query, time_ns))
        except (ValueError, OverflowError):  # a time that Python has none for: year 0, infinity
            problem = "it gives a value that cannot be read, such as a time before year 1"
            fix = "Write it as a number in the SQL."
            return Reading((), (SourceRefused(self.name, query.name, problem, fix),))
        if self._disabled.pop(query.name, None):
            LOG.info("%s: the query %s can be answered again", self.name, query.name)
        reading = read_rows(self.name, query, (columns, rows), self._set.tags, time_ns)
        if not reading.failures:
            self._answered.add(query.name)
        return reading

    def _fetch(self, seconds: float) -> Fetch:
        """What the last reading was. Queries that are left out for now were not asked for."""
        came = len(self._answered)
        return Fetch(self.name, seconds, came, len(self._asked) - came, self.name)

    def _run(self, connection: sa.Connection, query: Query, seconds: float) -> Rows:
        with connection.begin():  # which commits: a rollback would count as one in the statistics
            self._bound(connection, seconds)
            result = connection.exec_driver_sql(
                self._prepare(connection, query), execution_options={"no_parameters": True}
            )
            return list(result.keys()), result.fetchall()

    def _bound(self, connection: sa.Connection, seconds: float) -> None:
        if self._dialect == "sqlite":
            _bound_sqlite(connection, seconds, self._monotonic)
            return
        milliseconds = int(seconds * MS_PER_SECOND)
        connection.exec_driver_sql(
            "SET TRANSACTION READ ONLY;"
            f"SET LOCAL statement_timeout = {milliseconds};"
            f"SET LOCAL lock_timeout = {max(1, milliseconds // 2)};"
            "SET LOCAL TimeZone = 'UTC';"
            "SET LOCAL jit = off"  # compiling takes longer than what a query may take
        )

    def _prepare(self, connection: sa.Connection, query: Query) -> str:
        """What gives the rows of `query`, and not too many.

        The driver of SQLite runs one statement. That of PostgreSQL runs all that a text holds, so
        there PL/pgSQL makes it a prepared statement, and that ends no transaction: whatever is
        hidden in the text stays in this one.
        """
        sql = query.sql[self._dialect]
        text = f"SELECT * FROM (\n{sql}\n) AS query_of_set LIMIT {query.max_rows + 1}"  # noqa: S608
        if self._dialect == "sqlite":
            return text
        prepared = f'PREPARE "{query.name}" AS {text}'
        connection.exec_driver_sql(PREPARE, {"prepared": prepared})
        return f'EXECUTE "{query.name}"'

    def _explain(
        self, error: sa.exc.SQLAlchemyError, query: Query, time_ns: int
    ) -> tuple[SourceError, ...]:
        """The failure of `query`; _GaveUp if no other can be answered either."""
        meaning, said = explain(error)
        if meaning.concerns_all or getattr(error, "connection_invalidated", False):
            raise _GaveUp(self._error(meaning, self._where, said)) from error
        if meaning.kind is SourceUnreachable:
            self._slow[query.name] = None
        failure = self._error(meaning, query.name, said)
        if meaning.is_lasting:
            self._disable(query, time_ns, failure)
        return (failure,)

    def _disable(self, query: Query, time_ns: int, failure: SourceError) -> None:
        _, before = self._disabled.get(query.name, (0, ""))
        self._disabled[query.name] = (time_ns, failure.problem)
        if before != failure.problem:
            minutes = ASK_AGAIN_SECONDS // 60
            LOG.warning("%s. The query is left out, and asked again every %d min", failure, minutes)

    def _error(self, meaning: Meaning, target: str, said: str) -> SourceError:
        return meaning.kind(self.name, target, said, meaning.fix)

    def _no_time(self, query: Query) -> SourceError:
        problem = "the other queries of the set took all the time there is in an interval"
        fix = "Give them indexes, or the set a longer interval_seconds."
        return SourceUnreachable(self.name, query.name, problem, fix)

    def _health(self, value: int, time_ns: int) -> tuple[Point, ...]:
        metric = self._set.healthy
        if metric is None:
            return ()
        fields: dict[str, FieldValue] = {metric.field: value}
        return (Point(metric.measurement.name, dict(self._set.tags), fields, time_ns),)


class _Watch:
    """Ends the newest connection when it does not answer: nothing else ends libpq's waiting."""

    def __init__(self) -> None:
        self._newest: Any = None

    def take(self, connection: Any, _record: Any) -> None:
        """Watch `connection`, the driver's, from now on."""
        self._newest = connection

    @contextmanager
    def guarding(self, seconds: float) -> Iterator[None]:
        """End the connection each time that so many seconds have passed."""
        is_done = threading.Event()
        thread = threading.Thread(target=self._wait, args=(seconds, is_done), daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_done.set()
            thread.join()

    def _wait(self, seconds: float, is_done: threading.Event) -> None:
        while not is_done.wait(seconds):
            _end(self._newest)


def _end(connection: Any) -> None:
    """Let whoever waits for an answer of `connection` wait no more."""
    if isinstance(connection, sqlite3.Connection):
        connection.interrupt()
    elif connection is not None and not connection.closed:
        try:
            with socket.socket(fileno=os.dup(connection.fileno())) as shared:
                shared.shutdown(socket.SHUT_RDWR)
        except OSError:
            LOG.debug("a connection to be ended had ended by itself")


def _bound_sqlite(
    connection: sa.Connection, seconds: float, monotonic: Callable[[], float]
) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    deadline = monotonic() + seconds
    driver.set_progress_handler(lambda: monotonic() > deadline, PROGRESS_STEPS)
    driver.execute("PRAGMA query_only = ON")
    driver.execute(f"PRAGMA busy_timeout = {int(seconds * MS_PER_SECOND)}")


def _in_time(database: DatabaseSettings, seconds: float) -> DatabaseSettings:
    """`database` with no more time to connect than a reading has: nothing else ends connecting."""
    at_most = max(1, min(database.connect_timeout_seconds, int(seconds)))
    return database.model_copy(update={"connect_timeout_seconds": at_most})


def _dialect_of(engine: sa.Engine) -> Dialect:
    (dialect,) = (each for each in DIALECTS if each == engine.dialect.name)
    return dialect


def _merge(points: Sequence[Point]) -> tuple[Point, ...]:
    """One point of each series, with the fields of all: queries may share one."""
    fields: dict[SeriesKey, dict[str, FieldValue]] = {}
    first: dict[SeriesKey, Point] = {}
    for point in points:
        first.setdefault(point.series, point)
        fields.setdefault(point.series, {}).update(point.fields)
    return tuple(
        Point(point.measurement, point.tags, fields[series], point.time_ns)
        for series, point in first.items()
    )
