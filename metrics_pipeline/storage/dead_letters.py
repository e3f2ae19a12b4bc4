"""What could not be decoded or stored, with its origin and reason, to be looked at and replayed.

Every one is stored, none is sampled away, because a checkpoint may move past an event only when
its points or its dead letter are stored. What bounds the table is its size: when it is full the
oldest are dropped, counted, and told. An event that is read twice is there once, and counted once.

An event is told apart by where it is (namespace, hub, consumer group, partition, sequence number)
and when the hub accepted it: a hub that is made anew under an old name counts from 0 again.

All changes are made by one transaction at a time, which holds the row of `DEAD_LETTER_SIZE`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, Field

from metrics_pipeline.core import catalog
from metrics_pipeline.core.telemetry import DeadLetter
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.operational import (
    DEAD_LETTER_SIZE,
    DEAD_LETTERS,
    OperationalDatabase,
    insert_if_absent,
)

KEPT_TOTAL = catalog.DEAD_LETTERS.name
"""The tally, by reason, of dead letters that were stored."""

DROPPED_TOTAL = catalog.DEAD_LETTERS_DROPPED.name
"""The tally, by reason, of dead letters that were dropped because the table was full."""

BODY_BYTES = 1024
"""So much of the beginning of a body is kept."""

REASON_CHARACTERS = 64
DETAIL_CHARACTERS = 512
ROW_BYTES = 200
"""What a row counts for besides its texts and its body; about what both databases need."""

IDS_AT_ONCE = 500
"""So many are named by one statement; SQLite before 3.32 takes 999 parameters at most."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_LOG = logging.getLogger(__name__)
_ROW = DEAD_LETTERS.c
_SUM = sa.func.coalesce(sa.func.sum(_ROW.size_bytes), 0)
_OLDEST = sa.select(_ROW.id, _ROW.reason, _ROW.size_bytes).order_by(_ROW.id).limit(IDS_AT_ONCE)


class DeadLetterSettings(BaseModel, frozen=True, extra="forbid"):
    """How much is kept of what cannot be decoded or stored; beyond it the oldest are dropped."""

    max_rows: int = Field(default=100_000, ge=1, description="Dead letters that are kept at most.")
    max_bytes: int = Field(
        default=100_000_000,
        ge=10_000,
        description="Bytes that they take at most: of each the first 1,024 of the body, its "
        "reason, and 200 for the rest.",
    )


