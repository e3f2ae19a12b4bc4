"""What a stream source and the rest of the product hand to each other: events and positions.

A partition's events are numbered without gaps; an offset is the hub's own opaque place of an event
in it. Times are nanoseconds since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SystemProperty = str | int | float | bool | None


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


@dataclass(frozen=True, slots=True)
class RawEvent:
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

    `detail` says more, for people. The table keeps the first 1,024 bytes of `body`. `index` tells
    apart what is kept of the uplinks of one event.
    """

    partition: str
    sequence_number: int
    offset: str
    enqueued_time_ns: int
    reason: str
    detail: str
    body: bytes
    index: int = 0
