"""What follows when the daemon was away, and when its clock jumps: by Dagster's own scheduler.

The clock is a parameter of what the daemon does; the code server's schedule is ours.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external import RemoteSchedule
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.daemon import SchedulerDaemon
from dagster._scheduler.scheduler import launch_scheduled_runs

from metrics_pipeline.orchestration.clock_rewind import forget_the_future
from metrics_pipeline.stack.layout import LOOPBACK, find_free_port, is_listening
from metrics_pipeline_tests.orchestration.dagster_instances import opened
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
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture(scope="module")
def server_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp("server"), find_free_port()
    (folder / "loaded.py").write_text(CODE)
    command = [sys.executable, "-m", "dagster", "api", "grpc", "--location-name", LOCATION]
    options = ["--host", LOOPBACK, "--port", str(port), "--python-file", str(folder / "loaded.py")]
    with opened(folder), running([*command, *options], lambda: is_listening(port)):
        yield port


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
        done = launch_scheduled_runs(self.workspace, DAEMON, at, self.times)  # type: ignore[arg-type]
        assert [error for error in done if error is not None and hasattr(error, "cls_name")] == []
        for run in self.instance.get_runs():
            if not run.is_finished:
                self.instance.report_run_canceled(run)
        new = [tick for tick in self.ticks() if tick.tick_id not in before]
        assert {tick.status for tick in new} <= {TickStatus.SUCCESS}
        return sorted(datetime.fromtimestamp(tick.timestamp, UTC) for tick in new)

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
def daemon(tmp_path: Path, server_port: int) -> Iterator[Daemon]:
    with daemon_in(tmp_path, server_port) as daemon:
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


def test_schedules_that_wait_for_a_clock_that_was_set_back_go_on_after_the_command(
    daemon: Daemon,
) -> None:
    daemon.look(NOON)
    assert clock_times(daemon.look(NOON + 5 * HOUR)) == ["17:00"]
    daemon.restart()
    # Dagster waits until the clock has come to where it was.
    assert daemon.look(NOON + 8 * MINUTE) == []
    now = NOON + 9 * MINUTE
    assert forget_the_future(daemon.instance, now.timestamp()) == ["fleet_every_5_minutes"]
    daemon.restart()
    assert clock_times(daemon.look(NOON + 13 * MINUTE)) == ["12:15"]
    assert forget_the_future(daemon.instance, (NOON + 13 * MINUTE).timestamp()) == []
