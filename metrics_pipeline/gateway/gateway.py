"""What the connections share: who may come in, the store, the latest values, the housekeeping."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from metrics_pipeline.access.bearer_token import bearer, digest_of
from metrics_pipeline.core import events
from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.robots import FIELDS, QUIET_SECONDS, ROBOT_ID_RULE, is_robot_id
from metrics_pipeline.core.validation import NS_PER_DAY
from metrics_pipeline.events.publisher import EventPublisher
from metrics_pipeline.gateway.connection import Connection
from metrics_pipeline.gateway.endings import FAILED, GOING_AWAY, NOT_ALLOWED, REPLACED
from metrics_pipeline.gateway.latest import LatestValues
from metrics_pipeline.gateway.limits import Rate
from metrics_pipeline.gateway.store_thread import StoreThread
from metrics_pipeline.gateway.storing import Storing
from metrics_pipeline.gateway.tokens import READ, SEND, Tokens
from metrics_pipeline.settings import GatewaySettings
from metrics_pipeline.storage.writer import Writer

LOG = logging.getLogger(__name__)
WATCH_SECONDS = 5.0
"""How often tokens are read again, and it is looked whether those of the connected are good."""
WATCHED_AT_ONCE = 100
BURST_SECONDS = 4
"""So many seconds' worth of robots may connect at once."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why somebody is not let in: a status of HTTP, a text for people, and headers."""

    status: int
    text: str
    headers: Mapping[str, str]


def _refuse(status: int, text: str, **headers: str) -> Refusal:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refusal(status, f"{text}\n", {"Cache-Control": "no-store", **named})


WRONG_ID = _refuse(400, f"a robot's id has {ROBOT_ID_RULE}")
NO_TOKEN = _refuse(
    401,
    "expected `Authorization: Bearer TOKEN`, with a token that is good for this robot",
    WWW_Authenticate="Bearer",
)
WRONG_ORIGIN = _refuse(403, "this origin may not connect (gateway.allowed_origins)")
TOO_FAST = _refuse(429, "too many connect at once; come again", Retry_After="2")
FULL = _refuse(503, "no more robots can be connected; come again", Retry_After="30")
TOO_MANY = _refuse(503, "no more robots can be known (gateway.max_robots)", Retry_After="30")


