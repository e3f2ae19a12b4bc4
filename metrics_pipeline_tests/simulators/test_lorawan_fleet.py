"""The simulated LoRaWAN devices, seen through the decoder that the product uses."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import pytest

from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.lorawan import Decoded, Reason, Rules, decode
from metrics_pipeline.core.lorawan_devices import LorawanDevices
from metrics_pipeline.core.telemetry import RawEvent
from metrics_pipeline.core.validation import validate
from metrics_pipeline.simulators.lorawan_fleet import DIALECTS, HubMessage, make_nodes, step

NOW_MS = 1_800_000_000_000
STEP_MS = 5000
STEPS = 300


def send(count: int, steps: int, seed: int = 1) -> list[tuple[int, HubMessage]]:
    """Every message of `steps` steps, and when it came."""
    random = Random(seed)
    nodes = make_nodes(count, random)
    times = range(NOW_MS, NOW_MS + steps * STEP_MS, STEP_MS)
    return [(time_ms, message) for time_ms in times for message in step(nodes, time_ms, random)]


def decode_all(sent: list[tuple[int, HubMessage]]) -> list[Decoded]:
    return [
        decode(
            RawEvent("0", number, str(number), ms * 1_000_000, each.body, each.annotations),
            Rules(),
            ms * 1_000_000,
        )
        for number, (ms, each) in enumerate(sent)
    ]


@pytest.fixture(scope="module")
def decoded() -> list[Decoded]:
    return decode_all(send(2 * len(DIALECTS), STEPS))


def test_every_dialect_is_decoded_and_none_of_it_is_cut_but_the_rate_of_fsk() -> None:
    random = Random(1)
    nodes = make_nodes(len(DIALECTS), random)
    sent = [(NOW_MS, message) for message in step(nodes, NOW_MS, random)]
    euis = {point.tags["device_eui"] for one in decode_all(sent) for point in one.points}
    assert euis == {node.eui for node in nodes}


def test_the_points_are_such_as_the_writer_takes(decoded: list[Decoded]) -> None:
    points = [point for one in decoded for point in one.points]
    assert len(points) > STEPS
    for point in points:
        validate(point, CATALOG, point.time_ns)


def test_some_messages_are_no_uplinks_for_many_reasons(decoded: list[Decoded]) -> None:
    refused = sum((Counter(one.refused) for one in decoded), Counter[str]())
    assert {Reason.FOREIGN_SCOPE, Reason.NOT_UTF8, Reason.NOT_JSON, Reason.COMPRESSED} <= set(
        refused
    )
    assert refused.total() < len(decoded) / 20


def test_some_frames_are_lost_and_some_come_twice(decoded: list[Decoded]) -> None:
    devices = LorawanDevices()
    devices.take(point for one in decoded for point in one.points)
    rows = list(devices.rows())
    lost = sum(int(row.fields["frames_lost_total"]) for row in rows)
    received = sum(int(row.fields["frames_received_total"]) for row in rows)
    assert 0.01 < lost / (lost + received) < 0.06
    assert all(int(row.fields["frames_duplicate"]) for row in rows)


def test_the_same_seed_sends_the_same() -> None:
    assert send(3, 20) == send(3, 20)
    assert send(3, 20) != send(3, 20, seed=2)


def test_one_event_may_hold_an_array_of_uplinks() -> None:
    bodies = [message.body for _, message in send(len(DIALECTS), 1)]
    assert any(body.startswith(b"[") and isinstance(json.loads(body), list) for body in bodies)
