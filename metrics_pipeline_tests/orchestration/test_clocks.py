"""What follows when daemon or code server were away, or the clock jumps: by Dagster's scheduler.

The clock is a parameter of what the daemon does; the code server's schedule is ours.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.remote_origin import RemoteInstigatorOrigin
from dagster._core.remote_representation.external import RemoteSchedule
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorTick,
    InstigatorType,
    SensorInstigatorData,
    TickStatus,
)
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.daemon import SchedulerDaemon
from dagster._scheduler.scheduler import launch_scheduled_runs
from dagster_shared.error import SerializableErrorInfo

from metrics_pipeline.orchestration.set_back_clock import (
    WAS_OF,
    find_last,
    forget_the_future,
)
from metrics_pipeline.stack.ports import LOOPBACK, find_free_port, is_listening
from metrics_pipeline_tests.exporter.instance_fixtures import ORIGIN
from metrics_pipeline_tests.orchestration.dagster_instances import opened, storages
from metrics_pipeline_tests.servers import running

DAEMON = logging.getLogger(SchedulerDaemon.__name__)
"""Dagster's daemon has to be imported before its scheduler, which otherwise cannot be."""

LOCATION = "tests"
CODE = """
import dagster as dg
from metrics_pipeline.orchestration.schedules import build_fleet_schedule
from metrics_pipeline.settings import FleetSettings

@dg.op
def count(): ...

@dg.job(name="fleet_counts")
def fleet_counts(): count()

defs = dg.Definitions(
    jobs=[fleet_counts], schedules=[build_fleet_schedule(FleetSettings(), ())]
)
"""
NOON = datetime(2050, 3, 27, 12, 2, tzinfo=UTC)
"""Of the future: ticks that are old are purged at once."""
BERLIN_SPRINGS_FORWARD = datetime(2050, 3, 27, 0, 58, tzinfo=UTC)
"""Two minutes before clocks there go from 2:00 to 3:00."""
IMPATIENT_SECONDS = 1
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CodeServer:
    """Where it listens, and its process."""

    port: int
    pid: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CodeServer]:
    folder, port = tmp_path_factory.mktemp("server"), find_free_port()
    (folder / "loaded.py").write_text(CODE)
    command = [sys.executable, "-m", "dagster", "api", "grpc", "--location-name", LOCATION]
    options = ["--host", LOOPBACK, "--port", str(port), "--python-file", str(folder / "loaded.py")]
    with opened(folder), running([*command, *options], lambda: is_listening(port)) as pid:
        yield CodeServer(port, pid)


class Daemon:
    """What schedules do at the times that it is told; `restart` is what a new process knows."""

    def __init__(self, instance: dg.DagsterInstance, workspace: WorkspaceProcessContext) -> None:
        self.instance, self.workspace = instance, workspace
        self.restart()

    def restart(self) -> None:
        self.times: dict[str, object] = {}

    def look(self, at: datetime) -> list[datetime]:
        """The ticks that there are more than before; what was launched has ended."""
        before = {tick.tick_id for tick in self.ticks()}
        assert self.fail(at) == []
        for run in self.instance.get_runs():
            if not run.is_finished:
                self.instance.report_run_canceled(run)
        new = [tick for tick in self.ticks() if tick.tick_id not in before]
        assert {tick.status for tick in new} <= {TickStatus.SUCCESS}
        return sorted(datetime.fromtimestamp(tick.timestamp, UTC) for tick in new)

    def fail(self, at: datetime) -> list[SerializableErrorInfo]:
        """What goes wrong."""
        done = launch_scheduled_runs(self.workspace, DAEMON, at, self.times)  # type: ignore[arg-type]
        return [each for each in done if isinstance(each, SerializableErrorInfo)]

    def ticks(self) -> list[InstigatorTick]:
        schedule = self.schedule()
        return list(self.instance.get_ticks(schedule.get_remote_origin_id(), schedule.selector_id))

    def schedule(self) -> RemoteSchedule:
        context = self.workspace.create_request_context()
        [repository] = context.get_code_location(LOCATION).get_repositories().values()
        [schedule] = repository.get_schedules()
        return schedule


@contextmanager
def daemon_in(folder: Path, port: int) -> Iterator[Daemon]:
    target = GrpcServerTarget(host=LOOPBACK, port=port, socket=None, location_name=LOCATION)
    with opened(folder) as instance, WorkspaceProcessContext(instance, target) as workspace:
        yield Daemon(instance, workspace)


@pytest.fixture
def daemon(tmp_path: Path, server: CodeServer) -> Iterator[Daemon]:
    with daemon_in(tmp_path, server.port) as daemon:
        yield daemon


def clock_times(ticks: list[datetime]) -> list[str]:
    return [f"{tick:%H:%M}" for tick in ticks]


def test_after_an_hour_without_a_daemon_one_tick_is_caught_up(daemon: Daemon) -> None:
    assert daemon.look(NOON) == []
    assert clock_times(daemon.look(NOON + 3 * MINUTE)) == ["12:05"]
    daemon.restart()
    assert clock_times(daemon.look(NOON + HOUR)) == ["13:00"]
    assert daemon.look(NOON + HOUR + MINUTE) == []
    assert clock_times(daemon.look(NOON + HOUR + 3 * MINUTE)) == ["13:05"]


