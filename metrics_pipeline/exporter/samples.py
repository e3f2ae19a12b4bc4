"""From latest values to samples of metric families. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from metrics_pipeline.core.catalog import (
    ARTIFACTS,
    ASSET_INTERVAL,
    BUILD_INFO,
    DAEMON_HEARTBEAT,
    DATABASE_QUERIES,
    DATABASE_SIZE,
    DEAD_LETTERS,
    DEAD_LETTERS_DROPPED,
    DISK_FREE,
    DISK_SIZE,
    EVENTHUB_LAG_EVENTS,
    EVENTHUB_LAG_SECONDS,
    EVENTHUB_LOST_EVENTS,
    EVENTS_DROPPED,
    EVENTS_PUBLISHED,
    EXPORTER_LAST_REFRESH,
    EXPORTER_REFRESH_FAILURES,
    EXPORTER_SERIES_DROPPED,
    FETCH_LATENCY,
    LAST_SUCCESS,
    LAST_UPDATE,
    POINTS_REJECTED,
    POINTS_SPOOLED,
    POINTS_WRITTEN,
    PROCESS_CPU,
    PROCESS_FILES,
    PROCESS_MEMORY,
    ROBOT_CONNECTIONS,
    ROBOT_MESSAGES,
    ROBOTS_CONNECTED,
    RUN_DURATION,
    RUN_QUEUE_LENGTH,
    RUNS,
    SAMPLE_SLOTS,
    SAMPLING_LEASE_END,
    SPOOL_BYTES,
    SPOOL_DAMAGED,
    SPOOL_LIMIT_BYTES,
    SPOOL_OLDEST,
    SPOOL_POINTS,
    Catalog,
    Family,
    Metric,
)
from metrics_pipeline.core.events import DROP_REASONS
from metrics_pipeline.core.fetches import FETCH_TOTALS, Buckets, Labels, from_label, histograms
from metrics_pipeline.core.points import Point, without_fields
from metrics_pipeline.core.robots import ASSET as ROBOTS
from metrics_pipeline.core.robots import CONNECTED, QUIET_SECONDS
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.core.telemetry_assets import UPLINKS
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.exporter.host_resources import HostState
from metrics_pipeline.exporter.instance_reader import InstanceState
from metrics_pipeline.storage.snapshots import Snapshot
from metrics_pipeline.storage.spool_state import SpoolState

NOTHING: Mapping[str, float] = {}

Totals = Mapping[str, Mapping[str, int]]
OF_SOURCES = frozenset({SAMPLE_SLOTS.name, *FETCH_TOTALS})
"""Totals whose first label is a source, or what its queries are for."""

LAG_FAMILIES = {"lag_events": EVENTHUB_LAG_EVENTS, "lag_seconds": EVENTHUB_LAG_SECONDS}
"""By the field of the points that the telemetry sensor leaves."""

Asked = tuple[str | None, str]
"""Who is asked (one of the tags WHO of its points), and a field that it is asked for."""

WHO = ("provider", "service")

SILENT_GATEWAY_QUIETS = 3
"""A gateway that has said nothing for so many times what it may be quiet is gone."""

EVERYTHING: Collection[Asked] = frozenset({(None, "*")})
"""Of an asset whose points are all shown: what is not asked for any more is not in its snapshot."""


@dataclass(slots=True)
class Samples:
    """One family with its samples: label values, in the family's order, and the number."""

    family: Family
    values: dict[Labels, float] = field(default_factory=dict)
    """Of a histogram the sum."""
    buckets: Mapping[Labels, Buckets] = field(default_factory=dict)
    """Of a histogram, with the labels of `values`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the exporter saw last. A part that could not be read is as it was seen before."""

    snapshots: Mapping[str, Snapshot]
    totals: Totals
    instance: InstanceState | None
    refreshed_at_seconds: float | None
    refresh_failures: int
    version: str
    host: HostState | None = None
    spool: SpoolState | None = None
    """None where there is none, or it was never seen."""
    every_seconds: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    """How often which asset should be there."""
    lease_end_ns: int | None = field(default=None, kw_only=True)
    """Of the code server that samples; None where nothing is or ever was sampled."""


def collect(
    seen: Seen, catalog: Catalog, max_series: int, dropped_elsewhere: Mapping[str, float] = NOTHING
) -> list[Samples]:
    """Every family of the page, each cut to `max_series`, with a statement of what was cut.

    `dropped_elsewhere` is what was cut, by name, of families that are rendered already.
    """
    families = [*collect_points(seen.snapshots.values(), catalog), *_about_itself(seen)]
    dropped = _labelled(EXPORTER_SERIES_DROPPED, dropped_elsewhere)
    for samples in families:
        excess = len(samples.values) - max_series
        if excess > 0:
            # By label, so that the same series stay from one refresh to the next.
            samples.values = dict(sorted(samples.values.items())[:max_series])
        dropped.values[(samples.family.name,)] = float(max(0, excess))
    dropped.values = {labels: n for labels, n in dropped.values.items() if n}
    return [samples for samples in [*families, dropped] if samples.values]


