"""Numbered uplinks that come all the time, for tests of what happens meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Self

from metrics_pipeline.simulators.event_hub.server import EventHubServer
from metrics_pipeline_tests.ingestion.ingesting import append

EVERY_SECONDS = 0.05


class Sending:
    """One event after the other, to all partitions in turn, until `stop`."""

    def __init__(
        self, hub: EventHubServer, partitions: int, annotations: Mapping[str, Any] | None = None
    ) -> None:
        self._hub = hub
        self._partitions = partitions
        self._annotations = annotations
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No more come; those before `count` have."""
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            partition = str(self.count % self._partitions)
            append(self._hub, [self.count], partition, self._annotations)
            self.count += 1
