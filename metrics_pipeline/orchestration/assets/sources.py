"""What is read, as the upstream end of the lineage. Dagster does not make these; it shows them."""

import dagster as dg

from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.registry import SOURCES


def build_source_assets(settings: Settings) -> list[dg.AssetSpec]:
    """One external asset for each source the settings use, and for devices polled or heard of."""
    devices = dg.AssetSpec(
        key=["inventory", "devices"],
        description="Which devices there are: read by this pipeline, kept by others.",
        group_name="sources",
        kinds={"sql"},
    )
    uplinks = dg.AssetSpec(
        key=["event_hub", "uplinks"],
        description="What LoRaWAN devices sent: in an event hub, which keeps it for some days.",
        group_name="sources",
        kinds={"azure"},
    )
    return [
        *([devices] if settings.polls_devices else []),
        *([uplinks] if settings.telemetry is not None else []),
        *_counted_sources(settings),
    ]


def _counted_sources(settings: Settings) -> list[dg.AssetSpec]:
    return [
        dg.AssetSpec(
            key=spec.reads.split("/"),
            description=f"{spec.title}: read by this pipeline, kept by others.",
            group_name="sources",
            kinds=set(spec.kinds),
        )
        for spec in SOURCES.values()
        if settings.source(spec.name) is not None
    ]
