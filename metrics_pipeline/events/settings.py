"""Where events go, as an operator says it: one class a transport."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.events.publisher import QUEUE_EVENTS

KIB = 1024


class RedisStreamSettings(BaseModel, frozen=True, extra="forbid"):
    """A stream of Redis or Valkey, to which each event is added as one entry."""

    kind: Literal["redis_stream"] = Field(description="A stream of a Redis or Valkey server.")
    url: SecretReference = Field(
        description="Where its address is, which may hold a password: "
        "`redis://user:password@host:6379/0`, `rediss://…` with TLS, or `unix://path`."
    )
    stream: str = Field(
        default="metrics_pipeline:events", min_length=1, max_length=512, description="Its key."
    )
    max_length: int = Field(
        default=100_000,
        ge=100,
        le=100_000_000,
        description="About so many events are kept; a few more, as Redis trims by whole blocks.",
    )
    timeout_seconds: float = Field(
        default=2.0, gt=0, le=30, description="Seconds for connecting, and for each answer."
    )


class JsonLinesSettings(BaseModel, frozen=True, extra="forbid"):
    """A file with an event a line, to which several processes may append at once."""

    kind: Literal["json_lines"] = Field(description="A file with one JSON object a line.")
    path: StatePath = Field(
        default=Path("events.jsonl"),
        validate_default=True,
        description="The file; older ones beside it end in .1, .2, …; the folder must be on a "
        "local disk.",
    )
    rotate_bytes: int = Field(
        default=10_000_000,
        ge=64 * KIB,
        le=10_000_000_000,
        description="A file that would grow beyond this is renamed, and a new one begun.",
    )
    kept_files: int = Field(
        default=3, ge=1, le=100, description="So many of the renamed files are kept."
    )


class LogSettings(BaseModel, frozen=True, extra="forbid"):
    """The log of whichever process has the event, through Python's logging."""

    kind: Literal["log"] = Field(description="The process's log: standard error if no other.")


TransportSettings = Annotated[
    RedisStreamSettings | JsonLinesSettings | LogSettings, Field(discriminator="kind")
]


class EventsSettings(BaseModel, frozen=True, extra="forbid"):
    """Lifecycle events: whom they are told to."""

    transport: TransportSettings | None = Field(
        default=None, description="Where events go; null is nowhere, and nothing else changes."
    )
    queue_size: int = Field(
        default=QUEUE_EVENTS,
        ge=1,
        le=1_000_000,
        description="So many events wait in each process while the transport is away; what comes "
        "then is dropped, and counted.",
    )
    publish_metrics: bool = Field(
        default=True,
        description="Whether `telemetry.metrics_published` is sent, one for each message of a "
        "robot.",
    )
