"""Counts events that a hub dropped before they were read, each once however often it is noticed.

Who notices them counts them before the checkpoint moves past them, so that whoever dies in between
takes no count along. The next one then finds them missing again, from the same checkpoint on, and
perhaps more: so for each partition it is kept after which event was counted last, and how many.
"""

from __future__ import annotations

import sqlalchemy as sa

from metrics_pipeline.core import catalog
from metrics_pipeline.core.telemetry import PartitionKey
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.operational import TELEMETRY_LOSSES, insert_if_absent

LOST_TOTAL = catalog.EVENTHUB_LOST_EVENTS.name
"""The tally, by partition, of events that were gone before they were read."""

NOTHING_COUNTED = {"after_sequence_number": -2, "events": 0}
"""A checkpoint of this number there is none: sequence numbers begin with 0."""

_ROW = TELEMETRY_LOSSES.c


def count(connection: sa.Connection, key: PartitionKey, after: int, events: int) -> int:
    """Count that so many `events` are missing after the checkpoint at event `after`.

    Gives how many of them had not been counted; to be called in a transaction.
    """
    names = ("namespace", "hub", "consumer_group", "partition")
    values = (key.namespace.lower(), key.hub.lower(), key.consumer_group.lower(), key.partition)
    columns = dict(zip(names, values, strict=True))
    insert_if_absent(connection, TELEMETRY_LOSSES, {**columns, **NOTHING_COUNTED})
    here = [_ROW[name] == value for name, value in columns.items()]
    row = connection.execute(sa.select(TELEMETRY_LOSSES).where(*here).with_for_update()).one()
    counted = row.events if row.after_sequence_number == after else 0
    new = max(0, events - counted)
    if new:
        update = sa.update(TELEMETRY_LOSSES).where(*here)
        connection.execute(update.values(after_sequence_number=after, events=events))
        tallies.add(connection, LOST_TOTAL, {key.partition: new})
    return new
