"""Every run is told of: begun, completed or failed, whoever launched it; and once."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from subprocess import Popen
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from metrics_pipeline.access.environment import (
    SETTINGS_VARIABLE,
    STATE_DIR_VARIABLE,
    make_dagster_home,
)
from metrics_pipeline.core.catalog import EVENTS_PUBLISHED
from metrics_pipeline.core.events import Event, parse_event
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.core.maintenance_assets import JOB as RETENTION_JOB
from metrics_pipeline.core.maintenance_assets import RETENTION
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.orchestration.run_failure_sensor import OVERLAP_SECONDS, FailureWatch
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage.operational import TOLD_FAILURES, OperationalDatabase
from metrics_pipeline_tests.orchestration.pipeline import COUNTS, Pipeline, pipeline
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import wait_until

STARTED, COMPLETED, FAILED = (
    f"metrics.aggregation_{each}" for each in ("started", "completed", "failed")
)
INVENTORY_URL = "sqlite:///inventory.sqlite"
TO_FILE = {"transport": {"kind": "json_lines"}}


@dataclass
class Told:
    """A pipeline whose runs go through its executor, and what was told of them."""

    it: Pipeline
    folder: Path

    @cached_property
    def job(self) -> dg.JobDefinition:
        """What counts the fleet."""
        return build_definitions(self.it.settings).resolve_job_def(JOB)

    def run(self) -> str:
        """Run it to its end; gives the run's id."""
        run = self.it.instance.create_run_for_job(self.job)
        execute_run(InMemoryJob(self.job), run, self.it.instance, raise_on_error=False)
        return run.run_id

    def events(self) -> Sequence[Event]:
        """All that were told so far."""
        file = self.folder / "events.jsonl"
        return [parse_event(x) for x in file.read_text().splitlines()] if file.exists() else []

    def wait_for(self, count: int) -> Sequence[Event]:
        """So many."""
        wait_until(lambda: len(self.events()) >= count, f"{count} events were told")
        return self.events()

    def count(self) -> int:
        """How many the exporter shows as published."""
        return self.it.totals().get(EVENTS_PUBLISHED.name, {}).get("", 0)

    def tick(self, cursor: str | None) -> dg.SensorResult:
        """Of a code server that was started anew."""
        repository = build_definitions(self.it.settings).get_repository_def()
        context = dg.build_sensor_context(
            instance=self.it.instance, repository_def=repository, cursor=cursor
        )
        result = repository.get_sensor_def("run_failures")(context)
        assert isinstance(result, dg.SensorResult)
        return result


@contextmanager
def told_pipeline(folder: Path, **sections: Any) -> Iterator[Told]:
    """A pipeline with its events in a file, and with patience: what is asked here is no time."""
    secret = {"file": str(folder / "connection_string")}
    hub = {"connection_string": secret, "scheme": "http", "tries": 1, "request_timeout_seconds": 30}
    sources = {"azure_iot_hub": hub, "inventory": {"database": {"url": INVENTORY_URL}}}
    with pipeline(folder, **{"sources": sources, "events": TO_FILE, **sections}) as it:
        yield Told(it, folder)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """With an ephemeral instance."""
    with told_pipeline(tmp_path) as it:
        yield it


def end_long_ago(told: Told, run_id: str, seconds: float = 10.0) -> None:
    """As if the run had ended then: its process has nothing to send any more."""
    with told.it.instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        statement = "UPDATE runs SET end_time = end_time - ? WHERE run_id = ?"
        connection.exec_driver_sql(statement, (seconds, run_id))


def a_dead_run(told: Told, reason: str = "it was killed") -> str:
    """A run of which only Dagster can say that it failed."""
    run = told.it.instance.create_run_for_job(told.job)
    told.it.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name), run.run_id
    )
    told.it.instance.report_run_failed(run, reason)
    end_long_ago(told, run.run_id)
    return run.run_id


