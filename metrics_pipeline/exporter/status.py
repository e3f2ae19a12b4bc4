"""What the status page tells, as plain data: made of what the refresher knows. Pure, and bounded.

Of what may be many there are the worst only, `MAX_ROWS` of them, and how many there are in all. So
a page costs the same with ten devices and with ten thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from metrics_pipeline.core.catalog import (
    EVENTS_DROPPED,
    EVENTS_PUBLISHED,
    PIPELINE_HEALTH,
    SAMPLE_SLOTS,
    SCORE,
)
from metrics_pipeline.core.fetches import from_label
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.sample_slots import MISSED, Outcome
from metrics_pipeline.core.telemetry_assets import UPLINKS
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.exporter.device_lines import Reachability
from metrics_pipeline.exporter.instance_reader import InstanceState, JobState
from metrics_pipeline.exporter.refresher import Known
from metrics_pipeline.exporter.samples import robots_connected
from metrics_pipeline.storage.snapshots import Snapshot
from metrics_pipeline.storage.spool_state import SpoolState

MAX_ROWS = 50
STALE_INTERVALS = 3
"""An asset is stale when it was not complete for so many of its intervals,"""
SHORTEST_STALE_SECONDS = 60.0
"""and at least for so long."""
LATE_HEARTBEAT_SECONDS = 90.0
"""A daemon's thread says every 30 s that it lives (Dagster's DEFAULT_HEARTBEAT_INTERVAL_SECONDS);
three of them are missing."""

LATE_SPOOL_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rows(Generic[T]):
    """The worst of `total`, the worst first."""

    shown: Sequence[T]
    total: int

    @property
    def hidden(self) -> int:
        """How many are not shown."""
        return self.total - len(self.shown)


@dataclass(frozen=True, slots=True)
class Collected:
    """An asset: how long ago it last gave all it should, and how often it should, in seconds."""

    asset: str
    complete_at_seconds: float | None
    age_seconds: float | None
    every_seconds: float | None
    is_stale: bool
    is_partial: bool
    """It gave something since, but not all."""

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.complete_at_seconds is None:
            return "incomplete" if self.is_partial else "never collected"
        if self.is_stale:
            return "stale, incomplete" if self.is_partial else "stale"
        return "incomplete" if self.is_partial else "current"

    @property
    def is_bad(self) -> bool:
        """Whether somebody should look at it."""
        return self.state != "current"


@dataclass(frozen=True, slots=True)
class Job:
    """A job: its last finished run, and the last that failed, if it was seen."""

    name: str
    state: JobState

    @property
    def is_failing(self) -> bool:
        """Whether its last run failed."""
        return self.state.last is not None and self.state.last.status == "failure"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A daemon of Dagster, and how long ago it said that it lives, in seconds."""

    daemon: str
    age_seconds: float

    @property
    def is_late(self) -> bool:
        """Whether it is likely dead."""
        return self.age_seconds > LATE_HEARTBEAT_SECONDS


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """A source that is sampled: how many of its slots became what, since it was first sampled."""

    source: str
    sampled: int
    failed: int
    not_stored: int
    missed: int

    @property
    def lost(self) -> int:
        """Slots without a stored sample."""
        return self.failed + self.not_stored + self.missed


@dataclass(frozen=True, slots=True)
class Partition:
    """How far telemetry of a partition is behind: events, and seconds."""

    name: str
    events: float
    seconds: float


@dataclass(frozen=True, slots=True)
class EventCounts:
    """Lifecycle events of all processes, in all: how many were sent, and lost, by reason."""

    published: int
    dropped: Sequence[tuple[str, int]]
    """The most first; without reasons for which none was."""

    @property
    def lost(self) -> int:
        """How many nobody was told of."""
        return sum(number for _, number in self.dropped)


@dataclass(frozen=True, slots=True)
class Status:
    """All of it. `score` is None where nothing is judged; `components` then are empty."""

    now_seconds: float
    version: str
    refreshed_at_seconds: float | None
    refresh_failures: int
    failing: Sequence[str]
    collected: Rows[Collected]
    stale: int
    jobs: Sequence[Job] | None
    """None as long as the instance was never seen."""
    queue_length: int
    heartbeats: Sequence[Heartbeat]
    slots: Rows[SlotCounts]
    partitions: Rows[Partition]
    reachability: Reachability | None
    robots: float | None
    """How many are connected; None where no gateway says so."""
    spool: SpoolState | None
    events: EventCounts | None
    """None where there were none yet."""
    score: float | None
    components: Sequence[tuple[str, float]]

    @property
    def failing_jobs(self) -> Sequence[Job]:
        """Those whose last run failed."""
        return [job for job in self.jobs or () if job.is_failing]

    @property
    def late_daemons(self) -> Sequence[Heartbeat]:
        """Those that are likely dead."""
        return [each for each in self.heartbeats if each.is_late]

    @property
    def is_well(self) -> bool:
        """Whether nothing that is looked at here needs anybody."""
        return not (
            self.failing
            or self.stale
            or self.failing_jobs
            or self.late_daemons
            or self.waits_in_spool
            or self.is_spool_damaged
        )

    @property
    def spool_age_seconds(self) -> float | None:
        """How long the oldest of what is in the spool waits; None while nothing does."""
        if self.spool is None or self.spool.oldest_ns is None:
            return None
        return max(0.0, self.now_seconds - self.spool.oldest_ns / NS_PER_SECOND)

    @property
    def waits_in_spool(self) -> bool:
        """Whether something waits there for longer than a restart of the store takes."""
        return (self.spool_age_seconds or 0.0) > LATE_SPOOL_SECONDS

    @property
    def is_spool_damaged(self) -> bool:
        """Whether some of it was set aside."""
        return self.spool is not None and self.spool.damaged > 0


