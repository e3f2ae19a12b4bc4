"""From the moment a count is due until its gauge has changed, with the whole stack running.

    python -m metrics_pipeline_tests.benchmarks.due_to_gauge --cycles 5 [--json]

Each cycle is a minute. Nearly all of it is Dagster: the tick, the queue, the start of a process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from metrics_pipeline_tests.orchestration.pipeline import FLEET
from metrics_pipeline_tests.stack.story import Story, minutely_stack

GAUGE = "iot_hub_portal_device_count"
CYCLE_SECONDS = 60
LOOK_EVERY_SECONDS = 0.05


def measure_cycle(story: Story, count: int) -> float:
    """Seconds from the next full minute until the gauge shows `count`."""
    due = (time.time() // CYCLE_SECONDS + 1) * CYCLE_SECONDS
    while time.time() < due - 1:
        time.sleep(LOOK_EVERY_SECONDS)
    story.fleet.put(replace(FLEET, devices=FLEET.devices[:count]))
    while story.stack.gauge(GAUGE) != count:
        time.sleep(LOOK_EVERY_SECONDS)
    return time.time() - due


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        minutely_stack(Path(name), request_timeout_seconds=10) as story,
    ):
        seconds = []
        for cycle in range(options.cycles):
            seconds.append(measure_cycle(story, 14 - cycle % 14))
            print(f"cycle {cycle + 1} of {options.cycles}: {seconds[-1]:.1f} s", flush=True)
    figures = {
        "cycles": options.cycles,
        "median_s": round(statistics.median(seconds), 2),
        "max_s": round(max(seconds), 2),
    }
    print(json.dumps(figures) if options.json else figures)


if __name__ == "__main__":
    main()
