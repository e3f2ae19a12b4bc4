"""Runs that schedules and sensors ask for do not wait for the next look at the queue."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon import controller
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon

from metrics_pipeline.orchestration import prompt_queue
from metrics_pipeline.orchestration.prompt_queue import PromptQueue, does_any_wait, look_promptly
from metrics_pipeline.orchestration.run_coordinator import SUBMITTED, PromptRunCoordinator
from metrics_pipeline.stack.ports import LOOPBACK
from metrics_pipeline_tests.orchestration.dagster_instances import opened
from metrics_pipeline_tests.servers import wait_until

AN_HOUR = 3600
NOWHERE = GrpcServerCodeLocationOrigin(LOOPBACK, port=1)
ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(NOWHERE, "__repository__"), "nothing")


@dg.job
def nothing() -> None:
    """No code server has it, so launching one of its runs fails, which is as good a sign here."""


@contextmanager
def looking(instance: dg.DagsterInstance) -> Iterator[None]:
    """The daemon's thread, which looks once, and an hour later again."""
    is_over = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controller, "QueuedRunCoordinatorDaemon", QueuedRunCoordinatorDaemon)
        look_promptly()
        queue = controller.create_daemon_of_type(PromptQueue.daemon_type(), instance)
    assert isinstance(queue, PromptQueue)
    queue.interval_seconds = AN_HOUR

    def loop() -> None:
        with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
            for _ in queue.core_loop(workspace, is_over):
                pass

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        while thread.is_alive():
            SUBMITTED.set()  # it may just have begun another round
            thread.join(0.1)


def submit(instance: dg.DagsterInstance) -> str:
    """As a schedule does in the daemon: the id of the run."""
    run = instance.create_run_for_job(nothing, remote_job_origin=ORIGIN)
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
        context = SubmitRunContext(run, workspace.create_request_context())
        return instance.run_coordinator.submit_run(context).run_id


def test_a_look_that_fails_is_told_and_the_next_one_comes_as_soon_as_a_run_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = []

    def fail(_instance: dg.DagsterInstance) -> NoReturn:
        failures.append(True)
        monkeypatch.undo()
        raise OSError("the database is locked")

    with opened(tmp_path) as instance:
        monkeypatch.setattr(prompt_queue, "does_any_wait", fail)
        with looking(instance):
            wait_until(lambda: bool(failures), "it has looked in vain")
            run_id = submit(instance)
            wait_until(functools.partial(is_launched, instance, run_id), "it is launched")


def is_launched(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether it was tried."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status is dg.DagsterRunStatus.FAILURE


def test_a_run_that_is_submitted_is_launched_although_the_next_look_is_an_hour_away(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as instance:
        assert isinstance(instance.run_coordinator, PromptRunCoordinator)
        waited_before = submit(instance)
        with looking(instance):
            wait_until(lambda: is_launched(instance, waited_before), "it has looked once")
            for run_id in (submit(instance), submit(instance)):
                wait_until(functools.partial(is_launched, instance, run_id), "it is launched")


def test_runs_that_wait_are_told_from_those_that_have_ended(tmp_path: Path) -> None:
    with opened(tmp_path) as instance:
        ended = instance.get_run_by_id(submit(instance))
        assert ended is not None
        assert does_any_wait(instance)
        instance.report_run_canceled(ended)
        assert not does_any_wait(instance)