def only_asked(snapshot: Snapshot, asked: Collection[Asked]) -> Snapshot:
    """`snapshot` less what the settings ask no more, or ask another source for."""
    if asked is EVERYTHING:
        return snapshot
    points = (
        without_fields(
            point,
            {name for name in point.fields if (_who(point), name) not in asked},
        )
        for point in snapshot.points
    )
    return replace(snapshot, points=tuple(point for point in points if point.fields))


def _who(point: Point) -> str | None:
    return next((point.tags[tag] for tag in WHO if tag in point.tags), None)


def only_of(totals: Totals, sources: Collection[str]) -> Totals:
    """`totals` less those of sources, and of kinds of queries, that the settings name no more."""
    return {
        name: {k: n for k, n in counts.items() if from_label(k)[0] in sources}
        if name in OF_SOURCES
        else counts
        for name, counts in totals.items()
    }


def collect_points(snapshots: Iterable[Snapshot], catalog: Catalog) -> list[Samples]:
    """The gauges of all points; of two with the same labels the newer one."""
    families: dict[str, Samples] = {}
    points = [point for snapshot in snapshots for point in snapshot.points]
    for point in sorted(points, key=lambda point: point.time_ns):
        for name, value in point.fields.items():
            metric = catalog.find(point, name)
            if isinstance(metric, Metric) and not isinstance(value, str):
                samples = families.setdefault(metric.family.name, Samples(metric.family))
                samples.values[_labels(metric.family, point)] = float(value)
    return list(families.values())


def _labels(family: Family, point: Point) -> Labels:
    return tuple(point.tags.get(label, "") for label in family.labels)


def _about_itself(seen: Seen) -> list[Samples]:
    return [
        *_assets(seen),
        *_runs(seen.instance),
        _labelled(POINTS_WRITTEN, seen.totals.get(POINTS_WRITTEN.name, {})),
        _labelled(POINTS_REJECTED, seen.totals.get(POINTS_REJECTED.name, {})),
        *_spool(seen),
        *_telemetry(seen),
        *_robots(seen),
        _sample_slots(seen.totals.get(SAMPLE_SLOTS.name, {})),
        *_fetches(seen.totals),
        *_events(seen.totals),
        *_host(seen.host),
        _labelled(BUILD_INFO, {seen.version: 1}),
        _single(EXPORTER_LAST_REFRESH, seen.refreshed_at_seconds),
        _single(EXPORTER_REFRESH_FAILURES, seen.refresh_failures),
    ]


def _spool(seen: Seen) -> list[Samples]:
    spooled = seen.totals.get(POINTS_SPOOLED.name, {})
    state = seen.spool
    if state is None:
        return [_labelled(POINTS_SPOOLED, spooled)]
    oldest = state.oldest_ns
    # From 0 on, so that the first that are spooled are an increase.
    none = dict.fromkeys(seen.totals.get(POINTS_WRITTEN.name, {}), 0)
    return [
        _labelled(POINTS_SPOOLED, {**none, **spooled}),
        _single(SPOOL_BYTES, state.size_bytes),
        _single(SPOOL_LIMIT_BYTES, state.limit_bytes),
        _single(SPOOL_POINTS, state.points),
        _single(SPOOL_OLDEST, None if oldest is None else oldest / NS_PER_SECOND),
        _single(SPOOL_DAMAGED, state.damaged),
    ]


def _telemetry(seen: Seen) -> list[Samples]:
    lag = seen.snapshots.get(UPLINKS)
    rows = {point.tags["partition"]: point.fields for point in (lag.points if lag else ())}
    return [
        *(
            _labelled(family, {name: float(row[field]) for name, row in rows.items()})
            for field, family in LAG_FAMILIES.items()
        ),
        # From 0 on, so that a first loss is an increase.
        _labelled(
            EVENTHUB_LOST_EVENTS,
            dict.fromkeys(rows, 0) | dict(seen.totals.get(EVENTHUB_LOST_EVENTS.name, {})),
        ),
        *(
            _labelled(family, seen.totals.get(family.name, {}))
            for family in (DEAD_LETTERS, DEAD_LETTERS_DROPPED)
        ),
    ]


