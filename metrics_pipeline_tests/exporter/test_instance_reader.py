"""What the exporter knows of a real Dagster instance."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from dagster._daemon.types import DaemonHeartbeat

from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.exporter import instance_reader
from metrics_pipeline.exporter.instance_reader import (
    JOBS_SECONDS,
    MAX_FAILURE_CHARACTERS,
    NO_RUNS,
    WINDOW,
    InstanceReader,
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
    runs: Runs, reader: InstanceReader, dagster_home: Path
) -> None:
    old = runs.finish()
    runs.finish()
    before = reader.read().jobs[JOB]
    runs.instance.add_run_tags(old, {"note": "looked at"})
    with open_reader(dagster_home) as fresh:
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
    assert len(asked) == 5, asked  # what ended lately, in three ways; the heartbeats, the queue
    runs.cancel()
    asked.clear()
    with watching_queries(asked.append):
        reader.read()
    there = [statement for statement in asked if "point_tallies" not in statement]
    assert len(there) < 20, there  # beside those a look at the runs, and how far is counted


def test_a_run_whose_end_the_clocks_do_not_agree_on_is_seen_within_a_minute(
    runs: Runs, reader: InstanceReader, dagster_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.cancel()
    assert counts(reader)["canceled"] == 1
    late = runs.cancel()
    with closing(sqlite3.connect(dagster_home / "history" / "runs.db")) as connection, connection:
        connection.execute(
            "UPDATE runs SET update_timestamp = '2024-02-01 00:00:00' WHERE run_id = ?", [late]
        )
    assert counts(reader)["canceled"] == 1
    monkeypatch.setattr(instance_reader, "monotonic", lambda: time.monotonic() + JOBS_SECONDS)
    assert counts(reader)["canceled"] == 2


def test_a_run_that_finishes_while_runs_are_counted_is_counted_once(
    runs: Runs, reader: InstanceReader
) -> None:
    runs.cancel()
    assert counts(reader)["canceled"] == 1
    runs.cancel()
    still_to_come = [runs.wait_in_queue()]

    def finish_one(statement: str) -> None:
        if "point_tallies" in statement and still_to_come:
            runs.instance.report_run_canceled(still_to_come.pop())

    with watching_queries(finish_one):
        assert counts(reader)["canceled"] == 2
    assert counts(reader)["canceled"] == 3
    assert counts(reader)["canceled"] == 3


def test_what_was_counted_outlives_the_runs_and_the_exporter(
    runs: Runs, dagster_home: Path
) -> None:
    ids = [runs.finish(), runs.finish(fails=True), runs.cancel()]
    with open_reader(dagster_home) as reader:
        expected = counts(reader)
    for run_id in ids:
        runs.instance.delete_run(run_id)
    with open_reader(dagster_home) as reader:
        assert reader.read().jobs[JOB].runs == {}  # nothing of this job is there to be counted
        runs.finish()
        assert counts(reader) == {**expected, "success": 2}
    with open_reader(dagster_home) as reader:
        assert counts(reader) == {**expected, "success": 2}


def test_two_exporters_show_the_same_and_count_no_run_twice(runs: Runs, dagster_home: Path) -> None:
    with open_reader(dagster_home) as one, open_reader(dagster_home) as other:
        for number in range(1, 4):
            runs.cancel()
            assert counts(one) == counts(other) == {"success": 0, "failure": 0, "canceled": number}


def test_counts_stay_while_the_operational_database_is_gone_and_are_made_up_for(
    runs: Runs, reader: InstanceReader, dagster_home: Path
) -> None:
    runs.cancel()
    assert counts(reader)["canceled"] == 1
    file = dagster_home / "operational.sqlite"
    file.rename(away := dagster_home / "away")
    file.mkdir()
    runs.cancel()
    assert counts(reader)["canceled"] == 1
    file.rmdir()
    away.rename(file)
    assert counts(reader)["canceled"] == 2


def test_heartbeats_are_when_a_daemon_was_last_alive(runs: Runs, reader: InstanceReader) -> None:
    alive_at = datetime.fromisoformat("2024-02-01T00:00:00Z").timestamp()
    runs.instance.add_daemon_heartbeat(DaemonHeartbeat(alive_at, "SCHEDULER", None, None))
    assert reader.read().heartbeats == {"SCHEDULER": alive_at}


def test_a_daemon_that_is_not_asked_for_any_more_is_not_shown(
    runs: Runs, reader: InstanceReader
) -> None:
    alive_at = datetime.fromisoformat("2024-02-01T00:00:00Z").timestamp()
    for kind in ("SENSOR", "QUEUE_OF_OLD"):
        runs.instance.add_daemon_heartbeat(DaemonHeartbeat(alive_at, kind, None, None))
    assert reader.read().heartbeats == {"SENSOR": alive_at}


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


def test_the_last_run_that_failed_is_told_with_what_its_step_said(
    runs: Runs, reader: InstanceReader
) -> None:
    failed = runs.finish(fails=True)
    last = runs.finish()
    state = reader.read().jobs[JOB]
    assert state.last is not None
    assert (state.last.run_id, state.last.status) == (last, "success")
    assert state.failure is not None
    assert state.failure.run.run_id == failed
    assert state.failure.text.startswith("count: ")
    assert "Broken" in state.failure.text


def test_a_failure_is_read_once_and_stays_when_its_run_is_deleted(
    runs: Runs, reader: InstanceReader
) -> None:
    failed = runs.finish(fails=True)
    known = reader.read().jobs[JOB].failure
    runs.instance.delete_run(failed)
    runs.finish()
    assert known is not None
    assert reader.read().jobs[JOB].failure is known


def test_a_run_that_was_killed_is_told_in_the_words_of_dagster(
    runs: Runs, reader: InstanceReader
) -> None:
    runs.instance.report_run_failed(runs.wait_in_queue(), "the worker is gone, password=hunter2")
    failure = reader.read().jobs[JOB].failure
    assert failure is not None
    assert failure.text == "the worker is gone, password=***"


def test_a_long_reason_is_cut_after_its_secrets_are_gone(
    runs: Runs, reader: InstanceReader
) -> None:
    reason = "x" * (MAX_FAILURE_CHARACTERS - 15) + " postgresql://me:hunter2@db/"
    runs.instance.report_run_failed(runs.wait_in_queue(), reason)
    failure = reader.read().jobs[JOB].failure
    assert failure is not None
    assert len(failure.text) == MAX_FAILURE_CHARACTERS + 1
    assert failure.text.endswith("…")
    assert "hunter" not in failure.text
