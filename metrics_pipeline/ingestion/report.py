"""What an ingestion works with, and what it says it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.ports import CheckpointStore
from metrics_pipeline.core.telemetry import Checkpoint
from metrics_pipeline.storage.dead_letters import DeadLetters
from metrics_pipeline.storage.writer import Writer


@dataclass(frozen=True, slots=True)
class Stores:
    """Where everything of an ingestion goes; opened and closed by the caller."""

    writer: Writer
    dead_letters: DeadLetters
    checkpoints: CheckpointStore


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """What became of one partition, from the start of the ingestion until now.

    Counted are the events before the checkpoint alone. `refused` are uplinks or events by the
    reason in `lorawan.Reason`; `rejected` points by the writer's; `altered` what was cut off;
    `dead_letters` those that were new in the table, of events with either.
    """

    events: int = 0
    points: int = 0
    bytes: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    altered: Mapping[str, int] = field(default_factory=dict)
    lost_events: int = 0
    """Gone before they were read, for they were older than the hub's retention."""

    lag_events: int = 0
    """Accepted by the hub and not behind the checkpoint, when the hub was last asked."""

    lag_seconds: float = 0.0
    """How long ago the oldest event that waits was accepted, as far as known; 0 without a lag."""

    checkpoint: Checkpoint | None = None
    is_taken: bool = False
    """Another reader has taken it over; this ingestion has let go of it."""

    failures: tuple[MetricsPipelineError, ...] = ()
    """What went wrong, the newest last, a few at most; also what a later try has made good."""

    error: MetricsPipelineError | None = None
    """What still was wrong at the end; None if it was fine, or taken over."""


@dataclass(frozen=True, slots=True)
class IngestionReport:
    """What an ingestion did so far, by partition; `seconds` since it began."""

    partitions: Mapping[str, PartitionReport]
    epoch: int
    seconds: float
