"""What is said of Dagster's instance: each thing is made wrong in a real one, and told."""

from __future__ import annotations

import time
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.remote_origin import RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo

from metrics_pipeline.core.findings import Finding, Severity
from metrics_pipeline.orchestration import instance_findings
from metrics_pipeline.orchestration.instance_findings import Evaluated, examine_instance
from metrics_pipeline.orchestration.set_back_clock import forget_the_future
from metrics_pipeline_tests.doctor.findings import of, the_bad_one, the_wrong_one
from metrics_pipeline_tests.exporter.instance_fixtures import LOCATION, Runs
from metrics_pipeline_tests.not_root import not_root
from metrics_pipeline_tests.postgresql import PostgresqlDatabase

SCHEDULE = "fleet_every_5_minutes"
EVERY = Evaluated({SCHEDULE: 300.0}, {})
CRON = "*/5 * * * *"
HOUR = 3600.0
ELSEWHERE = "A daemon runs elsewhere."


class Instance:
    """A real one, in which things are made wrong; it is looked at `later` seconds after now."""

    def __init__(self, home: Path, runs: Runs) -> None:
        self.home, self.runs, self.it = home, runs, runs.instance
        self.now = time.time()

    def examine(self, later: float = 0.0) -> list[Finding]:
        clock = self.now + later
        return list(examine_instance(self.home, EVERY, lambda: ELSEWHERE, lambda: clock))

    def beat(self, at: float, but: str = "") -> None:
        """Heartbeats of all daemons, but for one."""
        for name in set(self.it.get_required_daemon_types()) - {but}:
            self.it.add_daemon_heartbeat(DaemonHeartbeat(at, name, "a test's", []))

    def switch(self, status: InstigatorStatus) -> None:
        """The schedule's state, as the daemon and the UI keep it."""
        origin = RemoteInstigatorOrigin(
            RemoteRepositoryOrigin(LOCATION, "__repository__"), SCHEDULE
        )
        data = ScheduleInstigatorData(CRON, self.now - HOUR)
        self.state = InstigatorState(origin, InstigatorType.SCHEDULE, status, data)
        self.it.add_instigator_state(self.state)

    def tick(self, at: float, status: TickStatus, said: str = "") -> None:
        """A tick of the schedule."""
        error = SerializableErrorInfo(said, [], None) if said else None
        run_ids = ["a run's"] if status is TickStatus.SUCCESS else []
        self.it.create_tick(
            TickData(
                instigator_origin_id=self.state.instigator_origin_id,
                instigator_name=SCHEDULE,
                instigator_type=InstigatorType.SCHEDULE,
                status=status,
                timestamp=at,
                selector_id=self.state.selector_id,
                error=error,
                run_ids=run_ids,
            )
        )


@pytest.fixture
def instance(dagster_home: Path, runs: Runs) -> Instance:
    """All is well in it."""
    made = Instance(dagster_home, runs)
    made.beat(made.now)
    made.switch(InstigatorStatus.RUNNING)
    made.tick(made.now - 60, TickStatus.SUCCESS)
    return made


def test_of_an_instance_that_is_well_nothing_bad_is_said(instance: Instance) -> None:
    instance.runs.finish()
    findings = instance.examine()
    assert {finding.severity for finding in findings} == {Severity.OK}
    names = [finding.name for finding in findings]
    assert names == [
        *("Dagster's tables", "daemon", "schedules", "queue", "runs in flight", "last runs"),
        "event log",
    ]


def test_a_daemon_that_was_never_heard_of_is_named(instance: Instance) -> None:
    instance.it.wipe_daemon_heartbeats()
    instance.beat(instance.now, but="SENSOR")
    found = the_wrong_one(instance.examine(), "daemon")
    assert found.found == "never heard of: SENSOR"
    assert ELSEWHERE in found.fix


def test_daemons_that_fell_silent_are_named_with_how_long(instance: Instance) -> None:
    instance.beat(instance.now - 2 * HOUR, but="SENSOR")
    found = the_wrong_one(instance.examine(), "daemon")
    assert "SCHEDULER for 2 h" in found.found
    assert "SENSOR" not in found.found


def test_heartbeats_of_the_future_are_the_clocks_fault(instance: Instance) -> None:
    found = the_wrong_one(instance.examine(later=-HOUR), "daemon")
    assert "of the future" in found.found
    assert "clock" in found.fix


