"""Decodes an event; one on which the decoding itself fails does not stop its partition."""

from __future__ import annotations

import logging

from metrics_pipeline.core.lorawan import Decoded, Reason, Rules, decode
from metrics_pipeline.core.telemetry import DeadLetter, RawEvent

LOG = logging.getLogger(__name__)

DETAIL_CHARACTERS = 200


def decode_or_keep(event: RawEvent, rules: Rules, now_ns: int) -> Decoded:
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
    letter = DeadLetter(
        partition=event.partition,
        sequence_number=event.sequence_number,
        offset=event.offset,
        enqueued_time_ns=event.enqueued_time_ns,
        reason=reason,
        detail=f"decoding failed with {error!r}"[:DETAIL_CHARACTERS],
        body=event.body,
    )
    return Decoded((), {reason: 1}, {}, letter)
