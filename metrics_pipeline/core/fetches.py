"""What a run measured about its own fetches, and the totals they add up to. Pure.

A fetch is one reading of one source: a cloud's counts, the health of all services, an SQL set, one
sweep of devices. Telemetry has none: a reader waits for events, and its lag says more.
Totals only grow and are kept in the operational database, so that neither a run nor an exporter
that starts anew counts anything twice. A histogram is kept as the number of fetches in each bucket
by itself; it is the exporter that adds them up, as Prometheus wants it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from metrics_pipeline.core.catalog import ARTIFACTS, DATABASE_QUERIES, FETCH_LATENCY

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds, of which the last before infinity is longer than any time-out here."""

BUCKET_TOTALS, TIME_TOTALS = f"{FETCH_LATENCY.name}_bucket", f"{FETCH_LATENCY.name}_sum_us"
FETCH_TOTALS = (BUCKET_TOTALS, TIME_TOTALS, ARTIFACTS.name, DATABASE_QUERIES.name)
"""The names of the totals that fetches add to."""

US_PER_SECOND = 1_000_000
BEYOND = "+Inf"
OK, FAILED = "ok", "failed"

Labels = tuple[str, ...]
Totals = dict[str, Counter[str]]
"""Numbers by name and label."""

Buckets = Sequence[tuple[str, float]]
"""As Prometheus has them: by upper bound in rising order, how many took no longer."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """One reading: how long it took, and how many of the things asked for came and did not.

    `query_type` is empty for what is no database.
    """

    source: str
    seconds: float
    succeeded: int
    failed: int
    query_type: str = ""


class Histogram(NamedTuple):
    """All fetches of a source."""

    buckets: Buckets
    sum_seconds: float


def totals_of(fetches: Iterable[Fetch]) -> Totals:
    """What `fetches` add to the totals; several labels are JSON."""
    found: Totals = {}

    def add(name: str, labels: Labels, count: int) -> None:
        if count:
            found.setdefault(name, Counter())[to_label(labels)] += count

    for fetch in fetches:
        add(BUCKET_TOTALS, (fetch.source, _bucket(fetch.seconds)), 1)
        add(TIME_TOTALS, (fetch.source,), round(fetch.seconds * US_PER_SECOND))
        add(ARTIFACTS.name, (fetch.source, OK), fetch.succeeded)
        add(ARTIFACTS.name, (fetch.source, FAILED), fetch.failed)
        if fetch.query_type:
            add(DATABASE_QUERIES.name, (fetch.query_type, "true"), fetch.succeeded)
            add(DATABASE_QUERIES.name, (fetch.query_type, "false"), fetch.failed)
    return found


def add_up(some: Totals, others: Totals) -> Totals:
    """Both together."""
    return {
        name: some.get(name, Counter()) + others.get(name, Counter()) for name in {**some, **others}
    }


def histograms(totals: Mapping[str, Mapping[str, int]]) -> dict[Labels, Histogram]:
    """The histogram of each source that was ever fetched, by its labels."""
    counts: dict[Labels, Counter[str]] = {}
    for label, count in totals.get(BUCKET_TOTALS, {}).items():
        source, bound = from_label(label)
        counts.setdefault((source,), Counter())[bound] += count
    times = {from_label(label): us for label, us in totals.get(TIME_TOTALS, {}).items()}
    return {
        labels: Histogram(_added_up(each), times.get(labels, 0) / US_PER_SECOND)
        for labels, each in counts.items()
    }


def to_label(labels: Labels) -> str:
    """Several label values as one text."""
    return json.dumps(labels, separators=(",", ":"))


def from_label(label: str) -> Labels:
    """What `to_label` was given."""
    return tuple(json.loads(label))


def _bucket(seconds: float) -> str:
    at = bisect_left(BUCKETS, seconds)
    return str(BUCKETS[at]) if at < len(BUCKETS) else BEYOND


def _added_up(counts: Mapping[str, int]) -> list[tuple[str, float]]:
    """Also of bounds that an earlier release had: what is counted stays counted."""
    bounds = {*map(str, BUCKETS), *counts} - {BEYOND}
    buckets, total = [], 0
    for bound in (*sorted(bounds, key=float), BEYOND):
        total += counts.get(bound, 0)
        buckets.append((bound, float(total)))
    return buckets
