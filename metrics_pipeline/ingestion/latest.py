"""The latest values of every LoRaWAN device while events come in, and their way to the exporter."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from metrics_pipeline.core.catalog import LORAWAN_DEVICES
from metrics_pipeline.core.lorawan_devices import LorawanDevices
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import Checkpoint
from metrics_pipeline.core.telemetry_assets import SEEN_UP_TO
from metrics_pipeline.storage.snapshots import Packing
from metrics_pipeline.storage.writer import Writer

ROWS_AT_ONCE = 1000
LOOK_SECONDS = 0.5
"""How often it is looked whether an earlier run has shown what it stored."""
SEQUENCE_NUMBER = "sequence_number"


class LatestDevices:
    """Shared by the threads of all partitions; goes on from what `asset` last published.

    That is the rows, and by partition up to which event they go: one snapshot, so that nobody ever
    finds the one without the other.
    """

    def __init__(self, writer: Writer, asset: str, kept_ns: int) -> None:
        """A device is forgotten `kept_ns` after its last uplink."""
        self._writer = writer
        self._asset = asset
        self._kept_ns = kept_ns
        self._lock = threading.Lock()
        self._is_changed = False
        self._numbers: dict[str, int] = {}
        """By partition, the sequence number of the last event that is in the rows."""
        self._is_restored = False
        self._devices = LorawanDevices()

    def begin(
        self,
        checkpoints: Mapping[str, Checkpoint],
        wait: Callable[[float], object],
        patience_seconds: float,
    ) -> None:
        """From where partitions are read, which are claimed by now.

        The first time it reads what is published; StoreError when that fails. An earlier run that
        is still there publishes all that it has stored once it notices the claim: that is waited
        for, `patience_seconds` at most. One that died may have stored more than it showed.
        """
        stored = {name: each.position.sequence_number for name, each in checkpoints.items()}
        with self._lock:
            if not self._is_restored:
                self._restore(stored, wait, patience_seconds)
                self._is_restored = True
            if self._is_behind(stored):
                self._devices.forget_gaps()
            self._numbers |= stored

    def _restore(
        self,
        stored: Mapping[str, int],
        wait: Callable[[float], object],
        patience_seconds: float,
    ) -> None:
        self._devices = LorawanDevices(self._restored())
        for _ in range(round(patience_seconds / LOOK_SECONDS)):
            if not self._is_behind(stored):
                return
            wait(LOOK_SECONDS)
            self._devices = LorawanDevices(self._restored())

    def _is_behind(self, stored: Mapping[str, int]) -> bool:
        return any(number > self._numbers.get(name, -1) for name, number in stored.items())

    def take(self, partition: str, points: Iterable[Point], last_number: int) -> None:
        """Uplinks that are stored, in their order, up to the event of `last_number`."""
        with self._lock:
            self._devices.take(points)
            self._numbers[partition] = last_number
            self._is_changed = True

    def publish(self, now_ns: int) -> None:
        """Make them what the exporter shows, if anything is new; StoreError when that fails."""
        if not self._is_changed:
            return
        self._is_changed = False
        packing = Packing()
        with self._lock:
            self._devices.forget_before(now_ns - self._kept_ns)
            rows = itertools.chain(self._progress(), self._devices.rows())
            while some := tuple(itertools.islice(rows, ROWS_AT_ONCE)):
                packing.add(some)
        try:
            self._writer.publish(self._asset, packing, ())
        except BaseException:
            self._is_changed = True
            raise

    def _restored(self) -> Iterator[Point]:
        """The rows of the snapshot; takes the numbers out of it on the way."""
        for point in itertools.chain.from_iterable(self._writer.latest_in_batches(self._asset)):
            if point.measurement == LORAWAN_DEVICES.name:
                yield point
            elif point.measurement == SEEN_UP_TO:
                self._numbers[point.tags["partition"]] = int(point.fields[SEQUENCE_NUMBER])

    def _progress(self) -> Iterator[Point]:
        for partition, number in self._numbers.items():
            yield Point(SEEN_UP_TO, {"partition": partition}, {SEQUENCE_NUMBER: number}, 0)