@dataclass(frozen=True, slots=True)
class KeptDeadLetter:
    """A dead letter in the table; `letter.body` is the beginning of `body_bytes` bytes.

    `kept_at_ns` is when it was stored, nanoseconds since the epoch.
    """

    id: int
    kept_at_ns: int
    letter: DeadLetter
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters: all of these hold; None is any. Both sequence numbers are included."""

    reason: str | None = None
    partition: str | None = None
    id: int | None = None
    after_id: int | None = None
    kept_since_ns: int | None = None
    kept_before_ns: int | None = None
    first_sequence_number: int | None = None
    last_sequence_number: int | None = None


EVERY = Selection()


@dataclass(frozen=True, slots=True)
class KeepReport:
    """By reason, the dead letters that are new in the table, and the old ones that had to go."""

    kept: Mapping[str, int]
    dropped: Mapping[str, int]


class DeadLetters:
    """The dead letters of one consumer group of a hub; the bounds are of the whole table.

    May be shared between threads and used by many processes at once. Every method raises
    StoreUnavailable when the operational database fails.
    """

    def __init__(
        self,
        database: OperationalDatabase,
        settings: DeadLetterSettings,
        namespace: str,
        hub: str,
        consumer_group: str,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._database = database
        self._settings = settings
        self._hub = {
            "namespace": namespace.lower(),
            "hub": hub.lower(),
            "consumer_group": consumer_group.lower(),
        }
        self._clock_ns = clock_ns

    def keep(self, letters: Sequence[DeadLetter]) -> KeepReport:
        """Store those of `letters` that are not there yet, in one transaction.

        Then the oldest of the table go until it is within its bounds; a warning says so.
        """
        if not letters:
            return KeepReport({}, {})
        with self._database.writing() as connection:
            rows, size_bytes = _lock_size(connection)
            new = self._new_rows(connection, letters)
            if new:
                connection.execute(sa.insert(DEAD_LETTERS), new)
            size_bytes += sum(row["size_bytes"] for row in new)
            dropped = self._drop_oldest(connection, rows + len(new), size_bytes)
            kept = Counter(row["reason"] for row in new)
            tallies.add(connection, KEPT_TOTAL, kept)
            tallies.add(connection, DROPPED_TOTAL, dropped)
        if dropped:
            self._warn(dropped)
        return KeepReport(kept, dropped)

    def find(self, wanted: Selection = EVERY, limit: int = 100) -> list[KeptDeadLetter]:
        """The oldest `limit` of those `wanted`, oldest first."""
        query = sa.select(DEAD_LETTERS).where(*self._conditions(wanted))
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(_ROW.id).limit(limit))
            return [_from_row(row) for row in rows]

    def counts(self, wanted: Selection = EVERY) -> dict[str, int]:
        """How many of those `wanted` there are, by reason."""
        query = sa.select(_ROW.reason, sa.func.count()).where(*self._conditions(wanted))
        with self._database.reading() as connection:
            found = connection.execute(query.group_by(_ROW.reason).order_by(_ROW.reason))
            return {row.reason: row[1] for row in found}

    def remove(self, ids: Collection[int]) -> int:
        """Delete the dead letters with these ids, after a replay; says how many were there."""
        ordered = sorted(ids)
        with self._database.writing() as connection:
            rows, size_bytes = _lock_size(connection)
            removed = 0
            for start in range(0, len(ordered), IDS_AT_ONCE):
                mine = [_ROW[name] == value for name, value in self._hub.items()]
                gone = sa.and_(_ROW.id.in_(ordered[start : start + IDS_AT_ONCE]), *mine)
                size_bytes -= int(connection.execute(sa.select(_SUM).where(gone)).scalar_one())
                removed += connection.execute(sa.delete(DEAD_LETTERS).where(gone)).rowcount
            _save_size(connection, rows - removed, size_bytes)
        return removed

    def _new_rows(
        self, connection: sa.Connection, letters: Sequence[DeadLetter]
    ) -> list[dict[str, Any]]:
        """Rows for `letters` less those that are there already; the first of equal ones counts."""
        numbers = [letter.sequence_number for letter in letters]
        identity = (_ROW.partition, _ROW.sequence_number, _ROW.enqueued_time_ns, _ROW.uplink_index)
        known = sa.select(*identity).where(
            *(_ROW[name] == value for name, value in self._hub.items()),
            _ROW.partition.in_({letter.partition for letter in letters}),
            _ROW.sequence_number.between(min(numbers), max(numbers)),
        )
        seen = {tuple(row) for row in connection.execute(known)}
        now_ns = self._clock_ns()
        new: list[dict[str, Any]] = []
        for letter in letters:
            row = {**self._hub, "kept_at_ns": now_ns, **_columns(letter)}
            if (key := tuple(row[column.name] for column in identity)) not in seen:
                seen.add(key)
                new.append(row)
        return new

    def _drop_oldest(self, connection: sa.Connection, rows: int, size_bytes: int) -> Counter[str]:
        """Delete the oldest until the rest fits, and note its size; the deleted ones by reason."""
        dropped: Counter[str] = Counter()
        last_id = 0
        if self._is_too_much(rows, size_bytes):
            rows, size_bytes = _true_size(connection, rows, size_bytes)
        while self._is_too_much(rows, size_bytes):
            for row in connection.execute(_OLDEST.where(_ROW.id > last_id)).all():
                rows, size_bytes, last_id = rows - 1, size_bytes - row.size_bytes, row.id
                dropped[row.reason] += 1
                if not self._is_too_much(rows, size_bytes):
                    break
        if dropped:
            connection.execute(sa.delete(DEAD_LETTERS).where(_ROW.id <= last_id))
        _save_size(connection, rows, size_bytes)
        return dropped

    def _is_too_much(self, rows: int, size_bytes: int) -> bool:
        return rows > self._settings.max_rows or size_bytes > self._settings.max_bytes

    def _conditions(self, wanted: Selection) -> list[sa.ColumnElement[bool]]:
        given = (
            (wanted.reason, _ROW.reason.__eq__),
            (wanted.partition, _ROW.partition.__eq__),
            (wanted.id, _ROW.id.__eq__),
            (wanted.after_id, _ROW.id.__gt__),
            (wanted.kept_since_ns, _ROW.kept_at_ns.__ge__),
            (wanted.kept_before_ns, _ROW.kept_at_ns.__lt__),
            (wanted.first_sequence_number, _ROW.sequence_number.__ge__),
            (wanted.last_sequence_number, _ROW.sequence_number.__le__),
        )
        mine = [_ROW[name] == value for name, value in self._hub.items()]
        return [*mine, *(compare(value) for value, compare in given if value is not None)]

    def _warn(self, dropped: Counter[str]) -> None:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        _LOG.warning(
            "The table of dead letters in the operational database %s is full (%d rows or %d "
            "bytes): the oldest %d were dropped (%s). Replay or remove some, or raise its bounds.",
            *(self._database.name, self._settings.max_rows, self._settings.max_bytes),
            *(dropped.total(), reasons),
        )


def delete_before(database: OperationalDatabase, time_ns: int) -> int:
    """Delete the oldest of those of all hubs that were kept before then; says how many.

    At most 500, in one transaction. Not counted as dropped: the table was not full. Raises
    StoreUnavailable when the operational database fails.
    """
    old = _OLDEST.where(_ROW.kept_at_ns < time_ns)
    with database.reading() as connection:
        if not connection.execute(old.limit(1)).all():
            return 0
    with database.writing() as connection:
        rows, size_bytes = _lock_size(connection)
        found = connection.execute(old).all()
        gone = [row.id for row in found]
        connection.execute(sa.delete(DEAD_LETTERS).where(_ROW.id.in_(gone)))
        _save_size(connection, rows - len(gone), size_bytes - sum(row.size_bytes for row in found))
    return len(gone)


def _lock_size(connection: sa.Connection) -> tuple[int, int]:
    """Rows and bytes in the table; nobody else changes it before our end."""
    insert_if_absent(connection, DEAD_LETTER_SIZE, {"id": 0, "row_count": 0, "size_bytes": 0})
    row = connection.execute(sa.select(DEAD_LETTER_SIZE).with_for_update()).one()
    return row.row_count, row.size_bytes


def _true_size(connection: sa.Connection, rows: int, size_bytes: int) -> tuple[int, int]:
    """As noted, or counted anew if somebody has deleted rows by hand."""
    if (
        connection.execute(sa.select(sa.func.count()).select_from(DEAD_LETTERS)).scalar_one()
        == rows
    ):
        return rows, size_bytes
    counted = connection.execute(sa.select(sa.func.count(), _SUM)).one()
    return int(counted[0]), int(counted[1])


def _save_size(connection: sa.Connection, rows: int, size_bytes: int) -> None:
    connection.execute(sa.update(DEAD_LETTER_SIZE).values(row_count=rows, size_bytes=size_bytes))


def _columns(letter: DeadLetter) -> dict[str, Any]:
    reason = _storable(letter.reason, REASON_CHARACTERS)
    detail = _storable(letter.detail, DETAIL_CHARACTERS)
    offset = _storable(letter.offset, DETAIL_CHARACTERS)
    body = letter.body[:BODY_BYTES]
    texts_bytes = sum(len(text.encode()) for text in (reason, detail, offset))
    return {
        "partition": letter.partition,
        "sequence_number": letter.sequence_number,
        "uplink_index": letter.index,
        "offset": offset,
        # What a broken event says must not keep it from being put away.
        "enqueued_time_ns": max(INT64_MIN, min(letter.enqueued_time_ns, INT64_MAX)),
        "reason": reason,
        "detail": detail,
        "body": body,
        "body_bytes": len(letter.body),
        "size_bytes": ROW_BYTES + texts_bytes + len(body),
    }


def _storable(text: str, characters: int) -> str:
    """`text` without what PostgreSQL cannot keep (NUL, halves of surrogate pairs), and short."""
    whole = text[:characters].encode(errors="backslashreplace").decode()
    return whole.replace("\0", "\\x00")


def _from_row(row: sa.Row[Any]) -> KeptDeadLetter:
    letter = DeadLetter(
        partition=row.partition,
        sequence_number=row.sequence_number,
        offset=row.offset,
        enqueued_time_ns=row.enqueued_time_ns,
        reason=row.reason,
        detail=row.detail,
        body=bytes(row.body),
        index=row.uplink_index,
    )
    return KeptDeadLetter(row.id, row.kept_at_ns, letter, row.body_bytes)
