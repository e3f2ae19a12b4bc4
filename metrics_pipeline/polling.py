"""Many devices at once: bounded, timed out, in any order but the inventory's.

No device can hold up another: each has a budget of its own, however it dribbles, and a device that
makes a probe fail in a way nobody thought of is one reading with a reason, like any other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass, replace
from random import Random

from metrics_pipeline.access.garbage_collection import collecting_seldom
from metrics_pipeline.core.devices import Device, DeviceReading, Miss
from metrics_pipeline.core.ports import AsksTogether, DeviceProbe

LOG = logging.getLogger(__name__)
PROGRESS_SECONDS = 10.0
"""A line in a run's log is a row of Dagster's database, so there are few."""
READINGS_AT_HAND = 1000
"""So many wait to be taken; then the polls wait."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which devices are asked what by which probe; `metrics` may be none for just up or down.

    At most `max_in_flight` of them are asked at the same time.
    """

    probe: DeviceProbe
    devices: Sequence[Device]
    metrics: Collection[str]
    max_in_flight: int


async def sweep(
    questions: Sequence[Question], budget_seconds: float, random: Random
) -> AsyncGenerator[DeviceReading, None]:
    """Poll the devices of all `questions` at once; give each reading as soon as it is known.

    The probes are entered, and a device takes `budget_seconds` at the most. The order is shuffled,
    so that one subnet is not asked all at once. Readings that nobody takes hold up the polls behind
    them, so memory stays flat.
    """
    left = {d.id: (question, d) for question in questions for d in question.devices}
    streams = [s for question in questions for s in _streams(question, budget_seconds, random)]
    with collecting_seldom():
        async for reading in _merge(streams):
            left.pop(reading.device_id, None)
            yield reading
    for question, device in left.values():
        LOG.error("%s: polling %s gave no reading", question.probe.name, device.id)
        yield _nothing(device, question.metrics, Miss.DEFECT, "no reading, by our own mistake")


async def _merge(
    streams: Sequence[AsyncIterator[DeviceReading]],
) -> AsyncGenerator[DeviceReading, None]:
    """What comes of all streams, until the last of them has ended, in whatever way."""
    room, changed = asyncio.Semaphore(READINGS_AT_HAND), asyncio.Event()
    ready: deque[DeviceReading] = deque()

    async def pass_on(stream: AsyncIterator[DeviceReading]) -> None:
        async for reading in stream:
            await room.acquire()
            ready.append(reading)
            changed.set()

    working = {asyncio.create_task(pass_on(stream)) for stream in streams}

    def leave(worker: asyncio.Task[None]) -> None:
        working.discard(worker)
        changed.set()

    for worker in working:
        worker.add_done_callback(leave)
    try:
        while working or ready:
            await changed.wait()
            changed.clear()
            while ready:
                room.release()
                yield ready.popleft()
    finally:
        await _cancel(working)


async def _cancel(workers: Iterable[asyncio.Task[None]]) -> None:
    stopping = list(workers)
    for worker in stopping:
        worker.cancel()
    await asyncio.gather(*stopping, return_exceptions=True)


def _streams(
    question: Question, budget_seconds: float, random: Random
) -> list[AsyncIterator[DeviceReading]]:
    """What readings come from at the same time: one for all devices, or one for each in flight."""
    order = random.sample(question.devices, len(question.devices))
    if isinstance(question.probe, AsksTogether):
        return [_ask_together(question, order, budget_seconds)]
    waiting = iter(order)
    at_once = min(question.max_in_flight, len(order))
    return [_ask_in_turn(question, waiting, budget_seconds) for _ in range(at_once)]


async def _ask_together(
    question: Question, devices: Sequence[Device], budget_seconds: float
) -> AsyncIterator[DeviceReading]:
    """A reading of each device; those of a probe that fails itself have that for a reason."""
    left = {device.id: device for device in devices}
    probe = question.probe
    assert isinstance(probe, AsksTogether)
    try:
        async for reading in probe.sweep(devices, question.metrics, budget_seconds):
            left.pop(reading.device_id, None)
            yield reading
    except Exception as error:
        LOG.exception("%s: polling failed unexpectedly", question.probe.name)
        for device in left.values():
            yield _defect(question, device, error)


async def _ask_in_turn(
    question: Question, waiting: Iterator[Device], budget_seconds: float
) -> AsyncIterator[DeviceReading]:
    """A reading of each device that nobody else has taken from `waiting`, one after the other."""
    for device in waiting:
        began = time.monotonic()
        reading = await _poll(question, device, budget_seconds)
        yield replace(reading, took_seconds=time.monotonic() - began)


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
        return _defect(question, device, error)


def _defect(question: Question, device: Device, error: Exception) -> DeviceReading:
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
