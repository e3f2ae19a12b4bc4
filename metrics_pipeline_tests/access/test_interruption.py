"""A signal ends what runs in an event loop, wherever that is."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import pytest

from metrics_pipeline.access.interruption import run_until_signal


class Interrupted(BaseException):
    """As Dagster's error, which is no KeyboardInterrupt either."""


@pytest.fixture(autouse=True)
def handler() -> Iterator[Callable[[int, FrameType | None], None]]:
    """SIGTERM raises as in a step of Dagster."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGTERM, interrupt)
    yield interrupt
    signal.signal(signal.SIGTERM, before)


def interrupt_in_callback() -> None:
    asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)


async def in_callback() -> None:
    interrupt_in_callback()
    await asyncio.Event().wait()


async def in_group() -> None:
    """As anyio connects: what a part raises comes out as a group."""

    async def part() -> None:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(part())
        group.create_task(asyncio.Event().wait())


async def within_bounds() -> None:
    async with asyncio.timeout(3600):
        await in_callback()


async def deaf() -> None:
    """Takes the first cancellation for something else."""
    interrupt_in_callback()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


@pytest.mark.parametrize("work", [in_callback, in_group, within_bounds, deaf])
def test_a_signal_ends_the_work_and_is_handled_behind_it(
    work: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    ended = []

    async def watched() -> None:
        try:
            await work()
        finally:
            ended.append(True)

    with asyncio.Runner() as runner, pytest.raises(Interrupted):
        run_until_signal(runner, watched())
    assert ended == [True]


def test_a_signal_before_the_work_begins_ends_it_too() -> None:
    def late_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        make_task = loop.create_task

        def make_task_late(*arguments: Any, **options: Any) -> asyncio.Task[Any]:
            del vars(loop)["create_task"]  # once
            signal.raise_signal(signal.SIGTERM)
            return make_task(*arguments, **options)

        vars(loop)["create_task"] = make_task_late
        return loop

    with asyncio.Runner(loop_factory=late_loop) as runner, pytest.raises(Interrupted):
        run_until_signal(runner, asyncio.Event().wait())


def test_without_a_signal_there_is_the_result_and_the_handler_is_as_it_was(
    handler: Callable[[int, FrameType | None], None],
) -> None:
    async def work() -> int:
        return 7

    with asyncio.Runner() as runner:
        assert [run_until_signal(runner, work()) for _ in range(2)] == [7, 7]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_thread_that_is_told_of_no_signal_runs_its_work() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(threading.get_ident())

    def run() -> None:
        with asyncio.Runner() as runner:
            run_until_signal(runner, work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [thread.ident]


def test_the_work_ends_also_where_the_handler_does_nothing() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    with asyncio.Runner() as runner, pytest.raises(KeyboardInterrupt):
        run_until_signal(runner, in_callback())
