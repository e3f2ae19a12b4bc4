"""What the exporter knows of a real Dagster instance."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from dagster._daemon.types import DaemonHeartbeat

from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.exporter.instance_reader import (
    NO_RUNS,
    WINDOW,
    InstanceReader,
    JobState,
    advance,
)
from metrics_pipeline_tests.exporter.instance_fixtures import Runs, another_job, open_reader


def counts(reader: InstanceReader) -> Mapping[str, int]:
    return reader.read().jobs[JOB].runs


@contextmanager
def watching_queries(note: Callable[[str], object]) -> Iterator[None]:
    """Tells `note` every SELECT of this process before it is sent."""

    def look(*arguments: object) -> None:
        statement = str(arguments[2])
        if statement.startswith("SELECT"):
            note(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", look)


def test_an_instance_without_runs_shows_none_instead_of_zeros(reader: InstanceReader) -> None:
    state = reader.read()
    assert state.jobs == {JOB: NO_RUNS}
    assert state.queue_length == 0
    assert state.heartbeats == {}


def test_runs_are_counted_by_how_they_ended(runs: Runs, reader: InstanceReader) -> None:
    runs.finish()
    runs.finish()
    runs.finish(fails=True)
    runs.cancel()
    assert counts(reader) == {"success": 2, "failure": 1, "canceled": 1}


def test_runs_of_other_jobs_are_not_counted(runs: Runs, reader: InstanceReader) -> None:
    runs.finish()
    runs.finish(job=another_job)
    assert counts(reader) == {"success": 1, "failure": 0, "canceled": 0}


def test_the_duration_is_that_of_the_run_that_ended_last(
    runs: Runs, reader: InstanceReader
) -> None:
    runs.finish()
    last = runs.finish(fails=True)
    runs.cancel()  # which never started, so it has no duration
    record = runs.instance.get_run_record_by_id(last)
    assert record is not None
    assert record.end_time is not None
    assert record.start_time is not None
    duration = reader.read().jobs[JOB].duration_seconds
    assert duration == record.end_time - record.start_time
    assert duration > 0


def test_a_tag_that_is_added_to_an_old_run_does_not_make_it_the_last(
    runs: Runs, reader: InstanceReader
) -> None:
    old = runs.finish()
    runs.finish()
    before = reader.read().jobs[JOB]
    runs.instance.add_run_tags(old, {"note": "looked at"})
    with open_reader() as fresh:
        assert fresh.read().jobs[JOB] == before


def test_waiting_runs_are_the_queue_and_are_not_counted_as_finished(
    runs: Runs, reader: InstanceReader
) -> None:
    runs.wait_in_queue()
    runs.wait_in_queue()
    state = reader.read()
    assert state.queue_length == 2
    assert state.jobs == {JOB: NO_RUNS}


def test_two_runs_that_finish_between_two_looks_are_both_counted(
    runs: Runs, reader: InstanceReader
) -> None:
    runs.finish()
    assert counts(reader)["success"] == 1
    runs.finish()
    runs.finish(fails=True)
    assert counts(reader) == {"success": 2, "failure": 1, "canceled": 0}


def test_a_run_created_earlier_that_finishes_later_is_counted(
    runs: Runs, reader: InstanceReader
) -> None:
    early = runs.wait_in_queue()
    runs.finish()
    assert counts(reader) == {"success": 1, "failure": 0, "canceled": 0}
    runs.instance.report_run_canceled(early)
    assert counts(reader) == {"success": 1, "failure": 0, "canceled": 1}


def test_a_run_whose_end_becomes_another_is_counted_as_what_it_became(
    runs: Runs, reader: InstanceReader
) -> None:
    run = runs.wait_in_queue()
    runs.instance.report_run_canceled(run)
    assert counts(reader)["canceled"] == 1
    runs.instance.report_run_failed(run)
    assert counts(reader)["failure"] == 1


@pytest.mark.parametrize("deleted", [0, -1], ids=["the oldest", "the newest"])
def test_a_run_that_is_deleted_has_run_nevertheless(
    deleted: int, runs: Runs, reader: InstanceReader
) -> None:
    ids = [runs.finish() for _ in range(2)]
    assert counts(reader)["success"] == 2
    runs.instance.delete_run(ids[deleted])
    assert counts(reader)["success"] == 2
    runs.finish()
    assert counts(reader)["success"] == 3


def test_after_a_deletion_older_runs_that_come_into_sight_are_not_counted_again(
    runs: Runs, reader: InstanceReader
) -> None:
    ids = [runs.cancel() for _ in range(WINDOW + 3)]
    assert counts(reader)["canceled"] == WINDOW + 3
    for run_id in ids[-2:]:
        runs.instance.delete_run(run_id)
    assert counts(reader)["canceled"] == WINDOW + 3


def test_many_runs_that_finish_between_two_looks_are_all_counted(
    runs: Runs, reader: InstanceReader
) -> None:
    runs.cancel()
    assert counts(reader)["canceled"] == 1
    for _ in range(WINDOW + 2):
        runs.cancel()
    assert counts(reader)["canceled"] == WINDOW + 3


def test_runs_are_counted_only_after_another_has_finished(
    runs: Runs, reader: InstanceReader
) -> None:
    runs.cancel()
    reader.read()
    asked: list[str] = []
    with watching_queries(asked.append):
        reader.read()
    assert len(asked) == 3, asked  # the newest runs, the heartbeats, the queue
    runs.cancel()
    asked.clear()
    with watching_queries(asked.append):
        reader.read()
    assert len(asked) == 7, asked  # and one count for each way to end, and a second look


def test_a_run_that_finishes_while_runs_are_counted_is_counted_once(
    runs: Runs, reader: InstanceReader
) -> None:
    runs.cancel()
    assert counts(reader)["canceled"] == 1
    runs.cancel()
    still_to_come = [runs.wait_in_queue()]

    def finish_one(statement: str) -> None:
        if "count(*)" in statement and still_to_come:
            runs.instance.report_run_canceled(still_to_come.pop())

    with watching_queries(finish_one):
        assert counts(reader)["canceled"] == 1
    assert counts(reader)["canceled"] == 3
    assert counts(reader)["canceled"] == 3


@pytest.mark.parametrize(
    ("known", "newest", "counted", "expected"),
    [
        (NO_RUNS, {1: "success"}, {"success": 1}, {"success": 1}),
        (NO_RUNS, {90: "success"}, {"success": 50}, {"success": 50}),
        (JobState({1: "success"}, 1.0, {"success": 1}), {}, {"success": 0}, {"success": 1}),
    ],
)
def test_counts_never_fall(
    known: JobState,
    newest: Mapping[int, str],
    counted: Mapping[str, int],
    expected: Mapping[str, int],
) -> None:
    assert advance(known, newest, counted) == expected


def test_heartbeats_are_when_a_daemon_was_last_alive(runs: Runs, reader: InstanceReader) -> None:
    alive_at = datetime.fromisoformat("2024-02-01T00:00:00Z").timestamp()
    runs.instance.add_daemon_heartbeat(DaemonHeartbeat(alive_at, "SCHEDULER", None, None))
    assert reader.read().heartbeats == {"SCHEDULER": alive_at}


def test_where_the_instance_is_can_be_told(reader: InstanceReader, dagster_home: Path) -> None:
    assert reader.where == f"{dagster_home} (ConsolidatedSqlite)"


def test_a_reader_without_an_instance_recovers_when_there_is_one(
    dagster_home: Path, monkeypatch: pytest.MonkeyPatch, reader: InstanceReader
) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    with pytest.raises(Exception, match="DAGSTER_HOME"):
        reader.read()
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    assert reader.read().queue_length == 0


def test_a_database_of_runs_that_is_garbage_is_an_error_and_passes(
    runs: Runs, reader: InstanceReader, dagster_home: Path
) -> None:
    runs.finish()
    expected = reader.read()
    file = dagster_home / "history" / "runs.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    good = file.read_bytes()
    file.write_bytes(b"garbage" * 1000)
    with pytest.raises(Exception, match="not a database"):
        reader.read()
    file.write_bytes(good)
    assert reader.read() == expected
