"""What is read, as the upstream end of the lineage. Dagster does not make these; it shows them."""

import dagster as dg

from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.registry import SOURCES


def build_source_assets(settings: Settings) -> list[dg.AssetSpec]:
    """One external asset for each source the settings use."""
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
