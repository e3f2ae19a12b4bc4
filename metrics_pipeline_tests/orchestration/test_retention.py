"""What is old goes, and what must stay stays: real runs, events and ticks, in both storages."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NoReturn

import dagster as dg
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from sqlalchemy.exc import OperationalError

from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.orchestration import dagster_rows
from metrics_pipeline.orchestration.assets.retention import (
    KEY,
    build_retention_asset,
    purge,
)
from metrics_pipeline.orchestration.dagster_rows import ROWS_AT_ONCE
from metrics_pipeline.orchestration.retention import (
    RUNS_DELETED_AT_ONCE,
    SECONDS_PER_DAY,
    Pace,
    Purged,
    purge_ticks,
    work_off,
)
from metrics_pipeline.orchestration.schedules import KINDS_PURGED
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.tallies import totals_of
from metrics_pipeline_tests.at_once import at_once
from metrics_pipeline_tests.orchestration.dagster_instances import (
    age,
    opened,
    rows,
    run_rows,
    storages,
)
from metrics_pipeline_tests.postgresql import PostgresqlDatabase, PostgresqlServer

SHARDS = dg.StaticPartitionsDefinition(["a", "b"])
OLD_DAYS = 30
CONTEXT = multiprocessing.get_context("forkserver")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dg.asset(check_specs=[dg.AssetCheckSpec("is_positive", asset="counted")])
def counted() -> Iterator[dg.MaterializeResult[None]]:
    yield dg.MaterializeResult(
        check_results=[dg.AssetCheckResult(passed=True, check_name="is_positive")]
    )


@dg.asset(partitions_def=SHARDS)
def polled() -> None: ...


@dg.asset(check_specs=[dg.AssetCheckSpec(name, asset="judged") for name in ("one", "other")])
def judged() -> Iterator[dg.MaterializeResult[None]]:
    log = dg.get_dagster_logger()
    log.info("all is well")
    log.warning("or nearly")
    yield dg.MaterializeResult(
        metadata={"number": 7},
        check_results=[
            dg.AssetCheckResult(passed=True, check_name="one"),
            dg.AssetCheckResult(passed=False, check_name="other"),
        ],
    )


@dg.asset
def failing() -> None:
    raise ValueError


@dg.job
def nothing() -> None: ...


Place = tuple[Path, str | None]


@pytest.fixture(scope="module")
def postgresql_database(postgresql_server: PostgresqlServer) -> Iterator[PostgresqlDatabase]:
    with postgresql_server.database() as database:
        yield database


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where one instance is for all tests of a storage, as making one takes a second."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        return folder, None
    database: PostgresqlDatabase = request.getfixturevalue("postgresql_database")
    return folder, database.url


@pytest.fixture
def instance(place: Place) -> Iterator[dg.DagsterInstance]:
    """It, with nothing in it."""
    with opened(*place) as made:
        made.wipe()
        made.schedule_storage.wipe()  # type: ignore[union-attr]
        yield made


def settings_in(folder: Path, **retention: Any) -> Settings:
    document = {"version": 1, "sources": {}, "retention": retention}
    return Settings.model_validate(document, context={STATE_DIR_KEY: folder})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def unhurried() -> Pace:
    return Pace(60, sleep=lambda seconds: None)


def purged(instance: dg.DagsterInstance, settings: Settings, **options: Any) -> dict[str, int]:
    """How much was deleted; nothing kept it from being deleted, and nothing old is left."""
    report = purge(instance, settings, **{"make_pace": unhurried, **options})
    assert (list(report.problems), report.behind) == ([], [])
    return {each.what: each.deleted for each in report.purged}


def count_once(instance: dg.DagsterInstance) -> str:
    return dg.materialize([counted], instance=instance, run_config=QUIET).run_id


def poll(instance: dg.DagsterInstance, shard: str) -> str:
    made = dg.materialize([polled], instance=instance, partition_key=shard, run_config=QUIET)
    return made.run_id


def cancel(instance: dg.DagsterInstance) -> str:
    run = instance.create_run_for_job(nothing)
    instance.report_run_canceled(run)
    return run.run_id


def succeed(instance: dg.DagsterInstance) -> str:
    run = instance.create_run_for_job(nothing)
    for kind in (dg.DagsterEventType.RUN_START, dg.DagsterEventType.RUN_SUCCESS):
        instance.report_dagster_event(dg.DagsterEvent(kind.value, "nothing"), run.run_id)
    return run.run_id


def run_ids(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def counted_runs(settings: Settings) -> int:
    with (
        closing(OperationalDatabase(settings.operational_database)) as database,
        database.reading() as connection,
    ):
        return sum(totals_of(connection, "metrics_pipeline_runs_total").values())


def print_something(instance: dg.DagsterInstance, run_id: str) -> Path:
    """The file with what the process of the run printed, as its page shows it."""
    logs = instance.compute_log_manager
    assert isinstance(logs, LocalComputeLogManager)
    key = [run_id, "compute_logs", "step"]
    with logs.open_log_stream(key, ComputeIOType.STDERR) as stream:
        assert stream is not None
        stream.write("all is well")
    return Path(logs.get_captured_local_path(key, "err"))


def latest_partitions(instance: dg.DagsterInstance) -> dict[str, int]:
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    storage = instance.event_log_storage
    return dict(storage.get_latest_storage_id_by_partition(dg.AssetKey("polled"), kind))


def test_old_runs_go_with_all_that_is_theirs_and_the_newest_of_each_asset_and_partition_stays(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    gone = {count_once(instance), poll(instance, "a"), succeed(instance), cancel(instance)}
    kept = {count_once(instance), poll(instance, "a"), poll(instance, "b")}
    waiting = instance.create_run_for_job(nothing).run_id
    going = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED).run_id
    age(instance, OLD_DAYS)
    young = {succeed(instance), cancel(instance)}
    printed = {run_id: print_something(instance, run_id) for run_id in gone | kept | young}
    newest = instance.get_latest_materialization_event(dg.AssetKey("counted"))
    partitions = latest_partitions(instance)
    check = dg.AssetCheckKey(dg.AssetKey("counted"), "is_positive")
    outcome = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]

    deleted = purged(instance, settings)

    assert (deleted["successful_runs"], deleted["failed_runs"]) == (3, 1)
    assert run_ids(instance) == kept | {waiting, going} | young
    assert {str(row[0]) for row in rows(instance, "SELECT run_id FROM event_logs")} <= (
        kept | young | {waiting, going}
    )
    tagged = {row[0] for row in run_rows(instance, "SELECT run_id FROM run_tags")}
    assert tagged.isdisjoint(gone)
    assert {run_id for run_id, file in printed.items() if file.exists()} == kept | young
    assert newest is not None
    assert instance.get_latest_materialization_event(dg.AssetKey("counted")) == newest
    (record,) = instance.fetch_materializations(dg.AssetKey("counted"), limit=5).records
    assert record.run_id in kept
    assert latest_partitions(instance) == partitions
    assert instance.get_materialized_partitions(dg.AssetKey("polled")) == {"a", "b"}
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])
    assert latest[check] == outcome
    assert deleted["check_outcomes"] == 1
    assert counted_runs(settings) == len(gone) + len(kept) + len(young)


def test_a_second_purge_finds_nothing_more(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    for _ in range(22):
        succeed(instance)
    age(instance, OLD_DAYS)
    assert purged(instance, settings)["successful_runs"] == 22
    assert set(purged(instance, settings).values()) == {0}
    assert counted_runs(settings) == 22


def test_of_events_of_no_run_the_newest_of_each_asset_partition_and_kind_stays(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    for _ in range(3):
        instance.report_runless_asset_event(
            dg.AssetMaterialization("sampled", tags={DATA_VERSION_TAG: "1"})
        )
        instance.report_runless_asset_event(dg.AssetObservation("sampled"))
        for shard in "ab":
            instance.report_runless_asset_event(dg.AssetMaterialization("shards", partition=shard))
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(dg.AssetKey("sampled"), "sampled", passed=True, metadata={})
        )
    newest = "SELECT asset_key, partition, dagster_event_type, max(id) FROM event_logs"
    expected = rows(instance, f"{newest} GROUP BY 1, 2, 3 ORDER BY 4")
    age(instance, OLD_DAYS)
    assert purged(instance, settings)["runless_events"] == 10
    assert rows(instance, f"{newest} GROUP BY 1, 2, 3 ORDER BY 4") == expected
    assert rows(instance, "SELECT count(*) FROM event_logs") == [(5,)]
    tags_of = "SELECT event_id FROM asset_event_tags"
    assert len(rows(instance, tags_of)) == 1
    assert rows(instance, f"{tags_of} WHERE event_id NOT IN (SELECT id FROM event_logs)") == []
    instance.report_runless_asset_event(dg.AssetMaterialization("sampled"))
    assert purged(instance, settings)["runless_events"] == 1  # it is the newest no more


def test_a_run_whose_events_alone_were_deleted_before_a_death_goes_the_next_time(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    run_id = succeed(instance)
    age(instance, OLD_DAYS)
    instance.event_log_storage.delete_events(run_id)
    assert purged(instance, settings)["successful_runs"] == 1
    assert run_ids(instance) == set()
    assert counted_runs(settings) == 1


def test_a_purge_that_is_killed_in_the_middle_is_gone_on_with_the_next_time(
    instance: dg.DagsterInstance, place: Place, settings: Settings, tmp_path: Path
) -> None:
    for _ in range(12):
        succeed(instance)
        instance.report_runless_asset_event(dg.AssetMaterialization("sampled"))
    age(instance, OLD_DAYS)
    victim = CONTEXT.Process(target=_purge_and_die, args=(place, tmp_path))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    left = len(run_ids(instance))
    assert left == 12 - RUNS_DELETED_AT_ONCE
    assert purged(instance, settings)["successful_runs"] == left
    assert rows(instance, "SELECT count(*) FROM event_logs") == [(1,)]
    assert run_ids(instance) == set()
    assert counted_runs(settings) == 12


def _die_in_the_first_pause() -> Pace:
    return Pace(60, sleep=lambda seconds: os.kill(os.getpid(), signal.SIGKILL))


def _purge_and_die(place: Place, folder: Path) -> None:
    with opened(*place) as instance:
        purge(instance, settings_in(folder), make_pace=_die_in_the_first_pause)


def _purge(place: Place, folder: Path) -> str:
    with opened(*place) as instance:
        report = purge(instance, settings_in(folder), make_pace=unhurried)
        return "; ".join((*report.problems, *report.behind))


def test_two_purges_at_once_disturb_each_other_in_nothing(
    instance: dg.DagsterInstance, place: Place, settings: Settings, tmp_path: Path
) -> None:
    for _ in range(12):
        succeed(instance)
        instance.report_runless_asset_event(dg.AssetMaterialization("sampled"))
    age(instance, OLD_DAYS)
    assert at_once(_purge, place, tmp_path, processes=2) == ["", ""]
    assert run_ids(instance) == set()
    assert rows(instance, "SELECT count(*) FROM event_logs") == [(1,)]
    assert counted_runs(settings) == 12


def test_a_clock_that_leapt_forward_deletes_nothing_until_it_has_stayed_for_an_hour(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    succeed(instance)
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY))
    report = purge(instance, settings, clock=lambda: time.time() + 400 * SECONDS_PER_DAY)
    assert "clock" in report.problems[0]
    assert len(run_ids(instance)) == 1
    age(instance, OLD_DAYS)
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY))
    assert purged(instance, settings)["successful_runs"] == 1


def test_a_clock_that_was_set_back_deletes_nothing(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY))
    succeed(instance)
    past = time.time() - 400 * SECONDS_PER_DAY
    assert set(purged(instance, settings, clock=lambda: past).values()) == {0}
    assert len(run_ids(instance)) == 1


def test_of_a_run_that_succeeded_stays_what_it_made_what_went_wrong_and_when_it_was(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    first, second = (
        dg.materialize([judged], instance=instance, run_config=QUIET).run_id for _ in range(2)
    )
    failed = dg.materialize([failing], instance=instance, run_config=QUIET, raise_on_error=False)
    age(instance, OLD_DAYS)
    made = instance.fetch_materializations(dg.AssetKey("judged"), limit=5).records
    times = times_of(instance, first)
    untouched = [instance.all_logs(run_id) for run_id in (second, failed.run_id)]

    deleted = purged(instance, settings_in(tmp_path, successful_runs_days=90, failed_runs_days=90))

    left = instance.all_logs(first)
    assert {str(event.dagster_event_type and event.dagster_event_type.name) for event in left} == {
        *("RUN_START", "STEP_START", "ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION"),
        *("STEP_SUCCESS", "RUN_SUCCESS", "None"),
    }
    assert [event.user_message for event in left if not event.is_dagster_event] == ["or nearly"]
    assert deleted["run_details"] > len(left)
    assert times_of(instance, first) == times
    assert instance.fetch_materializations(dg.AssetKey("judged"), limit=5).records == made
    assert [instance.all_logs(run_id) for run_id in (second, failed.run_id)] == untouched
    assert outcomes(instance, "one") == [(second, "SUCCEEDED")]
    assert outcomes(instance, "other") == [(second, "FAILED"), (first, "FAILED")]


def times_of(instance: dg.DagsterInstance, run_id: str) -> list[object]:
    """What the UI counts and draws of a run."""
    steps = instance.get_run_step_stats(run_id)
    times = [(step.status, step.start_time, step.end_time) for step in steps]
    return [instance.get_run_stats(run_id), times]


def outcomes(instance: dg.DagsterInstance, check: str) -> list[tuple[str, str]]:
    """Of which run, and what; the newest first."""
    key = dg.AssetCheckKey(dg.AssetKey("judged"), check)
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    return [(record.run_id, record.status.value) for record in history]


def test_a_run_that_has_just_succeeded_has_all_its_details(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    run_ids = [count_once(instance) for _ in range(2)]
    before = [instance.all_logs(run_id) for run_id in run_ids]
    assert purged(instance, settings)["run_details"] == 0
    assert [instance.all_logs(run_id) for run_id in run_ids] == before


def test_a_slot_that_a_run_holds_stays_its_own(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    storage = instance.event_log_storage
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    storage.set_concurrency_slots("pool", 1)
    assert storage.claim_concurrency_slot("pool", run.run_id, "step").is_claimed
    succeed(instance)
    age(instance, OLD_DAYS)
    assert purged(instance, settings)["successful_runs"] == 1
    info = storage.get_concurrency_info("pool")
    assert [slot.run_id for slot in info.claimed_slots] == [run.run_id]


def test_who_waits_for_the_next_run_that_ends_hears_of_it_and_of_no_other(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    """What a run-status sensor does: it remembers the number of the last event it has seen."""
    for _ in range(3):
        succeed(instance)
    kind: Literal[dg.DagsterEventType.RUN_SUCCESS] = dg.DagsterEventType.RUN_SUCCESS
    last = instance.fetch_run_status_changes(kind, limit=1).records[0].storage_id
    age(instance, OLD_DAYS)
    result = dg.materialize([build_retention_asset(settings)], instance=instance, run_config=QUIET)
    assert result.success
    after = dg.RunStatusChangeRecordsFilter(kind, after_storage_id=last)
    seen = instance.fetch_run_status_changes(after, limit=10).records
    assert [record.run_id for record in seen] == [result.run_id]
    metadata = result.asset_materializations_for_node("maintenance__retention")[0].metadata
    assert metadata["deleted_successful_runs"].value == 3
    assert metadata["behind"].value == "nothing"
    assert isinstance(size := metadata["event_log_bytes"].value, int)
    assert size > 0
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
    assert run_ids(instance) == {result.run_id}


def test_a_run_has_time_for_the_budget_of_each_kind(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    assert len(purge(instance, settings, make_pace=unhurried).purged) == KINDS_PURGED


def test_what_no_time_was_left_for_is_told_and_deleted_the_next_time(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    for _ in range(3 * RUNS_DELETED_AT_ONCE):
        succeed(instance)
    age(instance, OLD_DAYS)
    ticks = iter(range(1000))
    report = purge(
        instance,
        settings,
        make_pace=lambda: Pace(3, clock=lambda: float(next(ticks)), sleep=lambda seconds: None),
    )
    assert report.behind == ["successful_runs"]
    left = len(run_ids(instance))
    assert left == RUNS_DELETED_AT_ONCE
    assert purged(instance, settings)["successful_runs"] == left
    assert run_ids(instance) == set()


def test_what_is_deleted_batch_by_batch_is_added_up_for_as_long_as_there_is_time() -> None:
    def pace_of(rounds: int) -> Pace:
        ticks = iter(range(100))
        return Pace(2 * rounds + 1, clock=lambda: float(next(ticks)), sleep=lambda seconds: None)

    batches = [200, 200, 0, 7]
    assert work_off("ticks", batches, unhurried()) == Purged("ticks", 407, is_done=True)
    assert work_off("ticks", batches, pace_of(1)) == Purged("ticks", 400, is_done=False)
    assert work_off("ticks", [], pace_of(1)) == Purged("ticks", 0, is_done=True)


def test_without_an_operational_database_no_run_is_deleted_before_it_is_counted(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    settings = settings_in(tmp_path)
    (tmp_path / "operational.sqlite").mkdir()
    run_id = succeed(instance)
    age(instance, OLD_DAYS)
    report = purge(instance, settings, make_pace=unhurried)
    assert run_ids(instance) == {run_id}
    assert "operational database" in report.problems[0]


def test_a_database_that_breaks_off_is_told_and_what_is_not_in_it_is_deleted_all_the_same(
    instance: dg.DagsterInstance, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_arguments: object) -> NoReturn:
        raise OperationalError("DELETE …", {}, OSError("the server closed the connection"))

    monkeypatch.setattr("metrics_pipeline.orchestration.assets.retention.purge_dagster", break_off)
    report = purge(instance, settings, make_pace=unhurried)
    [problem] = report.problems
    assert "the server closed the connection" in problem
    assert "DELETE" not in problem
    assert {"points", "dead_letters"} <= {each.what for each in report.purged}


def add_sensor_that_is_no_more(instance: dg.DagsterInstance) -> InstigatorState:
    origin = RemoteInstigatorOrigin(
        RemoteRepositoryOrigin(
            InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="gone")), "__repository__"
        ),
        "gone",
    )
    state = InstigatorState(
        origin, InstigatorType.SENSOR, InstigatorStatus.STOPPED, SensorInstigatorData(cursor="7")
    )
    instance.add_instigator_state(state)
    return state


def add_tick(
    instance: dg.DagsterInstance, state: InstigatorState, status: TickStatus, timestamp: float
) -> None:
    instance.create_tick(
        TickData(
            instigator_origin_id=state.instigator_origin_id,
            instigator_name="gone",
            instigator_type=InstigatorType.SENSOR,
            status=status,
            timestamp=timestamp,
            selector_id=state.selector_id,
            run_ids=[],
        )
    )


def test_old_ticks_go_also_of_a_sensor_that_is_no_more(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    now = time.time()
    state = add_sensor_that_is_no_more(instance)
    for status, days in (
        (TickStatus.SKIPPED, 0.1),
        (TickStatus.SKIPPED, 1),
        (TickStatus.SUCCESS, 1),
        (TickStatus.SUCCESS, OLD_DAYS),
        (TickStatus.STARTED, OLD_DAYS),
    ):
        add_tick(instance, state, status, now - days * SECONDS_PER_DAY)
    assert purged(instance, settings)["ticks"] == 3
    left = instance.get_ticks(state.instigator_origin_id, state.selector_id)
    assert sorted(tick.status.value for tick in left) == ["SKIPPED", "SUCCESS"]
    kept = instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
    assert kept == state  # its cursor


def test_a_backlog_of_ticks_goes_in_batches_the_oldest_first(instance: dg.DagsterInstance) -> None:
    now, more = time.time(), 7
    state = add_sensor_that_is_no_more(instance)
    for number in range(ROWS_AT_ONCE + more):
        add_tick(instance, state, TickStatus.SKIPPED, now - number - 1)
    of = (state.instigator_origin_id, state.selector_id)
    batches = purge_ticks(instance, now, now)
    assert next(batches) == ROWS_AT_ONCE
    left = [tick.timestamp for tick in instance.get_tick_summaries(*of)]
    assert left == pytest.approx([now - number - 1 for number in range(more)])
    assert list(batches) == [more]
    assert instance.get_tick_summaries(*of) == []


def test_ticks_go_by_dagsters_own_means_where_its_tables_are_not_known(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    state = add_sensor_that_is_no_more(instance)
    add_tick(instance, state, TickStatus.SKIPPED, now - 1)
    monkeypatch.setattr(dagster_rows, "TRIED_VERSION", "0.")
    assert list(purge_ticks(instance, now, now)) == []
    assert instance.get_tick_summaries(state.instigator_origin_id, state.selector_id) == []


def test_dagsters_tables_are_those_that_were_tried(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, Dagster has changed: look at its event log again, then at `dagster_rows`."""
    assert {column.name for column in SqlEventLogStorageTable.columns} == {
        *("id", "run_id", "event", "dagster_event_type", "timestamp", "step_key", "asset_key"),
        "partition",
    }
    assert {column.name for column in AssetEventTagsTable.columns} == {
        *("id", "event_id", "asset_key", "key", "value", "event_timestamp"),
    }
    assert {column.name for column in AssetCheckExecutionsTable.columns} == {
        *("id", "asset_key", "check_name", "partition", "run_id", "execution_status"),
        *("evaluation_event", "evaluation_event_timestamp", "evaluation_event_storage_id"),
        *("materialization_event_storage_id", "create_timestamp"),
    }
    assert {column.name for column in RunsTable.columns} == {
        *("id", "run_id", "snapshot_id", "pipeline_name", "mode", "status", "run_body"),
        *("partition", "partition_set", "create_timestamp", "update_timestamp", "start_time"),
        *("end_time", "backfill_id"),
    }
    assert {column.name for column in RunTagsTable.columns} == {"id", "run_id", "key", "value"}
    assert {column.name for column in JobTickTable.columns} == {
        *("id", "job_origin_id", "selector_id", "status", "type", "timestamp", "tick_body"),
        *("create_timestamp", "update_timestamp"),
    }
    assert dagster_rows.event_log_of(instance) is storages(instance)[0]
    monkeypatch.setattr(dg, "__version__", "1.14.0")
    assert dagster_rows.event_log_of(instance) is None


def test_a_dagster_that_was_not_tried_is_told(
    instance: dg.DagsterInstance, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dg, "__version__", "1.14.0")
    [problem] = purge(instance, settings).problems
    assert "not one that was tried" in problem
