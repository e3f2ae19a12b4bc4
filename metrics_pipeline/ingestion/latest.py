"""The latest values of every LoRaWAN device while events come in, and their way to the exporter."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable

from metrics_pipeline.core.catalog import LORAWAN_DEVICES
from metrics_pipeline.core.lorawan_devices import LorawanDevices
from metrics_pipeline.core.points import Point
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

    def take(self, points: Iterable[Point]) -> None:
        """Uplinks of one partition that are stored, in their order."""
        with self._lock:
            self._devices.take(points)
            self._is_changed = True

    def publish(self) -> None:
        """Make them what the exporter shows, if anything is new; StoreError when that fails."""
        if not self._is_changed:
            return
        self._is_changed = False
        packing = Packing()
        with self._lock:
            rows = self._devices.rows()
            while some := tuple(itertools.islice(rows, ROWS_AT_ONCE)):
                packing.add(some)
        try:
            self._writer.publish(self._asset, packing, ())
        except BaseException:
            self._is_changed = True
            raise
