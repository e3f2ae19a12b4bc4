"""The objects an asset needs, made once a run: sources by their names, the writer, the IO manager.

They are made from settings that only name where secrets are, so nothing secret is in what
Dagster shows of a code location. Making one opens nothing: a source that is ill fails its own
assets, not the whole run.
"""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from metrics_pipeline.core.ports import SnapshotSource
from metrics_pipeline.orchestration.points_io_manager import PointsIOManager
from metrics_pipeline.sampling import Sampled, Sampling
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.registry import SOURCES
from metrics_pipeline.sources.spec import SourceSpec
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.spool import SpoolSettings
from metrics_pipeline.storage.writer import Writer

WRITER = "writer"
TELEMETRY_WRITER = "telemetry_writer"
POINTS_IO_MANAGER = "points_io_manager"

LEASE_ROOM_SECONDS = 1.0
"""So long the sampling lease, which is renewed every few seconds, waits for room in PostgreSQL."""


def build_resources(settings: Settings) -> Mapping[str, dg.ResourceDefinition]:
    """One resource for each source the settings use, the writer and the IO manager."""
    used = (spec for spec in SOURCES.values() if settings.source(spec.name) is not None)
    return {
        **{spec.name: _source_resource(spec, settings) for spec in used},
        WRITER: _writer_resource(
            settings, settings.spool, "The one place that validates and stores points."
        ),
        TELEMETRY_WRITER: _writer_resource(
            settings, None, "The same without a spool: what is not stored waits in the hub."
        ),
        POINTS_IO_MANAGER: dg.IOManagerDefinition(
            resource_fn=lambda context: PointsIOManager(getattr(context.resources, WRITER)),
            required_resource_keys={WRITER},
            description="Stores what an asset returns, through the writer.",
        ),
    }


def _source_resource(spec: SourceSpec, settings: Settings) -> dg.ResourceDefinition:
    def open_source(_context: dg.InitResourceContext) -> Iterator[SnapshotSource]:
        source = spec.build(settings.source(spec.name))
        try:
            yield source
        finally:
            source.close()

    return dg.ResourceDefinition(open_source, description=spec.title)


def _writer_resource(
    settings: Settings, spool: SpoolSettings | None, description: str
) -> dg.ResourceDefinition:
    def open_the_writer(_context: dg.InitResourceContext) -> Iterator[Writer]:
        stores = (settings.store, settings.operational_database, settings.catalog())
        writer = open_writer(*stores, spool)
        try:
            yield writer
        finally:
            writer.close()

    return dg.ResourceDefinition(open_the_writer, description=description)


def build_sampling(settings: Settings, sampled: Sequence[Sampled]) -> Sampling:
    """Samples `sampled` while a sensor holds it; opens the stores at the first tick."""

    def open_stores() -> tuple[Writer, OperationalDatabase]:
        stores = (settings.store, settings.operational_database, settings.catalog())
        writer = open_writer(*stores, settings.spool)
        return writer, OperationalDatabase(settings.operational_database, LEASE_ROOM_SECONDS)

    return Sampling(sampled, open_stores)
