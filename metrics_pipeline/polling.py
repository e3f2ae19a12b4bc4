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
PROGRESS_SHARE = 0.1
COLLECTED_AFTER = 10_000
"""New objects after which the garbage collector looks for cycles, rather than Python's 700: a sweep
makes many objects that stay, and no cycles."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_in_flight` devices at a time, each for `budget_seconds` at the most."""

    max_in_flight: int
    budget_seconds: float


async def sweep(
    probe: DeviceProbe,
    devices: Sequence[Device],
    metrics: Collection[str],
    limits: Limits,
    random: Random,
) -> AsyncGenerator[DeviceReading, None]:
    """Poll all `devices` with `probe`, which is entered; give each reading as soon as it is known.

    The order is shuffled, so that one subnet is not asked all at once. Readings that nobody takes
    hold up the polls behind them, so memory stays flat.
    """
    order = list(devices)
    random.shuffle(order)
    waiting = iter(order)
    readings: asyncio.Queue[DeviceReading] = asyncio.Queue(limits.max_in_flight)

    async def work() -> None:
        for device in waiting:
            began = time.monotonic()
            reading = await _poll(probe, device, metrics, limits.budget_seconds)
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


async def _poll(
    probe: DeviceProbe, device: Device, metrics: Collection[str], budget_seconds: float
) -> DeviceReading:
    try:
        async with asyncio.timeout(budget_seconds):
            return await probe.poll(device, metrics)
    except TimeoutError:
        detail = f"not done within its {budget_seconds:g} s"
        return _nothing(device, metrics, Miss.TIMEOUT, detail)
    except Exception as error:
        # A defect of ours. It must not cost the other devices theirs, and must not go unseen.
        LOG.exception("%s: polling %s failed unexpectedly", probe.name, device.id)
        return _nothing(device, metrics, Miss.DEFECT, f"{type(error).__name__} in our own code")


def _nothing(device: Device, metrics: Collection[str], reason: Miss, detail: str) -> DeviceReading:
    misses = dict.fromkeys(metrics, reason)
    return DeviceReading(device.id, False, {}, misses, reason, detail)


def tell_progress(total: int, say: Callable[[str], None]) -> Callable[[DeviceReading], None]:
    """Something to call with each reading, which says every tenth of the way how far it is."""
    step = max(1, round(total * PROGRESS_SHARE))
    done = up = 0

    def tell(reading: DeviceReading) -> None:
        nonlocal done, up
        done += 1
        up += reading.is_up
        if done % step == 0 or done == total:
            say(f"{done} of {total} devices polled, {up} answered")

    return tell