def test_after_a_code_server_that_hung_the_tick_that_was_due_last_is_made_up_for_alone(
    daemon: Daemon, server: CodeServer
) -> None:
    daemon.look(NOON)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dagster._grpc.client.DEFAULT_SCHEDULE_GRPC_TIMEOUT", IMPATIENT_SECONDS)
            for minutes in (3, 4, 8, 13):
                assert len(daemon.fail(NOON + minutes * MINUTE)) == 1
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert daemon.instance.get_runs() == []
    assert daemon.look(NOON + 14 * MINUTE) == []
    (last, *failed) = daemon.ticks()
    assert f"{datetime.fromtimestamp(last.timestamp, UTC):%H:%M}" == "12:15"
    assert len(last.run_ids) == daemon.instance.get_runs_count() == 1
    assert [tick.status for tick in failed] == [TickStatus.FAILURE] * 2
    assert all("Unable to reach" in tick.error.message for tick in failed if tick.error)
    assert clock_times(daemon.look(NOON + 18 * MINUTE)) == ["12:20"]


def test_daylight_saving_moves_no_tick(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    at = BERLIN_SPRINGS_FORWARD
    seen: list[str] = []
    for minute in range(12):
        seen += clock_times(daemon.look(at + minute * MINUTE))
    assert seen == ["01:00", "01:05"]


def test_a_clock_that_jumps_ahead_makes_one_tick(daemon: Daemon) -> None:
    daemon.look(NOON)
    assert clock_times(daemon.look(NOON + 3 * HOUR)) == ["15:00"]
    assert clock_times(daemon.look(NOON + 3 * HOUR + 3 * MINUTE)) == ["15:05"]


def test_a_clock_that_is_set_back_a_little_repeats_no_tick(daemon: Daemon) -> None:
    daemon.look(NOON)
    assert clock_times(daemon.look(NOON + 3 * MINUTE)) == ["12:05"]
    assert daemon.look(NOON + 2 * MINUTE) == []
    assert daemon.look(NOON + 4 * MINUTE) == []
    assert clock_times(daemon.look(NOON + 8 * MINUTE)) == ["12:10"]


def test_schedules_go_on_after_a_clock_that_was_ahead_is_set_back(daemon: Daemon) -> None:
    daemon.look(NOON)
    assert clock_times(daemon.look(NOON + 5 * HOUR)) == ["17:00"]
    # Dagster waits until the clock has come to where it was: what a new process looks at says so,
    # and so does what this one remembers.
    daemon.restart()
    assert daemon.look(NOON + 8 * MINUTE) == []
    now = NOON + 9 * MINUTE
    done = forget_the_future(daemon.instance, now.timestamp())
    assert done is not None
    assert done.names == ["fleet_every_5_minutes"]
    assert done.run_ids == []
    assert daemon.look(NOON + 13 * MINUTE) == []
    daemon.restart()
    assert clock_times(daemon.look(NOON + 13 * MINUTE)) == ["12:15"]
    assert forget_the_future(daemon.instance, (NOON + 13 * MINUTE).timestamp()) is None
    assert find_last(daemon.instance) == done


def test_a_time_that_comes_again_after_the_clock_was_set_back_has_a_run_of_its_own(
    daemon: Daemon,
) -> None:
    daemon.look(NOON)
    daemon.look(NOON + HOUR)
    [tick] = daemon.ticks()
    forget_the_future(daemon.instance, NOON.timestamp())
    [moved] = daemon.ticks()
    assert moved.tick_id == tick.tick_id
    assert moved.run_ids == tick.run_ids
    assert moved.skip_reason == f"{WAS_OF} 2050-03-27T13:00:00+00:00."
    daemon.restart()
    daemon.look(NOON + 4 * MINUTE)
    assert clock_times(daemon.look(NOON + HOUR)) == ["13:00"]
    again = daemon.ticks()[0]
    assert len(again.run_ids) == 1
    assert again.run_ids != tick.run_ids


def test_a_clock_that_is_a_little_ahead_is_waited_for(daemon: Daemon) -> None:
    daemon.look(NOON)
    daemon.look(NOON + 3 * MINUTE)
    before = [(tick.timestamp, tick.skip_reason) for tick in daemon.ticks()]
    assert forget_the_future(daemon.instance, (NOON + 2.6 * MINUTE).timestamp()) is None
    assert [(tick.timestamp, tick.skip_reason) for tick in daemon.ticks()] == before


@pytest.mark.parametrize(
    ("status", "becomes"),
    [
        (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.CANCELED),
        (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING),
        (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING),
        (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED),
    ],
)
def test_a_run_of_the_future_is_ended_and_others_go_on(
    tmp_path: Path, status: dg.DagsterRunStatus, becomes: dg.DagsterRunStatus
) -> None:
    @dg.job
    def poll() -> None:
        """Never run here."""

    with opened(tmp_path) as instance:
        now = time.time()
        run = instance.create_run_for_job(poll, status=status, remote_job_origin=ORIGIN)
        assert forget_the_future(instance, now) is None
        with storages(instance)[1].connect() as connection:
            connection.execute(sa.text("UPDATE runs SET start_time = :at"), {"at": now + 3600})
        done = forget_the_future(instance, now)
        assert done is not None
        assert done.run_ids == [run.run_id]
        ended = instance.get_run_by_id(run.run_id)
        assert ended is not None
        assert ended.status is becomes


def test_a_sensor_of_the_future_may_tick_at_once_and_keeps_its_cursor(tmp_path: Path) -> None:
    now = time.time()
    origin = RemoteInstigatorOrigin(ORIGIN.repository_origin, "backlog")
    ahead = now + 3600
    data = SensorInstigatorData(
        last_tick_timestamp=ahead, last_tick_start_timestamp=ahead, min_interval=2, cursor="so far"
    )
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)
    with opened(tmp_path) as instance:
        instance.add_instigator_state(state)
        done = forget_the_future(instance, now)
        assert done is not None
        assert done.names == ["backlog"]
        [found] = instance.all_instigator_state()
        assert found.instigator_data == data._replace(
            last_tick_timestamp=now, last_tick_start_timestamp=now
        )
