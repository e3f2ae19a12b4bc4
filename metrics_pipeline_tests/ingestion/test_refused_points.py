"""Ingestions of events whose points are refused, by validation or the store: over the wire."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from metrics_pipeline.core.catalog import LORAWAN_UPLINK
from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.points import Point
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline.storage.dead_letters import KeptDeadLetter
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.influx import InfluxStoreSettings
from metrics_pipeline_tests.ingestion.ingesting import (
    Pipeline,
    append,
    events,
    has_stored,
    numbers,
    pipeline,
    run_that_moves_no_checkpoint,
)
from metrics_pipeline_tests.storage.influx_stub import TOKEN, InfluxStub

EARLY_NS = 1_600_000_000_000_000_000


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=1) as server:
        yield server
    gc.collect()


@pytest.fixture
def made(hub: EventHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr("metrics_pipeline.ingestion.run.PUBLISH_SECONDS", 0.1)
    made = pipeline(hub, tmp_path)
    assert isinstance(made.store, EmbeddedStoreSettings)
    with closing(EmbeddedStore(made.store)) as store:
        # Whoever wrote this field first has settled its type.
        tags = {"device_eui": "early", "gateway_id": "G", "port": "1"}
        store.write([Point(LORAWAN_UPLINK.name, tags, {"snr_db": "loud"}, EARLY_NS)])
    return made


def body(number: int, **changes: Any) -> bytes:
    return json.dumps({"eui": "A840410000000001", "fcnt": number, **changes}).encode()


def letters(made: Pipeline) -> list[KeptDeadLetter]:
    with made.opened() as (_, stores):
        return stores.dead_letters.find()


def stored_numbers(made: Pipeline) -> list[int]:
    return sorted(numbers(p for p in made.stored() if "frame_counter" in p.fields))


def test_an_event_whose_point_the_store_refuses_is_a_dead_letter_and_the_checkpoint_moves_on(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(5))
    refused = body(5, lsnr=1.5, data={"text": "x" * 2000})
    hub.append(refused, partition="0")
    append(hub, range(6, 9))
    report = made.run(has_stored(9)).partitions["0"]
    (kept,) = letters(made)
    assert (kept.letter.partition, kept.letter.sequence_number) == ("0", 5)
    assert kept.letter.reason == "store_field_type_conflict"
    assert "snr_db" in kept.letter.detail
    assert (kept.letter.body, kept.body_bytes) == (refused[:1024], len(refused))
    assert report.dead_letters == {"store_field_type_conflict": 1}
    assert report.rejected == {"field_type_conflict": 1}
    assert report.checkpoint is not None
    assert report.checkpoint.position.sequence_number == 8
    assert stored_numbers(made) == [0, 1, 2, 3, 4, 6, 7, 8]


def test_of_an_array_with_a_refused_uplink_and_one_that_cannot_be_decoded_there_is_one(
    hub: EventHubServer, made: Pipeline
) -> None:
    good, refused, no_uplink = json.loads(body(0)), json.loads(body(1, lsnr=1.5)), {"rssi": -80}
    hub.append(json.dumps([refused, refused, good]).encode(), partition="0")
    hub.append(json.dumps([refused, no_uplink]).encode(), partition="0")
    report = made.run(has_stored(2)).partitions["0"]
    found = [(each.letter.sequence_number, each.letter.reason) for each in letters(made)]
    assert found == [(0, "store_field_type_conflict"), (1, "missing_eui")]
    assert report.rejected == {"field_type_conflict": 3}
    assert stored_numbers(made) == [0]


def test_a_batch_that_is_written_twice_leaves_one_dead_letter(
    hub: EventHubServer, made: Pipeline
) -> None:
    hub.append(body(0, lsnr=1.5), partition="0")
    append(hub, range(1, 3))
    assert isinstance(run_that_moves_no_checkpoint(made).partitions["0"].error, StoreError)
    assert len(letters(made)) == 1
    assert made.run(has_stored(3)).partitions["0"].dead_letters == {}
    assert len(letters(made)) == 1
    assert stored_numbers(made) == [1, 2]


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_what_influxdb_refuses_is_a_dead_letter(
    hub: EventHubServer, made: Pipeline, monkeypatch: pytest.MonkeyPatch, api: str
) -> None:
    monkeypatch.setenv("STUB_TOKEN", TOKEN)
    for number in range(40):
        hub.append(body(number, rawdata="poison" if number % 8 == 3 else "good"), partition="0")
    with InfluxStub() as stub:
        given = {"kind": "influxdb", "url": stub.url, "api": api, "token": {"env": "STUB_TOKEN"}}
        more: dict[str, Any] = {"databases": {"network_metrics": "tests"}}
        more |= {"org": "any"} if api == "v2" else {}
        store = InfluxStoreSettings.model_validate({**given, **more})
        report = made.with_(store=store).run(has_stored(40))
        lines = len(stub.lines)
    assert [each.letter.sequence_number for each in letters(made)] == [3, 11, 19, 27, 35]
    assert lines == 35
    assert events(report) == 40
