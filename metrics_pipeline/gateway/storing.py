"""Messages of all robots on their way into the store: gathered, stored, then answered.

A batch that the store does not take is tried again until it does; meanwhile no more is taken from
robots than fits into the queue. So whatever is acknowledged is stored, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from metrics_pipeline.core.backoff import Backoff
from metrics_pipeline.core.errors import InvalidMessage, StoreError
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.robots import STORED, MessageId, RobotMessage, acknowledgement, refusal
from metrics_pipeline.gateway.store_thread import StoreThread
from metrics_pipeline.storage.writer import Part, Writer

LOG = logging.getLogger(__name__)
ANSWERED_AT_ONCE = 4
"""Then whoever asks over REST has a turn: each answer takes a tenth of a millisecond."""
PATIENCE = Backoff(tries=0, base_seconds=0.2, cap_seconds=5.0)
"""Between two tries of a batch, each of which are some tries of the writer's."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that waits for the store; `answer` is called with what the robot is to be told."""

    message: RobotMessage
    answer: Callable[[str, str], None]
    """Called with the outcome and the text."""

    @property
    def id(self) -> MessageId:
        """What the robot calls it."""
        return self.message.id

    @property
    def point(self) -> Point:
        """What is stored."""
        return self.message.point


class Storing:
    """The queue, and the task that empties it."""

    def __init__(
        self,
        writer: Writer,
        thread: StoreThread,
        stored: Callable[[Point], None],
        *,
        queue_messages: int,
        batch_messages: int,
        batch_wait_seconds: float,
    ) -> None:
        """`stored` is told of each point that the store has, before its robot is."""
        self._writer = writer
        self._thread = thread
        self._stored = stored
        self._queue_messages = queue_messages
        self._batch_messages = batch_messages
        self._batch_wait_seconds = batch_wait_seconds
        self._waiting: list[Waiting] = []
        self._in_hand = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._problem = ""

    @property
    def is_behind(self) -> bool:
        """Whether the store has refused what it was given last."""
        return bool(self._problem)

    async def await_room(self) -> None:
        """Return when another message may be put; until then its robot is not read."""
        while not self._room.is_set():  # of all who waited, it may be another who took the place
            await self._room.wait()

    def put(self, waiting: Waiting) -> None:
        """Queue a message; it is answered when it is stored."""
        self._waiting.append(waiting)
        self._arrived.set()
        if len(self._waiting) + self._in_hand >= self._queue_messages:
            self._room.clear()

    async def run(self) -> None:
        """Store what comes, until cancelled."""
        while True:
            await self._arrived.wait()
            if len(self._waiting) < self._batch_messages:
                await asyncio.sleep(self._batch_wait_seconds)
            batch = self._waiting[: self._batch_messages]
            del self._waiting[: len(batch)]
            if not self._waiting:
                self._arrived.clear()
            self._in_hand = len(batch)
            await self._store(batch)
            self._in_hand = 0
            if len(self._waiting) < self._queue_messages:
                self._room.set()

    async def _store(self, batch: Sequence[Waiting]) -> None:
        points = [waiting.point for waiting in batch]
        part = await self._write(points)
        refused = {id(each.point): each for each in part.refused}
        for number, waiting in enumerate(batch, start=1):
            why = refused.get(id(waiting.point))
            if why is None:
                self._stored(waiting.point)
                waiting.answer(STORED, acknowledgement(waiting.id))
            else:
                error = InvalidMessage(why.reason, why.detail, waiting.id)
                waiting.answer(why.reason, refusal(error))
            if number % ANSWERED_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _write(self, points: Sequence[Point]) -> Part:
        tried = 0
        write = partial(self._writer.append, points, names_refused=True)
        while True:
            try:
                part = await self._thread.call(write)
            except StoreError as error:
                self._tell(str(error))
            else:
                self._tell("")
                return part
            tried += 1
            await asyncio.sleep(PATIENCE.wait_seconds(min(tried, 10), random.random))

    def _tell(self, problem: str) -> None:
        """Say it where it changed; while it lasts every robot waits, and nothing is lost."""
        if problem and not self._problem:
            LOG.warning("messages wait, as they cannot be stored: %s", problem)
        elif self._problem and not problem:
            LOG.info("messages are stored again")
        self._problem = problem
