"""The gateway's process, which beside its work notes for how long its event loop is held.

    python -m metrics_pipeline_tests.benchmarks.held_loop REPORT

A task wakes each 2 ms. By how much that is late is `late_ms`: what a question over REST would have
waited. `loop_cpu_ms` is the CPU time of the loop's own thread since the wake before, `all_cpu_ms`
that of all threads: where it is late and these are small, it was the machine. `gc_ms` is the CPU
time of each garbage collection, which holds all threads. At each SIGUSR1 the file REPORT becomes
one JSON object with percentiles of what was since the one before.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from metrics_pipeline.cli import main
from metrics_pipeline.gateway import app, serve

WAKE_EVERY_SECONDS = 0.002
WAKES = ("late_ms", "loop_cpu_ms", "all_cpu_ms")
NAMES = (*WAKES, "gc_ms")
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
MS_PER_SECOND = 1000


class Watch:
    """Notes what each wake saw."""

    def __init__(self) -> None:
        self._noted = {name: array("d") for name in NAMES}
        self._collecting_from = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        clocks = (time.perf_counter, time.thread_time, time.process_time)
        while True:
            began = [clock() for clock in clocks]
            await asyncio.sleep(WAKE_EVERY_SECONDS)
            late, loop_cpu, all_cpu = (
                clock() - at for clock, at in zip(clocks, began, strict=True)
            )
            seen = (late - WAKE_EVERY_SECONDS, loop_cpu, all_cpu)
            for name, seconds in zip(WAKES, seen, strict=True):
                self._noted[name].append(seconds * MS_PER_SECOND)

    def note_collection(self, phase: str, _info: dict[str, int]) -> None:
        """What the garbage collector calls before and after its work."""
        if phase == "start":
            self._collecting_from = time.thread_time()
        else:
            spent = time.thread_time() - self._collecting_from
            self._noted["gc_ms"].append(spent * MS_PER_SECOND)

    def report(self, path: Path) -> None:
        """Write percentiles, whole or not at all, and begin anew."""
        noted, self._noted = self._noted, {name: array("d") for name in NAMES}
        part = path.with_suffix(".part")
        part.write_text(json.dumps({name: _spread(sorted(of)) for name, of in noted.items()}))
        part.replace(path)


def _spread(noted: list[float]) -> dict[str, float]:
    last = len(noted) - 1
    if last < 0:
        return dict.fromkeys(SHARES, 0.0)
    return {name: round(noted[round(share * last)], 3) for name, share in SHARES.items()}


class Watched:
    """An application whose lifespan has a watch."""

    def __init__(self, app: ASGIApp, report: Path) -> None:
        self._app = app
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the application; around its lifespan, the watch."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        watch = Watch()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, watch.report, self._report)
        watching = asyncio.create_task(watch.run())
        gc.callbacks.append(watch.note_collection)
        try:
            await self._app(scope, receive, send)
        finally:
            gc.callbacks.remove(watch.note_collection)
            watching.cancel()


def run(report: Path) -> int:
    """The gateway under the settings of the environment; its exit status."""
    build_app = app.build_app

    def build_watched(gateway: Any) -> Any:
        return Watched(build_app(gateway), report)

    vars(serve)["build_app"] = build_watched
    return main(["gateway"])


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
