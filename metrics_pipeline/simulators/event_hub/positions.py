"""Where a receiver begins: the selector of its filter, as the SDKs of Event Hubs write it.

    amqp.annotation.x-opt-offset > '-1'

The annotation is the offset, the sequence number or the enqueued time (ms); `>=` begins at the
event itself; the offsets '-1' and '@latest' are before the first and after the last.
Fact: `event_position_selector` of azure-eventhub 5.15.
"""

from __future__ import annotations

import re
from typing import Final

from metrics_pipeline.simulators.event_hub.partition_log import NO_OFFSET, PartitionLog

LATEST: Final = "@latest"

_SELECTOR: Final = re.compile(
    r"\s*amqp\.annotation\.x-opt-(?P<what>offset|sequence-number|enqueued-time)"
    r"\s*(?P<sign>>=?)\s*'(?P<value>@latest|-?[0-9]{1,18})'\s*"
)


class PositionError(ValueError):
    """There is no such position; the message is what the service says."""


def first_sequence_number(log: PartitionLog, selector: str | None) -> int:
    """The sequence number a receiver with `selector` begins at; without one, at the oldest event.

    Raises PositionError for a selector of another form, and for an offset or a sequence number
    that the partition has not reached.
    """
    if selector is None:
        return log.first_sequence_number
    match = _SELECTOR.fullmatch(selector)
    if match is None:
        raise PositionError(f"The filter '{selector}' is no position in a partition.")
    inclusive = match["sign"] == ">="
    if match["value"] == LATEST:
        return log.last_sequence_number + (not inclusive or len(log) == 0)
    value = int(match["value"])
    if match["what"] == "enqueued-time":
        return log.first_by_time(value, inclusive)
    if match["what"] == "offset":
        return _by_offset(log, value, inclusive)
    return _by_sequence_number(log, value, inclusive)


def _by_offset(log: PartitionLog, offset: int, inclusive: bool) -> int:
    last = int(log.last_offset)
    if offset > last:
        raise _not_reached("offset", offset, last)
    return log.first_by_offset(offset, inclusive or offset == int(NO_OFFSET))


def _by_sequence_number(log: PartitionLog, sequence_number: int, inclusive: bool) -> int:
    last = log.last_sequence_number
    # One past the end is a position too, where the next event will be.
    if sequence_number > last + inclusive:
        raise _not_reached("sequence number", sequence_number, last)
    return max(sequence_number + (not inclusive), log.first_sequence_number)


def _not_reached(what: str, value: int, last: int) -> PositionError:
    # The sentence of the service: azure-sdk-for-java, issues 10215 and 28990.
    return PositionError(
        f"The supplied {what} '{value}' is invalid. The last {what} in the system is '{last}'"
    )
