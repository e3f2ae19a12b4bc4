"""The stream of events that the settings name. Its client is imported by who opens one.

The client takes some tenths of a second and 20 MB to import; every process of Dagster imports what
is here, and few of them read events.
"""

from __future__ import annotations

from metrics_pipeline.core.ports import EventStream
from metrics_pipeline.sources.event_hub_settings import EventHubSettings


def open_stream(settings: EventHubSettings, consumer_group: str | None = None) -> EventStream:
    """The stream that `settings` name, read in `consumer_group` if given; connects at first use.

    Raises ConfigurationError for a connection string that is missing or cannot be used.
    """
    from metrics_pipeline.sources.event_hub import EventHubStream  # noqa: PLC0415

    group = settings.consumer_group if consumer_group is None else consumer_group
    return EventHubStream(settings.model_copy(update={"consumer_group": group}))