def test_a_schedule_that_was_switched_off_is_named(instance: Instance) -> None:
    instance.it.update_instigator_state(instance.state.with_status(InstigatorStatus.STOPPED))
    assert the_wrong_one(instance.examine(), SCHEDULE).found == "it was switched off"


def test_a_schedule_that_was_never_evaluated_is_a_warning(dagster_home: Path, runs: Runs) -> None:
    instance = Instance(dagster_home, runs)
    instance.beat(instance.now)
    assert the_bad_one(instance.examine()).found == "it was never evaluated"


def test_ticks_that_do_not_come_are_told_with_the_last_one(instance: Instance) -> None:
    instance.beat(instance.now + HOUR)
    found = the_wrong_one(instance.examine(later=HOUR), SCHEDULE)
    assert found.found == "it was 61 min ago, and should be every 5 min"


def test_a_tick_of_the_future_that_keeps_others_from_coming_is_told(instance: Instance) -> None:
    instance.tick(instance.now + 5 * HOUR, TickStatus.SUCCESS)
    found = the_wrong_one(instance.examine(), SCHEDULE)
    assert "5 h in the future" in found.found
    assert "metrics-pipeline daemon" in found.fix


def test_that_the_clock_was_set_back_is_told_for_a_day(instance: Instance) -> None:
    instance.tick(instance.now + 5 * HOUR, TickStatus.SUCCESS)
    forget_the_future(instance.it, instance.now)
    found = the_bad_one(instance.examine())
    assert found.severity is Severity.WARNING
    assert found.found.startswith("0 s ago the clock was ahead by 5 h or more and was set back: ")
    assert SCHEDULE in found.found
    instance.beat(instance.now + 25 * HOUR)
    instance.tick(instance.now + 25 * HOUR, TickStatus.SUCCESS)
    assert not any(each.is_bad for each in instance.examine(later=25 * HOUR))


def test_ticks_that_fail_are_counted_with_what_the_last_said(instance: Instance) -> None:
    for ago, said in ((50.0, "old"), (40.0, "older"), (30.0, "no code server\n  in a trace")):
        instance.tick(instance.now - ago, TickStatus.FAILURE, said)
    found = the_wrong_one(instance.examine(), SCHEDULE)
    assert found.found == "the last 3 failed: no code server"


def test_ticks_that_begin_and_do_not_end_are_counted(instance: Instance) -> None:
    for ago in (700.0, 400.0):
        instance.tick(instance.now + HOUR - ago, TickStatus.STARTED)
    instance.beat(instance.now + HOUR)
    found = the_wrong_one(instance.examine(later=HOUR), SCHEDULE)
    assert found.found == "2 have begun and not ended, the longest 11.7 min ago"


def test_a_tick_in_which_the_daemon_was_killed_is_told_when_later_ones_have_ended(
    instance: Instance,
) -> None:
    instance.tick(instance.now - 700, TickStatus.STARTED)
    found = the_bad_one(of(instance.examine(), SCHEDULE))
    assert found.severity is Severity.WARNING
    assert found.found == "1 never ended, the last of 11.7 min ago; later ones did"


@pytest.mark.parametrize(
    ("later", "severity"), [(90.0, Severity.WARNING), (2000.0, Severity.WRONG)]
)
def test_a_run_that_waits_too_long_is_named(
    instance: Instance, later: float, severity: Severity
) -> None:
    run = instance.runs.wait_in_queue()
    instance.now = time.time()
    [found] = of(instance.examine(later), "queue")
    assert found.severity is severity
    assert run.run_id in found.found


def test_a_run_beyond_its_time_that_nobody_ended_is_named(instance: Instance) -> None:
    @dg.job
    def slow() -> None:
        """Never run here."""

    tags = {"dagster/max_runtime": "600"}
    run = instance.it.create_run_for_job(slow, status=dg.DagsterRunStatus.STARTING, tags=tags)
    started = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
    instance.it.report_dagster_event(started, run.run_id)
    assert not of(instance.examine(later=300), "runs in flight")[0].is_bad
    found = the_wrong_one(instance.examine(later=1000), "runs in flight")
    assert f"{run.run_id} of slow, STARTED" in found.found


def test_a_run_that_never_starts_is_named(instance: Instance) -> None:
    @dg.job
    def stuck() -> None:
        """Never run here."""

    run = instance.it.create_run_for_job(stuck, status=dg.DagsterRunStatus.STARTING)
    found = the_wrong_one(instance.examine(later=HOUR), "runs in flight")
    assert f"{run.run_id} of stuck, STARTING" in found.found