def test_a_run_is_told_of_with_what_it_stored_and_a_failure_without_secrets(told: Told) -> None:
    run = told.run()
    started, completed = told.wait_for(2)
    assert [started.type, completed.type] == [STARTED, COMPLETED]
    assert started.meta.correlation_id == completed.meta.correlation_id == run
    assert started.payload["job_id"] == completed.payload["job_id"] == JOB
    assert completed.payload["entries_processed"] == len(COUNTS)
    assert completed.payload["duration_ms"] > 0
    assert started.payload["started_at"] <= completed.payload["completed_at"] <= time.time()
    wait_until(lambda: told.count() == 2, "both are counted")

    told.it.lose_hub()
    run = told.run()  # in which a step is tried again
    *_, began, failed = told.wait_for(4)
    assert [each.type for each in (began, failed)] == [STARTED, FAILED]
    assert failed.payload["error_type"] == "SourceUnreachable"
    assert "Connection refused" in failed.payload["error_message"]
    assert failed.meta.correlation_id == run
    secret = (told.folder / "connection_string").read_text().rpartition("SharedAccessKey=")[2]
    assert secret
    assert secret not in (told.folder / "events.jsonl").read_text()
    wait_until(lambda: told.count() == 4, "all are counted")

    # What the run has said itself, the sensor does not say again.
    end_long_ago(told, run)
    assert "nobody" in str(told.tick(repr(time.time() - 60)).skip_reason)
    assert len(told.events()) == 4


def test_a_run_that_was_killed_is_told_of_once_however_often_the_sensor_looks(told: Told) -> None:
    run = a_dead_run(told, "the process ended, password=hunter2 was in its log")
    before = repr(time.time() - 60)
    first = told.tick(before)
    (failed,) = told.events()
    assert (failed.type, failed.meta.correlation_id) == (FAILED, run)
    assert failed.payload["job_id"] == JOB
    assert failed.payload["error_type"] == "RunFailed"
    assert "hunter2" not in failed.to_json()
    # The same look again (its cursor was lost), the next one, and one of a new daemon.
    for cursor in (before, first.cursor, None):
        told.tick(cursor)
    assert [each.id for each in told.events()] == [failed.id]
    assert told.count() == 1


def test_a_run_that_deletes_what_is_old_is_no_collection(told: Told) -> None:
    definitions = build_definitions(told.it.settings)
    graph = definitions.resolve_implicit_global_asset_job_def()
    chosen = {dg.AssetKey.from_user_string(RETENTION)}
    alone = graph.get_subset(asset_selection=chosen)
    for job, asked in ((definitions.resolve_job_def(RETENTION_JOB), None), (alone, chosen)):
        run = told.it.instance.create_run_for_job(job, asset_selection=asked)
        # It fails, for an ephemeral instance keeps no ticks: that would be told of as well.
        done = execute_run(InMemoryJob(job), run, told.it.instance, raise_on_error=False)
        assert not done.success
        end_long_ago(told, run.run_id)
    told.tick(None)
    assert told.events() == []


def test_a_run_that_was_canceled_before_it_began_is_told_of(told: Told) -> None:
    run = told.it.instance.create_run_for_job(told.job)
    told.it.instance.report_run_canceled(run)
    end_long_ago(told, run.run_id)
    told.tick(None)
    (failed,) = told.events()
    assert failed.payload["error_type"] == "RunCanceled"
    assert failed.meta.correlation_id == run.run_id


def test_many_runs_that_ended_at_once_are_all_told_of_at_one_tick(told: Told) -> None:
    runs = {a_dead_run(told) for _ in range(12)}
    told.tick(None)
    assert {each.meta.correlation_id for each in told.events()} == runs


