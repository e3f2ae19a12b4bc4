"""Several processes that do the same at the same moment."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any

WAIT_SECONDS = 60.0

# Neither fork (a test has threads) nor spawn (each process would import everything anew).
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
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
    start = _CONTEXT.Barrier(processes)
    results: SimpleQueue[Any] = _CONTEXT.SimpleQueue()
    started = [
        _CONTEXT.Process(target=_run, args=(work, arguments, start, results))
        for _ in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(WAIT_SECONDS)
        assert process.exitcode == 0, f"a process ended with {process.exitcode}"
    return [results.get() for _ in started]


def _run(
    work: Callable[..., Any], arguments: Any, start: Barrier, results: SimpleQueue[Any]
) -> None:
    start.wait(WAIT_SECONDS)
    try:
        results.put(work(*arguments))
    except Exception as error:  # noqa: BLE001 (the test shows it)
        results.put(f"{type(error).__name__}: {error}")
