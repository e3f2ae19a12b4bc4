"""Old rows of Dagster for which Dagster 1.13 has no API that will do: the only SQL on its tables.

Events that belong to no run (of sensors, freshness, people) have the run id "", and its API deletes
events by run or by asset only. The outcomes of asset checks have a table of their own, which
deleting a run leaves as it is, and ticks it deletes all at once (docs/decisions/0009). Nor can it
delete a part of a run's events (docs/decisions/0014).

The tables are Dagster's own descriptions of them, and so are the connections, so SQLite and
PostgreSQL are the same here. Of what decides what the UI shows the newest row always stays.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from logging import DEBUG, INFO
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage

TRIED_VERSION = "1.13."
"""What Dagster's version begins with; with another one nothing is deleted here."""

ROWS_AT_ONCE = 200
"""In one transaction; SQLite before 3.32 takes 999 parameters at most."""

RUNLESS = ""
"""The run id of events that belong to no run."""

DETAILS = (
    dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ENGINE_EVENT,
    dg.DagsterEventType.HANDLED_OUTPUT,
    dg.DagsterEventType.LOADED_INPUT,
    dg.DagsterEventType.LOGS_CAPTURED,
    dg.DagsterEventType.RESOURCE_INIT_STARTED,
    dg.DagsterEventType.RESOURCE_INIT_SUCCESS,
    dg.DagsterEventType.STEP_INPUT,
    dg.DagsterEventType.STEP_OUTPUT,
)
"""How a run came about, which nobody asks of one that has succeeded; lines of its log as well."""

IN_EACH_RUN = dg.DagsterEventType.LOGS_CAPTURED
"""Of the details, so that a run that has none of these has none at all."""

JUDGED = dg.DagsterEventType.ENGINE_EVENT
"""Of the details, the one that may be an error, as may lines of the log: their text says so."""

Connect = Callable[[], AbstractContextManager[sa.Connection]]

