"""Sweeps over thousands of devices, some of which misbehave."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from random import Random
from typing import Self

import pytest

from metrics_pipeline.access.garbage_collection import COLLECTED_AFTER
from metrics_pipeline.core.devices import UPTIME, Device, DeviceReading, Miss
from metrics_pipeline.core.ports import DeviceProbe, Trace
from metrics_pipeline.polling import (
    PROGRESS_SECONDS,
    READINGS_AT_HAND,
    Question,
    sweep,
    tell_progress,
)

BUDGET_SECONDS = 0.3


def devices(count: int) -> list[Device]:
    return [Device(f"d{n}", f"host{n}", f"127.0.0.{n % 250}", "test", "odd") for n in range(count)]


class OddProbe:
    """A probe over devices whose behaviour is a function of their id."""

    name = "odd"

    def __init__(self, behave: Callable[[Device], float | BaseException]) -> None:
        self._behave = behave
        self.in_flight = self.most_in_flight = 0
        self.order: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None: ...

    async def poll(
        self, device: Device, metrics: Collection[str], trace: Trace | None = None
    ) -> DeviceReading:
        self.order.append(device.id)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            behaviour = self._behave(device)
            if isinstance(behaviour, BaseException):
                raise behaviour
            await asyncio.sleep(behaviour)
            return DeviceReading(device.id, True, dict.fromkeys(metrics, 1.0))
        finally:
            self.in_flight -= 1


def run(
    probe: DeviceProbe, count: int, max_in_flight: int = 50, budget_seconds: float = BUDGET_SECONDS
) -> dict[str, DeviceReading]:
    async def gather() -> dict[str, DeviceReading]:
        question = Question(probe, devices(count), [UPTIME], max_in_flight)
        found = sweep([question], budget_seconds, Random(1))
        return {reading.device_id: reading async for reading in found}

    return asyncio.run(gather())


def test_every_device_gives_one_reading() -> None:
    readings = run(OddProbe(lambda _: 0), 1000)
    assert sorted(readings) == sorted(device.id for device in devices(1000))
    assert all(reading.is_up for reading in readings.values())


def test_one_silent_device_of_a_thousand_costs_only_itself() -> None:
    readings = run(OddProbe(lambda device: 3600 if device.id == "d7" else 0), 1000)
    assert [reading.device_id for reading in readings.values() if not reading.is_up] == ["d7"]
    assert readings["d7"].reason is Miss.TIMEOUT
    assert readings["d7"].misses == {UPTIME: Miss.TIMEOUT}
    assert "0.3 s" in readings["d7"].detail


def test_half_of_the_fleet_dead_is_waited_for_in_parallel() -> None:
    probe = OddProbe(lambda device: 3600 if int(device.id[1:]) % 2 else 0)
    readings = run(probe, 200, max_in_flight=200)
    assert sum(reading.is_up for reading in readings.values()) == 100
    assert probe.most_in_flight > 100


def test_a_defect_of_the_probe_is_one_device_s_reason(caplog: pytest.LogCaptureFixture) -> None:
    readings = run(OddProbe(lambda device: KeyError("x") if device.id == "d3" else 0), 20)
    assert readings["d3"].reason is Miss.DEFECT
    assert "polling d3 failed unexpectedly" in caplog.text
    assert sum(reading.is_up for reading in readings.values()) == 19


def test_no_more_are_in_flight_than_allowed() -> None:
    probe = OddProbe(lambda _: 0.001)
    run(probe, 500, max_in_flight=7, budget_seconds=5)
    assert probe.most_in_flight == 7


def test_the_order_is_not_the_inventory_s() -> None:
    probe = OddProbe(lambda _: 0)
    run(probe, 100)
    assert probe.order != sorted(probe.order, key=lambda name: int(name[1:]))


def test_readings_that_nobody_takes_hold_up_the_polls_behind_them() -> None:
    probe = OddProbe(lambda _: 0)

    async def take_one() -> int:
        found = sweep([Question(probe, devices(2000), [UPTIME], 10)], 5, Random(1))
        await anext(found)
        await asyncio.sleep(0.05)
        asked = len(probe.order)
        await found.aclose()
        return asked

    assert asyncio.run(take_one()) <= 1 + READINGS_AT_HAND + 10 + 1


def test_a_sweep_that_is_given_up_leaves_nothing_running() -> None:
    probe = OddProbe(lambda _: 3600)

    async def give_up() -> int:
        found = sweep([Question(probe, devices(100), [UPTIME], 10)], 60, Random(1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(found)
        await found.aclose()
        return probe.in_flight

    assert asyncio.run(give_up()) == 0


def test_the_garbage_collector_is_left_as_it_was() -> None:
    before = gc.get_threshold()
    during: list[int] = []

    def behave(_device: Device) -> float:
        during.append(gc.get_threshold()[0])
        return 0.0

    run(OddProbe(behave), 3)
    assert during == [max(before[0], COLLECTED_AFTER)] * 3
    assert gc.get_threshold() == before


@pytest.mark.parametrize("is_frozen", [False, True])
def test_what_was_frozen_before_stays_so_and_nothing_else(is_frozen: bool) -> None:
    """It is all that a process has imported, half a second of a core for each look."""
    set_up = gc.freeze if is_frozen else gc.unfreeze
    set_up()
    try:
        run(OddProbe(lambda _device: 0.0), 3)
        assert (gc.get_freeze_count() > 0) is is_frozen
    finally:
        gc.freeze()


def test_a_reading_that_is_lost_is_a_reason_and_not_a_sweep_without_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stray = asyncio.CancelledError()
    probe = OddProbe(lambda device: stray if device.id == "d3" else 0)
    readings = run(probe, 20, max_in_flight=1)
    assert len(readings) == 20
    assert readings["d3"].reason is Miss.DEFECT
    assert "gave no reading" in caplog.text


def test_an_empty_inventory_is_a_sweep_of_nothing() -> None:
    assert run(OddProbe(lambda _: 0), 0) == {}


def test_several_probes_ask_at_once_each_its_own_devices_and_as_many_as_it_may() -> None:
    odd, even = (OddProbe(lambda _: 0.001) for _ in range(2))
    questions = [
        Question(probe, devices(200)[start::2], [UPTIME], 7)
        for start, probe in ((1, odd), (0, even))
    ]

    async def gather() -> list[str]:
        found = sweep(questions, 5, Random(1))
        return [reading.device_id async for reading in found]

    assert sorted(asyncio.run(gather())) == sorted(device.id for device in devices(200))
    assert {int(name[1:]) % 2 for name in odd.order} == {1}
    assert {int(name[1:]) % 2 for name in even.order} == {0}
    assert max(odd.most_in_flight, even.most_in_flight) <= 7


class TogetherProbe(OddProbe):
    """One that asks all devices by itself, and breaks after some of them."""

    def __init__(self, breaks_after: int) -> None:
        super().__init__(lambda _: 0)
        self._breaks_after = breaks_after
        self.budgets_seconds: list[float] = []

    async def sweep(
        self, devices: Iterable[Device], metrics: Collection[str], budget_seconds: float
    ) -> AsyncIterator[DeviceReading]:
        """All of them, in the order given."""
        self.budgets_seconds.append(budget_seconds)
        for at, device in enumerate(devices):
            if at == self._breaks_after:
                raise KeyError("x")
            self.order.append(device.id)
            yield DeviceReading(device.id, True, dict.fromkeys(metrics, 1.0))


def test_a_probe_that_asks_all_together_is_left_to_it() -> None:
    probe = TogetherProbe(breaks_after=1000)
    assert len(run(probe, 300)) == 300
    assert probe.budgets_seconds == [BUDGET_SECONDS]
    assert probe.order != sorted(probe.order, key=lambda name: int(name[1:]))
    assert probe.most_in_flight == 0


def test_what_a_probe_that_asks_together_leaves_out_has_a_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    readings = run(TogetherProbe(breaks_after=5), 20)
    assert sum(reading.is_up for reading in readings.values()) == 5
    assert [r.reason for r in readings.values() if not r.is_up] == [Miss.DEFECT] * 15
    assert "polling failed unexpectedly" in caplog.text


def test_progress_is_told_now_and_then_and_at_the_end() -> None:
    said: list[str] = []
    seconds = iter(range(10_000))
    tell = tell_progress(100, said.append, lambda: next(seconds))
    for n in range(100):
        tell(DeviceReading(f"d{n}", is_up=n % 2 == 0))
    assert 100 / PROGRESS_SECONDS / 2 <= len(said) <= 100 / PROGRESS_SECONDS + 1
    assert said[-1] == "100 of 100 devices polled, 50 answered"


def test_a_short_sweep_says_one_line() -> None:
    said: list[str] = []
    tell = tell_progress(100, said.append, lambda: 0)
    for n in range(100):
        tell(DeviceReading(f"d{n}", is_up=True))
    assert said == ["100 of 100 devices polled, 100 answered"]
