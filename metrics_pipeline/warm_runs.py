"""Dagster's code server, whose runs are forked from a process that has imported everything.

Dagster's own starts an interpreter for each run, which first imports Dagster and this package, more
than 2 s of CPU; a run that is forked has begun after less than 0.1 s. Python's forkserver does
it: a process of its own with one thread, which opens nothing (`run_template`), so that there is
nothing that a fork could tear apart. It is started with the code server, so runs have the code of
that moment.
"""

import atexit
import os
import signal
import tempfile
from collections.abc import Sequence
from multiprocessing import forkserver, util
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from dagster._cli.api import grpc_command
from dagster._grpc import server

from metrics_pipeline.access.garbage_collection import keep_what_is_there
from metrics_pipeline.orchestration.run_launcher import end_with_code_server

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

    def __init__(self, *arguments: Any, **options: Any) -> None:
        context = WarmContext()
        context.set_forkserver_preload([TEMPLATE])
        choose_place_for_socket()
        forkserver.ensure_running()
        super().__init__(*arguments, **options)
        self._mp_ctx = context  # type: ignore[assignment]

    def _check_for_orphaned_runs(self) -> None:
        """Every half second: has it been killed, the next run need not wait for all its imports."""
        forkserver.ensure_running()
        super()._check_for_orphaned_runs()


def serve(arguments: Sequence[str], *, has_runs: bool) -> None:
    """Serve until told to end, as `dagster api grpc` does with these arguments.

    Unless it `has_runs`, nothing is kept to fork them from.
    """
    server.DagsterApiServer = WarmServer if has_runs else LastingServer  # type: ignore[misc]
    grpc_command.main(arguments, prog_name="code-server")
