"""One robot's WebSocket: reads messages, has them stored, and answers each in its order."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from starlette.websockets import WebSocket, WebSocketDisconnect

from metrics_pipeline.core.errors import InvalidMessage
from metrics_pipeline.core.robots import UNREADABLE, parse, refusal
from metrics_pipeline.gateway.endings import (
    CLIENT_LEFT,
    FAILED,
    NOT_JSON,
    NOT_TEXT,
    TOO_SLOW,
    Ending,
    ending_of,
)
from metrics_pipeline.gateway.limits import Rate
from metrics_pipeline.gateway.storing import Storing, Waiting
from metrics_pipeline.gateway.wire import CONNECTION, DISCONNECT, IS_OURS
from metrics_pipeline.settings import GatewaySettings

LOG = logging.getLogger(__name__)
BURST_SECONDS = 10
"""A robot may send as much at once as it may send in so long."""
FAREWELL_SECONDS = 2.0
"""So long an orderly end waits for the store."""


@dataclass(slots=True)
class Reply:
    """What a robot is to be told of a message; None as long as that is not known."""

    text: str | None = None


class Connection:
    """From its acceptance to its end. `digest` is of the token that it was let in with."""

    def __init__(
        self,
        websocket: WebSocket,
        robot_id: str,
        *,
        digest: bytes,
        storing: Storing,
        settings: GatewaySettings,
        count: Callable[[str], None],
    ) -> None:
        """`count` is told the outcome of each message."""
        self.id = uuid.uuid4().hex
        self.robot_id = robot_id
        self.digest = digest
        self._websocket = websocket
        self._storing = storing
        self._settings = settings
        self._count = count
        per_second = settings.messages_per_second
        self._rate = Rate(per_second, per_second * BURST_SECONDS)
        self._replies: deque[Reply] = deque()
        self._answered = asyncio.Event()
        self._may_listen = asyncio.Event()
        self._may_listen.set()
        self._is_mute = False
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def end(self, ending: Ending) -> None:
        """End it, unless it has ended."""
        if not self._ended.done():
            self._ended.set_result(ending)

    async def serve(self) -> Ending:
        """Serve the robot, which was accepted, until it or somebody here ends that."""
        listening = asyncio.create_task(self._listen())
        speaking = asyncio.create_task(self._speak())
        for task in (listening, speaking):
            task.add_done_callback(self._end_on_a_bug)
        try:
            ending = await self._ended
            listening.cancel()
            if ending.orderly:
                await self._await_answers()
        finally:
            listening.cancel()
            speaking.cancel()
        await self._close(ending)
        return ending

    async def _listen(self) -> None:
        while not self._ended.done():
            event = await self._websocket.receive()
            if event["type"] == DISCONNECT:
                self.end(ending_of(event["code"]) if event.get(IS_OURS) else CLIENT_LEFT)
                return
            # Nothing more is read meanwhile, so the robot has to wait as well.
            await self._may_listen.wait()
            await self._storing.await_room()
            ending = self._take(event.get("text"))
            if ending is not None:
                self.end(ending)
            await asyncio.sleep(self._rate.take())

    def _take(self, text: str | None) -> Ending | None:
        """Have a message stored; the ending if one cannot go on after it."""
        if text is None:
            self._count("not_text")
            return NOT_TEXT
        try:
            message = parse(text, self.robot_id, time.time_ns())
        except InvalidMessage as error:
            if error.reason in UNREADABLE:
                self._count(error.reason)
                return NOT_JSON
            self._answer(self._expect_reply(), error.reason, refusal(error))
            return None
        self._storing.put(Waiting(message, partial(self._answer, self._expect_reply())))
        return None

    def _expect_reply(self) -> Reply:
        reply = Reply()
        self._replies.append(reply)
        if len(self._replies) >= self._settings.max_unacknowledged and not self._is_mute:
            self._may_listen.clear()
        return reply

    def _answer(self, reply: Reply, outcome: str, text: str) -> None:
        self._count(outcome)
        reply.text = text
        self._answered.set()

    async def _speak(self) -> None:
        """Send the answers that are known, up to the first that is not."""
        try:
            while True:
                await self._answered.wait()
                self._answered.clear()
                while self._replies and self._replies[0].text is not None:
                    async with asyncio.timeout(self._settings.send_seconds):
                        await self._websocket.send_text(self._replies[0].text)
                    self._replies.popleft()
                    self._may_listen.set()
        except TimeoutError:
            self.end(TOO_SLOW)
        except (WebSocketDisconnect, RuntimeError):
            # It is closed, which whoever listens is told as well, behind what came before.
            self._is_mute = True
            self._may_listen.set()

    async def _await_answers(self) -> None:
        deadline = time.monotonic() + FAREWELL_SECONDS
        while self._replies and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    async def _close(self, ending: Ending) -> None:
        """Say why, unless that was said already or the robot has said so itself."""
        if ending is TOO_SLOW:
            self._websocket.scope["extensions"][CONNECTION].give_up(ending.code, ending.text)
            return
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._websocket.close(ending.code, ending.text)
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            return

    def _end_on_a_bug(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            LOG.error("the connection of robot %s ends by a bug", self.robot_id, exc_info=bug)
            self.end(FAILED)
