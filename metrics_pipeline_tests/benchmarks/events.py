"""What events cost: a caller that publishes, and a run that is told of. Goals 20 µs and 2 %.

    python -m metrics_pipeline_tests.benchmarks.events [--json] [--rounds N]

Publishing is the caller's own CPU time, of making the event and handing it over, to a transport
that is there (a file of JSON lines) and to one that is away (a port on which nobody listens). A run
is one of the fleet's counts (three assets, embedded store, SQLite for the latest values), in one
process, in turns with one under settings without a transport. Its CPU time is that of all threads,
so with the thread that sends and counts. Each run of the product is a process, whose start
(importing the definitions) is measured by itself and belongs to the run. The hub is a process of
its own.

| key | |
|---|---|
| `publish_cpu_us` | of the caller, median of the rounds, the transport being there |
| `publish_away_cpu_us` | the same, the transport being away and the queue filling up |
| `run_cpu_ms_with`, `run_cpu_ms_without` | a run, median of the rounds |
| `start_cpu_ms` | of the start of a run's process, median of three, or of fewer rounds |
| `run_overhead_share` | what a run takes more than those beside it, of run and start; median |
| `in_process_share` | the same without the start |
| `redis_import_cpu_ms` | what a run pays beside for the client of Redis, where that is chosen |
| `redis_run_overhead_share` | as `run_overhead_share`, to a Redis on loopback, with that import |
| `noise_share` | by how much two medians of the same run differ: what is below says nothing |
| `alone_cpu_ms`, `alone_share` | all that is done for a run's events by itself, and its share |
"""

from __future__ import annotations

import logging
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.events import RobotMetrics, RunIdentity, metrics_published
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.event_publishing import open_publisher
from metrics_pipeline.events.json_lines import JsonLines
from metrics_pipeline.events.publisher import THREAD_NAME, EventPublisher
from metrics_pipeline.events.redis_stream import RedisStream
from metrics_pipeline.events.settings import (
    EventsSettings,
    JsonLinesSettings,
    RedisStreamSettings,
)
from metrics_pipeline.orchestration.run_events import RunStory
from metrics_pipeline.settings import Settings
from metrics_pipeline.stack.ports import find_free_port
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.instrumentation import hub_process
from metrics_pipeline_tests.benchmarks.instrumentation import make_settings as fleet_settings
from metrics_pipeline_tests.redis_server import RedisServer

EVENTS_A_ROUND = 1000
US_PER_SECOND = 1e6
MS_PER_SECOND = 1e3
METRICS = RobotMetrics(
    cpu_usage=12.5, memory_usage=40.0, network_latency_ms=7.0, battery_percentage=81.0
)

STARTING = """
from time import process_time
import metrics_pipeline.definitions
start = process_time()
import metrics_pipeline.events.redis_stream
print(start, process_time() - start)
"""

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}

Run = Callable[[], object]


def publish_cpu_us(publisher: EventPublisher) -> float:
    """Of one event, in this thread."""
    began = time.thread_time()
    for number in range(EVENTS_A_ROUND):
        event = metrics_published(f"robot-{number}", metrics=METRICS, published_at=time.time())
        publisher.publish(event)
    return (time.thread_time() - began) / EVENTS_A_ROUND * US_PER_SECOND


def measure_publishing(folder: Path, rounds: int) -> dict[str, Any]:
    """To a transport that is there, and to one that is away, in turns."""
    file = JsonLinesSettings(kind="json_lines", path=folder / "published.jsonl")
    (folder / "url").write_text(f"redis://127.0.0.1:{find_free_port()}/0")
    nobody = RedisStreamSettings(kind="redis_stream", url=SecretReference(file=folder / "url"))
    there = EventPublisher(lambda: JsonLines(file), queue_events=EVENTS_A_ROUND * rounds)
    away = EventPublisher(lambda: RedisStream(nobody))
    spent = [(publish_cpu_us(there), publish_cpu_us(away)) for _ in range(rounds)]
    there.close(timeout_seconds=60)
    away.close(timeout_seconds=0.1)
    assert there.published == EVENTS_A_ROUND * rounds
    median_there, median_away = map(statistics.median, zip(*spent, strict=True))
    return {
        "publish_cpu_us": round(median_there, 2),
        "publish_away_cpu_us": round(median_away, 2),
    }


