"""What the spool costs: points kept and stored again, beside the direct write to the same store.

    python -m metrics_pipeline_tests.benchmarks.spool [--json] [--points N] [--rounds N]

The store is the embedded one. Points are kept 5,000 at once, as a sweep hands them in, each write
synced to the disk; `sample_*` is one point at a time, as a sample. CPU is of this process.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.points import Point
from metrics_pipeline.storage.embedded import EmbeddedStoreSettings
from metrics_pipeline.storage.open import open_store, open_writer
from metrics_pipeline.storage.spool import Spool, SpoolSettings, size_of
from metrics_pipeline.storage.spool_replay import Drain
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.line_protocol import make_points

BATCH_POINTS = 5000
SAMPLES = 200
MAX_BYTES = 2_000_000_000

Took = tuple[float, float]
"""Seconds, and seconds of CPU."""


def took(work: Callable[[], None]) -> Took:
    """What `work` takes."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def measure_once(points: Sequence[Point], folder: Path) -> dict[str, Took]:
    """One round, in a folder of its own."""
    store = EmbeddedStoreSettings(path=folder / "points.sqlite")
    operational = DatabaseSettings(url=f"sqlite:///{folder}/operational.sqlite")
    batches = [points[at : at + BATCH_POINTS] for at in range(0, len(points), BATCH_POINTS)]
    spool = Spool(SpoolSettings(directory=folder / "spool", max_bytes=MAX_BYTES))

    def keep(some: Sequence[Sequence[Point]]) -> None:
        for batch in some:
            spool.append(batch)

    with (
        closing(open_writer(store, operational, CATALOG)) as writer,
        closing(open_store(store, CATALOG)) as direct,
    ):

        def write(shift_ns: int) -> None:
            for batch in batches:
                direct.write([replace(p, time_ns=p.time_ns + shift_ns) for p in batch])

        write(-(10**12))  # the file and its series are there
        figures = {
            "direct": took(lambda: write(-(2 * 10**12))),
            "kept": took(lambda: keep(batches)),
        }
        size = size_of(spool.directory)
        figures["replayed"] = took(lambda: Drain(spool, writer, threading.Event()).run())
    assert spool.is_empty()
    figures["sample"] = took(lambda: keep([[point] for point in points[:SAMPLES]]))
    sample_size = size_of(spool.directory)
    return figures | {"bytes": (size, sample_size)}


def measure(count: int, rounds: int) -> dict[str, Any]:
    """Medians: points a second, microseconds of CPU a point, bytes a point, ms of a sample."""
    points = make_points(count)
    found: list[dict[str, Took]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure_once(points, Path(folder)))

    def median(what: str, which: int) -> float:
        return statistics.median(each[what][which] for each in found)

    rates = {
        f"{w}_points_per_second": round(count / median(w, 0))
        for w in ("direct", "kept", "replayed")
    }
    cpu = {
        f"{w}_cpu_us_per_point": round(median(w, 1) / count * 1e6, 2)
        for w in ("direct", "kept", "replayed")
    }
    return {
        "points": count,
        "rounds": rounds,
        **rates,
        **cpu,
        "bytes_per_point": round(median("bytes", 0) / count, 1),
        "sample_ms": round(median("sample", 0) / SAMPLES * 1e3, 2),
        "sample_bytes": round(median("bytes", 1) / SAMPLES, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--points", type=int, default=100_000, help="points in a round (100000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of (5)")
    options = parser.parse_args(arguments)
    figures = measure(options.points, options.rounds)
    show(figures, options)


if __name__ == "__main__":
    main()