_EVENT = SqlEventLogStorageTable.c
_OUTCOME = AssetCheckExecutionsTable.c
_TICK = JobTickTable.c
_CHECK = (_OUTCOME.asset_key, _OUTCOME.check_name, _OUTCOME.partition)
_IS_QUIET = sa.or_(
    _EVENT.dagster_event_type.in_([kind.value for kind in DETAILS if kind is not JUDGED]),
    sa.and_(
        sa.or_(_EVENT.dagster_event_type.is_(None), _EVENT.dagster_event_type == JUDGED.value),
        sa.or_(*(_EVENT.event.like(f'%"level": {level},%') for level in (DEBUG, INFO))),
    ),
)


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of the event log (on PostgreSQL of the whole database), and what of them is free.

    `free_bytes` is None where only the server could say, which uses it again as it likes.
    """

    total_bytes: int
    free_bytes: int | None


def event_log_of(instance: dg.DagsterInstance) -> SqlEventLogStorage | None:
    """The event log, if it is one whose tables are known."""
    storage = instance.event_log_storage
    return storage if _is_tried() and isinstance(storage, SqlEventLogStorage) else None


def schedules_of(instance: dg.DagsterInstance) -> SqlScheduleStorage | None:
    """Where its ticks are, if that is something whose tables are known."""
    storage = instance.schedule_storage
    return storage if _is_tried() and isinstance(storage, SqlScheduleStorage) else None


def _is_tried() -> bool:
    return dg.__version__.startswith(TRIED_VERSION)


def delete_runs(
    events: SqlEventLogStorage, runs: SqlRunStorage, batches: Iterable[Sequence[str]]
) -> Iterator[int]:
    """Runs that have ended, with their events; of each batch gives how many.

    By itself Dagster opens six connections for each run, and looks for slots of pools, which run
    monitoring frees when a run has ended.
    """
    with _kept(events.index_connection) as to_events, _kept(runs.connect) as to_runs:
        for run_ids in batches:
            of_runs = _EVENT.run_id.in_(run_ids)
            with to_events() as connection:
                # Tags first: on PostgreSQL Dagster's connections commit each statement.
                tag = AssetEventTagsTable.c.event_id
                tagged = sa.select(_EVENT.id).where(of_runs)
                connection.execute(sa.delete(AssetEventTagsTable).where(tag.in_(tagged)))
                connection.execute(sa.delete(SqlEventLogStorageTable).where(of_runs))
            with to_runs() as connection:
                for table in (RunTagsTable, RunsTable):
                    connection.execute(sa.delete(table).where(table.c.run_id.in_(run_ids)))
            yield len(run_ids)


def delete_runless_events(storage: SqlEventLogStorage, before_seconds: float) -> Iterator[int]:
    """Those older than `before_seconds`; of each kind and partition not the newest.

    Gives how many went, batch by batch. Each is a transaction, made when the iterator is asked.
    """
    old = sa.select(_EVENT.id, _EVENT.asset_key, _EVENT.dagster_event_type, _EVENT.partition).where(
        _EVENT.run_id == RUNLESS, _EVENT.timestamp < _naive(before_seconds)
    )
    return _delete_old(storage, old, _newest_event, _delete_events)


def delete_check_outcomes(storage: SqlEventLogStorage, before_seconds: float) -> Iterator[int]:
    """The same with outcomes of asset checks; of each check and partition not the newest."""
    old = sa.select(_OUTCOME.id, *_CHECK).where(
        _OUTCOME.evaluation_event_timestamp < _naive(before_seconds)
    )
    return _delete_old(storage, old, _newest_outcome, _delete_outcomes)


def find_detailed_runs(storage: SqlEventLogStorage, before_seconds: float) -> list[str]:
    """Ids of runs with details from before, whatever became of the runs; the oldest first."""
    found = (
        sa.select(_EVENT.run_id)
        .where(
            _EVENT.dagster_event_type == IN_EACH_RUN.value,
            _EVENT.run_id != RUNLESS,
            _EVENT.timestamp < _naive(before_seconds),
        )
        .group_by(_EVENT.run_id)
        .order_by(sa.func.min(_EVENT.id))
    )
    with storage.index_connection() as connection:
        return list(connection.execute(found).scalars())


def delete_details(storage: SqlEventLogStorage, batches: Iterable[Sequence[str]]) -> Iterator[int]:
    """Delete the details of runs, and checks that passed, but not the newest outcome of a check.

    Warnings and errors stay. What was planned or begun in a run is the last to go, so that one that
    was interrupted is found again. Of each batch gives how many events went.
    """
    with _kept(storage.index_connection) as connect:
        for run_ids in batches:
            with connect() as connection:
                number = _delete_details(connection, run_ids)
            yield number


def delete_ticks(
    storage: SqlScheduleStorage,
    selector_id: str,
    statuses: Iterable[TickStatus],
    before_seconds: float,
) -> Iterator[int]:
    """Those of a schedule or sensor, the oldest first; of each batch gives how many."""
    old = (
        sa.select(_TICK.id)
        .where(
            _TICK.selector_id == selector_id,
            _TICK.timestamp < _naive(before_seconds),
            _TICK.status.in_([status.value for status in statuses]),
        )
        .order_by(_TICK.timestamp)
        .limit(ROWS_AT_ONCE)
    )
    with _kept(storage.connect) as connect:
        while True:
            with connect() as connection:
                ids = connection.execute(old).scalars().all()
                if ids:
                    connection.execute(sa.delete(JobTickTable).where(_TICK.id.in_(ids)))
            if ids:
                yield len(ids)
            if len(ids) < ROWS_AT_ONCE:
                return


def _delete_details(connection: sa.Connection, run_ids: Sequence[str]) -> int:
    passed = sa.select(_OUTCOME.id, _OUTCOME.evaluation_event_storage_id, *_CHECK).where(
        _OUTCOME.run_id.in_(run_ids),
        _OUTCOME.execution_status == AssetCheckExecutionRecordStatus.SUCCEEDED.value,
    )
    details = sa.delete(SqlEventLogStorageTable).where(_EVENT.run_id.in_(run_ids), _IS_QUIET)
    rows = connection.execute(passed).all()
    newest = {_newest_outcome(connection, *check) for check in {row[2:] for row in rows}}
    old = [row for row in rows if row.id not in newest]
    _delete_events(connection, [row.evaluation_event_storage_id for row in old])
    _delete_outcomes(connection, [row.id for row in old])
    return len(old) + connection.execute(details).rowcount


def measure(storage: SqlEventLogStorage) -> Size:
    """How large it is."""
    with storage.index_connection() as connection:
        return size_of(connection)


def size_of(connection: sa.Connection) -> Size:
    """Of the database that it is to."""
    if connection.dialect.name == "postgresql":
        total = "SELECT pg_database_size(current_database())"
        return Size(int(connection.exec_driver_sql(total).scalar_one()), None)
    pages, free, page_bytes = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("page_count", "freelist_count", "page_size")
    )
    return Size(pages * page_bytes, free * page_bytes)


def _delete_old(
    storage: SqlEventLogStorage,
    old: sa.Select[Any],
    newest_of: Callable[..., int],
    delete: Callable[[sa.Connection, Sequence[int]], None],
) -> Iterator[int]:
    """Rows of `old`: an id, then what `newest_of` is given to find the row that stays."""
    number = old.selected_columns["id"]
    after_id = 0
    newest: dict[tuple[Any, ...], int] = {}
    with _kept(storage.index_connection) as connect:
        while True:
            with connect() as connection:
                query = old.where(number > after_id).order_by(number).limit(ROWS_AT_ONCE)
                rows = connection.execute(query).all()
                # What was newest a moment ago stays as well.
                for kind in {tuple(row[1:]) for row in rows} - newest.keys():
                    newest[kind] = newest_of(connection, *kind)
                ids = [row.id for row in rows if row.id != newest[tuple(row[1:])]]
                if ids:
                    delete(connection, ids)
            if rows:
                yield len(ids)
                after_id = rows[-1].id
            if len(rows) < ROWS_AT_ONCE:
                return


@contextmanager
def _kept(connect: Connect) -> Iterator[Connect]:
    """What gives a connection for each batch; on PostgreSQL always the same one.

    There each statement is committed, and to connect costs more than to delete. In SQLite each is a
    transaction, over a file that stays open.
    """
    with connect() as connection:
        is_postgresql = connection.dialect.name == "postgresql"
        if is_postgresql:
            yield lambda: nullcontext(connection)
    if not is_postgresql:
        yield connect


def _newest_event(
    connection: sa.Connection, asset_key: str | None, kind: str | None, partition: str | None
) -> int:
    """Of a run or of none; where there is no asset, of those of no run."""
    columns = (_EVENT.asset_key, _EVENT.dagster_event_type, _EVENT.partition)
    if asset_key is None:
        return _newest(
            connection, _EVENT.id, (*columns, _EVENT.run_id), (None, kind, partition, "")
        )
    return _newest(connection, _EVENT.id, columns, (asset_key, kind, partition))


def _newest_outcome(connection: sa.Connection, *check: str | None) -> int:
    return _newest(connection, _OUTCOME.id, _CHECK, check)


def _newest(
    connection: sa.Connection,
    number: sa.ColumnElement[int],
    columns: Sequence[sa.ColumnElement[Any]],
    values: Sequence[Any],
) -> int:
    # `IS NULL` where the value is None; Dagster's tables have indexes for both of these.
    same = [column == value for column, value in zip(columns, values, strict=True)]
    return int(connection.execute(sa.select(sa.func.max(number)).where(*same)).scalar_one())


def _delete_events(connection: sa.Connection, ids: Sequence[int]) -> None:
    # Tags first: on PostgreSQL Dagster's connections commit each statement.
    tags = sa.delete(AssetEventTagsTable).where(AssetEventTagsTable.c.event_id.in_(ids))
    connection.execute(tags)
    connection.execute(sa.delete(SqlEventLogStorageTable).where(_EVENT.id.in_(ids)))


def _delete_outcomes(connection: sa.Connection, ids: Sequence[int]) -> None:
    connection.execute(sa.delete(AssetCheckExecutionsTable).where(_OUTCOME.id.in_(ids)))


def _naive(seconds: float) -> datetime:
    """Dagster keeps UTC without saying so."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
