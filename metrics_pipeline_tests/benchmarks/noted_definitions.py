"""What Dagster loads in a stack that is measured: the product's, with a note of each reading.

A note is a line of JSON: source, slot, when it was asked, how long that took, the measurements of
its points, and the CPU that each thread of the sampling has used by then.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import dagster as dg

from metrics_pipeline.core.ports import Reading, SampledSource
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.platform_sources import find_sampled
from metrics_pipeline.sampling import Sampled
from metrics_pipeline.settings_file import load_settings

NOTES_VARIABLE = "METRICS_PIPELINE_TESTS_NOTES"
"""The file."""


class Noted:
    """A source, each reading of which leaves a note."""

    def __init__(self, sampled: Sampled, file: Path) -> None:
        self._source: SampledSource = sampled.build()
        self._file = file

    @property
    def name(self) -> str:
        return self._source.name

    def read(self, time_ns: int) -> Reading:
        asked_ns = time.time_ns()
        began = time.monotonic()
        with self._noting(time_ns, asked_ns, began) as measurements:
            reading = self._source.read(time_ns)
            measurements.update(point.measurement for point in reading.points)
        return reading

    def close(self) -> None:
        self._source.close()

    @contextmanager
    def _noting(self, slot_ns: int, asked_ns: int, began: float) -> Iterator[set[str]]:
        measurements: set[str] = set()
        try:
            yield measurements
        finally:
            note = {
                "source": self.name,
                "slot_ns": slot_ns,
                "asked_ns": asked_ns,
                "took_seconds": time.monotonic() - began,
                "measurements": sorted(measurements),
                "threads": _thread_seconds(),
            }
            with self._file.open("a") as notes:  # one write, so that threads do not mix lines
                notes.write(json.dumps(note) + "\n")


def _thread_seconds() -> Mapping[str, float]:
    """CPU of each thread of the sampling, by name and id: proc(5), `schedstat`."""
    spent = {}
    for thread in threading.enumerate():
        if "sample" in thread.name and thread.native_id is not None:
            file = Path(f"/proc/self/task/{thread.native_id}/schedstat")
            nanoseconds = int(file.read_text().split()[0])
            spent[f"{thread.name} {thread.native_id}"] = nanoseconds / NS_PER_SECOND
    return spent


@dg.definitions
def defs() -> dg.Definitions:
    """Under the settings of this environment."""
    settings = load_settings()
    file = Path(os.environ[NOTES_VARIABLE])
    sampled = [replace(each, build=partial(Noted, each, file)) for each in find_sampled(settings)]
    return build_definitions(settings, sampled)
