"""The one writer: every point of the product is validated and stored here, and nowhere else.

Order: validate, time-series store (acknowledged), then latest values and totals in one
transaction. So nothing is shown that is not kept, and a write that fails changes nothing that
Prometheus sees.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from metrics_pipeline.access.system_timing import SYSTEM_TIMING
from metrics_pipeline.core.backoff import Backoff, Timing, call_with_retries
from metrics_pipeline.core.catalog import POINTS_REJECTED, POINTS_WRITTEN, Catalog
from metrics_pipeline.core.errors import InvalidPoint, PartialWrite
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import PointStore, Reading
from metrics_pipeline.core.validation import validate
from metrics_pipeline.storage import snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase

RETRIES = Backoff(tries=3, base_seconds=0.1, cap_seconds=5.0)
LONGEST_WAIT_SECONDS = 60.0
"""A store that asks by Retry-After for more patience than this has failed for this run."""

MAX_EXAMPLES = 5

_Keep = Callable[[sa.Connection, int], snapshots.Snapshot]


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What became of the points handed in: stored, and refused by reason with a few examples."""

    accepted: int
    rejected: Mapping[str, int]
    examples: tuple[str, ...]
    snapshot: snapshots.Snapshot


@dataclass(frozen=True, slots=True)
class _Sorted:
    fit: tuple[Point, ...]
    rejected: Counter[str]
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stored:
    """What became of the points of one measurement; `problem` is empty if all were kept."""

    measurement: str
    accepted: int
    kept: tuple[Point, ...]
    rejected: Counter[str]
    problem: str


class Writer:
    """Validates, stores with retries, and keeps the latest values."""

    def __init__(
        self,
        store: PointStore,
        operational: OperationalDatabase,
        catalog: Catalog,
        clock_ns: Callable[[], int] = time.time_ns,
        timing: Timing = SYSTEM_TIMING,
    ) -> None:
        self._store = store
        self._operational = operational
        self._catalog = catalog
        self._clock_ns = clock_ns
        self._timing = timing

    def write(self, asset: str, reading: Reading) -> WriteReport:
        """Store the reading's points as the result of `asset` (its key, parts joined by `/`).

        Raises StoreUnavailable when the tries are used up, StoreError when trying again does not
        help. The snapshot of `asset` then stays as it was. Writing again is always safe.
        """
        sorted_ = self._validate(reading.points)
        stored = [self._store_group(group) for group in _by_measurement(sorted_.fit)]
        written = Counter({group.measurement: group.accepted for group in stored})
        rejected = sum((group.rejected for group in stored), sorted_.rejected)
        kept = tuple(point for group in stored for point in group.kept)
        is_complete = not reading.failures and not rejected
        keep = snapshots.replace if is_complete else snapshots.merge
        snapshot = self._remember(written, rejected, lambda c, now_ns: keep(c, asset, kept, now_ns))
        examples = (*sorted_.examples, *(group.problem for group in stored if group.problem))
        return WriteReport(written.total(), dict(rejected), examples, snapshot)

    def latest(self, asset: str) -> snapshots.Snapshot | None:
        """The snapshot of `asset`, or None if it never gave anything."""
        with self._operational.reading() as connection:
            return snapshots.find(connection, asset)

    def close(self) -> None:
        """Close the store and the operational database."""
        self._store.close()
        self._operational.close()

    def _validate(self, points: Sequence[Point]) -> _Sorted:
        fit: list[Point] = []
        rejected: Counter[str] = Counter()
        examples: list[str] = []
        now_ns = self._clock_ns()
        for point in points:
            try:
                fit.append(validate(point, self._catalog, now_ns))
            except InvalidPoint as error:
                rejected[error.reason] += 1
                if len(examples) < MAX_EXAMPLES:
                    examples.append(str(error))
        return _Sorted(tuple(fit), rejected, tuple(examples))

    def _store_group(self, points: Sequence[Point]) -> _Stored:
        """Write `points`, which are of one measurement."""
        measurement = points[0].measurement
        try:
            self._store_with_retries(points)
        except PartialWrite as error:
            rejected = Counter(error.rejected)
            return _Stored(measurement, error.accepted, error.kept, rejected, str(error))
        return _Stored(measurement, len(points), tuple(points), Counter(), "")

    def _store_with_retries(self, points: Sequence[Point]) -> None:
        deadline = self._timing.monotonic() + LONGEST_WAIT_SECONDS
        call_with_retries(lambda: self._store.write(points), RETRIES, self._timing, deadline)

    def _remember(
        self, written: Counter[str], rejected: Counter[str], keep: _Keep
    ) -> snapshots.Snapshot:
        def remember() -> snapshots.Snapshot:
            with self._operational.writing() as connection:
                tallies.add(connection, POINTS_WRITTEN.name, written)
                tallies.add(connection, POINTS_REJECTED.name, rejected)
                return keep(connection, self._clock_ns())

        return call_with_retries(remember, RETRIES, self._timing)


def _by_measurement(points: Iterable[Point]) -> list[list[Point]]:
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.measurement, []).append(point)
    return [groups[measurement] for measurement in sorted(groups)]
