"""A process that writes to an embedded store, for tests of several at once and of sudden death.

    python -m metrics_pipeline_tests.storage.embedded_writer PATH DEVICE WRITES POINTS

Makes WRITES writes of POINTS points each, and prints the number of each write once acknowledged.
"""

from __future__ import annotations

import sys
from pathlib import Path

from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline_tests.storage.contract import TIME_NS, poll


def main(path: str, device_id: str, writes: str, points: str) -> None:
    store = EmbeddedStore(EmbeddedStoreSettings(path=Path(path), busy_timeout_seconds=30))
    size = int(points)
    for number in range(int(writes)):
        first_ns = TIME_NS + number * size
        store.write([poll({"count": number}, first_ns + i, device_id) for i in range(size)])
        print(number, flush=True)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
