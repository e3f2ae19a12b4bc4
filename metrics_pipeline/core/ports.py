"""The shapes everything plugs into. A new cloud or store is a class with these methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from metrics_pipeline.core.catalog import Metric
from metrics_pipeline.core.devices import Device, DeviceReading
from metrics_pipeline.core.errors import SourceError
from metrics_pipeline.core.fetches import Fetch
from metrics_pipeline.core.points import Column, Point
from metrics_pipeline.core.telemetry import (
    BatchLimits,
    Checkpoint,
    PartitionKey,
    PartitionState,
    Position,
    RawEvent,
)

Trace = Callable[[str], None]
"""Is told, in one line, what was asked of a device or what came back."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a snapshot source answered: the points it could read, and what it could not and why."""

    points: tuple[Point, ...]
    failures: tuple[SourceError, ...] = ()
    fetches: tuple[Fetch, ...] = ()
    """What it took, as far as that was measured."""

    whole: frozenset[Column] = frozenset()
    """Where something failed: the columns of which the points are all there is nevertheless."""

    def __add__(self, other: Reading) -> Reading:
        return Reading(
            self.points + other.points,
            self.failures + other.failures,
            self.fetches + other.fetches,
            self.whole | other.whole,
        )


class SnapshotSource(Protocol):
    """Is asked, and answers with points."""

    @property
    def name(self) -> str:
        """The source's name in the registry; also the `provider` tag of its points."""
        ...

    def read(self, metrics: Sequence[Metric], time_ns: int) -> Reading:
        """Read `metrics`, stamped `time_ns`. One that fails is a failure, not an exception."""
        ...

    def close(self) -> None:
        """Give back connections. Reading after it is an error."""
        ...


class SampledSource(Protocol):
    """Is asked on every slot of a grid, by one thread, and answers with points of that slot."""

    @property
    def name(self) -> str:
        """What it is called in the lineage, the counter of slots and the log."""
        ...

    def read(self, time_ns: int) -> Reading:
        """All there is now, stamped `time_ns`; what fails is a failure, not an exception.

        Bounds its own time. Until it has returned it is asked nothing more, and the slots that
        pass meanwhile are missed.
        """
        ...

    def close(self) -> None:
        """Give back connections. Reading after it is an error."""
        ...


class DeviceProbe(Protocol):
    """Is given one device at a time, many of them at once, and answers with what it could read.

    Entered once for a sweep, which opens what all devices share (a socket, remembered keys).
    """

    @property
    def name(self) -> str:
        """The protocol's name in the registry and in the inventory."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_exception: object) -> None: ...

    async def poll(
        self, device: Device, metrics: Collection[str], trace: Trace | None = None
    ) -> DeviceReading:
        """Read `metrics` of `device`. Never raises for what the device does.

        The caller bounds the whole by cancelling it; the probe leaves nothing open then. `trace`
        is told each step in words: what was asked and what came back, without a secret.
        """
        ...


@runtime_checkable
class AsksTogether(Protocol):
    """A probe that asks many devices for less than one by one, and bounds how long each takes."""

    def sweep(
        self, devices: Iterable[Device], metrics: Collection[str], budget_seconds: float
    ) -> AsyncIterator[DeviceReading]:
        """A reading of each of `devices`, as soon as it is known.

        No device is asked anything new when it has taken `budget_seconds`: its reading is made of
        what has come by then.
        """
        ...


@runtime_checkable
class RemembersDevices(Protocol):
    """A probe that asks less of a device it knows; who starts the process keeps what it knows."""

    def load_memories(self, memories: Mapping[str, bytes]) -> None:
        """Take what `dump_memories` gave, in another process perhaps, by device id."""
        ...

    def dump_memories(self) -> Mapping[str, bytes]:
        """What is worth knowing at the next poll, by device id."""
        ...


class PointStore(Protocol):
    """Keeps points for ever (or as long as its retention says)."""

    @property
    def name(self) -> str:
        """Where it is, for people: no secret in it."""
        ...

    def write(self, points: Sequence[Point]) -> None:
        """Store all `points` durably before returning; one try.

        Raises PartialWrite when the store refused some of them (the others are kept),
        StoreUnavailable when trying again may help, and StoreError when it does not. Writing
        the same points again is always safe.
        """
        ...

    def check(self) -> str:
        """What the store says of itself when it is healthy; StoreError when it is not."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


class PartitionReader(Protocol):
    """Reads one partition, for one caller at a time. Closed by whoever opened it."""

    def receive(self, limits: BatchLimits) -> Sequence[RawEvent]:
        """The next events, in their order; none if none came within `limits.max_wait_seconds`.

        Raises SourceError: PartitionTaken when a reader of the same or a higher epoch has come, for
        which this one has to end; after any other a new reader goes on from the last position.
        """
        ...

    def close(self) -> None:
        """End it. May be called from another thread, whose `receive` then ends soon; and twice."""
        ...


class EventStream(Protocol):
    """A hub of events in partitions, read by one consumer group; connects at first use.

    May be shared between threads.
    """

    @property
    def name(self) -> str:
        """Where it is, for people: no secret in it."""
        ...

    @property
    def namespace(self) -> str:
        """The host of the hub, as in checkpoints."""
        ...

    @property
    def hub(self) -> str:
        """The hub's own name."""
        ...

    @property
    def consumer_group(self) -> str:
        """In whose name it is read."""
        ...

    def partitions(self) -> Mapping[str, PartitionState]:
        """Every partition there is now, and how far it goes; one connection is kept for this.

        Raises SourceError.
        """
        ...

    def open(self, partition: str, after: Position | None, epoch: int | None) -> PartitionReader:
        """A reader of what comes after `after`; of all that is kept if that is None.

        Connects at the first `receive`. Readers of the partition with a lower epoch, or with none,
        are shut out; a reader whose `epoch` is None shuts out nobody, and is let in only while no
        other of its consumer group has an epoch (PartitionTaken). Where `after` is older than what
        is kept, reading begins with the oldest.
        """
        ...

    def close(self) -> None:
        """Give back connections, also those of its readers; from any thread, and twice."""
        ...


class CheckpointStore(Protocol):
    """Keeps how far each partition of a hub is stored, and who may say so.

    Opened for one reader (its name is shown to those who come too late). Names of namespaces, hubs
    and consumer groups are the same in upper and lower case, as they are for the hub. Every method
    raises StoreUnavailable when trying again may help, and StoreError when it does not.
    """

    @property
    def name(self) -> str:
        """Where it is, for people: no secret in it."""
        ...

    def find(self, key: PartitionKey) -> Checkpoint | None:
        """The checkpoint of `key`; None while nothing of it has been stored."""
        ...

    def find_all(self, namespace: str, hub: str, consumer_group: str) -> Mapping[str, Checkpoint]:
        """Every checkpoint of the consumer group, by partition."""
        ...

    def claim(self, keys: Collection[PartitionKey]) -> int:
        """The epoch for a reader of `keys`, greater than any before of each of them (from 1).

        It is stored before this returns: writers of an earlier epoch are shut out from then on.
        The checkpoints found afterwards are of this epoch, at the position they had.
        """
        ...

    def advance(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        """Make `new` the checkpoint of `key` if it is exactly `old` (None: there is none yet).

        It is no error if it is `new` already, as after a try whose answer was lost. Otherwise
        CheckpointMoved, also when a later epoch than that of `new` has been claimed, and nothing
        is changed. StoreError when `new` lies before `old`: that is what `rewind` is for.
        """
        ...

    def rewind(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        """As `advance`, for a person who wants events read again: `new` may lie before `old`."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...
