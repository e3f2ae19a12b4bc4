"""Simulated LoRaWAN devices that send: an event hub on loopback, and a thread that fills it."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from metrics_pipeline.access.whole_file import write_private
from metrics_pipeline.simulators.event_hub.partition_log import Retention
from metrics_pipeline.simulators.event_hub.server import EventHubServer, epoch_milliseconds
from metrics_pipeline.simulators.lorawan_fleet import HubMessage, make_nodes, step

PARTITIONS = 4
RETENTION = Retention(max_age_seconds=1800, max_events=100_000, max_bytes=100_000_000)
"""Of each partition: the hub lives in the memory of this process, some 20 MB an hour."""


@contextmanager
def serve_lorawan_devices(
    *, connection_string_file: Path, count: int, step_seconds: float, seed: int
) -> Iterator[EventHubServer]:
    """Serve a hub, on any free port, to which `count` devices send a frame every `step_seconds`.

    Once it listens, its connection string is in `connection_string_file`, for the owner alone to
    read. Raises OSError when the file cannot be written.
    """
    stop = threading.Event()
    with EventHubServer(partition_count=PARTITIONS, retention=RETENTION) as hub:
        write_private(connection_string_file, hub.connection_string + "\n")
        sender = threading.Thread(
            target=_send, args=(hub, count, step_seconds, seed, stop), name="lorawan-devices"
        )
        sender.start()
        try:
            yield hub
        finally:
            stop.set()
            sender.join()


def put(hub: EventHubServer, message: HubMessage) -> int:
    """Let `hub` have `message`, in its sender's partition; gives the sequence number."""
    partition = str(zlib.crc32(message.sender.encode()) % PARTITIONS)
    return hub.append(message.body, partition=partition, annotations=message.annotations)


def _send(
    hub: EventHubServer, count: int, step_seconds: float, seed: int, stop: threading.Event
) -> None:
    random = Random(seed)  # noqa: S311  (dice of a simulation, not a key)
    nodes = make_nodes(count, random)
    while True:
        for message in step(nodes, epoch_milliseconds(), random):
            put(hub, message)
        if stop.wait(step_seconds):
            return
