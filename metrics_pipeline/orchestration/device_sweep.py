"""One sweep inside a run: polled, stored as it goes, and packed for the page. Memory stays flat."""

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import SystemRandom

from metrics_pipeline.core.device_points import outcome_of
from metrics_pipeline.core.devices import DeviceReading
from metrics_pipeline.core.points import Point
from metrics_pipeline.polling import Question, sweep, tell_progress
from metrics_pipeline.storage.snapshots import Packing
from metrics_pipeline.storage.writer import Writer

BATCH_POINTS = 5000
"""Points that are handed to the store at once."""
ANSWERED = ("complete", "partial")
"""Outcomes of devices that gave a value, or that have none."""
MAX_EXAMPLES = 10
"""Slowest devices, and failures, that are kept to be shown."""


@dataclass(slots=True)
class Summary:
    """What the sweeps of a run found: of each device the last outcome, of the rest what is told."""

    outcomes: dict[str, str] = field(default_factory=dict)
    """By device id."""
    silent: set[str] = field(default_factory=set)
    """Ids of devices that did not answer last."""
    failures: dict[str, DeviceReading] = field(default_factory=dict)
    """Some that gave nothing last, by id."""
    stored: int = 0
    spooled: int = 0
    """Points that wait on the disk for the time-series store."""
    rejected: Counter[str] = field(default_factory=Counter)
    _slowest: list[tuple[float, str, DeviceReading]] = field(default_factory=list)

    def count(self, reading: DeviceReading) -> None:
        """Count one more reading; what was known of the device before is past."""
        device, outcome = reading.device_id, outcome_of(reading)
        self.outcomes[device] = outcome
        (self.silent.discard if reading.is_up else self.silent.add)(device)
        self.failures.pop(device, None)
        failed = reading.reason is not None or outcome not in ANSWERED
        if failed and len(self.failures) < MAX_EXAMPLES:
            self.failures[device] = reading
        keep = heapq.heappush if len(self._slowest) < MAX_EXAMPLES else heapq.heappushpop
        keep(self._slowest, (reading.took_seconds, device, reading))

    @property
    def slowest(self) -> list[DeviceReading]:
        """The readings that took longest, the slowest first; each device once."""
        ordered = sorted(self._slowest, key=lambda each: -each[0])
        return list({device: reading for _, device, reading in ordered[::-1]}.values())[::-1]


@dataclass(slots=True, repr=False)  # `asyncio.run` asks for the text of what it returns
class Swept:
    """What one sweep brought."""

    packing: Packing = field(default_factory=Packing)
    """The points that were stored; those that stay as they were come behind them."""
    answered: int = 0
    seconds: float = 0.0
    """From the first question to the last point that was stored."""


async def sweep_and_store(
    questions: Sequence[Question],
    budget_seconds: float,
    points_of: Callable[[DeviceReading], Sequence[Point]],
    writer: Writer,
    *,
    say: Callable[[str], None],
    summary: Summary,
) -> Swept:
    """Poll all devices of all `questions` at once; store their points while the polls go on."""
    swept, began = Swept(), time.monotonic()
    tell = tell_progress(sum(len(question.devices) for question in questions), say)
    waiting: list[Point] = []
    async with AsyncExitStack() as opened:
        for question in questions:
            await opened.enter_async_context(question.probe)
        async for reading in sweep(questions, budget_seconds, SystemRandom()):
            tell(reading)
            summary.count(reading)
            swept.answered += reading.is_up
            waiting += points_of(reading)
            if len(waiting) >= BATCH_POINTS:
                batch, waiting = waiting, []
                await _store(batch, writer, swept, summary)
        if waiting:
            await _store(waiting, writer, swept, summary)
    swept.seconds = time.monotonic() - began
    return swept


async def _store(points: Sequence[Point], writer: Writer, swept: Swept, summary: Summary) -> None:
    part = await asyncio.to_thread(writer.append, points)
    summary.stored += part.written.total()
    summary.spooled += part.spooled.total()
    summary.rejected += part.rejected
    swept.packing.add(part.kept)
