"""Events of a hub read once more: a range of one partition, or those that have dead letters.

Decoding an event again gives the same points, with the same times, so storing them again changes
nothing. Checkpoints stay where they are, and no run is disturbed: events are read without an epoch,
which shuts out nobody. A run that reads the same partition in the same consumer group has an epoch,
and whoever has none is then shut out by the hub.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from metrics_pipeline.core.errors import ConfigurationError, PartitionTaken, SourceUnreachable
from metrics_pipeline.core.lorawan import Rules
from metrics_pipeline.core.ports import EventStream, PartitionReader
from metrics_pipeline.core.telemetry import (
    BEFORE_THE_FIRST,
    UNKNOWN_OFFSET,
    BatchLimits,
    DeadLetter,
    Position,
    RawEvent,
)
from metrics_pipeline.ingestion.decoding import decode_batch
from metrics_pipeline.storage.dead_letters import DeadLetters, KeptDeadLetter
from metrics_pipeline.storage.writer import Writer

QUIET_SECONDS = 15.0
"""A hub that gives nothing for so long, though it has more, is given up."""

FAR_EVENTS = 2000
"""To an event that is so far ahead a new reader is nearer than the events between."""


@dataclass(slots=True)
class Replayed:
    """What became of the events that were read again; `refused` counts by reason."""

    events: int = 0
    points: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    gone: int = 0
    """Events that the hub does not have any more."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Reads from `stream`, stores by `writer`; `dead_letters` are those of the runs."""

    stream: EventStream
    writer: Writer
    dead_letters: DeadLetters
    rules: Rules
    limits: BatchLimits

    def replay_range(
        self, partition: str, first: int, last: int | None, tell: Callable[[Replayed], None]
    ) -> Replayed:
        """Store the events from `first` to `last` again, and keep dead letters of the others.

        None for `last` is the newest at the moment.
        """
        done = Replayed()
        if last is None:
            last = self.stream.partitions()[partition].last_sequence_number
        for events in self._read(partition, first, last):
            self._store(events, self.rules, done)
            tell(done)
        done.gone = max(0, last - first + 1 - done.events)
        return done

    def replay_dead_letters(self, kept: Sequence[KeptDeadLetter], done: Replayed) -> list[int]:
        """Try those of `kept`, all of one partition, once more; the ids of those that are stored.

        What became of them is added to `done`.
        """
        decoded: list[int] = []
        for letters in _near_each_other(kept):
            waiting = {_identity(each.letter): each for each in letters}
            numbers = [each.letter.sequence_number for each in letters]
            partition = letters[0].letter.partition
            for events in self._read(partition, min(numbers), max(numbers)):
                for event in events:
                    found = waiting.pop(_identity(event), None)
                    if found is not None and self._store_once_more(event, self.rules, done):
                        decoded.append(found.id)
            decoded += self._try_what_is_gone(waiting.values(), done)
        return decoded

    def _try_what_is_gone(self, letters: Iterable[KeptDeadLetter], done: Replayed) -> Iterator[int]:
        """From what the table has, where that is the whole body; who sent it is not there."""
        rules = replace(self.rules, is_iot_hub=False)
        for each in letters:
            letter = each.letter
            if len(letter.body) < each.body_bytes:
                done.gone += 1
                continue
            event = RawEvent(
                letter.partition,
                letter.sequence_number,
                letter.offset,
                letter.enqueued_time_ns,
                letter.body,
                {},
            )
            if self._store_once_more(event, rules, done):
                yield each.id

    def _store_once_more(self, event: RawEvent, rules: Rules, done: Replayed) -> bool:
        """Whether all of `event` could be decoded and was stored."""
        refused, rejected = done.refused.total(), done.rejected.total()
        self._store([event], rules, done)
        return (refused, rejected) == (done.refused.total(), done.rejected.total())

    def _store(self, events: Sequence[RawEvent], rules: Rules, done: Replayed) -> None:
        """Store their points, and then the dead letters of what is not stored."""
        batch = decode_batch(events, rules, time.time_ns())
        part = self.writer.append(batch.points, names_refused=True)
        done.points += part.written.total()
        done.rejected += part.rejected
        done.refused += batch.refused
        self.dead_letters.keep(batch.letters_after(part.refused))
        done.events += len(events)

    def position_before(self, partition: str, number: int, claim: Callable[[], int]) -> Position:
        """Where a reader stands that is to read event `number` next, or the first that is not gone.

        Of a partition that keeps no event that is behind all that are gone. If the event before it
        has to be read, that is in the epoch that `claim` gives. Raises ConfigurationError if
        `number` is beyond the next one that comes.
        """
        state = self.stream.partitions()[partition]
        after = state.last_sequence_number + 1
        if number > after:
            problem = f"{self.stream.name} has no event {number} in partition {partition} yet"
            raise ConfigurationError("--from", problem, f"The next one is {after}.")
        if number == after or state.is_empty:
            return Position(state.last_offset or BEFORE_THE_FIRST, after - 1)
        if number <= state.first_sequence_number:
            # At `number` itself, what is gone would be counted as lost, and it may well be stored.
            return Position(BEFORE_THE_FIRST, state.first_sequence_number - 1)
        for events in self._read(partition, number - 1, number - 1, claim):
            return Position(events[0].offset, number - 1)
        return Position(BEFORE_THE_FIRST, number - 1)

    def _read(
        self, partition: str, first: int, last: int, claim: Callable[[], int] | None = None
    ) -> Iterator[Sequence[RawEvent]]:
        """The events from `first` to `last` that the hub still has."""
        state = self.stream.partitions().get(partition)
        if state is None or state.is_empty:
            return
        first, last = max(first, state.first_sequence_number), min(last, state.last_sequence_number)
        if first > last:
            return
        epoch = None if claim is None else claim()
        after = Position(UNKNOWN_OFFSET, first - 1)
        with closing(self.stream.open(partition, after, epoch)) as reader:
            while first <= last:
                events = self._receive(reader, partition, first)
                first = events[-1].sequence_number + 1
                yield [event for event in events if event.sequence_number <= last]

    def _receive(self, reader: PartitionReader, partition: str, number: int) -> Sequence[RawEvent]:
        """The next events, of which there are some. SourceUnreachable if they do not come."""
        deadline = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < deadline:
            events = self._receive_beside_others(reader)
            if events:
                return events
        raise SourceUnreachable(
            self.stream.name,
            f"partition {partition}",
            f"event {number} should be there and did not come within {QUIET_SECONDS:g} s",
            "Try again; what was stored until then stays.",
        )

    def _receive_beside_others(self, reader: PartitionReader) -> Sequence[RawEvent]:
        try:
            return reader.receive(self.limits)
        except PartitionTaken as error:
            raise PartitionTaken(
                error.source,
                error.target,
                f"somebody, such as a run, reads it in consumer group {self.stream.consumer_group} "
                f"and with an epoch; the hub lets nobody else in then ({error.problem})",
                "Make the hub another consumer group and name it by --consumer-group, or try again "
                "when no run is in flight. The run goes on, and what was stored until then stays.",
            ) from error


def _identity(event: RawEvent | DeadLetter) -> tuple[int, int]:
    """Which event of its partition it is, also in a hub that was made anew and counts from 0."""
    return event.sequence_number, event.enqueued_time_ns


def _near_each_other(kept: Sequence[KeptDeadLetter]) -> Iterator[list[KeptDeadLetter]]:
    """`kept` in groups that one reader reads on its way."""
    group: list[KeptDeadLetter] = []
    for each in sorted(kept, key=lambda each: each.letter.sequence_number):
        number = each.letter.sequence_number
        if group and number - group[-1].letter.sequence_number > FAR_EVENTS:
            yield group
            group = []
        group.append(each)
    if group:
        yield group