def to_redis(opened: ExitStack) -> RedisStreamSettings:
    """A stream of a server that runs until `opened` is closed."""
    folder = Path(opened.enter_context(TemporaryDirectory()))
    server = RedisServer(folder).start()
    opened.callback(server.stop)
    (folder / "url").write_text(server.url)
    return RedisStreamSettings(kind="redis_stream", url=SecretReference(file=folder / "url"))


def make_run(settings: Settings, instance: dg.DagsterInstance) -> Run:
    """One run of the job through its executor, which has to succeed."""
    job = build_definitions(settings).resolve_job_def(JOB)

    def run() -> None:
        created = instance.create_run_for_job(job, run_config=QUIET)
        execute_run(InMemoryJob(job), created, instance, raise_on_error=True)
        wait_for_sending()

    return run


def make_alone(settings: Settings, run_id: str) -> Run:
    """All that is done for the events of a run, without the run."""

    def alone() -> None:
        run = RunIdentity(run_id, time.time())
        with RunStory(open_publisher(settings), JOB, run, lambda: None):
            pass
        wait_for_sending()

    return alone


def wait_for_sending() -> None:
    """Until nothing is left to be sent and counted: it belongs to the run before."""
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join()


def start_cpu_ms(starts: int) -> tuple[float, float]:
    """Of a run's process, and of importing the client of Redis into it; medians of so many.

    All is compiled before, as an installation does it.
    """
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", STARTING]
    spent = []
    for _ in range(1 + starts):
        said = subprocess.run(command, check=True, capture_output=True, env=environment).stdout
        spent.append([float(each) * MS_PER_SECOND for each in said.split()])
    start, client = map(statistics.median, zip(*spent[1:], strict=True))
    return start, client


def cpu_ms(run: Run) -> float:
    """Of all threads of this process."""
    began = time.process_time()
    run()
    return (time.process_time() - began) * MS_PER_SECOND


def measure_runs(folder: Path, rounds: int) -> dict[str, Any]:
    """With events and without, in turns; each by itself once before, as the first is slower."""
    with ExitStack() as opened:
        bare = fleet_settings(folder, opened.enter_context(hub_process()))
        file = JsonLinesSettings(kind="json_lines", path=folder / "events.jsonl")
        told = bare.model_copy(update={"events": EventsSettings(transport=file)})
        stream = bare.model_copy(update={"events": EventsSettings(transport=to_redis(opened))})
        instance = opened.enter_context(dg.DagsterInstance.ephemeral())
        without, with_events = make_run(bare, instance), make_run(told, instance)
        with_redis = make_run(stream, instance)
        turns = (without, with_events, without, with_redis, without, make_alone(told, "a run"))
        for run in turns:
            run()
        spent = [[cpu_ms(run) for run in turns] for _ in range(rounds)]
    before, between, after, _, last, alone = zip(*spent, strict=True)
    bare_ms = statistics.median([*before, *after, *last])
    more_ms = statistics.median([b - (a + c) / 2 for a, b, c, *_ in spent])
    redis_more_ms = statistics.median([b - (a + c) / 2 for _, _, a, b, c, _ in spent])
    start_ms, import_ms = start_cpu_ms(min(rounds, 3))
    return {
        "run_cpu_ms_with": round(statistics.median(between), 2),
        "run_cpu_ms_without": round(bare_ms, 2),
        "start_cpu_ms": round(start_ms, 1),
        "run_overhead_share": round(more_ms / (bare_ms + start_ms), 4),
        "in_process_share": round(more_ms / bare_ms, 4),
        "redis_import_cpu_ms": round(import_ms, 1),
        "redis_run_overhead_share": round((redis_more_ms + import_ms) / (bare_ms + start_ms), 4),
        "noise_share": round(abs(statistics.median(before) / statistics.median(after) - 1), 4),
        "alone_cpu_ms": round(statistics.median(alone), 2),
        "alone_share": round(statistics.median(alone) / bare_ms, 4),
    }


def measure(rounds: int) -> dict[str, Any]:
    """The figures."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "rounds": rounds,
            **measure_publishing(folder, rounds),
            **measure_runs(folder, rounds),
        }


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """They tell of errors alone, and afterwards what they told before."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=31, help="rounds to take the median of (31)")
    options = parser.parse_args(arguments)
    with quiet("dagster", "metrics_pipeline"):
        figures = measure(options.rounds)
    show(figures, options)


if __name__ == "__main__":
    main()