class Gateway:
    """All of it, but for the sockets. `running` has its tasks."""

    def __init__(
        self,
        settings: GatewaySettings,
        tokens: Tokens,
        writer: Writer,
        publisher: EventPublisher,
        end: Callable[[], None],
    ) -> None:
        """`end` is called when a bug has ended one of its tasks: it cannot go on without them."""
        self._end = end
        self.bug: BaseException | None = None
        self._settings = settings
        self._tokens = tokens
        self._publisher = publisher
        self._thread = StoreThread()
        self.latest = LatestValues(writer, int(settings.robots_kept_days * NS_PER_DAY))
        self._storing = Storing(
            writer,
            self._thread,
            self._stored,
            queue_messages=settings.queue_messages,
            batch_messages=settings.batch_messages,
            batch_wait_seconds=settings.batch_wait_seconds,
        )
        per_second = settings.connects_per_second
        self._connects = Rate(per_second, max(1.0, per_second * BURST_SECONDS))
        self._connections: dict[str, Connection] = {}
        self._unheard: set[str] = set()
        self._problem = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Store, publish and watch until left; then what is known is published once more."""
        works = (self._storing.run(), self._publish_for_ever(), self._watch_for_ever())
        tasks = [asyncio.create_task(work) for work in works]
        for task in tasks:
            task.add_done_callback(self._end_on_a_bug)
        try:
            yield
        finally:
            for task in tasks:
                task.remove_done_callback(self._end_on_a_bug)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _end_on_a_bug(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            LOG.critical("the gateway ends by a bug", exc_info=bug)
            self.bug = bug
            self._end()

    def refuse_to_read(self, request: HTTPConnection, robot_id: str) -> Refusal | None:
        """Why whoever asks may not read a robot's values; None if they may."""
        return self._refuse_stranger(request, robot_id, READ)

    def refuse_robot(self, websocket: WebSocket, robot_id: str) -> Refusal | None:
        """Why a robot is not let in; None if it is."""
        refusal = self._refuse_robot(websocket, robot_id)
        if refusal is not None:
            self.latest.count_connection(f"refused_{refusal.status}")
        return refusal

    async def serve(self, websocket: WebSocket, robot_id: str) -> None:
        """Let a robot in that is not refused, and serve it to its end."""
        connection = Connection(
            websocket,
            robot_id,
            digest=_digest(websocket),
            storing=self._storing,
            settings=self._settings,
            count=self.latest.count_message,
        )
        before = self._connections.get(robot_id)
        self._connections[robot_id] = connection
        if robot_id not in self.latest:
            self._unheard.add(robot_id)
        if before is not None:
            before.end(REPLACED)
        try:
            await websocket.accept()
            await self._serve(connection)
        finally:
            if self._connections.get(robot_id) is connection:
                del self._connections[robot_id]
                self._unheard.discard(robot_id)

    async def _serve(self, connection: Connection) -> None:
        began, connected_at = time.monotonic(), time.time()
        self.latest.count_connection("established")
        self._publisher.publish(
            events.connection_established(
                connection.robot_id, connection_id=connection.id, connected_at=connected_at
            )
        )
        ending = FAILED
        try:
            ending = await connection.serve()
        except asyncio.CancelledError:  # uvicorn's patience has ended first
            ending = GOING_AWAY
            raise
        finally:
            self.latest.count_connection(f"ended_{ending.reason}")
            self._publisher.publish(
                events.connection_closed(
                    connection.robot_id,
                    connection_id=connection.id,
                    duration_seconds=time.monotonic() - began,
                    disconnected_at=time.time(),
                    reason=ending.reason,
                )
            )

    def _refuse_robot(self, websocket: WebSocket, robot_id: str) -> Refusal | None:
        origin = websocket.headers.get("origin")
        if origin is not None and origin not in self._settings.allowed_origins:
            return WRONG_ORIGIN
        stranger = self._refuse_stranger(websocket, robot_id, SEND)
        if stranger is not None:
            return stranger
        return self._refuse_one_more(robot_id) or (
            None if self._connects.take_if_there() else TOO_FAST
        )

    def _refuse_one_more(self, robot_id: str) -> Refusal | None:
        """Who takes a place that it has already is not one more."""
        if robot_id in self._connections:
            return None
        if len(self._connections) >= self._settings.max_connections:
            return FULL
        known = len(self.latest) + len(self._unheard)
        is_new = robot_id not in self.latest
        return TOO_MANY if is_new and known >= self._settings.max_robots else None

    def _refuse_stranger(self, who: HTTPConnection, robot_id: str, right: str) -> Refusal | None:
        if not is_robot_id(robot_id):
            return WRONG_ID
        is_allowed = self._tokens.allows(_digest(who), robot_id, right, time.time())
        return None if is_allowed else NO_TOKEN

    def _stored(self, point: Point) -> None:
        self.latest.take(point)
        self._unheard.discard(point.tags["robot_id"])
        if self._publisher.publishes_metrics:
            metrics = cast("Any", {name: point.fields.get(name) for name in FIELDS})
            self._publisher.publish(
                events.metrics_published(
                    point.tags["robot_id"], metrics=metrics, published_at=time.time()
                )
            )

    async def _watch_for_ever(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await asyncio.to_thread(self._tokens.reload)
            for number, each in enumerate(list(self._connections.values()), start=1):
                if not self._tokens.allows(each.digest, each.robot_id, SEND, time.time()):
                    each.end(NOT_ALLOWED)
                if number % WATCHED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # others have their turn

    async def _publish_for_ever(self) -> None:
        """From what was published last on, which has to be read first."""
        await self._restore()
        published_at = 0.0
        try:
            while True:
                quiet = time.monotonic() - published_at < QUIET_SECONDS
                # Where messages wait the asset's age is to grow.
                if not self._storing.is_behind and (self.latest.is_changed or not quiet):
                    await self._publish()
                    published_at = time.monotonic()
                await asyncio.sleep(self._settings.publish_seconds)
        finally:
            if not self._storing.is_behind:
                async with asyncio.timeout(self._settings.publish_seconds):
                    await self._publish()

    async def _restore(self) -> None:
        while True:
            try:
                points = await self._thread.call(self.latest.restore)
            except StoreError as error:
                self._tell(str(error))
                await asyncio.sleep(self._settings.publish_seconds)
            else:
                break
        for point in points:
            self.latest.take(point)

    async def _publish(self) -> None:
        now_ns = time.time_ns()
        self.latest.forget_before(now_ns)
        self.latest.bring_back(now_ns)
        publication = self.latest.draw_up(len(self._connections), now_ns)
        try:
            await self._thread.call(publication.publish)
        except StoreError as error:
            self.latest.take_back(publication)
            self._tell(str(error))
        else:
            self._tell("")

    def _tell(self, problem: str) -> None:
        """Once per change of state."""
        if problem and not self._problem:
            LOG.warning("the exporter is not told of robots: %s", problem)
        elif self._problem and not problem:
            LOG.info("the exporter is told of robots again")
        self._problem = problem


def _digest(who: HTTPConnection) -> bytes:
    return digest_of(bearer(who.headers.get("authorization", "")))
