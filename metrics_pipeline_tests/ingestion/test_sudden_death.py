"""An ingestion that is killed again and again while numbered events come in."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from metrics_pipeline.core.catalog import LORAWAN_UPLINK
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import BatchLimits
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline_tests.ingestion.influxdb_pipeline import influxdb_settings
from metrics_pipeline_tests.ingestion.ingesting import (
    Pipeline,
    append,
    errors,
    is_drained,
    kill_again_and_again,
    not_once,
    numbers,
    pipeline,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import influxdb_1_engine

KILLS = 50
"""For each of the stores."""

PARTITIONS = 2
EVENTS_AT_ONCE = 20
SEED = 4

Poison = tuple[str, int]
"""The partition and sequence number of an event that cannot be decoded."""

Read = Callable[[], list[Point]]
OpenedIn = Callable[[EventHubServer, Path], AbstractContextManager[tuple[Pipeline, Read]]]


@contextmanager
def sending(hub: EventHubServer) -> Iterator[Callable[[], tuple[int, set[Poison]]]]:
    """Numbered events come in, and poison now and then; gives what came when it is asked.

    It ends then. Of the numbered events it says how many there are.
    """
    stop, sent, poison = threading.Event(), [0], set[Poison]()

    def send() -> None:
        while not stop.wait(0.05):
            for partition in range(PARTITIONS):
                first = sent[0]
                sent[0] += EVENTS_AT_ONCE
                append(hub, range(first, first + EVENTS_AT_ONCE), str(partition))
                number = hub.append(b"no JSON", partition=str(partition))
                poison.add((str(partition), number))

    thread = threading.Thread(target=send)
    thread.start()

    def finish() -> tuple[int, set[Poison]]:
        stop.set()
        thread.join()
        return sent[0], poison

    try:
        yield finish
    finally:
        finish()


@contextmanager
def embedded(hub: EventHubServer, folder: Path) -> Iterator[tuple[Pipeline, Read]]:
    made = pipeline(hub, folder)
    yield made, made.stored


@contextmanager
def influxdb(hub: EventHubServer, folder: Path) -> Iterator[tuple[Pipeline, Read]]:
    with influxdb_1_engine(folder / "engine") as engine:
        made = pipeline(hub, folder, store=influxdb_settings(engine, folder))
        yield made, lambda: engine.read(LORAWAN_UPLINK.name)


def letters_in(made: Pipeline) -> list[Poison]:
    """Of which events dead letters are kept."""
    with made.opened() as (_, stores):
        kept = stores.dead_letters.find(limit=2**31)
    return sorted((each.letter.partition, each.letter.sequence_number) for each in kept)


@pytest.mark.parametrize("stores", [embedded, influxdb])
@pytest.mark.timeout(6 * PATIENCE_SECONDS)
def test_whoever_dies_wherever_every_event_is_stored_exactly_once(
    stores: OpenedIn, tmp_path: Path
) -> None:
    with (
        serve_event_hub(partition_count=PARTITIONS) as hub,
        stores(hub, tmp_path) as (made, read),
    ):
        with sending(hub) as finish:
            kill_again_and_again(made, KILLS, random.Random(SEED))
            survived = sum(numbers(read()).values())
            sent, poison = finish()
        # There may be very many, of which the ingestions that died took a few at a time.
        report = made.with_(limits=BatchLimits()).run(is_drained)
        assert errors(report) == []
        assert is_drained(report)
        assert not_once(read(), sent) == {}
        assert letters_in(made) == sorted(poison)
    # Those who died stored some of it, or nothing was shown; how much is up to the machine.
    assert survived > KILLS
