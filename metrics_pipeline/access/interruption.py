"""Has a signal end what runs in an event loop, wherever that is, before it is handled.

A handler that raises, as Dagster's and Python's own do, raises wherever the main thread is. In a
task or a callback of asyncio that is an error of that one: it is logged, or comes out as part of a
BaseExceptionGroup, and the work goes on as if nobody had said anything.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

NUMBERS = (signal.SIGINT, signal.SIGTERM)
AGAIN_SECONDS = 0.5
"""So long after it was cancelled it is once more, in case something took that for its own."""


def run_until_signal(runner: asyncio.Runner, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; after a signal `work` is cancelled, and its handler raises.

    KeyboardInterrupt, if that does not. Only handlers in Python, and only in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return runner.run(work)
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {
        number: handler for number in NUMBERS if callable(handler := signal.getsignal(number))
    }
    cancelling = _Cancelling(runner.get_loop())
    for number in handlers:
        signal.signal(number, cancelling.receive)
    try:
        return runner.run(cancelling.watch(work))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if cancelling.received is not None:
            handlers[cancelling.received](cancelling.received, None)
            raise KeyboardInterrupt


class _Cancelling:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.received: int | None = None
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None

    def receive(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        self._loop.call_soon_threadsafe(self._cancel)

    async def watch(self, work: Coroutine[Any, Any, T]) -> T:
        self._task = asyncio.current_task()
        if self.received is not None:
            self._cancel()
        return await work

    def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._loop.call_later(AGAIN_SECONDS, self._cancel)
