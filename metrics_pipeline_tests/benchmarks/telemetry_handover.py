"""How late uplinks can be read while Dagster's sensor launches one run after the other.

    python -m metrics_pipeline_tests.benchmarks.telemetry_handover [--handovers N] [--rate R]

The whole stack runs: daemon, code server, webserver, exporter, and a process for each run. The hub
is the emulator in a process of its own, R events a second come all the time, and a run's window is
30 s, so that there are many hand-overs: from a run that ends to the next, which the sensor has to
notice, the queue to let through, and Python to start. Measured from when the hub accepted an event
until another process can read it from the store, which looks every 50 ms.

`handover_p99_s` is of the events that were accepted from one second before the end of a run until
ten seconds after it; `steady_p99_s` of the others. The first run is not counted.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.simulators.event_hub.process import EventHubProcess, event_hub_process
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.telemetry import look, measured_pipeline, p99, send
from metrics_pipeline_tests.ingestion.ingesting import Pipeline
from metrics_pipeline_tests.running_stack import (
    READY,
    RunningStack,
    running_stack,
)

WINDOW_SECONDS = 30
"""More than a run and the hand-over take on a busy machine: who waits longer waits in vain."""
BEFORE_SECONDS, AFTER_SECONDS = 1, 10

ENDED = """{ runsOrError(filter: {pipelineName: "telemetry", statuses: [SUCCESS, FAILURE]}) {
    ... on Runs { results { status endTime } } } }"""


def settings_of(made: Pipeline) -> dict[str, Any]:
    """Telemetry alone."""
    secret = {"file": str(made.connection_string_file)}
    telemetry = {"source": {"connection_string": secret}, "window_seconds": WINDOW_SECONDS}
    return {"version": 1, "sources": {}, "telemetry": telemetry}


def run_ends(stack: RunningStack) -> list[float]:
    """When runs ended, in seconds since the epoch, the first first."""
    runs = stack.ask(ENDED)["runsOrError"]["results"]
    failed = [run for run in runs if run["status"] != "SUCCESS"]
    assert not failed, f"{len(failed)} runs failed"
    return sorted(run["endTime"] for run in runs)


def watch(hub: EventHubProcess, made: Pipeline, folder: Path, handovers: int, rate: int) -> Any:
    """When each event was accepted and how late it could be read; and when runs ended."""
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings_of(made)), encoding="utf-8")
    options = f"PORTS --no-simulator --state-dir {folder} --settings {folder / 'settings.yaml'}"
    command = ["sh", "-c", f"exec {sys.executable} -m metrics_pipeline run {options}"]
    stop, seen = threading.Event(), list[tuple[int, float]]()
    threads = [
        threading.Thread(target=send, args=(hub, rate, stop)),
        threading.Thread(target=look, args=(made, seen, stop)),
    ]
    with running_stack(command, folder, {}) as stack:
        stack.wait_until(lambda: READY in stack.output, "it is ready")
        for thread in threads:
            thread.start()
        try:
            for number in range(1, handovers + 2):
                stack.wait_until(_ended(stack, number), f"run {number} ends")
            # The last hand-over, too, to its end.
            stop.wait(AFTER_SECONDS + BEFORE_SECONDS + WINDOW_SECONDS / 2)
            ends = run_ends(stack)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    return seen, ends[: handovers + 1]


def _ended(stack: RunningStack, number: int) -> Callable[[], bool]:
    return lambda: len(run_ends(stack)) >= number


def measure(handovers: int, rate: int) -> dict[str, Any]:
    """The benchmark's figures."""
    with tempfile.TemporaryDirectory() as name, event_hub_process() as hub:
        folder = Path(name)
        seen, ends = watch(hub, measured_pipeline(hub, folder), folder, handovers, rate)
    first, last = ends[0] - BEFORE_SECONDS, ends[-1] + AFTER_SECONDS
    accepted = [(at / NS_PER_SECOND, late) for at, late in seen]
    counted = [(at, late) for at, late in accepted if first <= at < last]
    at_handover = [late for at, late in counted if _is_near(at, ends)]
    steady = [late for at, late in counted if not _is_near(at, ends)]
    return {
        "rate": rate,
        "handovers": len(ends),
        "steady_p50_s": round(statistics.median(steady), 2),
        "steady_p99_s": round(p99(steady), 2),
        "handover_p50_s": round(statistics.median(at_handover), 2),
        "handover_p99_s": round(p99(at_handover), 2),
        "max_s": round(max(late for _, late in counted), 2),
    }


def _is_near(at: float, ends: Sequence[float]) -> bool:
    return any(end - BEFORE_SECONDS <= at < end + AFTER_SECONDS for end in ends)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--handovers", type=int, default=5, help="from run to run (5)")
    parser.add_argument("--rate", type=int, default=200, help="events a second (200)")
    options = parser.parse_args(arguments)
    figures = measure(options.handovers, options.rate)
    show(figures, options)


if __name__ == "__main__":
    main()
