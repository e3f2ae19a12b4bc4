"""From the moment a simulated device comes or goes until its gauge says so, as in `make run`.

    python -m metrics_pipeline_tests.benchmarks.change_to_gauge [--minutes 10] [--json]

The whole stack runs with the settings that ship. Beside it each device that comes and goes is asked
four times a second, by TCP connect or by SNMP, which tells to a second when it changed. Changes of
the first 90 s, while everything starts, and of the last 60 s are not counted.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE, default_settings_file
from metrics_pipeline.core.devices import Device, Miss
from metrics_pipeline.polling import Question
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.simulators.device_fleet import Behaviour
from metrics_pipeline.sources.inventory import Inventory
from metrics_pipeline.sources.probe_registry import PROBES
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.running_stack import (
    READY,
    RunningStack,
    running_stack,
)

START_SECONDS, END_SECONDS = 90, 60
LOOK_EVERY_SECONDS = 0.25
GAUGE = re.compile(r'^device_up\{device_id="([^"]+)".*\} ([01])\.0$', re.MULTILINE)

Changes = dict[tuple[str, bool], list[float]]
"""When a device came (True) or went, in seconds of the monotonic clock."""


class Watch:
    """What was last seen, and when it changed."""

    def __init__(self) -> None:
        self._seen: dict[str, bool] = {}
        self.changes: Changes = {}

    def see(self, states: Mapping[str, bool], at_seconds: float) -> None:
        """Take how things are now."""
        for device, is_up in states.items():
            if self._seen.get(device, is_up) is not is_up:
                self.changes.setdefault((device, is_up), []).append(at_seconds)
        self._seen |= states


def flapping_devices(settings: Settings) -> list[Device]:
    """Those that come and go, as the inventory has them."""
    inventory = Inventory(settings.source("inventory"))  # type: ignore[arg-type]
    try:
        devices = inventory.read_device_rows().devices(("tcp", "snmp"))
    finally:
        inventory.close()
    return [d for d in devices if d.labels.get("behaviour") == Behaviour.FLAPPING]


async def watch(settings: Settings, stack: RunningStack, seconds: float) -> tuple[Watch, Watch]:
    """What the devices did and what the gauges said for so long."""
    devices, truth, shown = flapping_devices(settings), Watch(), Watch()
    ends = time.monotonic() + seconds
    async with AsyncExitStack() as opened:
        questions = []
        for name in ("tcp", "snmp"):
            section = getattr(settings.polling, name).model_copy(
                update={"timeout_seconds": 0.5, "tries": 1}
            )
            credentials = getattr(section, "credentials", {})
            probe = await opened.enter_async_context(PROBES[name].build(section, credentials))
            asked = [device for device in devices if device.protocol == name]
            questions.append(Question(probe, asked, PROBES[name].cheapest, len(asked)))
        while time.monotonic() < ends:
            began = time.monotonic()
            states = await _ask(questions)
            truth.see(states, began)
            page = await asyncio.to_thread(stack.page)
            gauges = {device: number == "1" for device, number in GAUGE.findall(page)}
            shown.see({d: up for d, up in gauges.items() if d in states}, time.monotonic())
            await asyncio.sleep(max(0.0, LOOK_EVERY_SECONDS + began - time.monotonic()))
    return truth, shown


async def _ask(questions: Sequence[Question]) -> dict[str, bool]:
    pairs = [(each.probe, device, each.metrics) for each in questions for device in each.devices]
    readings = await asyncio.gather(*(probe.poll(device, what) for probe, device, what in pairs))
    return {r.device_id: r.is_up or r.reason is Miss.REFUSED for r in readings}


def delays(truth: Changes, shown: Changes, began: float, ended: float) -> list[float]:
    """Seconds from each change to the gauge's; those that were never shown are missing."""
    found = []
    for key, times in truth.items():
        for at in times:
            if began + START_SECONDS <= at <= ended - END_SECONDS:
                later = [seen for seen in shown.get(key, []) if seen >= at]
                found.append(min(later, default=ended) - at)
    return found


def measure(minutes: float) -> dict[str, Any]:
    """The benchmark's figures."""
    with tempfile.TemporaryDirectory() as folder:
        options = f"PORTS --state-dir {folder} --settings {default_settings_file()}"
        command = ["sh", "-c", f"exec {sys.executable} -m metrics_pipeline run {options}"]
        with running_stack(command, Path.cwd(), {}) as stack:
            stack.wait_until(lambda: READY in stack.output, "it is ready")
            os.environ[STATE_DIR_VARIABLE] = folder
            settings = load_settings(default_settings_file())
            began = time.monotonic()
            truth, shown = asyncio.run(watch(settings, stack, minutes * 60))
            ended = time.monotonic()
    seconds = delays(truth.changes, shown.changes, began, ended)
    return {
        "changes": len(seconds),
        "median_s": round(statistics.median(seconds), 1) if seconds else None,
        "max_s": round(max(seconds), 1) if seconds else None,
    }


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long to watch (10)")
    options = parser.parse_args()
    figures = measure(options.minutes)
    show(figures, options)


if __name__ == "__main__":
    main()
