"""Uplinks from an event hub into the embedded store: how many a second, and how late.

    python -m metrics_pipeline_tests.benchmarks.telemetry [--events N] [--rate R] [--json]

The hub is the emulator, in a process of its own, with its log filled before. All is done that a run
does but Dagster: receiving over TCP, decoding, validating, storing, dead letters, checkpoints, the
latest values. An uplink has all fields of the contract and is stored with 20; 4,000 devices send in
turn over four partitions.

Draining: the process that ingests may use one core (where the system lets it be told so), and
`cpu_us_per_event` is its CPU time, imports and the start not counted. `rss_mb` is its most,
`rss_mb_at_half` what that was when half was done. Then every stored uplink is counted: `lost` and
`duplicated`.

Latency: R events a second for a minute, in two processes one after the other; the second starts
when the first has ended, as a run does after its window. Measured from when the hub accepted an
event until another process can read it from the store, which looks every 50 ms.
`p99_latency_s` is of the first process's steady state, `handover_p99_latency_s` of what came from
one second before its end until the second had caught up.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from metrics_pipeline.core.lorawan import Rules
from metrics_pipeline.core.telemetry import BatchLimits
from metrics_pipeline.ingestion import IngestionReport
from metrics_pipeline.simulators.event_hub.process import EventHubProcess, event_hub_process
from metrics_pipeline.storage.embedded import EmbeddedStoreSettings
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.ingestion.ingesting import Pipeline, events, pipeline

PARTITIONS = 4
LOOK_SECONDS = 0.05
LATEST_SECONDS = 20  # looked at again each time: nothing is later than that
SEND_SECONDS = 0.1
WINDOW_SECONDS = 30
STEADY_AFTER_SECONDS = 5
LIMIT_SECONDS = 3000.0
NS_PER_SECOND = 1_000_000_000

DEVICE_ID = "A840{partition:04X}0000$device"
BODY = json.dumps(
    {
        "time": "2026-11-21T14:00:00.123Z",
        "tmms": 1_416_000_000_000,
        "freq": 868.3,
        "chan": 2,
        "rfch": 1,
        "modu": "LORA",
        "datr": "SF7BW125",
        "rssi": -57.0,
        "lsnr": 9.2,
        "data": {"temperature": 21.5, "humidity": 48, "battery": {"mv": 3312, "low": False}},
        "port": 5,
        "fcnt": "NUMBER",
        "edgets": 1_760_000_000_000,
        "rawdata": "AQIDBAUGBwg=",
        "eui": "EUI",
        "gatewayid": "gw-01",
        "stationeui": "0016c001f153a14c",
        "dupmsg": False,
    }
)
ANNOTATIONS = {
    "iothub-connection-device-id": "gw-01",
    "iothub-connection-auth-method": '{"scope":"device","type":"sas","issuer":"iothub"}',
    "iothub-enqueuedtime": 1_760_000_000_000,
    "iothub-message-source": "Telemetry",
}

UPLINKS = "measurement_id = (SELECT id FROM measurement WHERE name = 'lorawan_uplink')"
FIND_NEW = f"SELECT series_id, time_ns FROM point WHERE {UPLINKS} AND time_ns > ?"
COUNT = f"""
SELECT count(*), count(DISTINCT series_id || ' ' || json_extract(fields, '$."' || (
    SELECT id FROM field WHERE {UPLINKS} AND name = 'frame_counter'
) || '"'))
FROM point WHERE {UPLINKS}
"""


def uplink(partition: int, number: str) -> str:
    """A body as the hub's command `append` takes it; `number` is the frame counter."""
    eui = DEVICE_ID.format(partition=partition)
    return BODY.replace('"NUMBER"', number).replace("EUI", eui)


def measured_pipeline(hub: EventHubProcess, folder: Path) -> Pipeline:
    """As by the default settings."""
    return pipeline(hub, folder, limits=BatchLimits(), rules=Rules())


# --- in the process that ingests ------------------------------------------------------------------


def drain(made: Pipeline, count: int, answer: Connection) -> None:
    """Ingest `count` events on one core, and tell what it took."""
    with contextlib.suppress(AttributeError, OSError):  # Linux alone, and not every container
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    at_half: list[int] = []

    def is_done(report: IngestionReport) -> bool:
        if events(report) >= count / 2 and not at_half:
            at_half.append(most_memory_mb())
        return events(report) >= count

    began, cpu = time.monotonic(), time.process_time()
    report = made.run(is_done, window_seconds=LIMIT_SECONDS)
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu
    answer.send(
        {
            "events_per_second": round(events(report) / seconds),
            "cpu_us_per_event": round(cpu_seconds / events(report) * 1e6, 1),
            "rss_mb": most_memory_mb(),
            "rss_mb_at_half": at_half[0],
        }
    )