def _robots(seen: Seen) -> list[Samples]:
    return [
        _single(ROBOTS_CONNECTED, robots_connected(seen)),
        *(
            _labelled(family, seen.totals.get(family.name, {}))
            for family in (ROBOT_MESSAGES, ROBOT_CONNECTIONS)
        ),
    ]


def robots_connected(seen: Seen) -> float | None:
    """How many robots are connected; None where a gateway has not said so lately."""
    said = seen.snapshots.get(ROBOTS)
    if said is None or not said.points or seen.refreshed_at_seconds is None:
        return None
    silent_seconds = seen.refreshed_at_seconds - said.updated_at_ns / NS_PER_SECOND
    if silent_seconds > SILENT_GATEWAY_QUIETS * QUIET_SECONDS:
        return None
    return float(said.points[0].fields[CONNECTED])


def _sample_slots(totals: Mapping[str, int]) -> Samples:
    counted: dict[Labels, float] = {from_label(label): float(n) for label, n in totals.items()}
    # From 0 on, so that a first slot that is missed is an increase.
    sources = {source for source, *_ in counted}
    none: dict[Labels, float] = {(source, each): 0.0 for source in sources for each in Outcome}
    return Samples(SAMPLE_SLOTS, {**none, **counted})


def _fetches(totals: Totals) -> list[Samples]:
    found = histograms(totals)
    sums = {labels: each.sum_seconds for labels, each in found.items()}
    buckets = {labels: each.buckets for labels, each in found.items()}
    counters = (
        Samples(family, {from_label(k): float(n) for k, n in totals.get(family.name, {}).items()})
        for family in (ARTIFACTS, DATABASE_QUERIES)
    )
    return [Samples(FETCH_LATENCY, sums, buckets), *counters]


def _events(totals: Totals) -> list[Samples]:
    published = totals.get(EVENTS_PUBLISHED.name, {})
    dropped = totals.get(EVENTS_DROPPED.name, {})
    # From 0 on, so that a first one is an increase; nothing where there are no events.
    none = dict.fromkeys(DROP_REASONS, 0) if published or dropped else {}
    return [
        _single(EVENTS_PUBLISHED, sum(published.values()) if published else None),
        _labelled(EVENTS_DROPPED, none | dict(dropped)),
    ]


def _assets(seen: Seen) -> list[Samples]:
    snapshots = seen.snapshots.values()
    complete = {s.asset: s.complete_at_ns for s in snapshots if s.complete_at_ns is not None}
    updated = {s.asset: s.updated_at_ns for s in snapshots}
    # Only when all was looked at: then an asset that has an interval and no time never came.
    every_seconds = {} if seen.refreshed_at_seconds is None else seen.every_seconds
    end_ns = seen.lease_end_ns
    return [
        _labelled(LAST_SUCCESS, {asset: ns / NS_PER_SECOND for asset, ns in complete.items()}),
        _labelled(LAST_UPDATE, {asset: ns / NS_PER_SECOND for asset, ns in updated.items()}),
        _labelled(ASSET_INTERVAL, every_seconds),
        _single(SAMPLING_LEASE_END, None if end_ns is None else end_ns / NS_PER_SECOND),
    ]


def _runs(instance: InstanceState | None) -> list[Samples]:
    if instance is None:
        return []
    durations = {
        job: state.duration_seconds
        for job, state in instance.jobs.items()
        if state.duration_seconds is not None
    }
    runs = Samples(RUNS)
    for job, state in instance.jobs.items():
        runs.values.update({(job, status): float(n) for status, n in state.runs.items()})
    return [
        _labelled(RUN_DURATION, durations),
        runs,
        _labelled(DAEMON_HEARTBEAT, instance.heartbeats),
        _single(RUN_QUEUE_LENGTH, instance.queue_length),
    ]


def _host(host: HostState | None) -> list[Samples]:
    if host is None:
        return []
    each = host.processes.items()
    return [
        _labelled(PROCESS_CPU, {role: usage.cpu_seconds for role, usage in each}),
        _labelled(PROCESS_MEMORY, {role: usage.resident_bytes for role, usage in each}),
        _labelled(PROCESS_FILES, {role: usage.open_files for role, usage in each}),
        _single(DISK_FREE, host.disk_free_bytes),
        _single(DISK_SIZE, host.disk_size_bytes),
        _labelled(DATABASE_SIZE, host.databases),
    ]


def _labelled(family: Family, values: Mapping[str, float]) -> Samples:
    return Samples(family, {(label,): float(value) for label, value in values.items()})


def _single(family: Family, value: float | None) -> Samples:
    return Samples(family, {} if value is None else {(): float(value)})
