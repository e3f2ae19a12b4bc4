"""Runs whose code server is killed: they end, Dagster is told, and nobody waits for them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from dagster._core.launcher.base import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from metrics_pipeline.access.environment import make_dagster_home
from metrics_pipeline.core.findings import Finding, Severity
from metrics_pipeline.orchestration.code_server import examine_code_servers
from metrics_pipeline.orchestration.in_flight import find_in_flight
from metrics_pipeline.orchestration.run_launcher import LAUNCH_SECONDS, end_if_dead
from metrics_pipeline.run_counting import count_runs
from metrics_pipeline.stack.ports import LOOPBACK, find_free_port, is_listening
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.orchestration.dagster_instances import opened
from metrics_pipeline_tests.servers import do_without, running, wait_until
from metrics_pipeline_tests.small_disk import empty, fill, small_disk
from metrics_pipeline_tests.soak.watching import command_of, descendants, parent_of
from metrics_pipeline_tests.storage.operational_databases import sqlite_settings

EVENT_LOOP = "anon_inode:[eventpoll]"
JOB, OP = "waits_for_ever", "wait"
LOCATION = "tests"
DAGSTERS = ["-m", "dagster", "api", "grpc"]
SERVES = (
    "import sys; from metrics_pipeline.warm_runs import serve; serve(sys.argv[1:], has_runs={})"
)
OURS = ["-c", SERVES.format(True)]
CODE = f"""
import atexit, os, time
from pathlib import Path
import dagster as dg

@dg.op
def {OP}():
    atexit.register(Path(__file__).with_name("was_orderly").touch)
    Path(__file__).with_name("pid").write_text(f"{{os.getpid()}} ")
    while True:
        time.sleep(0.05)

@dg.job(executor_def=dg.in_process_executor)
def {JOB}():
    {OP}()

defs = dg.Definitions(jobs=[{JOB}])
"""


@dg.op(name=OP)
def wait() -> None:
    """Done by the code server's."""


@dg.job(name=JOB, executor_def=dg.in_process_executor)
def planned() -> None:
    """What is planned here is done by the code server's job of that name."""
    wait()


@contextmanager
def code_server(folder: Path, port: int, program: Sequence[str] = OURS) -> Iterator[int]:
    """Its process id; killed or ended, it may be started again."""
    file = folder / "loaded.py"
    file.write_text(CODE)
    address = ["--host", LOOPBACK, "--port", str(port), "--location-name", LOCATION]
    command = [sys.executable, *program, "--python-file", str(file)]
    with running([*command, *address], lambda: is_listening(port)) as pid:
        yield pid


@contextmanager
def workspace_of(instance: dg.DagsterInstance, port: int) -> Iterator[WorkspaceProcessContext]:
    target = GrpcServerTarget(host=LOOPBACK, port=port, socket=None, location_name=LOCATION)
    with WorkspaceProcessContext(instance, target) as workspace:
        yield workspace


def launch(instance: dg.DagsterInstance, workspace: WorkspaceProcessContext, **tags: str) -> str:
    """The id of a run in a process of the code server."""
    context = workspace.create_request_context()
    [repository] = context.get_code_location(LOCATION).get_repositories().values()
    origin = repository.get_full_job(JOB).get_remote_origin()
    run = instance.create_run_for_job(planned, remote_job_origin=origin, tags=tags)
    instance.launch_run(run.run_id, context)
    return run.run_id


