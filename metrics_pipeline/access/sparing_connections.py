"""Connections to a PostgreSQL that many processes share: kept for seconds, and waited for.

A server lets in as many as `max_connections` says, 100 by default, and turns others away at once.
To connect takes 12 ms of CPU, half of it the server's, so those that are used again soon stay open.
"""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy.util.queue import Empty

KEPT_SECONDS = 6.0
"""So long an idle connection stays: what asks every 5 s, as samples and the daemon do, keeps it."""

ROOM_SECONDS = 20.0
"""So long a process waits to be let in: others give back what they do not use long before."""

SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.05, 1.0

TURNED_AWAY = ("too many clients", "too many connections", "remaining connection slots")
"""What a server says for want of room, in English; libpq does not hand on its code, 53300."""


def be_sparing(engine: sa.Engine, room_seconds: float | None = None) -> None:
    """Have `engine` close what is idle, and wait where the server is full; SQLite's stays as it is.

    `room_seconds` is for who has less time than ROOM_SECONDS. A process that is forked takes none
    of its connections over.
    """
    if engine.dialect.name == "postgresql":
        sa.event.listen(engine, "do_connect", partial(_connect_when_there_is_room, room_seconds))
        keeper = _Keeper(engine)
        with _LOCK:
            _KEEPERS.add(keeper)
        sa.event.listen(engine, "checkin", keeper.note_use)


def _connect_when_there_is_room(
    room_seconds: float | None, dialect: Any, _record: Any, arguments: Any, parameters: Any
) -> object:
    until = time.monotonic() + (ROOM_SECONDS if room_seconds is None else room_seconds)
    wait = SHORTEST_WAIT_SECONDS
    while True:
        try:
            return dialect.connect(*arguments, **parameters)
        except dialect.loaded_dbapi.OperationalError as error:
            is_full = any(words in str(error) for words in TURNED_AWAY)
            if not is_full or time.monotonic() > until:
                raise
        # What is idle here may be what another waits for.
        for keeper in _keepers():
            keeper.close_idle()
        time.sleep(random.uniform(wait / 2, wait))  # noqa: S311 (so that not all come again at once)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


class _Keeper:
    """Closes the idle connections of one engine; has a thread while there are any."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._used_at = 0.0
        self._is_watching = False

    def note_use(self, *_: object) -> None:
        """A connection is idle from now on."""
        with self._lock:
            self._used_at = time.monotonic()
            if self._is_watching:
                return
            self._is_watching = True
        watch = threading.Thread(target=self._watch, name="close idle connections", daemon=True)
        try:
            watch.start()
        except RuntimeError:  # no more threads, or the interpreter ends: the next use tries again
            self._is_watching = False

    def _watch(self) -> None:
        while (left := self._left()) > 0:
            time.sleep(left)
        self.close_idle()

    def close_idle(self) -> None:
        """As the pool does with one that it has no place for: SQLAlchemy itself has no word for it.

        A pool that is disposed of would keep what is given back to it later.
        """
        pool = self._engine.pool
        assert isinstance(pool, sa.QueuePool)
        with suppress(Empty):
            while True:
                pool._pool.get(block=False).close()
                pool._dec_overflow()

    def _left(self) -> float:
        with self._lock:
            left = self._used_at + KEPT_SECONDS - time.monotonic()
            self._is_watching = left > 0
            return left

    def begin_anew(self) -> None:
        """In a process that was forked: its parent has the connections, and the thread."""
        self._engine.dispose(close=False)
        self._begin()


_KEEPERS: WeakSet[_Keeper] = WeakSet()
_LOCK = threading.Lock()


def _keepers() -> list[_Keeper]:
    with _LOCK:
        return list(_KEEPERS)


def _begin_anew() -> None:
    global _LOCK  # noqa: PLW0603 (another thread of the parent may have held it)
    _LOCK = threading.Lock()
    for keeper in _keepers():
        keeper.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)
