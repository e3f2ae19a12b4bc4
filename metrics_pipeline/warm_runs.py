"""Dagster's code server, whose runs are forked from a process that has imported everything.

Dagster's own starts an interpreter for each run, which first imports Dagster and this package, more
than 2 s of CPU; a run that is forked has begun after less than 0.1 s. Python's forkserver does
it: a process of its own with one thread, which opens nothing (`run_template`), so that there is
nothing that a fork could tear apart. It is started with the code server, so runs have the code of
that moment.
"""

import atexit
import logging
import os
import signal
import tempfile
from collections.abc import Sequence
from multiprocessing import forkserver, synchronize, util
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

import dagster as dg
from dagster._cli.api import grpc_command
from dagster._core.instance.ref import InstanceRef
from dagster._grpc import server
from dagster._utils import get_run_crash_explanation

from metrics_pipeline.access.garbage_collection import keep_what_is_there
from metrics_pipeline.orchestration.cancellation import Cancellation
from metrics_pipeline.orchestration.run_launcher import end_with_code_server

LOG = logging.getLogger(__name__)

TEMPLATE = "metrics_pipeline.run_template"

LONGEST_FOLDER_BYTES = 70
"""The path of a socket has 107 at most (unix(7)), and Python's own folder and file take 32."""


class WarmRun(ForkServerProcess):
    """The process of one run."""

    def run(self) -> None:
        """Do in it what an interpreter of its own would have done."""
        from metrics_pipeline import run_template  # noqa: PLC0415 (only in a run)

        os.close(run_template.HELD)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_code_server(run_template.THERE)
        try:
            super().run()
        finally:
            # A process that is forked leaves them out; lifecycle events are sent by one.
            atexit._run_exitfuncs()


class WarmContext(ForkServerContext):
    """How the code server starts processes."""

    Process = WarmRun

    def Event(self) -> synchronize.Event:  # noqa: N802 (Python's name for it)
        """By which a run is canceled."""
        return Cancellation(ctx=self.get_context())


def choose_place_for_socket() -> None:
    """Have the template listen below /tmp if the path of the usual folder is too long for that."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) > LONGEST_FOLDER_BYTES:
        tempfile.tempdir = "/tmp"  # noqa: S108 (in it is made a folder of our own)
        try:
            util.get_temp_dir()  # remembered by multiprocessing, and deleted at the end
        finally:
            tempfile.tempdir = usual


class LastingServer(server.DagsterApiServer):
    """Answers as Dagster's does, for months."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        keep_what_is_there()


class WarmServer(LastingServer):
    """Forks its runs."""

    _survived = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        context = WarmContext()
        context.set_forkserver_preload([TEMPLATE])
        choose_place_for_socket()
        forkserver.ensure_running()
        super().__init__(*arguments, **options)
        self._mp_ctx = context  # type: ignore[assignment]

    def _check_for_orphaned_runs(self) -> None:
        """Every half second, by a thread that nobody would start again: nothing ends it."""
        try:
            self._forget_dead()
            super()._check_for_orphaned_runs()
            forkserver.ensure_running()  # so that the next run need not wait for all its imports
        except Exception as error:
            survived = f"{type(error).__name__}: {error}"
            if survived != self._survived:
                LOG.exception("the code server could not look after its runs; it tries again")
            self._survived = survived
        else:
            self._survived = ""

    def _forget_dead(self) -> None:
        """Fail each run that died, without the lock: databases may keep one waiting."""
        with self._execution_lock:
            executions = list(self._executions.items())
        for run_id, (process, instance_ref) in executions:
            if not process.is_alive():
                said = get_run_crash_explanation(f"Run {run_id}", process.exitcode or 0)
                try:
                    _tell(instance_ref, run_id, said)
                except Exception:
                    LOG.exception("how run %s ended is not noted; run monitoring does it", run_id)
                with self._execution_lock:
                    self._clear_run(run_id)

    def _clear_run(self, run_id: str) -> None:
        """Also where it is cleared already: who started it does so, too, if it died at once."""
        if run_id in self._executions:
            super()._clear_run(run_id)


def _tell(instance_ref: InstanceRef, run_id: str, said: str) -> None:
    with dg.DagsterInstance.from_ref(instance_ref) as instance:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_engine_event(said, run, cls=WarmServer)
            instance.report_run_failed(run)


def serve(arguments: Sequence[str], *, has_runs: bool) -> None:
    """Serve until told to end, as `dagster api grpc` does with these arguments.

    Unless it `has_runs`, nothing is kept to fork them from.
    """
    server.DagsterApiServer = WarmServer if has_runs else LastingServer  # type: ignore[misc]
    grpc_command.main(arguments, prog_name="code-server")