def monitor(workspace: WorkspaceProcessContext) -> None:
    """What the daemon does every 5 s."""
    list(execute_run_monitoring_iteration(workspace, logging.getLogger("monitoring")))


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def is_there(pid: int) -> bool:
    """Whether the process runs: one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.mark.parametrize("program", [OURS, DAGSTERS], ids=["ours", "dagster's"])
def test_a_run_ends_with_its_code_server_and_is_failed_when_that_is_back(
    tmp_path: Path, program: Sequence[str]
) -> None:
    port, said = find_free_port(), tmp_path / "pid"
    with opened(tmp_path) as instance:
        with (
            code_server(tmp_path, port, program) as server,
            workspace_of(instance, port) as workspace,
        ):
            run_id = launch(instance, workspace)
            wait_until(lambda: said.exists() and said.read_text().endswith(" "), "the run works")
            worker = int(said.read_text())
            monitor(workspace)
            assert status(instance, run_id) is dg.DagsterRunStatus.STARTED
            # So that it can neither end in an orderly way nor say anything.
            os.kill(worker, signal.SIGSTOP)
            os.kill(server, signal.SIGKILL)
            wait_until(lambda: not is_listening(port), "the code server is gone")
            monitor(workspace)
            # While nobody answers nothing is known.
            assert status(instance, run_id) is dg.DagsterRunStatus.STARTED
        with code_server(tmp_path, port, program), workspace_of(instance, port) as workspace:
            monitor(workspace)
            assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE
        with suppress(ProcessLookupError):  # without its parent it may have been hung up
            os.kill(worker, signal.SIGCONT)
        wait_until(lambda: not is_there(worker), "what was left of the run ends by itself")


@pytest.mark.parametrize("has_runs", [True, False])
def test_a_code_server_whose_runs_are_elsewhere_keeps_no_process_for_them(
    tmp_path: Path, has_runs: bool
) -> None:
    program = ["-c", SERVES.format(has_runs)]
    with code_server(tmp_path, find_free_port(), program) as server:
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children]
    assert any("forkserver" in command for command in commands) is has_runs


@dataclass(frozen=True, slots=True)
class Served:
    """An instance, and a code server that knows no run but those that `launch` gave it."""

    folder: Path
    instance: dg.DagsterInstance
    port: int
    server: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("served"), find_free_port()
    with pytest.MonkeyPatch.context() as patch:
        # The path of a socket is not as long as this one.
        (far := folder / ("far" * 30)).mkdir()
        patch.setenv("TMPDIR", str(far))
        with opened(folder) as instance, code_server(folder, port) as server:
            yield Served(folder, instance, port, server)


def begin(served: Served, workspace: WorkspaceProcessContext, **tags: str) -> tuple[str, int]:
    """A run that works: its id, and its process."""
    said = served.folder / "pid"
    said.unlink(missing_ok=True)
    run_id = launch(served.instance, workspace, **tags)
    wait_until(lambda: said.exists() and said.read_text().endswith(" "), "the run works")
    return run_id, int(said.read_text())


def has(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the code server knows the run, which has not ended as far as Dagster was told."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING


def end(served: Served, workspace: WorkspaceProcessContext, run_id: str) -> None:
    """Cancel it, and return when Dagster knows that it has ended."""
    served.instance.run_launcher.terminate(run_id)
    canceled = dg.DagsterRunStatus.CANCELED
    wait_until(lambda: status(served.instance, run_id) is canceled, "it is canceled")


def can_fork(server: int) -> bool:
    """Whether the code server has a process to fork runs from, and that has imported everything."""
    for pid in descendants(server):
        with suppress(OSError):  # it has ended, or the file was closed
            files = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
            if "multiprocessing.forkserver" in command_of(pid) and EVENT_LOOP in files:
                return True
    return False


def counted(instance: dg.DagsterInstance, folder: Path) -> Mapping[str, int]:
    """What the exporter says of runs of the job."""
    with closing(OperationalDatabase(sqlite_settings(folder))) as database:
        return count_runs(instance, database)[JOB]


def test_a_run_that_hangs_is_ended_after_its_time_and_counts_as_failed(served: Served) -> None:
    instance = served.instance
    with workspace_of(instance, served.port) as workspace:
        run_id, worker = begin(served, workspace, **{"dagster/max_runtime": "0.1"})

        def is_over() -> bool:
            monitor(workspace)
            return not is_there(worker)

        wait_until(is_over, "it has ended")
    assert (served.folder / "was_orderly").exists()
    # Whoever is the last to say what became of it.
    assert counted(instance, served.folder) == {"failure": 1}
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_canceled(run)
    assert status(instance, run_id) is dg.DagsterRunStatus.CANCELED
    assert counted(instance, served.folder) == {"failure": 1}
    assert counted(instance, served.folder / "anew") == {"failure": 1}


def test_a_code_server_that_hangs_holds_nobody_up_and_ends_no_run(served: Served) -> None:
    with workspace_of(served.instance, served.port) as workspace:
        run_id, worker = begin(served, workspace)
        os.kill(served.server, signal.SIGSTOP)
        try:
            monitor(workspace)
            assert status(served.instance, run_id) is dg.DagsterRunStatus.STARTED
        finally:
            os.kill(served.server, signal.SIGCONT)
        assert is_there(worker)
        end(served, workspace, run_id)


def test_a_run_that_cannot_hear_that_it_is_canceled_holds_nobody_up(served: Served) -> None:
    with workspace_of(served.instance, served.port) as workspace:
        run_id, worker = begin(served, workspace)
        os.kill(worker, signal.SIGSTOP)
        try:
            assert served.instance.run_launcher.terminate(run_id)
            other, _ = begin(served, workspace)
            end(served, workspace, other)
        finally:
            os.kill(worker, signal.SIGCONT)
        canceled = dg.DagsterRunStatus.CANCELED
        wait_until(lambda: status(served.instance, run_id) is canceled, "it hears it later")


def test_what_runs_are_forked_from_has_one_thread_and_no_connection(served: Served) -> None:
    with workspace_of(served.instance, served.port) as workspace:
        run_id, worker = begin(served, workspace)
        template = Path(f"/proc/{parent_of(worker)}")
        end(served, workspace, run_id)
    assert int(template.name) != served.server
    assert len(list((template / "task").iterdir())) == 1
    opened = [str(file.readlink()) for file in (template / "fd").iterdir()]
    assert sum(name.startswith("socket:") for name in opened) == 1, "where it is asked to fork"
    assert not [name for name in opened if str(served.folder) in name]


def test_a_run_ends_and_is_failed_if_what_it_was_forked_from_is_killed_and_the_next_one_works(
    served: Served,
) -> None:
    instance = served.instance
    with workspace_of(instance, served.port) as workspace:
        run_id, worker = begin(served, workspace)
        os.kill(parent_of(worker), signal.SIGKILL)
        wait_until(lambda: not is_there(worker), "the run ends by itself")
        failed = dg.DagsterRunStatus.FAILURE
        wait_until(lambda: status(instance, run_id) is failed, "Dagster is told")
        wait_until(lambda: can_fork(served.server), "there is another to fork from")
        run_id, _ = begin(served, workspace)
        end(served, workspace, run_id)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Small, and with room for now."""
    with small_disk(tmp_path / "disk", "32m") as is_there:
        if not is_there:
            do_without("no small disk can be mounted here: it takes root")
        yield tmp_path / "disk"


