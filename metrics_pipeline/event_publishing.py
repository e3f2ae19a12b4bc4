"""The publisher of a process, under the settings: where it sends to, and where it is counted."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import partial

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.catalog import EVENTS_DROPPED, EVENTS_PUBLISHED
from metrics_pipeline.events.open import open_transport
from metrics_pipeline.events.publisher import EventPublisher
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.operational import OperationalDatabase


def open_publisher(settings: Settings) -> EventPublisher:
    """Sends where `settings.events` says, and adds to the totals that the exporter shows.

    Opens nothing before the first event. It is closed when the process ends; until then several
    may be open.
    """
    events = settings.events
    transport = events.transport
    return EventPublisher(
        None if transport is None else partial(open_transport, transport),
        queue_events=events.queue_size,
        count=partial(_count, settings.operational_database),
        publishes_metrics=events.publish_metrics,
    )


def _count(database: DatabaseSettings, published: int, dropped: Mapping[str, int]) -> None:
    with closing(OperationalDatabase(database)) as opened, opened.writing() as connection:
        counts = {EVENTS_PUBLISHED.name: {"": published}, EVENTS_DROPPED.name: dropped}
        tallies.add_all(connection, counts)
