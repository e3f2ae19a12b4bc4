"""What is too old for the embedded store is deleted, and its space given back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

POINTS_AT_ONCE = 5_000
"""Some 5 ms of one transaction, for which everybody who writes waits."""

PAGES_AT_ONCE = 1_000
"""4 MB; each page is written once more, where a deleted one was."""

SPARE_SHARE = 0.1
"""So much of the file may be free: it is used again, and giving it back costs writing."""

INCREMENTAL = 2
"""What `PRAGMA auto_vacuum` says of a file that can shrink; those of earlier releases cannot."""

_LAST = """
SELECT time_ns, series_id FROM point WHERE measurement_id = ? AND time_ns < ?
ORDER BY time_ns, series_id LIMIT 1 OFFSET ?
"""
_DELETE_UP_TO = """
DELETE FROM point WHERE measurement_id = ? AND (time_ns, series_id) <= (?, ?)
"""
_DELETE_BEFORE = "DELETE FROM point WHERE measurement_id = ? AND time_ns < ?"


@dataclass(frozen=True, slots=True)
class FileSize:
    """Bytes of the file, and of them those that are free to be used again."""

    total_bytes: int
    free_bytes: int
    can_shrink: bool


def measurements(connection: sqlite3.Connection) -> list[int]:
    """The numbers of all measurements."""
    return [number for (number,) in connection.execute("SELECT id FROM measurement ORDER BY id")]


def delete_batch(connection: sqlite3.Connection, measurement: int, before_ns: int) -> int:
    """Delete the oldest points before then, a batch of them; says how many. In a transaction."""
    last = connection.execute(_LAST, (measurement, before_ns, POINTS_AT_ONCE - 1)).fetchone()
    if last is None:
        return connection.execute(_DELETE_BEFORE, (measurement, before_ns)).rowcount
    return connection.execute(_DELETE_UP_TO, (measurement, *last)).rowcount


def file_size(connection: sqlite3.Connection) -> FileSize:
    """How large the file is."""
    pages, free, page_bytes, vacuum = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size", "auto_vacuum")
    )
    return FileSize(pages * page_bytes, free * page_bytes, vacuum == INCREMENTAL)


def give_back(connection: sqlite3.Connection) -> Iterator[int]:
    """Step by step the bytes given back, until little enough of the file is free."""
    while True:
        before = file_size(connection)
        if not before.can_shrink or before.free_bytes <= before.total_bytes * SPARE_SHARE:
            return
        # One row a page; a transaction of its own.
        connection.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
        given = before.total_bytes - file_size(connection).total_bytes
        if given <= 0:
            return
        yield given