def test_what_a_full_disk_kept_a_run_from_saying_is_said_once_there_is_room_and_the_next_one_works(
    disk: Path,
) -> None:
    port = find_free_port()
    with (
        opened(disk) as instance,
        code_server(disk, port) as server,
        workspace_of(instance, port) as workspace,
    ):
        served = Served(disk, instance, port, server)
        run_id, worker = begin(served, workspace)
        fill(disk)
        with pytest.raises(sa.exc.OperationalError, match="disk is full"):
            launch(instance, workspace)
        os.kill(worker, signal.SIGKILL)
        # It tries once to say how the run ended. Who looks after the runs survives that.
        wait_until(lambda: not has(instance, run_id), "the code server does without the run")
        monitor(workspace)
        assert status(instance, run_id) is dg.DagsterRunStatus.STARTED
        empty(disk)

        def is_failed() -> bool:
            monitor(workspace)
            return status(instance, run_id) is dg.DagsterRunStatus.FAILURE

        wait_until(is_failed, "run monitoring says how it ended")
        assert counted(instance, disk) == {"failure": 1}
        run_id, worker = begin(served, workspace)
        os.kill(worker, signal.SIGKILL)
        failed = dg.DagsterRunStatus.FAILURE
        wait_until(lambda: status(instance, run_id) is failed, "the code server tells of the next")


