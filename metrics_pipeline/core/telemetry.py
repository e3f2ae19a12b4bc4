"""What is known of events in a hub: where one is in a partition, and what could not be decoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """An event's place in its partition: the last one that was dealt with.

    `offset` is the hub's own word for it; `sequence_number` grows by one with each event.
    """

    offset: str
    sequence_number: int


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """One partition as one consumer group reads it.

    `namespace` is the full host name, `NAME.servicebus.windows.net`.
    """

    namespace: str
    hub: str
    consumer_group: str
    partition: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All events up to `position` are stored; a reader of `epoch` says so."""

    position: Position
    epoch: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event, or the uplink at `index` of the array in it, that could not be decoded.

    `reason` is one of few words: a label. `detail` is for people. `body` is the event's.
    """

    partition: str
    sequence_number: int
    offset: str
    enqueued_time_ns: int
    reason: str
    detail: str
    body: bytes
    index: int = 0
