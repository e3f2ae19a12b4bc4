"""Reads a stream of events as it grows, through every restart of its server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from metrics_pipeline.core.events import MS_PER_SECOND, Event, NotAnEvent, read_event
from metrics_pipeline.events.redis_client import RedisConnection
from metrics_pipeline.events.redis_stream import FIELD
from metrics_pipeline.events.settings import RedisStreamSettings

AT_ONCE = 500
WAIT_MS = 500
PAUSE_SECONDS = 0.5
BEGINNING = (0, 0)

EntryId = tuple[int, int]


class StreamFollower:
    """Entries from the moment `since` on, by the server's clock.

    After each new connection it looks whether the stream is still the one that it read: one that
    was lost with its server begins anew, and all of it is new.
    """

    def __init__(self, settings: RedisStreamSettings, since: float) -> None:
        self._connection = RedisConnection(settings)
        self._stream = settings.stream
        self._wait_ms = max(1, min(WAIT_MS, int(settings.timeout_seconds * MS_PER_SECOND / 2)))
        self._last: EntryId = (max(0, int(since * MS_PER_SECOND) - 1), 2**64 - 1)
        self._has_read = False
        self._is_checked = True
        self.is_caught_up = False
        """Whether all that was there at first was read."""

    @property
    def name(self) -> str:
        """The stream and its server."""
        return self._connection.name

    def read(self) -> Sequence[Event | NotAnEvent]:
        """What the next entries hold, or nothing for the moment; raises TransportUnavailable."""
        try:
            with self._connection.use() as client:
                if not self._is_checked:
                    self._begin_anew_if_lost(client)
                    self._is_checked = True
                entries = self._ask(client)
        except BaseException:
            self._is_checked = False
            raise
        # Not only none: where others add events all the time, some are always there.
        self.is_caught_up |= len(entries) < AT_ONCE
        field = FIELD.encode()
        return [read_event(fields[field]) for _, fields in entries if field in fields]

    def pause(self) -> None:
        """The server has done the waiting, where there is one."""
        if not self._is_checked:
            time.sleep(PAUSE_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, client: Any) -> Sequence[tuple[bytes, dict[bytes, bytes]]]:
        last = "-".join(map(str, self._last))
        found = client.xread({self._stream: last}, count=AT_ONCE, block=self._wait_ms)
        entries: Sequence[tuple[bytes, dict[bytes, bytes]]] = found[0][1] if found else ()
        if entries:
            self._last, self._has_read = _to_id(entries[-1][0]), True
        return entries

    def _begin_anew_if_lost(self, client: Any) -> None:
        newest = client.xrevrange(self._stream, count=1)
        if self._has_read and (not newest or _to_id(newest[0][0]) < self._last):
            self._last = BEGINNING


def _to_id(given: bytes) -> EntryId:
    ms, _, number = given.partition(b"-")
    return int(ms), int(number)