def examined(served: Served) -> Finding:
    """By the doctor."""
    file = served.folder / "workspace.yaml"
    file.write_text(f"load_from: [{{grpc_server: {{host: {LOOPBACK}, port: {served.port}}}}}]")
    [found] = examine_code_servers(file)
    return found


def test_the_doctor_finds_a_code_server_that_hangs_wrong(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.orchestration.code_server.ASK_SECONDS", 1)
    os.kill(served.server, signal.SIGSTOP)
    try:
        found = examined(served)
    finally:
        os.kill(served.server, signal.SIGCONT)
    assert (found.severity, found.found) == (Severity.WRONG, "no answer (DEADLINE_EXCEEDED)")


def test_the_doctor_finds_such_a_code_server_well(served: Served) -> None:
    found = examined(served)
    assert (found.severity, found.found) == (Severity.OK, "answers, and has __repository__")


def test_a_run_that_a_person_cancels_does_not_count_as_failed(tmp_path: Path) -> None:
    with opened(tmp_path) as instance:
        run = starting(instance, None).dagster_run
        instance.report_run_canceling(run)
        instance.report_run_canceled(run)
        assert counted(instance, tmp_path) == {"canceled": 1}


def starting(instance: dg.DagsterInstance, port: int | None) -> dg.RunRecord:
    """A run whose launch was told to the code server at `port`, and that has not started."""
    info = {} if port is None else {GRPC_INFO_TAG: f'{{"host": "{LOOPBACK}", "port": {port}}}'}
    run = instance.create_run_for_job(planned, status=dg.DagsterRunStatus.STARTING, tags=info)
    record = instance.get_run_record_by_id(run.run_id)
    assert record is not None
    return record


def test_a_run_that_its_code_server_will_never_start_is_failed_and_nobody_waits_for_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = served.instance
    record = starting(instance, served.port)
    began = record.update_timestamp.timestamp()
    assert not end_if_dead(instance, record, began + LAUNCH_SECONDS - 1)
    monkeypatch.setattr(time, "time", lambda: began + LAUNCH_SECONDS - 1)
    assert len(find_in_flight(instance, JOB, [])) == 1
    monkeypatch.setattr(time, "time", lambda: began + LAUNCH_SECONDS + 1)
    assert find_in_flight(instance, JOB, []) == []
    monkeypatch.undo()
    assert status(instance, record.dagster_run.run_id) is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("is_told", [True, False])
def test_of_a_run_whose_code_server_does_not_answer_nothing_is_known(
    tmp_path: Path, is_told: bool
) -> None:
    with opened(tmp_path) as instance:
        record = starting(instance, find_free_port() if is_told else None)
        later = record.update_timestamp.timestamp() + 10 * LAUNCH_SECONDS
        assert not end_if_dead(instance, record, later)
        assert len(find_in_flight(instance, JOB, [])) == 1


def test_a_code_server_that_may_not_see_the_cluster_tells_which_runs_are_on_their_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_dagster_home(tmp_path)
    launcher = {"module": "dagster_k8s", "class": "K8sRunLauncher"}
    needs = {"config": {"instance_config_map": {"env": "A_VARIABLE_OF_THE_DAEMON"}}}
    settings = yaml.safe_load((home / "dagster.yaml").read_text())
    settings["run_launcher"] = launcher | needs
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        with pytest.raises(dg.DagsterInvalidConfigError, match="A_VARIABLE_OF_THE_DAEMON"):
            _ = instance.run_launcher
        record = starting(instance, None)
        later = record.update_timestamp.timestamp() + 10 * LAUNCH_SECONDS
        assert not end_if_dead(instance, record, later)
        assert len(find_in_flight(instance, JOB, [])) == 1
