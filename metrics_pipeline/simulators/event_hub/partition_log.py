"""The events of one partition, in order, as long as they are kept."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from metrics_pipeline.simulators.event_hub.amqp_messages import Message

NO_OFFSET: Final = "-1"
"""What Event Hubs calls the last offset of a partition that never had an event."""

_COMPACT_FROM: Final = 1024
_EXPIRY_EVERY: Final = 1024


@dataclass(frozen=True, slots=True)
class Retention:
    """How much a partition keeps at most; the oldest events are dropped first."""

    max_events: int = 2_000_000
    max_bytes: int = 1_000_000_000
    max_age_seconds: float = 86_400.0


class PartitionLog:
    """Appends and reads. Not thread-safe: one event loop owns it."""

    def __init__(self, retention: Retention, epoch_ms: Callable[[], int]) -> None:
        self.retention = retention
        self.readers: set[Callable[[], None]] = set()
        """Called after every append, to take what is new."""
        self.first_sequence_number = 0
        """Of the oldest event that is kept, or of the next one where none is."""
        self.size_bytes = 0
        self._epoch_ms = epoch_ms
        self._payloads: list[bytes] = []
        self._offsets = array("q")
        self._times_ms = array("q")
        self._dropped = 0  # at the front of the three, until they are compacted
        self._next_offset = 0
        self._last = (NO_OFFSET, 0)

    def __len__(self) -> int:
        return len(self._payloads) - self._dropped

    @property
    def last_sequence_number(self) -> int:
        """Of the newest event there ever was; -1 before the first."""
        return self.first_sequence_number + len(self) - 1

    @property
    def last_offset(self) -> str:
        """Of the newest event there ever was; "-1" before the first."""
        return self._last[0]

    @property
    def last_enqueued_ms(self) -> int:
        """When the newest event there ever was came; 0 before the first."""
        return self._last[1]

    def append(
        self, message: Message, partition_key: str | None = None, enqueued_ms: int | None = None
    ) -> int:
        """Keep `message`, and give its sequence number.

        Without `enqueued_ms` it comes now; it never comes before the one that came last.
        """
        sequence_number = self.last_sequence_number + 1
        given_ms = self._epoch_ms() if enqueued_ms is None else enqueued_ms
        enqueued_ms = max(given_ms, self.last_enqueued_ms)
        offset = self._next_offset
        payload = message.stored(sequence_number, str(offset), enqueued_ms, partition_key)
        self._payloads.append(payload)
        self._offsets.append(offset)
        self._times_ms.append(enqueued_ms)
        self._next_offset += len(payload)
        self.size_bytes += len(payload)
        self._last = (str(offset), enqueued_ms)
        if len(self) > self.retention.max_events or self.size_bytes > self.retention.max_bytes:
            self._drop_surplus()
        if sequence_number % _EXPIRY_EVERY == 0:
            self.drop_expired()
        return sequence_number

    def wake_readers(self) -> None:
        """Tell the readers that there is something new."""
        for wake in tuple(self.readers):
            wake()

    def payload(self, sequence_number: int) -> bytes:
        """The event as a receiver gets it. Raises IndexError when it is not there."""
        return self._payloads[sequence_number - self.first_sequence_number + self._dropped]

    def payloads(self, sequence_number: int, count: int) -> Sequence[bytes]:
        """At most `count` events from `sequence_number` on, which must be kept still."""
        start = sequence_number - self.first_sequence_number + self._dropped
        return self._payloads[start : start + count]

    def first_by_offset(self, offset: int, inclusive: bool) -> int:
        """The sequence number of the first event after `offset`, or at it if `inclusive`."""
        return self._first(self._offsets, offset, inclusive)

    def first_by_time(self, enqueued_ms: int, inclusive: bool) -> int:
        """The sequence number of the first event after `enqueued_ms`, or at it if `inclusive`."""
        return self._first(self._times_ms, enqueued_ms, inclusive)

    def drop_before(self, sequence_number: int) -> None:
        """Forget the events before `sequence_number`."""
        count = max(0, min(sequence_number - self.first_sequence_number, len(self)))
        for at in range(self._dropped, self._dropped + count):
            self.size_bytes -= len(self._payloads[at])
            self._payloads[at] = b""
        self._dropped += count
        self.first_sequence_number += count
        if self._dropped >= _COMPACT_FROM and 2 * self._dropped > len(self._payloads):
            self._compact()

    def drop_expired(self) -> None:
        """Forget the events that are older than they are kept."""
        oldest_ms = self._epoch_ms() - int(self.retention.max_age_seconds * 1000)
        self.drop_before(self.first_by_time(oldest_ms, inclusive=True))

    def _first(self, column: array[int], value: int, inclusive: bool) -> int:
        find = bisect_left if inclusive else bisect_right
        return self.first_sequence_number + find(column, value, self._dropped) - self._dropped

    def _drop_surplus(self) -> None:
        last = self.last_sequence_number
        self.drop_before(last + 1 - self.retention.max_events)
        first, size = self.first_sequence_number, self.size_bytes
        while size > self.retention.max_bytes and first < last:
            size -= len(self.payload(first))
            first += 1
        self.drop_before(first)

    def _compact(self) -> None:
        del self._payloads[: self._dropped]
        del self._offsets[: self._dropped]
        del self._times_ms[: self._dropped]
        self._dropped = 0
