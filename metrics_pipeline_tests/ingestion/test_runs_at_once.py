"""Ingestions of the same partitions that begin at the same moment, while numbered events come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from metrics_pipeline.core.telemetry import Checkpoint
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline_tests.ingestion.ingesting import (
    Pipeline,
    append,
    errors,
    ingest_at_once,
    is_drained,
    not_once,
    pipeline,
)
from metrics_pipeline_tests.meanwhile import meanwhile

PARTITIONS = 4
ROUNDS = 2
WINDOW_SECONDS = 4.0
EVENTS_AT_ONCE = 10


class Sender:
    """Sends some numbered events to each partition in turn."""

    def __init__(self, hub: EventHubServer) -> None:
        self._hub = hub
        self.count = 0

    def send(self) -> None:
        for partition in range(PARTITIONS):
            first, self.count = self.count, self.count + EVENTS_AT_ONCE
            append(self._hub, range(first, self.count), str(partition))


@contextmanager
def watching(made: Pipeline) -> Iterator[list[Mapping[str, Checkpoint]]]:
    """The checkpoints as they are, looked at again and again."""
    seen: list[Mapping[str, Checkpoint]] = []
    with made.opened() as (stream, stores):
        hub = (stream.namespace, stream.hub, stream.consumer_group)
        with meanwhile(lambda: seen.append(stores.checkpoints.find_all(*hub)), 0.002):
            yield seen


def test_of_ingestions_that_begin_at_the_same_moment_one_goes_on_and_no_event_is_lost_or_doubled(
    tmp_path: Path,
) -> None:
    with serve_event_hub(partition_count=PARTITIONS) as hub:
        made, sender = pipeline(hub, tmp_path), Sender(hub)
        with watching(made) as seen, meanwhile(sender.send, 0.02):
            rounds = [ingest_at_once(made, 2, WINDOW_SECONDS) for _ in range(ROUNDS)]
        report = made.run(is_drained)
    assert errors(report) == []
    assert not_once(made.stored(), sender.count) == {}
    for both in rounds:
        loser, winner = sorted(both, key=lambda each: each.epoch)
        assert loser.epoch < winner.epoch
        assert (set(loser.are_taken), set(winner.are_taken)) == ({True}, {False})
        assert (loser.errors, winner.errors) == ([], [])
        assert winner.events > 0
    moved = [each for both in rounds for one in both for each in one.moved]
    assert len(moved) == len(set(moved))  # nobody moved one to where another had moved it
    for partition in map(str, range(PARTITIONS)):
        places = [
            (each[partition].epoch, each[partition].position.sequence_number)
            for each in seen
            if partition in each
        ]
        assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(places))
        assert len(set(places)) > ROUNDS
