"""Decodes events, and makes dead letters of what cannot be decoded, or not be stored.

An event on which the decoding itself fails does not stop its partition.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from metrics_pipeline.core.errors import RefusedPoint
from metrics_pipeline.core.lorawan import Decoded, Reason, Rules, dead_letter, decode
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import DeadLetter, RawEvent

LOG = logging.getLogger(__name__)

DETAIL_CHARACTERS = 200
STORE_PREFIX = "store_"
"""Of the reasons of validation and of stores, some of which have the words of `lorawan.Reason`."""


@dataclass(slots=True)
class Batch:
    """A micro-batch, decoded. `refused` and `altered` count by reason."""

    events: Sequence[RawEvent]
    points: list[Point] = field(default_factory=list)
    sources: list[RawEvent] = field(default_factory=list)
    """The event of each point."""

    letters: list[DeadLetter] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    altered: Counter[str] = field(default_factory=Counter)

    def letters_after(self, refused: Iterable[RefusedPoint]) -> list[DeadLetter]:
        """One for each event of which anything was not stored; `refused` are of `points`."""
        sources = {id(point): event for point, event in zip(self.points, self.sources, strict=True)}
        letters = {letter.sequence_number: letter for letter in self.letters}
        for each in refused:
            event = sources[id(each.point)]
            reason = store_reason(each.reason)
            letter = dead_letter(event, reason, each.detail[:DETAIL_CHARACTERS])
            letters.setdefault(event.sequence_number, letter)
        return sorted(letters.values(), key=lambda letter: letter.sequence_number)


def store_reason(reason: str) -> str:
    """`reason` for which a point was not stored, as a dead letter has it."""
    return reason if reason.startswith(STORE_PREFIX) else f"{STORE_PREFIX}{reason}"


def decode_batch(events: Sequence[RawEvent], rules: Rules, now_ns: int) -> Batch:
    """All that is to be stored of `events`; never fails."""
    batch = Batch(events)
    for event in events:
        decoded = _decode_or_keep(event, rules, now_ns)
        batch.points += decoded.points
        batch.sources += [event] * len(decoded.points)
        if decoded.refused:
            batch.refused.update(decoded.refused)
        if decoded.altered:
            batch.altered.update(decoded.altered)
        if decoded.dead_letter is not None:
            batch.letters.append(decoded.dead_letter)
    return batch


def _decode_or_keep(event: RawEvent, rules: Rules, now_ns: int) -> Decoded:
    """What `decode` gives; where it raises, which it should not, a dead letter `internal`.

    Read again, such an event would fail again: nothing behind it would ever be stored. The error is
    logged with its stack; `telemetry replay --dead-letters` stores the event once that is mended.
    """
    try:
        return decode(event, rules, now_ns)
    except Exception as error:
        LOG.exception(
            "event %d of partition %s: decoding failed unexpectedly, it is kept as a dead letter",
            *(event.sequence_number, event.partition),
        )
        return _internal(event, error)


def _internal(event: RawEvent, error: Exception) -> Decoded:
    reason = Reason.INTERNAL.value
    detail = f"decoding failed with {error!r}"[:DETAIL_CHARACTERS]
    return Decoded((), {reason: 1}, {}, dead_letter(event, reason, detail))
