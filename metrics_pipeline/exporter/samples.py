"""From latest values to samples of metric families. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from metrics_pipeline.core.catalog import (
    ARTIFACTS,
    BUILD_INFO,
    DAEMON_HEARTBEAT,
    DATABASE_QUERIES,
    DEAD_LETTERS,
    DEAD_LETTERS_DROPPED,
    EVENTHUB_LAG_EVENTS,
    EVENTHUB_LAG_SECONDS,
    EVENTHUB_LOST_EVENTS,
    EXPORTER_LAST_REFRESH,
    EXPORTER_REFRESH_FAILURES,
    EXPORTER_SERIES_DROPPED,
    FETCH_LATENCY,
    LAST_SUCCESS,
    POINTS_REJECTED,
    POINTS_WRITTEN,
    RUN_DURATION,
    RUN_QUEUE_LENGTH,
    RUNS,
    Catalog,
    Family,
    Metric,
)
from metrics_pipeline.core.fetches import Buckets, Labels, from_label, histograms
from metrics_pipeline.core.points import Point, without_fields
from metrics_pipeline.core.telemetry_assets import UPLINKS
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.exporter.instance_reader import InstanceState
from metrics_pipeline.storage.snapshots import Snapshot

NOTHING: Mapping[str, int] = {}

LAG_FAMILIES = {"lag_events": EVENTHUB_LAG_EVENTS, "lag_seconds": EVENTHUB_LAG_SECONDS}
"""By the field of the points that the telemetry sensor leaves."""

Asked = tuple[str | None, str]
"""A source (the `provider` tag of its points) and a field that it is asked for."""


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
    totals: Mapping[str, Mapping[str, int]]
    instance: InstanceState | None
    refreshed_at_seconds: float | None
    refresh_failures: int
    version: str


def collect(
    seen: Seen, catalog: Catalog, max_series: int, dropped_elsewhere: Mapping[str, int] = NOTHING
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
    points = (
        without_fields(
            point,
            {name for name in point.fields if (point.tags.get("provider"), name) not in asked},
        )
        for point in snapshot.points
    )
    return replace(snapshot, points=tuple(point for point in points if point.fields))


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
        _last_success(seen.snapshots.values()),
        *_runs(seen.instance),
        _labelled(POINTS_WRITTEN, seen.totals.get(POINTS_WRITTEN.name, {})),
        _labelled(POINTS_REJECTED, seen.totals.get(POINTS_REJECTED.name, {})),
        *_telemetry(seen),
        *_fetches(seen.totals),
        _labelled(BUILD_INFO, {seen.version: 1}),
        _single(EXPORTER_LAST_REFRESH, seen.refreshed_at_seconds),
        _single(EXPORTER_REFRESH_FAILURES, seen.refresh_failures),
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


def _fetches(totals: Mapping[str, Mapping[str, int]]) -> list[Samples]:
    found = histograms(totals)
    sums = {labels: each.sum_seconds for labels, each in found.items()}
    buckets = {labels: each.buckets for labels, each in found.items()}
    counters = (
        Samples(family, {from_label(k): float(n) for k, n in totals.get(family.name, {}).items()})
        for family in (ARTIFACTS, DATABASE_QUERIES)
    )
    return [Samples(FETCH_LATENCY, sums, buckets), *counters]


def _last_success(snapshots: Iterable[Snapshot]) -> Samples:
    times = {s.asset: s.complete_at_ns for s in snapshots if s.complete_at_ns is not None}
    return _labelled(LAST_SUCCESS, {asset: ns / NS_PER_SECOND for asset, ns in times.items()})


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


def _labelled(family: Family, values: Mapping[str, float]) -> Samples:
    return Samples(family, {(label,): float(value) for label, value in values.items()})


def _single(family: Family, value: float | None) -> Samples:
    return Samples(family, {} if value is None else {(): float(value)})
