"""The latest values of every robot: answered to REST from memory, published for the exporter.

What was published is where a gateway that starts goes on from.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.core.catalog import (
    ROBOT_CONNECTIONS,
    ROBOT_LAST_MESSAGE,
    ROBOT_MESSAGES,
    ROBOT_METRICS,
)
from metrics_pipeline.core.points import Point, without_fields
from metrics_pipeline.core.robots import ASSET, CONNECTED, FIELDS, GATEWAY, LATEST
from metrics_pipeline.core.validation import NS_PER_MINUTE, NS_PER_SECOND
from metrics_pipeline.storage import snapshots
from metrics_pipeline.storage.snapshots import Packing
from metrics_pipeline.storage.tallies import CountOnce
from metrics_pipeline.storage.writer import Writer

ROWS_AT_ONCE = 1000
AHEAD_NS = ROBOT_METRICS.max_ahead_minutes * NS_PER_MINUTE
"""No message is stored that is more ahead of this machine's clock."""


class LatestValues:
    """By robot the point of its latest time, and what was counted since the last publication."""

    def __init__(self, writer: Writer, kept_ns: int) -> None:
        """A robot is forgotten `kept_ns` after its latest message."""
        self._writer = writer
        self._kept_ns = kept_ns
        self._points: dict[str, Point] = {}
        self._messages: Counter[str] = Counter()
        self._connections: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many robots are known."""
        return len(self._points)

    def __contains__(self, robot_id: str) -> bool:
        """Whether something came from this robot, and is not forgotten."""
        return robot_id in self._points

    def find(self, robot_id: str) -> Mapping[str, Any] | None:
        """What REST answers: every field, null where the message had none; None if nothing came."""
        point = self._points.get(robot_id)
        if point is None:
            return None
        fields = {name: point.fields.get(name) for name in FIELDS}
        return {"robot_id": robot_id, "time": point.time_ns / NS_PER_SECOND, **fields}

    def take(self, point: Point) -> None:
        """A message that is stored; one that is older than the latest changes nothing."""
        robot_id = point.tags["robot_id"]
        known = self._points.get(robot_id)
        if known is None or point.time_ns >= known.time_ns:
            self._points[robot_id] = point

    def count_message(self, outcome: str) -> None:
        """A message has an outcome."""
        self._messages[outcome] += 1

    def count_connection(self, outcome: str) -> None:
        """A connection has begun, ended, or was refused."""
        self._connections[outcome] += 1

    def restore(self) -> list[Point]:
        """What was published last, to be given to `take`; StoreError when it cannot be read."""
        rows = itertools.chain.from_iterable(self._writer.latest_in_batches(LATEST))
        return [without_fields(row, {ROBOT_LAST_MESSAGE.field}) for row in rows]

    def forget_before(self, now_ns: int) -> None:
        """Forget who has been silent for too long."""
        oldest = now_ns - self._kept_ns
        self._points = {name: p for name, p in self._points.items() if p.time_ns >= oldest}

    def bring_back(self, now_ns: int) -> None:
        """What came by a clock that was ahead and has been set back becomes of now.

        Else nothing that comes would be the latest until that time has come again.
        """
        ahead = [p for p in self._points.values() if p.time_ns > now_ns + AHEAD_NS]
        self._points |= {p.tags["robot_id"]: replace(p, time_ns=now_ns) for p in ahead}

    @property
    def is_changed(self) -> bool:
        """Whether anything was counted since the last publication."""
        return bool(self._messages or self._connections)

    def draw_up(self, connected: int, now_ns: int) -> Publication:
        """What is to be published at `now_ns`; what was counted is in this one alone."""
        counts = {ROBOT_MESSAGES.name: self._messages, ROBOT_CONNECTIONS.name: self._connections}
        self._messages, self._connections = Counter(), Counter()
        gateway = Point(GATEWAY, {}, {CONNECTED: connected}, now_ns)
        return Publication(self._writer, tuple(self._points.values()), gateway, counts)

    def take_back(self, publication: Publication) -> None:
        """What was counted in a publication that failed comes into the next one.

        Not if its counts were sent: whether such a transaction is done cannot be known.
        """
        if not publication.is_counted:
            self._messages += publication.counts[ROBOT_MESSAGES.name]
            self._connections += publication.counts[ROBOT_CONNECTIONS.name]


class Publication:
    """Latest values, connected robots and counts at one moment, for one transaction."""

    def __init__(
        self,
        writer: Writer,
        points: Iterable[Point],
        gateway: Point,
        counts: Mapping[str, Counter[str]],
    ) -> None:
        self._writer = writer
        self._points = points
        self._gateway = gateway
        self.counts = counts
        self._once = CountOnce(counts)

    @property
    def is_counted(self) -> bool:
        """Whether the counts were sent to the database."""
        return self._once.is_sent

    def publish(self) -> None:
        """Make them what the exporter shows; StoreError when that fails. May be tried again."""
        packing = Packing()
        rows = map(_row, self._points)
        while some := tuple(itertools.islice(rows, ROWS_AT_ONCE)):
            packing.add(some)
        self._writer.publish(LATEST, packing, (), self._also)

    def _also(self, connection: sa.Connection) -> None:
        self._once(connection)
        snapshots.replace(connection, ASSET, (self._gateway,), self._gateway.time_ns)


def _row(point: Point) -> Point:
    seconds = point.time_ns / NS_PER_SECOND
    fields = {**point.fields, ROBOT_LAST_MESSAGE.field: seconds}
    return Point(point.measurement, point.tags, fields, point.time_ns)
