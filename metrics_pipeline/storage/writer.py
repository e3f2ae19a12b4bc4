"""The one writer: every point of the product is validated and stored here, and nowhere else.

Order: validate, time-series store (acknowledged), then latest values and totals in one
transaction. So nothing is shown that is not kept, and a write that fails changes nothing that
Prometheus sees. With a spool, points that the time-series store does not take for the moment are
kept there instead, and so are all that come until it is empty again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import sqlalchemy as sa

from metrics_pipeline.access.system_timing import SYSTEM_TIMING
from metrics_pipeline.core.backoff import Backoff, Timing, call_with_retries
from metrics_pipeline.core.catalog import (
    POINTS_REJECTED,
    POINTS_SPOOLED,
    POINTS_WRITTEN,
    Catalog,
)
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.errors import (
    InvalidPoint,
    PartialWrite,
    RefusedPoint,
    StoreError,
    StoreUnavailable,
)
from metrics_pipeline.core.fetches import Fetch, totals_of
from metrics_pipeline.core.open_fields import with_typed_names
from metrics_pipeline.core.points import Column, Point
from metrics_pipeline.core.ports import PointStore, Reading
from metrics_pipeline.core.telemetry import PartitionKey
from metrics_pipeline.core.validation import validate
from metrics_pipeline.storage import device_labels, losses, probe_memory, snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.spool_replay import Replayer
from metrics_pipeline.storage.tallies import CountOnce

RETRIES = Backoff(tries=3, base_seconds=0.1, cap_seconds=5.0)
ONE_TRY = Backoff(tries=1, base_seconds=0.0, cap_seconds=0.0)
"""Of the store, where there is a spool: who replays that has the patience."""
LONGEST_WAIT_SECONDS = 60.0
"""A store that asks by Retry-After for more patience than this has failed for this run."""

MAX_EXAMPLES = 5

MAX_SEARCH_WRITES = 8192
"""So often parts of a batch are written again to find out which of it the store refuses: enough to
try each of 4,000 points alone."""

TYPE_CONFLICT = "field_type_conflict"
"""What every store calls a point with a field of another type than the field's first value."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What became of the points handed in: stored, and refused by reason with a few examples.

    `spooled` are on the disk, to be stored when the store is back.
    """

    accepted: int
    rejected: Mapping[str, int]
    examples: tuple[str, ...]
    snapshot: snapshots.Snapshot
    spooled: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """What became of some points: written by measurement, kept (as far as known), rejected.

    Those that are `spooled`, by measurement, are kept as well, but not written yet. Not among
    `kept` is what no exporter shows: the latest values are there for it alone. `refused` are the
    rejected points themselves, as they were handed in, where the caller asked for them.
    """

    written: Counter[str]
    kept: tuple[Point, ...]
    rejected: Counter[str]
    examples: tuple[str, ...]
    refused: tuple[RefusedPoint, ...] = ()
    spooled: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Sorted:
    fit: list[Point]
    handed_in: list[Point]
    """What those that are fit were before their fields were made so."""

    refused: list[RefusedPoint]


@dataclass(frozen=True, slots=True)
class _Stored:
    """What became of the points of one measurement; `problem` is empty if all were kept."""

    measurement: str
    accepted: int
    kept: tuple[Point, ...]
    rejected: Counter[str]
    problem: str
    refused: tuple[RefusedPoint, ...] = ()
    doubtful: tuple[Point, ...] = ()
    """Those of which the store did not say whether it kept them."""
    spooled: int = 0

    def after(self, kept: tuple[Point, ...]) -> _Stored:
        """The same, where `kept` of the measurement had been kept before."""
        return replace(self, accepted=self.accepted + len(kept), kept=kept + self.kept)

    def of_which(self, refused: Sequence[RefusedPoint]) -> _Stored:
        """The same, where of the doubtful it has turned out which are among all the `refused`."""
        not_kept = {id(each.point) for each in refused}
        return replace(
            self,
            accepted=self.accepted + self.rejected.total() - len(refused),
            kept=(*self.kept, *(p for p in self.doubtful if id(p) not in not_kept)),
            rejected=Counter(each.reason for each in refused),
            refused=tuple(refused),
            doubtful=(),
        )

    def without(self, witness: Point) -> _Stored:
        """What it says of all but `witness`, which is stored for certain."""
        return replace(
            self,
            accepted=self.accepted - 1,
            kept=tuple(point for point in self.kept if point is not witness),
            refused=tuple(each for each in self.refused if each.point is not witness),
            doubtful=tuple(point for point in self.doubtful if point is not witness),
        )

    def naming(self, points: Sequence[Point], earlier: Sequence[Point]) -> _Stored:
        """The same, where `points` were `earlier` before: of them it says what was refused."""
        before = dict(zip(map(id, points), earlier, strict=True))
        refused = (replace(each, point=before[id(each.point)]) for each in self.refused)
        return replace(self, refused=tuple(refused))


def _nothing_else(_connection: sa.Connection) -> None:
    return


class Writer:
    """Validates, stores with retries, and keeps the latest values."""

    def __init__(
        self,
        store: PointStore,
        operational: OperationalDatabase,
        catalog: Catalog,
        clock_ns: Callable[[], int] = time.time_ns,
        timing: Timing = SYSTEM_TIMING,
        *,
        replayer: Replayer | None = None,
    ) -> None:
        """`replayer` has the spool, for points that no checkpoint protects; it is closed with us.

        It stores what waits through another writer, that has none.
        """
        self._store = store
        self._replayer = replayer
        self._operational = operational
        self._catalog = catalog
        self._clock_ns = clock_ns
        self._timing = timing

    def write(
        self, asset: str, reading: Reading, also: Callable[[sa.Connection], None] = _nothing_else
    ) -> WriteReport:
        """Store the reading's points as the result of `asset` (its key, parts joined by `/`).

        `also` is done in the transaction in which they become the latest values.

        Raises StoreUnavailable when the tries are used up, or the spool takes no more, StoreError
        when trying again does not help. The snapshot of `asset` then stays as it was. Writing again
        is always safe.
        """
        part = self._store_all(self._validate(reading.points))
        is_complete = not reading.failures and not part.rejected
        whole = frozenset[Column]() if part.rejected else reading.whole

        def remember(connection: sa.Connection, now_ns: int) -> snapshots.Snapshot:
            also(connection)
            if is_complete:
                return snapshots.replace(connection, asset, part.kept, now_ns)
            return snapshots.merge(connection, asset, part.kept, now_ns, whole)

        snapshot = self._remember(part, remember)
        told = (part.written.total(), dict(part.rejected), part.examples, snapshot)
        return WriteReport(*told, part.spooled.total())

    def append(self, points: Sequence[Point], *, names_refused: bool = False) -> Part:
        """Store a part of a result that is still being read; fails as `write` does.

        What the exporter shows stays as it was, until `publish`. With `names_refused` the part has
        every point that was refused, also where the store says only how many: parts of what it did
        not take as a whole are then written again. StoreUnavailable where MAX_SEARCH_WRITES of
        these do not tell.
        """
        part = self._store_all(self._validate(points), names_refused=names_refused)
        self._remember(part, lambda _connection, _now_ns: None)
        return part

    def append_kept(self, points: Sequence[Point]) -> Part:
        """Store `points` that passed validation, however long ago that was; fails as `append`."""
        part = self.try_kept(points)
        self._remember(part, lambda _connection, _now_ns: None)
        return part

    def try_kept(self, points: Sequence[Point]) -> Part:
        """The same, but count nothing: whoever tries stores them once more."""
        return self._store_all(_Sorted(list(points), list(points), []))

    def publish(
        self,
        asset: str,
        packing: snapshots.Packing,
        devices: Iterable[Device],
        also: Callable[[sa.Connection], None] = _nothing_else,
    ) -> None:
        """Show the packed points, which are stored, as all there is of `asset`.

        `devices` are what it polls: others are not shown. `also` is done in the same transaction.
        """
        body, labelled = packing.finish(), list(devices)

        def publish() -> None:
            with self._operational.writing() as connection:
                also(connection)
                device_labels.replace(connection, asset, labelled)
                snapshots.replace_packed(connection, asset, body, self._clock_ns())

        call_with_retries(publish, RETRIES, self._timing)

    def count_lost(self, key: PartitionKey, after: int, events: int) -> None:
        """Add to the totals that so many `events` after event `after` are gone and never came.

        The same again, or more of them after the same event, counts only what is new.
        """
        with self._operational.writing() as connection:
            losses.count(connection, key, after, events)

    def count_fetches(self, fetches: Sequence[Fetch]) -> None:
        """Add what `fetches` took and brought to the totals; each is given once."""
        self.count(CountOnce(totals_of(fetches)))

    def count(self, once: CountOnce) -> None:
        """Add it to the totals, unless it is there already or may be."""

        def count() -> None:
            with self._operational.writing() as connection:
                once(connection)

        call_with_retries(count, RETRIES, self._timing)

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
        """Close the store and the operational database; the spool first."""
        if self._replayer is not None:
            self._replayer.close()
        self._store.close()
        self._operational.close()

    def _store_all(self, sorted_: _Sorted, *, names_refused: bool = False) -> Part:
        groups = _by_measurement(sorted_.fit)
        stored = [self._store_group(group, names_refused) for group in groups]
        invalid = sorted_.refused
        return Part(
            written=Counter({g.measurement: g.accepted for g in stored if not g.spooled}),
            kept=tuple(
                point
                for group in stored
                if group.measurement in self._catalog.shown_measurements
                for point in group.kept
            ),
            rejected=sum(
                (group.rejected for group in stored), Counter(each.reason for each in invalid)
            ),
            examples=(
                *(f"{each.reason}: {each.detail}" for each in invalid[:MAX_EXAMPLES]),
                *(group.problem for group in stored if group.problem),
            ),
            refused=_all_refused(sorted_, stored) if names_refused else (),
            spooled=Counter({g.measurement: g.spooled for g in stored if g.spooled}),
        )

    def _validate(self, points: Sequence[Point]) -> _Sorted:
        sorted_ = _Sorted([], [], [])
        now_ns = self._clock_ns()
        for point in points:
            try:
                sorted_.fit.append(validate(point, self._catalog, now_ns))
                sorted_.handed_in.append(point)
            except InvalidPoint as error:
                sorted_.refused.append(RefusedPoint(point, error.reason, error.detail))
        return sorted_

    def _store_group(self, points: Sequence[Point], names_refused: bool) -> _Stored:
        """Write `points`, which are of one measurement, or keep them in the spool if there is one.

        While something waits there the store is not asked: an outage costs a write no time, and
        what is written of one series and time stays in its order.
        """
        if self._replayer is None:
            return self._write_group(points, names_refused)
        why: StoreUnavailable | None = None
        if not self._replayer.is_needed():
            try:
                return self._write_group(points, names_refused)
            except StoreUnavailable as error:
                why = error
        refused = self._replayer.keep(points, why)
        not_kept = {id(each.point) for each in refused}
        kept = tuple(point for point in points if id(point) not in not_kept)
        reasons = Counter(each.reason for each in refused)
        return _Stored(
            *(points[0].measurement, 0, kept, reasons, refused[0].detail if refused else ""),
            refused=tuple(refused),
            spooled=len(kept),
        )

    def _write_group(self, points: Sequence[Point], names_refused: bool) -> _Stored:
        """Write `points`, which are of one measurement; once more where types clash."""
        search = self._search if names_refused else _as_it_is
        stored = self._store_some(points)
        prefixes = self._catalog.open_prefixes(stored.measurement)
        if not prefixes or TYPE_CONFLICT not in stored.rejected:
            return search(stored)
        # Also those of which the store did not say whether it kept them: it does no harm.
        kept = set(map(id, stored.kept))
        rest = [point for point in points if id(point) not in kept]
        typed = [with_typed_names(point, prefixes) for point in rest]
        again = search(self._store_beside(stored.kept, typed))
        return again.naming(typed, rest).after(stored.kept)

    def _search(self, stored: _Stored) -> _Stored:
        """The same, with the refused among the doubtful, which are written again half by half."""
        found = list(stored.refused)
        pending = _halves(stored.doubtful)
        for _ in range(MAX_SEARCH_WRITES):
            if not pending:
                break
            again = self._store_beside(stored.kept, pending.pop())
            found += again.refused
            pending += _halves(again.doubtful)
        if pending:
            raise StoreUnavailable(
                self._store.name,
                f"of {sum(map(len, pending))} points it was not found out in {MAX_SEARCH_WRITES} "
                f"writes which it refuses: {stored.problem}",
                "Remove what they all have wrong, or write fewer at once.",
            )
        return stored.of_which(found)

    def _store_beside(self, kept: Sequence[Point], points: Sequence[Point]) -> _Stored:
        """Write `points`; should the store refuse whatever it is sent, with one that it has kept.

        So it is known whether that lies in `points`.
        """
        try:
            return self._store_some(points)
        except StoreUnavailable:
            raise
        except StoreError:
            if not kept:
                raise
        return self._store_some([kept[0], *points]).without(kept[0])

    def _store_some(self, points: Sequence[Point]) -> _Stored:
        measurement = points[0].measurement
        try:
            self._store_with_retries(points)
        except PartialWrite as error:
            rejected, doubtful = Counter(error.rejected), _doubtful(points, error)
            known = (error.kept, rejected, str(error), error.refused, doubtful)
            return _Stored(measurement, error.accepted, *known)
        return _Stored(measurement, len(points), tuple(points), Counter(), "")

    def _store_with_retries(self, points: Sequence[Point]) -> None:
        deadline = self._timing.monotonic() + LONGEST_WAIT_SECONDS
        tries = RETRIES if self._replayer is None else ONE_TRY
        call_with_retries(lambda: self._store.write(points), tries, self._timing, deadline)

    def _remember(self, part: Part, keep: Callable[[sa.Connection, int], T]) -> T:
        def remember() -> T:
            with self._operational.writing() as connection:
                tallies.add(connection, POINTS_WRITTEN.name, part.written)
                tallies.add(connection, POINTS_REJECTED.name, part.rejected)
                tallies.add(connection, POINTS_SPOOLED.name, part.spooled)
                return keep(connection, self._clock_ns())

        return call_with_retries(remember, RETRIES, self._timing)


def _all_refused(sorted_: _Sorted, stored: Sequence[_Stored]) -> tuple[RefusedPoint, ...]:
    told = [each for group in stored for each in group.refused]
    if told:
        handed_in = dict(zip(map(id, sorted_.fit), sorted_.handed_in, strict=True))
        told = [replace(each, point=handed_in[id(each.point)]) for each in told]
    return (*sorted_.refused, *told)


def _as_it_is(stored: _Stored) -> _Stored:
    return stored


def _halves(points: Sequence[Point]) -> list[Sequence[Point]]:
    middle = len(points) // 2
    return [half for half in (points[middle:], points[:middle]) if half]


def _doubtful(points: Sequence[Point], error: PartialWrite) -> tuple[Point, ...]:
    refused = (each.point for each in error.refused)
    known = set(map(id, (*error.kept, *refused)))
    return tuple(point for point in points if id(point) not in known)


def _by_measurement(points: Iterable[Point]) -> list[list[Point]]:
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.measurement, []).append(point)
    return [groups[measurement] for measurement in sorted(groups)]
