"""Lifecycle events: what other systems are told of collections and robots. Pure.

    {"id": "evt_metrics_1700000000000_k3x9a0", "type": "metrics.aggregation_started",
     "source": "metrics_service", "target": null, "timestamp": 1700000000.0,
     "payload": {…}, "meta": {"correlation_id": "…", "version": "1.0"}}

Times are seconds since the epoch. An event that is sent again has the id that it had before.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, TypedDict

import orjson

from metrics_pipeline.core.redaction import without_secrets

METRICS, TELEMETRY = "metrics", "telemetry"
"""The modules whose events these are: the first part of an event's type."""

AGGREGATION_STARTED = f"{METRICS}.aggregation_started"
AGGREGATION_COMPLETED = f"{METRICS}.aggregation_completed"
AGGREGATION_FAILED = f"{METRICS}.aggregation_failed"
CONNECTION_ESTABLISHED = f"{TELEMETRY}.connection_established"
CONNECTION_CLOSED = f"{TELEMETRY}.connection_closed"
METRICS_PUBLISHED = f"{TELEMETRY}.metrics_published"
EVENT_TYPES = (
    AGGREGATION_STARTED,
    AGGREGATION_COMPLETED,
    AGGREGATION_FAILED,
    CONNECTION_ESTABLISHED,
    CONNECTION_CLOSED,
    METRICS_PUBLISHED,
)

QUEUE_FULL, NOT_SENT, NOT_JSON, CLOSED = "queue_full", "not_sent", "not_json", "closed"
DROP_REASONS = (QUEUE_FULL, NOT_SENT, NOT_JSON, CLOSED)
"""Why events are dropped: the queue was full; the transport was away until the process ended; JSON
has no words for the payload; they came after the publisher was closed."""

VERSION = "1.0"
MAX_MESSAGE_CHARACTERS = 2000
"""Of an error's text; the rest is cut off."""

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
SUFFIX_DIGITS = 6
SUFFIXES = len(DIGITS) ** SUFFIX_DIGITS
MS_PER_SECOND = 1000


class RobotMetrics(TypedDict):
    """What a robot measured of itself; null where it did not say."""

    cpu_usage: float | None
    memory_usage: float | None
    network_latency_ms: float | None
    battery_percentage: float | None


@dataclass(frozen=True, slots=True)
class Meta:
    """What belongs together: `correlation_id` is the id of a run, or None."""

    correlation_id: str | None = None
    version: str = VERSION


@dataclass(frozen=True, slots=True)
class Event:
    """The envelope: these keys in this order, and no others."""

    id: str
    type: str
    source: str
    target: str | None
    timestamp: float
    payload: Mapping[str, Any]
    meta: Meta

    def to_json(self) -> str:
        """On one line. A number that is none is null; text that is no Unicode is replaced.

        Raises TypeError for a payload that JSON has no words for, which the constructors below
        never make.
        """
        try:
            return orjson.dumps(self).decode()
        except TypeError:
            whole = json.dumps(_as_dict(self)).encode()
            return orjson.dumps(_without_surrogates(json.loads(whole))).decode()


class NotAnEvent(ValueError):
    """A text that is no envelope, or one with other keys or types."""


def parse_event(line: str | bytes) -> Event:
    """What `Event.to_json` gave; NotAnEvent for anything else."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise NotAnEvent(f"it is not JSON: {error}") from error
    _require(found, "the event", ENVELOPE)
    _require(found["meta"], "meta", META)
    return Event(**{**found, "meta": Meta(**found["meta"]), "timestamp": float(found["timestamp"])})


def read_event(line: str | bytes) -> Event | NotAnEvent:
    """The same, with what is wrong in the event's place."""
    try:
        return parse_event(line)
    except NotAnEvent as error:
        return error


def aggregation_started(job_id: str, *, run: RunIdentity, started_at: float) -> Event:
    """A run has begun to collect."""
    payload = {"job_id": job_id, "started_at": started_at}
    return run.event(AGGREGATION_STARTED, payload, started_at)


def aggregation_completed(
    job_id: str,
    *,
    run: RunIdentity,
    entries_processed: int,
    duration_ms: float,
    completed_at: float,
) -> Event:
    """A run has collected everything; `entries_processed` are the points that it stored."""
    payload = {
        "job_id": job_id,
        "entries_processed": entries_processed,
        "duration_ms": duration_ms,
        "completed_at": completed_at,
    }
    return run.event(AGGREGATION_COMPLETED, payload, completed_at)


