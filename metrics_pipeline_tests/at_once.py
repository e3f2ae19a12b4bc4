"""Several processes that do the same at the same moment, and one that is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any

from metrics_pipeline_tests.patience import PATIENCE_SECONDS

# Neither fork (a test has threads) nor spawn (each process would import everything anew).
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "metrics_pipeline.gateway.serve",
        "metrics_pipeline.settings_file",
        "metrics_pipeline.storage.open",
        "metrics_pipeline_tests.storage.operational_databases",
        "hypothesis",
        "pytest",
        "sqlalchemy.dialects.postgresql.psycopg2",
        "psycopg2",
        __name__,
    ]
)


def at_once(work: Callable[..., Any], *arguments: Any, processes: int = 6) -> list[Any]:
    """What `work(*arguments)` returns, or the text of its error, in each of `processes`.

    `work` is a function of a module. All begin when the last one is ready.
    """
    start = CONTEXT.Barrier(processes)
    results: SimpleQueue[Any] = CONTEXT.SimpleQueue()
    started = [
        CONTEXT.Process(target=_run, args=(work, arguments, start, results))
        for _ in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == 0, f"a process ended with {process.exitcode}"
    return [results.get() for _ in started]


def last_word_of_the_killed(
    work: Callable[..., Any], *arguments: Any, after_seconds: float = 0.05
) -> Any:
    """The last that `work(*arguments, tell)` told before it was killed with SIGKILL.

    `work` is a function of a module that never ends, and calls `tell` with each thing it has done;
    `after_seconds` count from the first of them.
    """
    told, teller = CONTEXT.Pipe(duplex=False)
    victim = CONTEXT.Process(target=_tell, args=(work, arguments, teller))
    victim.start()
    teller.close()
    with told:
        last = told.recv()
        assert victim.pid is not None
        timer = threading.Timer(after_seconds, os.kill, (victim.pid, signal.SIGKILL))
        timer.start()
        try:
            while True:
                last = told.recv()
        except EOFError:
            pass
    timer.join()
    victim.join(PATIENCE_SECONDS)
    return last


def _tell(work: Callable[..., Any], arguments: Any, teller: Connection) -> None:
    work(*arguments, teller.send)


def _run(
    work: Callable[..., Any], arguments: Any, start: Barrier, results: SimpleQueue[Any]
) -> None:
    start.wait(PATIENCE_SECONDS)
    try:
        results.put(work(*arguments))
    except Exception as error:  # noqa: BLE001 (the test shows it)
        results.put(f"{type(error).__name__}: {error}")
