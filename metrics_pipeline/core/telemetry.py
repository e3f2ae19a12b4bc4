"""What a stream source and the rest of the product hand to each other: events and positions.

A partition's events are numbered without gaps; an offset is the hub's own opaque place of an event
in it. Times are nanoseconds since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

SystemProperty = str | int | float | bool | None


BEFORE_THE_FIRST = "-1"
"""The offset behind which comes all that a hub keeps."""

UNKNOWN_OFFSET = ""
"""Of a position that is known by its sequence number alone; checkpoints have none such."""


@dataclass(frozen=True, slots=True)
class Position:
    """An event's place in its partition."""

    offset: str
    sequence_number: int


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """Whose position it is: a consumer group's, in one partition of a hub."""

    namespace: str
    hub: str
    consumer_group: str
    partition: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last event that is stored; `epoch` is the owner level of the reader that stored it."""

    position: Position
    epoch: int


class RawEvent(NamedTuple):
    """One event as the hub gave it; nothing of it is trusted."""

    partition: str
    sequence_number: int
    offset: str
    enqueued_time_ns: int
    body: bytes
    system_properties: Mapping[str, SystemProperty]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event of which something could not be used; `reason` is one of a few fixed words.

    `detail` says more, for people. The table keeps the first 1,024 bytes of `body`. `index` is
    part of what makes a row of the table one of its kind, and 0 in every letter of an ingestion,
    which keeps one for an event.
    """

    partition: str
    sequence_number: int
    offset: str
    enqueued_time_ns: int
    reason: str
    detail: str
    body: bytes
    index: int = 0


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What a hub says of one of its partitions, whoever reads it.

    The sequence numbers are those of the oldest event that is kept and of the newest that was ever
    accepted (-1 before the first). A partition that keeps none any more is empty: then the first
    says nothing, and the last, its offset and its time are still those of the newest there was.
    """

    first_sequence_number: int
    last_sequence_number: int
    last_offset: str
    last_enqueued_time_ns: int
    is_empty: bool

    def lag_events(self, position: Position | None) -> int:
        """How many events there are after `position`; None is before the first."""
        if self.is_empty:
            return 0
        done = self.first_sequence_number - 1
        if position is not None:
            done = max(done, position.sequence_number)
        return max(0, self.last_sequence_number - done)

    def lost_events(self, position: Position | None) -> int:
        """How many events after `position` are gone, for they were older than the retention."""
        if position is None:
            return 0
        first = self.last_sequence_number + 1 if self.is_empty else self.first_sequence_number
        return max(0, first - 1 - position.sequence_number)


def in_order(partition: str) -> tuple[int, str]:
    """To sort partitions by, whose names are numbers nearly always: 2 comes before 10."""
    return (len(partition), partition)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one micro-batch may hold: it is whole when the first of these is reached."""

    max_events: int = 4000
    max_bytes: int = 4_000_000
    """Of bodies. One event may be more than that by itself."""

    max_wait_seconds: float = 0.5
    """So long it is waited for more; what is there then is the micro-batch, and may be nothing."""
