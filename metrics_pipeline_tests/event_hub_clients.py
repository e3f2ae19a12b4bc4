"""Consumers of the Azure SDK that keep what they get: in asyncio and in a thread.

Unchanged but for one thing that is none of what they speak: see `_open_or_close`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

from azure.eventhub import EventHubConsumerClient
from azure.eventhub._pyamqp.aio._client_async import AMQPClientAsync
from azure.eventhub._pyamqp.utils import generate_sas_token
from azure.eventhub.aio import EventHubConsumerClient as AsyncConsumerClient

from metrics_pipeline.simulators.event_hub.server import EventHubServer
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

RECLAIM_SECONDS = 0.3
"""After an error the SDK reads a partition again only when it balances the load again."""


def sas_token(hub: EventHubServer, expiry: int) -> str:
    """A token as the SDK signs it; `expiry` is in seconds since the Unix epoch."""
    sign: Any = generate_sas_token
    policy = hub.policy
    return str(sign(f"sb://{hub.host}/telemetry", policy.name, policy.key, expiry))


async def until_attached(hub: EventHubServer, count: int) -> None:
    """Wait until the hub has so many receivers."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(await asyncio.to_thread(hub.receivers)) != count:
            await asyncio.sleep(0.02)


_clients_in_asyncio: Any = AMQPClientAsync
_open: Any = AMQPClientAsync.open_async


async def _open_or_close(self: Any, connection: Any = None) -> None:
    """Open as the SDK does; what was opened in part only is closed.

    A reader that is left while it connects is cancelled, and the SDK then forgets the connection,
    as there is no session yet (`close_async` in `_client_async.py` of azure-eventhub 5.15.1). Its
    socket would be found by the garbage collector, in the midst of another test.
    """
    try:
        await _open(self, connection)
    except BaseException:
        if self._connection and not (self._session or self._external_connection):
            await self._connection.close()
        raise


_clients_in_asyncio.open_async = _open_or_close


class AsyncReader:
    """Reads in the running loop while it is entered. Options are those of `receive_batch`."""

    def __init__(self, hub: EventHubServer, *, group: str = "$Default", **options: Any) -> None:
        self.events: list[Any] = []
        self.partitions: list[str] = []
        self.errors: list[Exception] = []
        self._client = AsyncConsumerClient.from_connection_string(
            hub.connection_string,
            group,
            load_balancing_interval=options.pop("load_balancing_interval", RECLAIM_SECONDS),
            idle_timeout=options.pop("idle_timeout", None),
            retry_total=options.pop("retry_total", 0),
        )
        self._options = {"starting_position": "-1", **options}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(
            self._client.receive_batch(
                on_event_batch=self._keep, on_error=self._keep_error, **self._options
            )
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()
        # By itself it would end only after the pause between two looks at the load.
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    @property
    def bodies(self) -> list[str]:
        return [event.body_as_str() for event in self.events]

    @property
    def sequence_numbers(self) -> list[int | None]:
        return [event.sequence_number for event in self.events]

    async def until_events(self, count: int) -> list[Any]:
        """Wait for so many events."""
        await self._until(lambda: len(self.events) >= count)
        return self.events

    async def until_error(self) -> str:
        """Wait for the first error, and give its text."""
        await self._until(lambda: bool(self.errors))
        return str(self.errors[0])

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def _keep(self, context: Any, events: list[Any]) -> None:
        self.partitions += [context.partition_id] * len(events)
        self.events += events
        self._changed.set()

    async def _keep_error(self, _: Any, error: Exception) -> None:
        self.errors.append(error)
        self._changed.set()


class ThreadReader:
    """Reads in a thread while it is entered. Options are those of `receive_batch`.

    Refusals of a link are seen with this one alone: the one in asyncio tries again and is silent.
    """

    def __init__(self, hub: EventHubServer, *, group: str = "$Default", **options: Any) -> None:
        self.events: list[Any] = []
        self.errors: list[Exception] = []
        self._client = EventHubConsumerClient.from_connection_string(
            hub.connection_string,
            group,
            load_balancing_interval=RECLAIM_SECONDS,
            retry_total=options.pop("retry_total", 0),
        )
        self._options = {"starting_position": "-1", **options}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._receive)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()
        self._thread.join()

    @property
    def bodies(self) -> list[str]:
        return [event.body_as_str() for event in self.events]

    def until_events(self, count: int) -> list[Any]:
        """Wait for so many events."""
        self._until(lambda: len(self.events) >= count)
        return self.events

    def until_error(self) -> str:
        """Wait for the first error, and give its text."""
        self._until(lambda: bool(self.errors))
        return str(self.errors[0])

    def _until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            is_met = self._changed.wait_for(condition, PATIENCE_SECONDS)
        assert is_met, (len(self.events), self.errors)

    def _receive(self) -> None:
        self._client.receive_batch(
            on_event_batch=self._keep, on_error=self._keep_error, **self._options
        )

    def _keep(self, _: Any, events: list[Any]) -> None:
        with self._changed:
            self.events += events
            self._changed.notify_all()

    def _keep_error(self, _: Any, error: Exception) -> None:
        with self._changed:
            self.errors.append(error)
            self._changed.notify_all()


@asynccontextmanager
async def at_once(readers: Sequence[AsyncReader]) -> AsyncIterator[None]:
    """All of them entered, and left at the same time: leaving takes the SDK a second."""
    await asyncio.gather(*(reader.__aenter__() for reader in readers))
    try:
        yield
    finally:
        await asyncio.gather(*(reader.__aexit__(None, None, None) for reader in readers))


def refusal(hub: EventHubServer, **options: Any) -> str:
    """What a reader in a thread is told first that goes wrong."""
    with ThreadReader(hub, **options) as reader:
        return reader.until_error()