def test_a_job_whose_last_run_failed_is_named_until_one_succeeds(instance: Instance) -> None:
    failed = instance.runs.finish(fails=True)
    found = the_bad_one(instance.examine())
    assert f"({failed}, FAILURE)" in found.found
    instance.runs.finish()
    assert not any(each.is_bad for each in instance.examine())


def test_an_event_log_that_is_large_is_a_warning(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_findings, "LARGE_EVENT_LOG_BYTES", 1)
    assert the_bad_one(instance.examine()).runbook == "docs/retention.md"


def test_tables_of_another_release_of_dagster_are_told(instance: Instance) -> None:
    with instance.it.run_storage.connect() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'da7cd32b690d'")
    found = the_wrong_one(instance.examine(), "Dagster's tables")
    assert "those of runs" in found.found
    assert "dagster instance migrate" in found.fix


def test_run_monitoring_that_is_off_is_a_warning(dagster_home: Path, instance: Instance) -> None:
    file = dagster_home / "dagster.yaml"
    file.write_text(file.read_text().replace("  enabled: true\n  max", "  enabled: false\n  max"))
    instance.beat(instance.now)
    assert the_bad_one(instance.examine()).name == "run monitoring"


# --- an instance that cannot be opened ------------------------------------------------------------


def examine(home: Path) -> list[Finding]:
    return list(examine_instance(home, EVERY, lambda: ""))


def test_a_home_without_dagster_yaml_is_told_and_stays_empty(
    dagster_home: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert the_wrong_one(examine(empty), "DAGSTER_HOME").found == "there is no dagster.yaml in it"
    assert list(empty.iterdir()) == []


def test_a_home_in_which_nothing_ever_ran_is_told_and_stays_so(dagster_home: Path) -> None:
    for file in (dagster_home / "history").rglob("*.db*"):
        file.unlink()
    before = sorted(dagster_home.rglob("*"))
    found = the_wrong_one(examine(dagster_home), "Dagster instance")
    assert "nothing was ever stored there" in found.found
    assert sorted(dagster_home.rglob("*")) == before


def test_files_that_are_no_database_are_told(dagster_home: Path) -> None:
    (dagster_home / "history" / "runs.db").write_bytes(b"device,count\n" * 100)
    found = the_wrong_one(examine(dagster_home), "Dagster instance")
    assert "cannot be read (file is not a database)" in found.found


def test_a_postgresql_that_does_not_answer_is_told_without_its_password(
    dagster_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://metrics:hunter2@127.0.0.1:9/metrics")
    found = the_wrong_one(examine(dagster_home), "Dagster instance")
    assert "Connection refused" in found.found
    assert "hunter2" not in repr(found)


def test_a_postgresql_without_tables_is_told_and_gets_none(
    dagster_home: Path, monkeypatch: pytest.MonkeyPatch, postgresql: PostgresqlDatabase
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgresql.url)
    found = the_wrong_one(examine(dagster_home), "Dagster instance")
    assert found.found == "the database has no tables of Dagster"
    engine = sa.create_engine(postgresql.url, poolclass=sa.NullPool)
    assert sa.inspect(engine).get_table_names() == []


def test_a_postgresql_with_an_instance_is_read_with_its_clock(
    dagster_home: Path, monkeypatch: pytest.MonkeyPatch, postgresql: PostgresqlDatabase
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgresql.url)
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, SqlEventLogStorage)
        made = Instance(dagster_home, Runs(instance))
        made.beat(made.now)
        findings = list(examine_instance(dagster_home, EVERY, lambda: ""))
    names = {finding.name: finding.severity for finding in findings}
    assert names["event log"] is Severity.OK
    assert names["clock"] is Severity.OK
    ahead = list(examine_instance(dagster_home, EVERY, lambda: "", lambda: time.time() + HOUR))
    assert "s behind this machine's" in the_wrong_one(ahead, "clock").found


@pytest.mark.parametrize("closed", [".", "history"])
def test_a_folder_of_another_user_is_told_as_that(folder_for_all: Path, closed: str) -> None:
    (folder_for_all / "dagster.yaml").touch()
    history = folder_for_all / "history"
    history.mkdir()
    (history / "runs.db").touch()
    (folder_for_all / closed).chmod(0o000)
    with not_root():
        [found] = examine_instance(folder_for_all, None, str)
    (folder_for_all / closed).chmod(0o755)
    assert (found.severity, found.name) == (Severity.WRONG, "DAGSTER_HOME")
    assert "it cannot be read (Permission denied)" in found.found
