"""Replays while an ingestion reads the same partitions: neither disturbs the other."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from metrics_pipeline.core.errors import PartitionTaken
from metrics_pipeline.core.ports import PartitionReader
from metrics_pipeline.core.telemetry import BatchLimits, DeadLetter
from metrics_pipeline.ingestion import IngestionReport
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline.sources.event_hub import EventHubStream
from metrics_pipeline.telemetry_replay import Replay, Replayed
from metrics_pipeline_tests.ingestion.ingesting import (
    RULES,
    Pipeline,
    append,
    events,
    not_once,
    numbers,
    pipeline,
    uplink,
)

OTHER_GROUP = "replay"
FEW = BatchLimits(max_events=20, max_wait_seconds=0.05)


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=1, consumer_groups=[OTHER_GROUP]) as server:
        yield server
    gc.collect()


@pytest.fixture
def made(hub: EventHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr("metrics_pipeline.ingestion.run.PUBLISH_SECONDS", 0.1)
    return pipeline(hub, tmp_path, limits=FEW)


def replay(made: Pipeline, group: str | None = None) -> Replayed:
    """All that the hub has of partition 0."""
    hub = {} if group is None else {"consumer_group": group}
    with (
        made.opened() as (_, stores),
        made.with_(hub=hub).opened() as (stream, _others),
        closing(stream),
    ):
        replaying = Replay(stream, stores.writer, stores.dead_letters, RULES, FEW)
        return replaying.replay_range("0", 0, None, lambda _done: None)


def test_a_run_and_a_replay_read_one_partition_at_once_and_both_have_everything(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(400))
    done: list[Replayed] = []

    def read_again_and_send() -> None:
        for first in (400, 500):
            done.append(replay(made, OTHER_GROUP))
            append(hub, range(first, first + 100))

    def has_all(report: IngestionReport) -> bool:
        return events(report) >= 600

    report = made.run(has_all, meanwhile=read_again_and_send).partitions["0"]
    assert [(each.events, each.points) for each in done] == [(400, 400), (500, 500)]
    assert (report.events, report.is_taken, report.error, report.failures) == (600, False, None, ())
    assert not_once(made.stored(), 600) == {}


def test_in_the_run_s_own_group_a_replay_is_refused_and_the_run_goes_on(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(100))
    refusals: list[PartitionTaken] = []

    def try_to_read_again() -> None:
        while not hub.receivers():
            pass  # the run begins
        with pytest.raises(PartitionTaken) as refused:
            replay(made)
        refusals.append(refused.value)
        append(hub, range(100, 150))

    report = made.run(lambda r: events(r) >= 150, meanwhile=try_to_read_again).partitions["0"]
    assert "--consumer-group" in refusals[0].fix
    assert (report.is_taken, report.error, report.failures) == (False, None, ())
    assert not_once(made.stored(), 150) == {}


def test_a_run_that_begins_while_a_replay_reads_in_its_group_is_not_shut_out(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(100))
    with made.opened() as (stream, _), closing(stream.open("0", None, None)) as looking_on:
        assert looking_on.receive(FEW)
        report = made.run(lambda r: events(r) >= 100).partitions["0"]
        with pytest.raises(PartitionTaken):
            _read_to_the_end(looking_on)
    assert (report.is_taken, report.error) == (False, None)
    assert not_once(made.stored(), 100) == {}


def test_readers_without_an_epoch_share_a_partition(hub: EventHubServer, made: Pipeline) -> None:
    append(hub, range(5))
    with made.opened() as (stream, _), made.opened() as (other, _unused):
        seen = Counter(_numbers(each) for each in (stream, other))
    assert seen == {tuple(range(5)): 2}


def test_a_dead_letter_of_a_hub_before_this_one_is_not_taken_for_the_event_of_its_number(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(3))
    of_this_hub_ns = time.time_ns()
    with made.opened() as (stream, stores):
        body = uplink(7)
        an_hour_ago_ns = of_this_hub_ns - 3600 * 10**9
        letter = DeadLetter("0", 1, "1", an_hour_ago_ns, "internal", "a defect", body)
        stores.dead_letters.keep([letter])
        (kept,) = stores.dead_letters.find()
        replaying = Replay(stream, stores.writer, stores.dead_letters, RULES, FEW)
        done = Replayed()
        assert replaying.replay_dead_letters([kept], done) == [kept.id]
    assert (done.events, done.gone) == (1, 0)
    assert numbers(made.stored()) == {7: 1}


def _numbers(stream: EventHubStream) -> tuple[int, ...]:
    reader = stream.open("0", None, None)
    return tuple(event.sequence_number for event in reader.receive(BatchLimits(max_events=5)))


def _read_to_the_end(reader: PartitionReader) -> None:
    for _ in range(100):
        reader.receive(FEW)
