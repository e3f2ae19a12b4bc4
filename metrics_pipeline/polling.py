"""Many devices at once: bounded, timed out, in any order but the inventory's.

No device can hold up another: each has a budget of its own, however it dribbles, and a device that
makes a probe fail in a way nobody thought of is one reading with a reason, like any other.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

from metrics_pipeline.core.devices import Device, DeviceReading, Miss
from metrics_pipeline.core.ports import DeviceProbe

LOG = logging.getLogger(__name__)
PROGRESS_SECONDS = 10.0
"""A line in a run's log is a row of Dagster's database, so there are few."""
COLLECTED_AFTER = 10_000
"""New objects after which the garbage collector looks for cycles, rather than Python's 700: a sweep
makes many objects that stay, and no cycles."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_in_flight` devices at a time, each for `budget_seconds` at the most."""

    max_in_flight: int
    budget_seconds: float


@dataclass(frozen=True, slots=True)
class Question:
    """Which devices are asked what by which probe; `metrics` may be none for just up or down."""

    probe: DeviceProbe
    devices: Sequence[Device]
    metrics: Collection[str]


async def sweep(
    questions: Sequence[Question], limits: Limits, random: Random
) -> AsyncGenerator[DeviceReading, None]:
    """Poll the devices of all `questions` at once; give each reading as soon as it is known.

    The probes are entered. The order is shuffled, so that one subnet is not asked all at once.
    Readings that nobody takes hold up the polls behind them, so memory stays flat.
    """
    order = [(question, device) for question in questions for device in question.devices]
    random.shuffle(order)
    waiting = iter(order)
    readings: asyncio.Queue[DeviceReading] = asyncio.Queue(limits.max_in_flight)

    async def work() -> None:
        for question, device in waiting:
            began = time.monotonic()
            reading = await _poll(question, device, limits.budget_seconds)
            await readings.put(replace(reading, took_seconds=time.monotonic() - began))

    workers = [asyncio.create_task(work()) for _ in range(min(limits.max_in_flight, len(order)))]
    try:
        with _collecting_seldom():
            for _ in order:
                yield await readings.get()
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Look for cycles less often, and among new objects alone: it took an eighth of a sweep.

    Of sweeps that overlap, the last to end may leave the collector as another had set it.
    """
    first, *others = gc.get_threshold()
    if first:  # else somebody has switched it off
        gc.set_threshold(max(first, COLLECTED_AFTER), *others)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(first, *others)


async def _poll(question: Question, device: Device, budget_seconds: float) -> DeviceReading:
    try:
        async with asyncio.timeout(budget_seconds):
            return await question.probe.poll(device, question.metrics)
    except TimeoutError:
        detail = f"not done within its {budget_seconds:g} s"
        return _nothing(device, question.metrics, Miss.TIMEOUT, detail)
    except Exception as error:
        # A defect of ours. It must not cost the other devices theirs, and must not go unseen.
        LOG.exception("%s: polling %s failed unexpectedly", question.probe.name, device.id)
        detail = f"{type(error).__name__} in our own code"
        return _nothing(device, question.metrics, Miss.DEFECT, detail)


def _nothing(device: Device, metrics: Collection[str], reason: Miss, detail: str) -> DeviceReading:
    misses = dict.fromkeys(metrics, reason)
    return DeviceReading(device.id, False, {}, misses, reason, detail)


def tell_progress(
    total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[DeviceReading], None]:
    """Something to call with each reading, which says now and then, and at the end, how far it is.

    `clock` gives seconds.
    """
    told_at = clock()
    done = up = 0

    def tell(reading: DeviceReading) -> None:
        nonlocal done, up, told_at
        done += 1
        up += reading.is_up
        if done == total or clock() - told_at >= PROGRESS_SECONDS:
            told_at = clock()
            say(f"{done} of {total} devices polled, {up} answered")

    return tell
