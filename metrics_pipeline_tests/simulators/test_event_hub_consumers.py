"""Consumers of the Azure SDK against the simulated hub: where they begin, what they get."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.eventhub._utils import get_last_enqueued_event_properties

from metrics_pipeline.simulators.event_hub.amqp_messages import iot_hub_annotations
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline_tests.event_hub_clients import (
    AsyncReader,
    ThreadReader,
    at_once,
    refusal,
    until_attached,
)

BEGIN_MS = (int(time.time()) - 3600) * 1000
"""An hour ago: events of longer ago than they are kept would be dropped at once."""


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=2, consumer_groups=["second"]) as server:
        yield server


def fill(hub: EventHubServer, count: int, partition: str = "0") -> None:
    """Put in events whose bodies are their numbers, one second apart."""
    for number in range(count):
        hub.append(b"%d" % number, partition=partition, enqueued_ms=BEGIN_MS + 1000 * number)


def test_all_partitions_are_read_in_order_by_a_thread(hub: EventHubServer) -> None:
    fill(hub, 1000, "0")
    fill(hub, 1000, "1")
    with ThreadReader(hub) as reader:
        events = reader.until_events(2000)
    numbers = [int(event.body_as_str()) for event in events]
    assert sorted(numbers) == sorted([*range(1000), *range(1000)])
    assert [event.sequence_number for event in events] == numbers
    assert reader.errors == []


def test_all_events_come_in_order_whatever_the_credit(hub: EventHubServer) -> None:
    fill(hub, 3000, "0")
    fill(hub, 10, "1")

    async def scenario() -> list[list[int | None]]:
        cases = [("0", 300), ("0", 5000), ("1", 1)]
        readers = [AsyncReader(hub, partition_id=name, prefetch=each) for name, each in cases]
        async with at_once(readers):
            counts = [3000, 3000, 10]
            await asyncio.gather(*map(AsyncReader.until_events, readers, counts))
        return [reader.sequence_numbers for reader in readers]

    assert asyncio.run(scenario()) == [[*range(3000)], [*range(3000)], [*range(10)]]


def test_a_position_of_every_kind_is_where_reading_begins(hub: EventHubServer) -> None:
    fill(hub, 5)
    offsets = asyncio.run(offsets_of(hub, 5))
    positions: list[tuple[Any, bool, int]] = [
        ("-1", False, 0),
        (offsets[2], False, 3),
        (offsets[2], True, 2),
        (1, False, 2),
        (1, True, 1),
        (datetime.fromtimestamp(BEGIN_MS / 1000 + 3, UTC), False, 4),
        (datetime.fromtimestamp(BEGIN_MS / 1000 + 3, UTC), True, 3),
        ("@latest", False, 5),
        ("@latest", True, 4),
    ]

    async def scenario() -> list[int | None]:
        # No more than five receivers may share a partition in one consumer group.
        groups = ["$Default"] * 5 + ["second"] * 4
        readers = [
            AsyncReader(
                hub,
                group=group,
                partition_id="0",
                starting_position=position,
                starting_position_inclusive=inclusive,
            )
            for (position, inclusive, _), group in zip(positions, groups, strict=True)
        ]
        async with at_once(readers):
            await until_attached(hub, len(readers))
            hub.append(b"for those who wait for what is new", partition="0")
            await asyncio.gather(*(reader.until_events(1) for reader in readers))
        return [reader.sequence_numbers[0] for reader in readers]

    assert asyncio.run(scenario()) == [expected for _, _, expected in positions]


async def offsets_of(hub: EventHubServer, count: int) -> list[str | None]:
    async with AsyncReader(hub, partition_id="0") as reader:
        return [event.offset for event in await reader.until_events(count)]


def test_an_event_has_the_properties_an_iot_hub_gives(hub: EventHubServer) -> None:
    hub.append(
        b'{"eui": "70B3D57ED0000001"}',
        partition="1",
        properties={"iothub-creation-time-utc": "2026-11-21T11:00:00Z"},
        annotations=iot_hub_annotations("device-1", BEGIN_MS),
        enqueued_ms=BEGIN_MS + 5,
    )

    async def scenario() -> Any:
        async with AsyncReader(hub) as reader:
            return (await reader.until_events(1))[0]

    event = asyncio.run(scenario())
    system = event.system_properties
    assert event.enqueued_time == datetime.fromtimestamp(BEGIN_MS / 1000 + 0.005, UTC)
    assert (event.offset, event.sequence_number) == ("0", 0)
    assert system[b"iothub-connection-device-id"] == b"device-1"
    assert system[b"iothub-enqueuedtime"] == BEGIN_MS
    assert b'"scope":"device"' in system[b"iothub-connection-auth-method"]
    assert event.properties == {b"iothub-creation-time-utc": b"2026-11-21T11:00:00Z"}


def test_a_place_that_is_not_there_is_refused(hub: EventHubServer) -> None:
    fill(hub, 2)
    wrong: list[dict[str, Any]] = [
        {"starting_position": "99999"},
        {"starting_position": 7},
        {"group": "third"},
    ]

    async def scenario() -> list[str]:
        return await asyncio.gather(
            *(asyncio.to_thread(refusal, hub, partition_id="0", **each) for each in wrong)
        )

    offset, number, group = asyncio.run(scenario())
    assert "The supplied offset '99999' is invalid. The last offset in the system is" in offset
    assert "The supplied sequence number '7' is invalid." in number
    assert "'telemetry/ConsumerGroups/third' could not be found" in group


def test_the_end_of_the_partition_comes_with_the_events_if_it_is_tracked(
    hub: EventHubServer,
) -> None:
    fill(hub, 3)

    async def scenario(tracks: bool) -> Any:
        reader = AsyncReader(hub, partition_id="0", track_last_enqueued_event_properties=tracks)
        async with reader:
            events = await reader.until_events(3)
        return get_last_enqueued_event_properties(events[0])

    async def both() -> Sequence[Any]:
        return await asyncio.gather(scenario(True), scenario(False))

    tracked, untracked = asyncio.run(both())
    assert tracked["sequence_number"] == 2
    assert tracked["enqueued_time"] == datetime.fromtimestamp(BEGIN_MS / 1000 + 2, UTC)
    assert untracked is None


def test_a_large_event_is_read_in_many_frames(hub: EventHubServer) -> None:
    bodies = [b"x" * 1_000_000, b"small", b"y" * 300_000]
    for body in bodies:
        hub.append(body, partition="0")

    async def scenario() -> list[bytes]:
        async with AsyncReader(hub) as reader:
            events = await reader.until_events(3)
        return [b"".join(event.body) for event in events]

    assert asyncio.run(scenario()) == bodies