def take_stock(known: Known, now_seconds: float) -> Status:
    """The status at `now_seconds`."""
    seen = known.seen
    health = _health(seen.snapshots.values())
    collected = _collected(seen.snapshots, seen.every_seconds, now_seconds)
    return Status(
        now_seconds=now_seconds,
        version=seen.version,
        refreshed_at_seconds=seen.refreshed_at_seconds,
        refresh_failures=seen.refresh_failures,
        failing=known.failing,
        collected=_worst(collected, lambda c: (not c.is_bad, -_or_forever(c.age_seconds), c.asset)),
        stale=sum(each.is_bad for each in collected),
        jobs=None if seen.instance is None else _jobs(seen.instance),
        queue_length=0 if seen.instance is None else seen.instance.queue_length,
        heartbeats=() if seen.instance is None else _heartbeats(seen.instance, now_seconds),
        slots=_worst(_slots(seen.totals.get(SAMPLE_SLOTS.name, {})), lambda s: (-s.lost, s.source)),
        partitions=_worst(
            _partitions(seen.snapshots.get(UPLINKS)), lambda p: (-p.seconds, -p.events, p.name)
        ),
        reachability=known.reachability,
        robots=robots_connected(seen),
        spool=seen.spool,
        events=_events(seen.totals),
        score=health.pop(SCORE, None),
        components=sorted(health.items(), key=lambda pair: (pair[1], pair[0])),
    )


def _worst(rows: Sequence[T], order: Callable[[T], tuple[object, ...]]) -> Rows[T]:
    return Rows(sorted(rows, key=order)[:MAX_ROWS], len(rows))


def _or_forever(age_seconds: float | None) -> float:
    return float("inf") if age_seconds is None else age_seconds


def _collected(
    snapshots: Mapping[str, Snapshot], every_seconds: Mapping[str, float], now_seconds: float
) -> list[Collected]:
    names = dict.fromkeys((*every_seconds, *snapshots))
    return [_of_asset(n, snapshots.get(n), every_seconds.get(n), now_seconds) for n in names]


def _of_asset(
    name: str, snapshot: Snapshot | None, every_seconds: float | None, now_seconds: float
) -> Collected:
    if snapshot is None:
        return Collected(name, None, None, every_seconds, is_stale=True, is_partial=False)
    complete_ns = snapshot.complete_at_ns
    complete = None if complete_ns is None else complete_ns / NS_PER_SECOND
    age = None if complete is None else max(0.0, now_seconds - complete)
    limit = None if every_seconds is None else _stale_after(every_seconds)
    return Collected(
        name,
        complete,
        age,
        every_seconds,
        is_stale=age is None or (limit is not None and age > limit),
        is_partial=complete_ns is None or snapshot.updated_at_ns > complete_ns,
    )


def _stale_after(every_seconds: float) -> float:
    return max(SHORTEST_STALE_SECONDS, STALE_INTERVALS * every_seconds)


def _jobs(instance: InstanceState) -> Sequence[Job]:
    jobs = [Job(name, state) for name, state in instance.jobs.items()]
    return sorted(jobs, key=lambda job: (not job.is_failing, job.name))


def _heartbeats(instance: InstanceState, now_seconds: float) -> Sequence[Heartbeat]:
    beats = [Heartbeat(n, max(0.0, now_seconds - at)) for n, at in instance.heartbeats.items()]
    return sorted(beats, key=lambda beat: (-beat.age_seconds, beat.daemon))


def _slots(totals: Mapping[str, int]) -> Sequence[SlotCounts]:
    counts: dict[str, dict[str, int]] = {}
    for label, number in totals.items():
        source, outcome, *_ = from_label(label)
        counts.setdefault(source, {})[outcome] = number
    return [
        SlotCounts(
            source,
            sampled=of.get(Outcome.SAMPLED, 0),
            failed=of.get(Outcome.FAILED, 0),
            not_stored=of.get(Outcome.NOT_STORED, 0),
            missed=sum(of.get(outcome, 0) for outcome in MISSED),
        )
        for source, of in counts.items()
    ]


def _events(totals: Mapping[str, Mapping[str, int]]) -> EventCounts | None:
    published = totals.get(EVENTS_PUBLISHED.name, {})
    dropped = totals.get(EVENTS_DROPPED.name, {})
    if not published and not dropped:
        return None
    lost = [(reason, number) for reason, number in dropped.items() if number]
    return EventCounts(sum(published.values()), sorted(lost, key=lambda of: (-of[1], of[0])))


def _partitions(lag: Snapshot | None) -> Sequence[Partition]:
    return [
        Partition(
            point.tags["partition"],
            events=float(point.fields["lag_events"]),
            seconds=float(point.fields["lag_seconds"]),
        )
        for point in (lag.points if lag else ())
    ]


def _health(snapshots: Iterable[Snapshot]) -> dict[str, float]:
    """The newest value of the score and of each component, by name."""
    points = [p for s in snapshots for p in s.points if p.measurement == PIPELINE_HEALTH.name]
    return dict(map(_component, sorted(points, key=_time_ns)))


def _component(point: Point) -> tuple[str, float]:
    return point.tags["component"], float(point.fields["value"])


def _time_ns(point: Point) -> int:
    return point.time_ns