def test_of_more_runs_than_one_tick_tells_of_the_next_ones_tell(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.orchestration.run_failure_sensor.MOST_TOLD", 5)
    runs = {a_dead_run(told) for _ in range(12)}
    for run in runs:  # longer ago than what is looked at again in any case
        end_long_ago(told, run, seconds=2 * OVERLAP_SECONDS)
    cursor: str | None = repr(time.time() - 3600)
    for count in (5, 10, 12, 12):
        cursor = told.tick(cursor).cursor
        assert len(told.events()) == count
    assert {each.meta.correlation_id for each in told.events()} == runs


def test_a_run_that_has_just_ended_is_left_to_its_process_for_a_moment(told: Told) -> None:
    run = a_dead_run(told)
    end_long_ago(told, run, seconds=-10.0)
    first = told.tick(None)
    assert told.events() == []
    end_long_ago(told, run)
    told.tick(first.cursor)
    assert len(told.events()) == 1


def test_a_failure_is_told_of_although_the_clock_was_ahead_at_the_last_look(told: Told) -> None:
    a_dead_run(told)
    told.tick(repr(time.time() + 3600))
    assert len(told.events()) == 1


def test_what_was_told_is_noted_at_the_time_by_which_it_was_looked_for(told: Told) -> None:
    a_dead_run(told)
    transport, settings = told.it.settings.events.transport, told.it.settings.operational_database
    assert transport is not None
    now = float(int(time.time()) + 3600)
    with closing(FailureWatch(transport, settings, clock=lambda: now)) as watch:
        events, _ = watch.look(told.it.instance, lambda _run: True, now - 7200)
    assert len(events) == 1
    with closing(OperationalDatabase(settings)) as database, database.reading() as connection:
        noted = connection.execute(sa.select(TOLD_FAILURES.c.told_at_ns)).scalars().all()
    assert noted == [now * NS_PER_SECOND]


def test_a_failure_waits_for_a_transport_that_is_away_however_long(told: Told) -> None:
    a_dead_run(told)
    file = told.folder / "events.jsonl"
    file.mkdir()
    repository = build_definitions(told.it.settings).get_repository_def()
    context = dg.build_sensor_context(instance=told.it.instance, repository_def=repository)
    skipped = repository.get_sensor_def("run_failures")(context)
    assert isinstance(skipped, dg.SkipReason)
    assert "Failures wait to be told" in str(skipped.skip_message)
    assert context.cursor is not None
    file.rmdir()
    told.tick(context.cursor)
    assert len(told.events()) == 1


def test_without_a_transport_there_is_neither_a_sensor_nor_another_executor(
    tmp_path: Path,
) -> None:
    with pipeline(tmp_path) as it:
        definitions = build_definitions(it.settings)
        assert definitions.executor is dg.in_process_executor
        assert not definitions.get_repository_def().has_sensor_def("run_failures")


def test_a_transport_that_is_away_changes_nothing_for_the_run(tmp_path: Path) -> None:
    nowhere = {"kind": "redis_stream", "url": {"env": "NO_SUCH_VARIABLE"}}
    with told_pipeline(tmp_path, events={"transport": nowhere}) as told:
        run = told.it.instance.get_run_by_id(told.run())
        assert run is not None
        assert run.is_success
        assert told.it.latest() == COUNTS


def test_a_run_waits_for_no_transport_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_SECONDS)
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        redis = {"kind": "redis_stream", "url": {"env": "REDIS_URL"}}
        with told_pipeline(tmp_path, events={"transport": redis}) as told:
            told.it.settings = with_patience(told.it.settings)
            run = told.it.instance.get_run_by_id(told.run())
            assert run is not None
            assert run.is_success
            assert told.it.latest() == COUNTS
            with silent.accept()[0] as connection:
                connection.settimeout(PATIENCE_SECONDS)
                assert connection.recv(65_536)
                connection.setblocking(False)
                with pytest.raises(BlockingIOError):  # who asked has not given up
                    connection.recv(1)


def with_patience(settings: Settings) -> Settings:
    """The same, but an answer of the transport is waited for longer than settings may say."""
    assert settings.events.transport is not None
    transport = settings.events.transport.model_copy(update={"timeout_seconds": PATIENCE_SECONDS})
    events = settings.events.model_copy(update={"transport": transport})
    return settings.model_copy(update={"events": events})


IN_TIME_SECONDS = 240
"""For a process to import Dagster on a machine that others use as well."""

LOADING = """
    import sys
    from metrics_pipeline.definitions import build_definitions
    from metrics_pipeline.settings_file import load_settings
    build_definitions(load_settings()).get_repository_def()
    assert "redis" not in sys.modules
"""


def test_loading_the_definitions_does_not_wait_for_the_client_of_redis(
    tmp_path: Path, home: Path
) -> None:
    transport = {"kind": "redis_stream", "url": {"env": "REDIS_URL"}}
    document = {"version": 1, "sources": {}, "events": {"transport": transport}}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(document))
    subprocess.run([sys.executable, "-c", textwrap.dedent(LOADING)], check=True)


