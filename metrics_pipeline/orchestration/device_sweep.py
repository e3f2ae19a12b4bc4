"""One sweep inside a run: polled, stored as it goes, and packed for the page. Memory stays flat."""

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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
MAX_EXAMPLES = 20
"""Slowest devices, and failures, that are kept to be shown."""


@dataclass(slots=True, repr=False)  # `asyncio.run` asks for the text of what it returns
class Swept:
    """What a sweep brought: figures that do not grow with the fleet, but for the ids."""

    packing: Packing = field(default_factory=Packing)
    """The points that were stored, behind those that stay as they were."""
    answered: set[str] = field(default_factory=set)
    """Ids of the devices with a result, whatever it is."""
    outcomes: Counter[str] = field(default_factory=Counter)
    silent: int = 0
    failures: list[DeviceReading] = field(default_factory=list)
    stored: int = 0
    seconds: float = 0.0
    """From the first question to the last point that was stored."""
    rejected: Counter[str] = field(default_factory=Counter)
    _slowest: list[tuple[float, str, DeviceReading]] = field(default_factory=list)

    def count(self, reading: DeviceReading) -> None:
        """Count one more reading."""
        self.answered.add(reading.device_id)
        outcome = outcome_of(reading)
        self.outcomes[outcome] += 1
        self.silent += not reading.is_up
        failed = reading.reason is not None or outcome not in ANSWERED
        if failed and len(self.failures) < MAX_EXAMPLES:
            self.failures.append(reading)
        keep = heapq.heappush if len(self._slowest) < MAX_EXAMPLES else heapq.heappushpop
        keep(self._slowest, (reading.took_seconds, reading.device_id, reading))

    @property
    def slowest(self) -> list[DeviceReading]:
        """The readings that took longest, the slowest first."""
        return [reading for _, _, reading in sorted(self._slowest, reverse=True)]


async def sweep_and_store(
    questions: Sequence[Question],
    budget_seconds: float,
    points_of: Callable[[DeviceReading], Sequence[Point]],
    writer: Writer,
    *,
    say: Callable[[str], None],
    unchanged: Iterable[Point] = (),
) -> Swept:
    """Poll all devices of all `questions` at once; store their points while the polls go on.

    `unchanged` are points of devices that are not asked, and are shown as they were.
    """
    swept, began = Swept(), time.monotonic()
    swept.packing.add(unchanged)
    tell = tell_progress(sum(len(question.devices) for question in questions), say)
    waiting: list[Point] = []
    async with AsyncExitStack() as opened:
        for question in questions:
            await opened.enter_async_context(question.probe)
        async for reading in sweep(questions, budget_seconds, SystemRandom()):
            tell(reading)
            swept.count(reading)
            waiting += points_of(reading)
            if len(waiting) >= BATCH_POINTS:
                batch, waiting = waiting, []
                await _store(batch, writer, swept)
        if waiting:
            await _store(waiting, writer, swept)
    swept.seconds = time.monotonic() - began
    return swept


async def _store(points: Sequence[Point], writer: Writer, swept: Swept) -> None:
    part = await asyncio.to_thread(writer.append, points)
    swept.stored += part.written.total()
    swept.rejected += part.rejected
    swept.packing.add(part.kept)
