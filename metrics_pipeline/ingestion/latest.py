"""The latest values of every LoRaWAN device while events come in, and their way to the exporter."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping

from metrics_pipeline.core.catalog import LORAWAN_DEVICES
from metrics_pipeline.core.lorawan_devices import LorawanDevices
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import Checkpoint
from metrics_pipeline.storage.snapshots import Packing
from metrics_pipeline.storage.writer import Writer

ROWS_AT_ONCE = 1000


class LatestDevices:
    """Shared by the threads of all partitions; begun with what `asset` last published."""

    def __init__(self, writer: Writer, asset: str) -> None:
        self._writer = writer
        self._asset = asset
        self._lock = threading.Lock()
        self._is_changed = False
        rows = (row for batch in writer.latest_in_batches(asset) for row in batch)
        self._devices = LorawanDevices(r for r in rows if r.measurement == LORAWAN_DEVICES.name)
        memories = writer.load_memories(asset)
        self._numbers = {partition: int(number) for partition, number in memories.items()}
        """By partition, the sequence number of the last event that is in the rows."""

    def begin(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """From where partitions are read: a run that died may have stored more than it showed."""
        stored = {name: each.position.sequence_number for name, each in checkpoints.items()}
        with self._lock:
            if any(number > self._numbers.get(name, -1) for name, number in stored.items()):
                self._devices.forget_gaps()
            self._numbers |= stored

    def take(self, partition: str, points: Iterable[Point], last_number: int) -> None:
        """Uplinks that are stored, in their order, up to the event of `last_number`."""
        with self._lock:
            self._devices.take(points)
            self._numbers[partition] = last_number
            self._is_changed = True

    def publish(self) -> None:
        """Make them what the exporter shows, if anything is new; StoreError when that fails."""
        if not self._is_changed:
            return
        self._is_changed = False
        packing = Packing()
        with self._lock:
            numbers = {name: b"%d" % number for name, number in self._numbers.items()}
            rows = self._devices.rows()
            while some := tuple(itertools.islice(rows, ROWS_AT_ONCE)):
                packing.add(some)
        try:
            self._writer.publish(self._asset, packing, ())
            self._writer.save_memories(self._asset, numbers)
        except BaseException:
            self._is_changed = True
            raise
