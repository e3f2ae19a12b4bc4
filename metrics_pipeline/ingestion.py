"""Telemetry in micro-batches that lose nothing: from a stream of events into the stores.

Each partition in a thread of its own: receive, decode, write the points, keep the dead letters, and
only then move the checkpoint. Whatever dies in between is read once more, and as the time of a
point comes from its event, it is stored once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.lorawan import Rules
from metrics_pipeline.core.ports import CheckpointStore, EventStream
from metrics_pipeline.core.telemetry import BatchLimits, Checkpoint
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
    reason in `lorawan.Reason`; `rejected` points by the writer's; `altered` what was cut off.
    """

    events: int = 0
    points: int = 0
    bytes: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    altered: Mapping[str, int] = field(default_factory=dict)
    lost_events: int = 0
    """Gone before they were read, for they were older than the hub's retention."""

    lag_events: int = 0
    """Accepted by the hub and not behind the checkpoint, when the hub was last asked."""

    lag_seconds: float = 0.0
    """How long ago the newest event that is stored was accepted; 0 without a lag in events."""

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


def ingest(
    stream: EventStream,
    stores: Stores,
    rules: Rules,
    limits: BatchLimits,
    *,
    asset: str,
    window_seconds: float,
    stop: threading.Event,
    tell: Callable[[IngestionReport], None] = lambda _report: None,
) -> IngestionReport:
    """Read all partitions until the window ends or `stop` is set, and say what became of them.

    While it goes on, the latest rows of all devices are published as those of `asset` every few
    seconds, and then `tell` is given what was done so far. What fails is tried again until the end
    of the window; a partition that cannot be read costs the others nothing and has an `error` in
    the report. Raises SourceError when the hub does not say which partitions there are, and
    StoreError when nobody says where to go on.
    """
    raise NotImplementedError
