"""Dagster's daemon, which begins anew when the clock is set back.

Its threads wait for times of the clock, and keep them in memory: set back by an hour, the queue,
run monitoring and the schedules would stand still for that hour, whatever is in the database. So
all of them are ended, what was noted of the future is brought back, and they are started again.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click
import dagster as dg
from dagster._daemon import controller
from dagster._daemon.cli import run_command

from metrics_pipeline.access.garbage_collection import keep_what_is_there
from metrics_pipeline.orchestration.prompt_queue import look_promptly
from metrics_pipeline.orchestration.set_back_clock import LEAST_AHEAD_SECONDS, forget_the_future

LOG = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

RELOAD_SECONDS = 240
"""Between two times that the daemon loads all code locations anew, 0.8 s of CPU each.

A code server that was started anew is noticed at once, by its id. Dagster's own is 60 s; beyond 300
s its daemon gives up, so a reload that fails has a minute to be tried again.
"""


def run_daemon(workspace: Path) -> None:
    """Until it is told to end; `workspace` is Dagster's workspace file."""
    look_promptly()
    keep_what_is_there()
    controller.RELOAD_WORKSPACE_INTERVAL = RELOAD_SECONDS
    is_set_back = threading.Event()
    is_set_back.set()
    while is_set_back.is_set():
        is_set_back.clear()
        with dg.DagsterInstance.get() as instance:
            forget_the_future(instance, time.time())
        threading.Thread(
            target=_watch, args=(is_set_back,), name="watch clock", daemon=True
        ).start()
        with suppress(KeyboardInterrupt, click.Abort):
            run_command.main(["--workspace", str(workspace)], standalone_mode=False)


def _watch(is_set_back: threading.Event) -> None:
    """As Ctrl-C would, it has the main thread end Dagster's."""
    seconds = await_set_back()
    LOG.warning("The clock was set back by %.0f s: the daemon begins anew.", seconds)
    is_set_back.set()
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGINT)


def await_set_back(
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
    passed: Callable[[], float] = time.monotonic,
) -> float:
    """By how many seconds the clock was set back; slewing, and what is little, is waited for."""
    ahead = clock() - passed()
    while True:
        wait(LOOK_SECONDS)
        before, ahead = ahead, clock() - passed()
        if before - ahead >= LEAST_AHEAD_SECONDS:
            return before - ahead
