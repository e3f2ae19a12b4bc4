"""Telemetry in micro-batches that lose nothing: from a stream of events into the stores.

Each partition in a thread of its own: receive, decode, write the points, keep the dead letters, and
only then move the checkpoint. Whatever dies in between is read once more, and as the time of a
point comes from its event, it is stored once.
"""

from metrics_pipeline.ingestion.decoding import store_reason
from metrics_pipeline.ingestion.report import IngestionReport, PartitionReport, Stores
from metrics_pipeline.ingestion.run import ingest

__all__ = ["IngestionReport", "PartitionReport", "Stores", "ingest", "store_reason"]
