"""One sweep inside a run: polled, stored as it goes, published at its end."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from random import SystemRandom

from metrics_pipeline.core.devices import Device, DeviceReading
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import DeviceProbe
from metrics_pipeline.polling import Limits, sweep, tell_progress
from metrics_pipeline.storage.writer import Part, Writer

BATCH_POINTS = 5000
"""Points that are handed to the store at once."""


@dataclass(slots=True)
class Swept:
    """What a sweep brought: a reading of every device, and what became of the points."""

    readings: list[DeviceReading] = field(default_factory=list)
    kept: list[Point] = field(default_factory=list)
    stored: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def add(self, part: Part) -> None:
        """Count one more part that the writer took."""
        self.stored += part.written.total()
        self.kept += part.kept
        for reason, count in part.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count


@dataclass(frozen=True, slots=True)
class Question:
    """Which devices are asked what by which probe; `metrics` may be none for just up or down."""

    probe: DeviceProbe
    devices: Sequence[Device]
    metrics: Sequence[str]


async def sweep_and_store(
    questions: Sequence[Question],
    limits: Limits,
    points_of: Callable[[DeviceReading], Sequence[Point]],
    writer: Writer,
    say: Callable[[str], None],
) -> Swept:
    """Poll all devices of all `questions` at once; store their points while the polls go on."""
    swept = Swept()
    tell = tell_progress(sum(len(question.devices) for question in questions), say)
    waiting: list[Point] = []
    async for reading in _together(questions, limits):
        tell(reading)
        swept.readings.append(reading)
        waiting += points_of(reading)
        if len(waiting) >= BATCH_POINTS:
            batch, waiting = waiting, []
            swept.add(await asyncio.to_thread(writer.append, batch))
    if waiting:
        swept.add(await asyncio.to_thread(writer.append, waiting))
    return swept


async def _together(
    questions: Sequence[Question], limits: Limits
) -> AsyncGenerator[DeviceReading, None]:
    """The readings of all questions as they come; raises what keeps a probe from being opened."""
    readings: asyncio.Queue[DeviceReading | None] = asyncio.Queue()

    async def ask(question: Question) -> None:
        async with question.probe as probe:
            found = sweep(probe, question.devices, question.metrics, limits, SystemRandom())
            async for reading in found:
                readings.put_nowait(reading)

    async def ask_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for question in questions:
                    group.create_task(ask(question))
        finally:
            readings.put_nowait(None)

    asking = asyncio.create_task(ask_all())
    try:
        while (reading := await readings.get()) is not None:
            yield reading
        await asking
    finally:
        asking.cancel()
