"""xdist's workers as forks of its main process, once that has imported the tests.

Each worker imported all of them otherwise, and most of what there is in `.venv` with them.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from inspect import signature
from itertools import pairwise
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import IO, Any, NoReturn

import execnet
import pytest
from execnet import gateway_io
from execnet.gateway_base import Popen2IO

TESTS = Path(__file__).parent


class Forked(Popen2IO):
    """What execnet knows of a worker: its pipes, and its process."""

    def __init__(self, pid: int, to_it: IO[bytes], from_it: IO[bytes], execmodel: Any) -> None:
        super().__init__(to_it, from_it, execmodel)
        self.pid = pid

    def wait(self) -> int | None:
        """Until it has ended; its exit status, unless that was asked for before."""
        with suppress(ChildProcessError):
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return None

    def kill(self) -> None:
        """At once."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def fork_workers(config: pytest.Config, specs: Sequence[execnet.XSpec]) -> None:
    """Have a fork ready for each of `specs`, where all tests are run.

    Now, as there are no threads yet. One that takes the place of a worker that died is a new
    interpreter, as everywhere else.
    """
    is_all = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if sys.platform != "linux" or not is_all or not all(spec.popen for spec in specs):
        return
    import_tests()
    assert threading.enumerate() == [threading.main_thread()]
    gc.freeze()
    pipes = [(os.pipe(), os.pipe()) for _ in specs]
    pids = [fork(pipes, place) for place in range(len(specs))]
    waiting = []
    for pid, ((theirs, to_it), (from_it, their_end)) in zip(pids, pipes, strict=True):
        os.close(theirs)
        os.close(their_end)
        waiting.append((pid, os.fdopen(to_it, "wb"), os.fdopen(from_it, "rb")))
    start = gateway_io.create_io

    def create_io(spec: execnet.XSpec, execmodel: Any) -> Any:
        return Forked(*waiting.pop(0), execmodel) if waiting else start(spec, execmodel)

    gateway_io.create_io = create_io


def import_tests() -> None:
    """As strictly as pytest does: what warns while it is imported fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file in sorted(TESTS.rglob("test_*.py")):
            name = file.relative_to(TESTS.parent).with_suffix("")
            importlib.import_module(".".join(name.parts))


def fork(pipes: Sequence[tuple[tuple[int, int], tuple[int, int]]], place: int) -> int:
    """The process id of a worker that talks over the pipes at `place`."""
    pid = os.fork()
    if pid == 0:
        serve(pipes, place)
    return pid


def serve(pipes: Sequence[tuple[tuple[int, int], tuple[int, int]]], place: int) -> NoReturn:
    """Be the worker. It must not return into the pytest that it is a copy of.

    It keeps no other end of any pipe, or who waits for the end of one would not see it.
    """
    status = 1
    try:
        (theirs, _), (_, their_end) = pipes[place]
        os.dup2(theirs, sys.__stdin__.fileno())  # type: ignore[union-attr]
        os.dup2(their_end, sys.__stdout__.fileno())  # type: ignore[union-attr]
        for end in (end for pair in pipes for pipe in pair for end in pipe):
            os.close(end)
        sys.stdin = os.fdopen(0, "r", 1, closefd=False)
        sys.stdout = os.fdopen(1, "w", 1, closefd=False)
        logging.getLogger().handlers.clear()  # of the main process, while it starts
        fork_fork_server()
        exec(eval(sys.stdin.readline()), {"__name__": "__main__"})
        atexit._run_exitfuncs()
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def fork_fork_server() -> None:
    """Have multiprocessing's fork server be a fork, too, to which nothing is left to import.

    Only now has this process no threads. Newer Pythons hand a key to it, in a way of their own:
    there it is an interpreter, as everywhere else.
    """
    if "authkey_r" in signature(forkserver.main).parameters:
        return
    resource_tracker.ensure_running()
    start = util.spawnv_passfds

    def fork_it(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
        pid = os.fork()
        if pid == 0:
            be_fork_server(*passfds)
        return pid

    util.spawnv_passfds = fork_it
    try:
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = start


def be_fork_server(listener: int, alive: int) -> NoReturn:
    """As an interpreter that was started for it: nothing else is open, and nothing is pytest's."""
    try:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        kept = (2, *sorted((listener, alive)), os.sysconf("SC_OPEN_MAX"))
        for before, after in pairwise(kept):
            os.closerange(before + 1, after)
        warnings.resetwarnings()
        for quiet in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", quiet)
        gc.enable()
        forkserver._forkserver.__init__()  # type: ignore[misc] # its lock is held
        forkserver.main(listener, alive, [])
    finally:
        # As SystemExit it says that nobody is there any more who could ask.
        if not isinstance(sys.exception(), SystemExit):
            traceback.print_exc()
        os._exit(0)
