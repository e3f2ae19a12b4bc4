"""The one writer: every point of the product is validated and stored here, and nowhere else.

Order: validate, time-series store (acknowledged), then latest values and totals in one
transaction. So nothing is shown that is not kept, and a write that fails changes nothing that
Prometheus sees.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import sqlalchemy as sa

from metrics_pipeline.access.system_timing import SYSTEM_TIMING
from metrics_pipeline.core.backoff import Backoff, Timing, call_with_retries
from metrics_pipeline.core.catalog import POINTS_REJECTED, POINTS_WRITTEN, Catalog
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.errors import InvalidPoint, PartialWrite
from metrics_pipeline.core.open_fields import with_typed_names
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import PointStore, Reading
from metrics_pipeline.core.validation import validate
from metrics_pipeline.storage import device_labels, probe_memory, snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase

RETRIES = Backoff(tries=3, base_seconds=0.1, cap_seconds=5.0)
LONGEST_WAIT_SECONDS = 60.0
"""A store that asks by Retry-After for more patience than this has failed for this run."""

MAX_EXAMPLES = 5

TYPE_CONFLICT = "field_type_conflict"
"""What every store calls a point with a field of another type than the field's first value."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What became of the points handed in: stored, and refused by reason with a few examples."""

    accepted: int
    rejected: Mapping[str, int]
    examples: tuple[str, ...]
    snapshot: snapshots.Snapshot


@dataclass(frozen=True, slots=True)
class Part:
    """What became of some points: written by measurement, kept (as far as known), rejected.

    Not among `kept` is what no exporter shows: the latest values are there for it alone.
    """

    written: Counter[str]
    kept: tuple[Point, ...]
    rejected: Counter[str]
    examples: tuple[str, ...]


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

    def after(self, kept: tuple[Point, ...]) -> _Stored:
        """The same, where `kept` of the measurement had been kept before."""
        return replace(self, accepted=self.accepted + len(kept), kept=kept + self.kept)


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
        part = self._store_all(reading.points)
        is_complete = not reading.failures and not part.rejected
        keep = snapshots.replace if is_complete else snapshots.merge
        snapshot = self._remember(part, lambda c, now_ns: keep(c, asset, part.kept, now_ns))
        return WriteReport(part.written.total(), dict(part.rejected), part.examples, snapshot)

    def append(self, points: Sequence[Point]) -> Part:
        """Store a part of a result that is still being read; fails as `write` does.

        What the exporter shows stays as it was, until `publish`.
        """
        part = self._store_all(points)
        self._remember(part, lambda _connection, _now_ns: None)
        return part

    def publish(self, asset: str, packing: snapshots.Packing, devices: Iterable[Device]) -> None:
        """Show the packed points, which are stored, as all there is of `asset`.

        `devices` are what it polls: others are not shown.
        """
        body, labelled = packing.finish(), list(devices)

        def publish() -> None:
            with self._operational.writing() as connection:
                device_labels.replace(connection, asset, labelled)
                snapshots.replace_packed(connection, asset, body, self._clock_ns())

        call_with_retries(publish, RETRIES, self._timing)

    def latest(self, asset: str) -> snapshots.Snapshot | None:
        """The snapshot of `asset`, or None if it never gave anything."""
        with self._operational.reading() as connection:
            return snapshots.find(connection, asset)

    def latest_in_batches(self, asset: str) -> Iterator[list[Point]]:
        """The points of the snapshot of `asset`, some at a time, for where they may be many."""
        with self._operational.reading() as connection:
            body = snapshots.find_packed(connection, asset)
        for rows in snapshots.decode_in_batches(body):
            yield [Point(*row) for row in rows]

    def load_memories(self, protocol: str) -> dict[str, bytes]:
        """What a probe of `protocol` knew of devices at the end of the last run."""
        with self._operational.reading() as connection:
            return probe_memory.load(connection, protocol)

    def save_memories(self, protocol: str, memories: Mapping[str, bytes]) -> None:
        """Keep what a probe of `protocol` knows of devices for the next run."""
        with self._operational.writing() as connection:
            probe_memory.save(connection, protocol, memories)

    def close(self) -> None:
        """Close the store and the operational database."""
        self._store.close()
        self._operational.close()

    def _store_all(self, points: Sequence[Point]) -> Part:
        sorted_ = self._validate(points)
        stored = [self._store_group(group) for group in _by_measurement(sorted_.fit)]
        return Part(
            written=Counter({group.measurement: group.accepted for group in stored}),
            kept=tuple(
                point
                for group in stored
                if group.measurement in self._catalog.shown_measurements
                for point in group.kept
            ),
            rejected=sum((group.rejected for group in stored), sorted_.rejected),
            examples=(*sorted_.examples, *(group.problem for group in stored if group.problem)),
        )

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
        """Write `points`, which are of one measurement; once more where types clash."""
        stored = self._store_some(points)
        prefixes = self._catalog.open_prefixes(stored.measurement)
        if not prefixes or TYPE_CONFLICT not in stored.rejected:
            return stored
        # Also those of which the store did not say whether it kept them: it does no harm.
        kept = set(map(id, stored.kept))
        rest = [with_typed_names(point, prefixes) for point in points if id(point) not in kept]
        return self._store_some(rest).after(stored.kept)

    def _store_some(self, points: Sequence[Point]) -> _Stored:
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

    def _remember(self, part: Part, keep: Callable[[sa.Connection, int], T]) -> T:
        def remember() -> T:
            with self._operational.writing() as connection:
                tallies.add(connection, POINTS_WRITTEN.name, part.written)
                tallies.add(connection, POINTS_REJECTED.name, part.rejected)
                return keep(connection, self._clock_ns())

        return call_with_retries(remember, RETRIES, self._timing)


def _by_measurement(points: Iterable[Point]) -> list[list[Point]]:
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.measurement, []).append(point)
    return [groups[measurement] for measurement in sorted(groups)]