def most_memory_mb() -> int:
    """The most this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def read_on(made: Pipeline, seconds: float) -> None:
    """One run."""
    made.run(window_seconds=seconds)


# --- here -----------------------------------------------------------------------------------------


def measure_drain(count: int) -> dict[str, Any]:
    """How fast a backlog of `count` events goes, and whether all of it is there."""
    sent = count // PARTITIONS * PARTITIONS
    with tempfile.TemporaryDirectory() as folder, event_hub_process() as hub:
        for partition in range(PARTITIONS):
            body = uplink(partition, "$n")
            hub.do(
                "append",
                partition=str(partition),
                body=body,
                times=count // PARTITIONS,
                annotations=ANNOTATIONS,
            )
        made = measured_pipeline(hub, Path(folder))
        context = multiprocessing.get_context("spawn")
        told, answer = context.Pipe(duplex=False)
        process = context.Process(
            target=drain, args=(made, count // PARTITIONS * PARTITIONS, answer)
        )
        process.start()
        figures: dict[str, Any] = told.recv()
        process.join()
        points, distinct = _count(made)
    return {"events": sent, **figures, "lost": sent - distinct, "duplicated": points - distinct}


def measure_latency(rate: int) -> dict[str, Any]:
    """How late `rate` events a second can be read, and across the hand-over to another process."""
    with tempfile.TemporaryDirectory() as folder, event_hub_process() as hub:
        made = measured_pipeline(hub, Path(folder))
        context = multiprocessing.get_context("spawn")
        stop = threading.Event()
        seen: list[tuple[int, float]] = []
        threads = [
            threading.Thread(target=send, args=(hub, rate, stop)),
            threading.Thread(target=look, args=(made, seen, stop)),
        ]
        ends = []
        for number in range(2):
            process = context.Process(target=read_on, args=(made, WINDOW_SECONDS))
            process.start()
            if not number:
                began_ns = time.time_ns()
                for thread in threads:
                    thread.start()
            process.join()
            ends.append(time.time_ns())
        stop.set()
        for thread in threads:
            thread.join()
    steady_ns = began_ns + STEADY_AFTER_SECONDS * NS_PER_SECOND
    handover_ns = ends[0] - NS_PER_SECOND
    steady = [late for at, late in seen if steady_ns <= at < handover_ns]
    handover = [late for at, late in seen if handover_ns <= at < ends[0] + 5 * NS_PER_SECOND]
    return {
        "rate": rate,
        "p50_latency_s": round(statistics.median(steady), 2),
        "p99_latency_s": round(p99(steady), 2),
        "handover_p99_latency_s": round(p99(handover), 2),
    }


def p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def send(hub: EventHubProcess, rate: int, stop: threading.Event) -> None:
    """`rate` events a second, in turn over the partitions."""
    each = max(1, round(rate * SEND_SECONDS / PARTITIONS))
    due, number = time.monotonic(), 0
    while not stop.wait(max(0.0, due - time.monotonic())):
        due += SEND_SECONDS
        for partition in range(PARTITIONS):
            number += 1
            hub.do(
                "append",
                partition=str(partition),
                body=uplink(partition, str(number)),
                times=each,
                annotations=ANNOTATIONS,
            )


def look(made: Pipeline, seen: list[tuple[int, float]], stop: threading.Event) -> None:
    """Note when each event was accepted and how many seconds later it can be read."""
    assert isinstance(made.store, EmbeddedStoreSettings)
    known: set[tuple[int, int]] = set()
    while not stop.wait(LOOK_SECONDS):
        if not made.store.path.exists():
            continue
        since_ns = time.time_ns() - LATEST_SECONDS * NS_PER_SECOND
        with contextlib.closing(sqlite3.connect(made.store.path)) as store:
            found = set(store.execute(FIND_NEW, (since_ns,)).fetchall()) - known
        now_ns = time.time_ns()
        seen.extend((at, (now_ns - at) / NS_PER_SECOND) for _, at in found)
        known |= found


def _count(made: Pipeline) -> tuple[int, int]:
    assert isinstance(made.store, EmbeddedStoreSettings)
    with contextlib.closing(sqlite3.connect(made.store.path)) as store:
        points, distinct = store.execute(COUNT).fetchone()
    return points, distinct


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="the backlog (1000000)")
    parser.add_argument("--rate", type=int, default=200, help="events a second (200); 0: skip it")
    options = parser.parse_args(arguments)
    figures = measure_drain(options.events)
    if options.rate:
        figures |= measure_latency(options.rate)
    show(figures, options)


if __name__ == "__main__":
    main()