SLEEP = re.compile(r"^(?:State|voluntary_ctxt_switches|nonvoluntary_ctxt_switches):\t(\w+)", re.M)
"""A thread's state, and how often it went to sleep or was put aside."""

EXECUTING = """
    import sys
    import dagster as dg
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run
    from dagster._utils.interrupts import setup_interrupt_handlers
    from metrics_pipeline.core.fleet import JOB
    from metrics_pipeline.definitions import build_definitions
    from metrics_pipeline.settings_file import load_settings
    setup_interrupt_handlers()  # as the process of a run does
    job = build_definitions(load_settings()).resolve_job_def(JOB)
    with dg.DagsterInstance.get() as instance:
        execute_run(InMemoryJob(job), instance.get_run_by_id(sys.argv[1]), instance)
"""


class Threads:
    """Those of a process, as /proc shows them."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}/task")
        self._seen: list[list[str]] = []

    def are_asleep(self) -> bool:
        """Whether each sleeps, and none has done anything since the last look."""
        texts = [file.read_text() for file in sorted(self._folder.glob("*/status"))]
        before = self._seen
        self._seen = [SLEEP.findall(text) for text in texts]
        return self._seen == before and all(state == "S" for state, *_ in self._seen)


@contextmanager
def a_run_that_hangs(folder: Path, home: Path) -> Iterator[tuple[Told, str, Popen[bytes]]]:
    """In a process of its own, in the middle of a step, whose hub says nothing."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        told_pipeline(folder) as told,
        dg.DagsterInstance.get() as instance,
    ):
        told.it.instance = instance
        secret = told.it.hub.connection_string
        here = f"127.0.0.1:{silent.getsockname()[1]}"
        (folder / "connection_string").write_text(secret.replace(told.it.hub.host, here))
        document = told.it.settings.model_dump(mode="json", exclude_unset=True)
        (folder / "settings.yaml").write_text(yaml.safe_dump(document))
        run = instance.create_run_for_job(told.job)
        command = [sys.executable, "-c", textwrap.dedent(EXECUTING), run.run_id]
        with (
            (home / "run.log").open("wb") as log,
            Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                silent.settimeout(IN_TIME_SECONDS)
                with silent.accept()[0] as connection:
                    connection.settimeout(IN_TIME_SECONDS)
                    assert connection.recv(1)
                    # An interrupt that comes while asyncio connects or sends is only logged.
                    wait_until(Threads(process.pid).are_asleep, "it waits for the answer")
                    yield told, run.run_id, process
            finally:
                process.kill()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an instance on disk."""
    folder = make_dagster_home(tmp_path / "state")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path))
    monkeypatch.setenv(SETTINGS_VARIABLE, str(tmp_path / "settings.yaml"))
    return folder


def test_of_a_process_that_was_killed_in_a_step_the_sensor_tells(
    tmp_path: Path, home: Path
) -> None:
    with a_run_that_hangs(tmp_path, home) as (told, run_id, process):
        (started,) = told.wait_for(1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        run = told.it.instance.get_run_by_id(run_id)
        assert run is not None
        told.it.instance.report_run_failed(run, "terminated by signal 9")  # as Dagster does
        end_long_ago(told, run_id)
        for cursor in (repr(time.time() - 60), None, repr(time.time())):
            told.tick(cursor)
        _, failed = told.events()
    assert (started.type, failed.type) == (STARTED, FAILED)
    assert failed.meta.correlation_id == run_id
    assert failed.payload["error_type"] == "RunFailed"
    assert "terminated by signal 9" in failed.payload["error_message"]


def test_a_process_that_is_canceled_in_a_step_tells_so_itself_and_only_once(
    tmp_path: Path, home: Path
) -> None:
    step_failure = {dg.DagsterEventType.STEP_FAILURE}
    with a_run_that_hangs(tmp_path, home) as (told, run_id, process):
        told.wait_for(1)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: bool(told.it.instance.all_logs(run_id, step_failure)), "it is canceled")
        process.wait(IN_TIME_SECONDS)
        end_long_ago(told, run_id)
        told.tick(None)
        _, failed = told.events()
    assert failed.type == FAILED
    assert failed.meta.correlation_id == run_id
    assert failed.payload["error_type"] == "RunInterrupted"