def aggregation_failed(
    job_id: str, *, run: RunIdentity, error_message: str, error_type: str, failed_at: float
) -> Event:
    """A run did not collect everything. The message is cut, and secrets in it are starred."""
    payload = {
        "job_id": job_id,
        "error_message": without_secrets(error_message)[:MAX_MESSAGE_CHARACTERS],
        "error_type": error_type,
        "failed_at": failed_at,
    }
    return run.event(AGGREGATION_FAILED, payload, failed_at)


def connection_established(robot_id: str, *, connection_id: str, connected_at: float) -> Event:
    """A robot was let in."""
    payload = {
        "robot_id": robot_id,
        "connection_id": connection_id,
        "connected_at": connected_at,
    }
    return _telemetry(CONNECTION_ESTABLISHED, payload, connected_at)


def connection_closed(
    robot_id: str,
    *,
    connection_id: str,
    duration_seconds: float,
    disconnected_at: float,
    reason: str | None = None,
) -> Event:
    """A robot has gone; without a reason the key is not there."""
    payload = {
        "robot_id": robot_id,
        "connection_id": connection_id,
        "duration_seconds": duration_seconds,
        **({} if reason is None else {"reason": reason}),
        "disconnected_at": disconnected_at,
    }
    return _telemetry(CONNECTION_CLOSED, payload, disconnected_at)


def metrics_published(robot_id: str, *, metrics: RobotMetrics, published_at: float) -> Event:
    """What a robot sent is stored."""
    payload = {"robot_id": robot_id, "metrics": metrics, "published_at": published_at}
    return _telemetry(METRICS_PUBLISHED, payload, published_at)


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """A run as its events know it: its id, and when it was created.

    Of each type a run has one event, whose id follows from these two. So whoever tells of the run,
    its own process or the sensor that looks after runs that died, gives the same id.
    """

    run_id: str
    created_at: float

    def event(self, event_type: str, payload: Mapping[str, Any], at: float) -> Event:
        """The run's event of this type."""
        digest = hashlib.sha256(f"{self.run_id} {event_type}".encode()).digest()
        number = int.from_bytes(digest[:8], "big")
        return _event(event_type, self.created_at, number, payload, at, Meta(self.run_id))


class EventNumbers:
    """Ends of ids that no other process gives in the same millisecond, but by a chance of 1 to
    2,000,000,000: a count from a random number on."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """From another number on, as a process that was forked has to."""
        self._numbers = itertools.count(SystemRandom().randrange(SUFFIXES))

    def next(self) -> int:
        """One more; safe to call from several threads."""
        return next(self._numbers)


NUMBERS = EventNumbers()
os.register_at_fork(after_in_child=NUMBERS.begin)


def make_id(module: str, at: float, number: int) -> str:
    """`evt_<module>_<epoch ms>_<6 base36>`, the last of which is `number`."""
    return f"evt_{module}_{int(at * MS_PER_SECOND)}_{_base36(number % SUFFIXES)}"


def _telemetry(event_type: str, payload: Mapping[str, Any], at: float) -> Event:
    return _event(event_type, at, NUMBERS.next(), payload, at, Meta())


def _event(  # noqa: PLR0917 (the envelope has these parts)
    event_type: str, id_at: float, number: int, payload: Mapping[str, Any], at: float, meta: Meta
) -> Event:
    module = event_type.partition(".")[0]
    event_id = make_id(module, id_at, number)
    return Event(event_id, event_type, f"{module}_service", None, at, payload, meta)


def _base36(number: int) -> str:
    digits = []
    for _ in range(SUFFIX_DIGITS):
        number, digit = divmod(number, len(DIGITS))
        digits.append(DIGITS[digit])
    return "".join(reversed(digits))


def _as_dict(event: Event) -> dict[str, Any]:
    meta = {"correlation_id": event.meta.correlation_id, "version": event.meta.version}
    return {**{name: getattr(event, name) for name in ENVELOPE}, "meta": meta}


def _without_surrogates(value: Any) -> Any:
    """Half a character, which no encoding has, comes from bytes that were read as text."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_without_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value


NUMBER = (int, float)
TEXT_OR_NULL = (str, type(None))
ENVELOPE: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "type": (str,),
    "source": (str,),
    "target": TEXT_OR_NULL,
    "timestamp": NUMBER,
    "payload": (dict,),
    "meta": (dict,),
}
META: Mapping[str, tuple[type, ...]] = {"correlation_id": TEXT_OR_NULL, "version": (str,)}


def _require(found: Any, what: str, shape: Mapping[str, tuple[type, ...]]) -> None:
    if not isinstance(found, dict) or found.keys() != shape.keys():
        raise NotAnEvent(f"{what} should be an object with the keys {', '.join(shape)}")
    for key, types in shape.items():
        if not isinstance(found[key], types) or isinstance(found[key], bool):
            raise NotAnEvent(f"{key} is a {type(found[key]).__name__}")
