"""The latest points of every asset: written with each result, read by the exporter.

Dagster's materialization holds a pointer (asset and revision) instead of the values, because
10,000 devices are 1.7 MB of metadata a time (DESIGN, facts about Dagster).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.core.points import Column, FieldValue, Point, merge_latest
from metrics_pipeline.storage.operational import SNAPSHOTS, insert_if_absent

SEPARATOR = ",\n"
TO_JSON = json.JSONEncoder(separators=(",", ":")).encode
ROWS_A_LINE = 16
"""Beginning to encode costs as much as a point, so a few are encoded at once."""
BATCH_BYTES = 1 << 16

Row = tuple[str, dict[str, str], dict[str, FieldValue], int]
"""A point as it is stored; a list, in fact, as JSON knows no tuples."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An asset's latest points. Times are nanoseconds since the epoch.

    `revision` grows by one with each write. `complete_at_ns` is when the asset last gave all it
    should give, None if it never has.
    """

    asset: str
    revision: int
    updated_at_ns: int
    complete_at_ns: int | None
    points: tuple[Point, ...]


def find(connection: sa.Connection, asset: str) -> Snapshot | None:
    """The snapshot of `asset`, or None if it never gave anything."""
    row = connection.execute(sa.select(SNAPSHOTS).where(SNAPSHOTS.c.asset == asset)).one_or_none()
    return None if row is None else _from_row(row)


def find_packed(connection: sa.Connection, asset: str) -> bytes:
    """The body of the snapshot of `asset`; of one without any points if there is none."""
    body = sa.select(SNAPSHOTS.c.body).where(SNAPSHOTS.c.asset == asset)
    return connection.execute(body).scalar_one_or_none() or encode(())


def find_changed(
    connection: sa.Connection, assets: Collection[str], known: dict[str, int]
) -> list[Snapshot]:
    """The snapshots of `assets` whose revision is not the `known` one."""
    heads = connection.execute(
        sa.select(SNAPSHOTS.c.asset, SNAPSHOTS.c.revision).where(SNAPSHOTS.c.asset.in_(assets))
    )
    changed = [row.asset for row in heads if known.get(row.asset) != row.revision]
    if not changed:
        return []
    rows = connection.execute(sa.select(SNAPSHOTS).where(SNAPSHOTS.c.asset.in_(changed)))
    return [_from_row(row) for row in rows]


def replace(
    connection: sa.Connection, asset: str, points: tuple[Point, ...], now_ns: int
) -> Snapshot:
    """Make `points`, which are all that `asset` should give, its snapshot; in a transaction."""
    old = _lock(connection, asset)
    return _save(connection, Snapshot(asset, old.revision + 1, now_ns, now_ns, points))


def replace_packed(connection: sa.Connection, asset: str, body: bytes, now_ns: int) -> None:
    """Make the points in `body`, which are all that `asset` should give, its snapshot."""
    old = _lock(connection, asset)
    times = {"updated_at_ns": now_ns, "complete_at_ns": now_ns}
    _update(connection, asset, {"revision": old.revision + 1, **times, "body": body})


def merge(
    connection: sa.Connection,
    asset: str,
    points: tuple[Point, ...],
    now_ns: int,
    whole: Collection[Column] = (),
) -> Snapshot:
    """Add `points`, a part of what `asset` should give; the other values stay, at their own time.

    But for those of the columns in `whole`, of which the points are all. To be called in a
    transaction.
    """
    old = _lock(connection, asset)
    merged = merge_latest(decode(old.body), points, whole)
    return _save(connection, Snapshot(asset, old.revision + 1, now_ns, old.complete_at_ns, merged))


def _lock(connection: sa.Connection, asset: str) -> sa.Row[Any]:
    """The row of `asset`, made if it is not there; no other transaction gets it before our end."""
    first = {"asset": asset, "revision": 0, "updated_at_ns": 0, "body": encode(())}
    insert_if_absent(connection, SNAPSHOTS, first)
    row = sa.select(SNAPSHOTS).where(SNAPSHOTS.c.asset == asset).with_for_update()
    return connection.execute(row).one()


def _save(connection: sa.Connection, snapshot: Snapshot) -> Snapshot:
    columns: dict[str, object] = {
        "revision": snapshot.revision,
        "updated_at_ns": snapshot.updated_at_ns,
        "complete_at_ns": snapshot.complete_at_ns,
        "body": encode(snapshot.points),
    }
    _update(connection, snapshot.asset, columns)
    return snapshot


def _update(connection: sa.Connection, asset: str, columns: dict[str, object]) -> None:
    connection.execute(sa.update(SNAPSHOTS).where(SNAPSHOTS.c.asset == asset).values(**columns))


class Packing:
    """Points on their way into a snapshot: packed as they come, so that memory stays flat.

    Compressed JSON: a list of [measurement, tags, fields, time_ns], a few in each line.
    """

    def __init__(self) -> None:
        self._pack = zlib.compressobj(1)
        self._parts = [self._pack.compress(b"[\n")]
        self._is_empty = True

    def add(self, points: Iterable[Point]) -> None:
        """Pack `points` behind those that came before."""
        rows = [[p.measurement, dict(p.tags), dict(p.fields), p.time_ns] for p in points]
        if rows:
            some = (rows[at : at + ROWS_A_LINE] for at in range(0, len(rows), ROWS_A_LINE))
            lines = SEPARATOR.join(TO_JSON(line)[1:-1] for line in some)
            text = lines if self._is_empty else f"{SEPARATOR}{lines}"
            self._parts.append(self._pack.compress(text.encode()))
            self._is_empty = False

    def finish(self) -> bytes:
        """The body; nothing can be added to it any more."""
        return b"".join([*self._parts, self._pack.compress(b"\n]"), self._pack.flush()])


def encode(points: Iterable[Point]) -> bytes:
    """`points`, packed."""
    packing = Packing()
    packing.add(points)
    return packing.finish()


def decode(body: bytes) -> tuple[Point, ...]:
    """The points in `body`, as `encode` was given them."""
    return tuple(Point(*row) for row in json.loads(zlib.decompress(body)))


def decode_in_batches(body: bytes, size: int = BATCH_BYTES) -> Iterator[list[Row]]:
    """The rows in `body`, about `size` bytes of JSON at a time: never all of them at once.

    For readers in a process that has to answer meanwhile, and to stay small. A body of before,
    which is all in one line, comes as one batch.
    """
    unpacking = zlib.decompressobj()
    rest = b""
    while body:
        text = rest + unpacking.decompress(body, size)
        body = unpacking.unconsumed_tail
        end = text.rfind(b"\n") + 1 if body else len(text)
        if rows := _rows(text[:end]):
            yield rows
        rest = text[end:]
    if not unpacking.eof:
        raise zlib.error("the compressed points end too early")


def _rows(lines: bytes) -> list[Row]:
    """Whole lines of a body, of which the first may open the list and the last close it."""
    rows: list[Row]
    if lines.startswith(b"[["):  # all in one line
        rows = json.loads(lines)
    else:
        inner = lines.removeprefix(b"[\n").removesuffix(b"\n]").rstrip(b",\n")
        # Of a closing bracket that is on its own the line break was in the batch before.
        rows = json.loads(b"[%b]" % inner.removesuffix(b"]" if inner == b"]" else b""))
    return rows


def _from_row(row: sa.Row[tuple[str, int, int, int | None, bytes]]) -> Snapshot:
    return Snapshot(
        row.asset, row.revision, row.updated_at_ns, row.complete_at_ns, decode(row.body)
    )
