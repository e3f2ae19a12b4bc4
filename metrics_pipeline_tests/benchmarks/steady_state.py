"""How large Dagster's databases get, and that they stay so: weeks of runs, hour by hour.

    DAGSTER_HOME=.state/dagster python -m metrics_pipeline_tests.benchmarks.steady_state \
        [--days 10] [--json]

The runs, reports and ticks of an instance with everything on are copied at the rates of a day, as
`event_log_day` does, each hour's with the times of that hour. After each hour everything old is
purged, with the settings' defaults and the clock of that hour: as the retention does, but without
its pauses and budget. So days take minutes, and nothing else is compressed. PostgreSQL is vacuumed
after each hour as autovacuum would do it, which sees minutes pass instead of hours.

`used_MB` is what is taken of Dagster's databases, `size_MB` what they are as files, each at the end
of a day.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.scheduler.instigation import InstigatorState
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage

from metrics_pipeline.orchestration.dagster_rows import schedules_of, size_of
from metrics_pipeline.orchestration.retention import Pace, purge_dagster
from metrics_pipeline.settings import RetentionSettings
from metrics_pipeline_tests.benchmarks.event_log_day import (
    SECONDS_PER_DAY,
    Row,
    Written,
    copies_of,
    insert,
    read_day,
    write,
)
from metrics_pipeline_tests.orchestration.dagster_instances import opened, storages
from metrics_pipeline_tests.postgresql import running_postgresql

HOURS_PER_DAY = 24
SECONDS_PER_HOUR = 3600
MB = 1e6


@dataclass(frozen=True, slots=True)
class Ticks:
    """Of one schedule or sensor and status: one that was, and how many there are a day."""

    row: Row
    a_day: int


@dataclass(frozen=True, slots=True)
class Day:
    """What an instance does in one."""

    written: Sequence[tuple[str, int, Written]]
    ticks: Sequence[Ticks]
    states: Sequence[InstigatorState]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    with dg.DagsterInstance.get() as instance:
        day = read(instance)
    found = {"sqlite": list(live(day, given.days, None))}
    with running_postgresql() as server, server.database() as database:
        found["postgresql"] = list(live(day, given.days, database.url))
    if given.json:
        print(json.dumps(found))


def read(instance: dg.DagsterInstance) -> Day:
    """What it has done so far, as of a day."""
    return Day(
        list(read_day(instance)),
        list(_read_ticks(_schedules(instance))),
        instance.all_instigator_state(),
    )


def live(day: Day, days: int, postgresql_url: str | None) -> Iterator[dict[str, float]]:
    """So many days up to now; what is there at the end of each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(Path(folder), postgresql_url) as instance,
    ):
        for state in day.states:
            instance.add_instigator_state(state)
        ids = itertools.count(1)
        began = time.time() - days * SECONDS_PER_DAY
        for number in range(days):
            for hour in range(HOURS_PER_DAY):
                since = began + number * SECONDS_PER_DAY + hour * SECONDS_PER_HOUR
                _live_an_hour(instance, day, hour, since, ids)
            figures = _measure(instance, Path(folder))
            print("postgresql" if postgresql_url else "sqlite", f"day {number + 1}", figures)
            yield figures


def _live_an_hour(
    instance: dg.DagsterInstance, day: Day, hour: int, since: float, ids: Iterator[int]
) -> None:
    copies = [
        _moved(copy, since + SECONDS_PER_HOUR * index / number)
        for _, a_day, written in day.written
        for number in [_share(a_day, hour)]
        for index, copy in enumerate(copies_of(written, number, ids))
    ]
    write(instance, copies)
    schedules = _schedules(instance)
    with schedules.connect() as connection:
        for ticks in day.ticks:
            number = _share(ticks.a_day, hour)
            times = (since + SECONDS_PER_HOUR * index / number for index in range(number))
            insert(connection, JobTickTable, [_tick(ticks.row, at) for at in times])
    until = since + SECONDS_PER_HOUR
    left = [
        each.what
        for each in purge_dagster(instance, RetentionSettings(), until, _without_pauses)
        if not each.is_done
    ]
    assert left == []
    _vacuum(instance)


def _share(a_day: int, hour: int) -> int:
    """How many of so many a day come in an hour of it, so that all come in all."""
    return a_day * (hour + 1) // HOURS_PER_DAY - a_day * hour // HOURS_PER_DAY


def _without_pauses() -> Pace:
    return Pace(SECONDS_PER_HOUR, sleep=lambda _seconds: None)


def _moved(written: Written, seconds: float) -> Written:
    """With the times that it has when it begins at `seconds` since the epoch."""
    first = (written.run or written.events[0])["create_timestamp" if written.run else "timestamp"]
    later = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None) - first
    return Written(
        None if written.run is None else _later(written.run, later),
        [_later(row, later) for row in written.events],
        [_later(row, later) for row in written.outcomes],
    )


def _later(row: Row, by: timedelta) -> Row:
    """Each time in it; Dagster keeps those of runs in seconds, too."""
    seconds = by.total_seconds()

    def later(name: str, value: Any) -> Any:
        if isinstance(value, datetime):
            return value + by
        return value + seconds if name in ("start_time", "end_time") and value else value

    return {name: later(name, value) for name, value in row.items()}


def _tick(row: Row, at: float) -> Row:
    return {**row, "timestamp": datetime.fromtimestamp(at, UTC).replace(tzinfo=None)}


def _schedules(instance: dg.DagsterInstance) -> SqlScheduleStorage:
    storage = schedules_of(instance)
    assert storage is not None
    return storage


def _read_ticks(storage: SqlScheduleStorage) -> Iterator[Ticks]:
    """The one in the middle by length of each kind, at the rate of all of that kind."""
    tick = JobTickTable.c
    with storage.connect() as connection:
        query = sa.select(JobTickTable).order_by(sa.func.length(tick.tick_body))
        rows = [dict(row._mapping) for row in connection.execute(query)]
    times = [row["timestamp"] for row in rows]
    days = (max(times) - min(times)).total_seconds() / SECONDS_PER_DAY
    kinds: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row["selector_id"], row["status"]), []).append(row)
    for same in kinds.values():
        row = {name: value for name, value in same[len(same) // 2].items() if name != "id"}
        yield Ticks(row, round(len(same) / days))


def _vacuum(instance: dg.DagsterInstance) -> None:
    with storages(instance)[0].index_connection() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("VACUUM")  # Dagster's connections commit each statement


def _measure(instance: dg.DagsterInstance, folder: Path) -> dict[str, float]:
    events, runs = storages(instance)
    with events.index_connection() as connection:
        sizes = [size_of(connection)]
        is_one_database = connection.dialect.name == "postgresql"
    if not is_one_database:
        for storage in (runs, _schedules(instance)):
            with storage.connect() as connection:
                sizes.append(size_of(connection))
    used = total = sum(size.total_bytes - (size.free_bytes or 0) for size in sizes)
    if not is_one_database:
        total = sum(path.stat().st_size for path in folder.rglob("*.db*") if path.is_file())
    figures = {"used_MB": round(used / MB, 1), "size_MB": round(total / MB, 1)}
    return {**figures, "runs": runs.get_runs_count()}


if __name__ == "__main__":
    main()
