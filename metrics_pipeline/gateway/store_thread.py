"""The one thread in which the gateway writes, so that its event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Job = tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]


class StoreThread:
    """Calls what it is given, one after the other.

    A daemon: a store that hangs keeps no process from ending. What it was doing then is not
    acknowledged, so it will be sent again.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="store", daemon=True).start()

    async def call(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises, in the thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((call, future, loop))
        return await future

    def _run(self) -> None:
        while True:
            call, future, loop = self._jobs.get()
            try:
                result, error = call(), None
            except Exception as raised:  # noqa: BLE001 (it belongs to who waits)
                result, error = None, raised
            try:
                loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                return  # the loop has ended, and with it everybody who waits


def _settle(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
