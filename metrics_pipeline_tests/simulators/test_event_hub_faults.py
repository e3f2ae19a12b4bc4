"""What goes wrong on request, as clients of the Azure SDK see it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator

import pytest

from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline_tests.event_hub_clients import AsyncReader, ThreadReader, until_attached

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
"""The SDK does not close its end of a connection that was cut."""


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=2) as server:
        yield server
    gc.collect()  # what a client left open is this test's, not the next one's


@pytest.mark.parametrize(
    "fault",
    [
        lambda hub: hub.detach(partition="0", condition="com.microsoft:timeout"),
        EventHubServer.close_connections,
        EventHubServer.abort_connections,
    ],
    ids=["detach", "close", "abort"],
)
def test_a_reader_goes_on_after_the_last_event_it_got(
    hub: EventHubServer, fault: Callable[[EventHubServer], object]
) -> None:
    hub.append(b"before", partition="0")
    with ThreadReader(hub, partition_id="0", retry_total=3) as reader:
        reader.until_events(1)
        fault(hub)
        hub.append(b"after", partition="0")
        reader.until_events(2)
    assert (reader.bodies, reader.errors) == (["before", "after"], [])


def test_a_link_that_is_detached_says_why_and_the_other_partition_goes_on(
    hub: EventHubServer,
) -> None:
    async def scenario() -> tuple[str, list[str]]:
        async with AsyncReader(hub, load_balancing_interval=60) as reader:
            await until_attached(hub, 2)
            count = hub.detach(partition="0", condition="com.microsoft:x", description="why not")
            error = await reader.until_error()
            hub.append(b"unread", partition="0")
            hub.append(b"read", partition="1")
            await reader.until_events(1)
            assert count == 1
            return error, reader.bodies

    error, bodies = asyncio.run(scenario())
    assert "com.microsoft:x" in error
    assert "why not" in error
    assert bodies == ["read"]


def test_a_stalled_partition_gives_nothing_until_it_is_not(hub: EventHubServer) -> None:
    async def scenario() -> list[str]:
        hub.stall(partition="0")
        hub.append(b"stalled", partition="0")
        async with AsyncReader(hub) as reader:
            await until_attached(hub, 2)
            hub.append(b"free", partition="1")
            await reader.until_events(1)
            hub.stall(False, partition="0")
            await reader.until_events(2)
        return reader.bodies

    assert asyncio.run(scenario()) == ["free", "stalled"]


def test_a_slow_partition_gives_so_many_events_a_second(hub: EventHubServer) -> None:
    async def scenario() -> float:
        hub.slow(40.0)
        for number in range(20):
            hub.append(b"%d" % number, partition="0")
        async with AsyncReader(hub, partition_id="0") as reader:
            await reader.until_events(1)
            begun = time.monotonic()
            hub.slow(20.0)
            await reader.until_events(20)
            return time.monotonic() - begun

    # Eighteen pauses of a twentieth of a second at the least, minus those the buffers hid.
    assert asyncio.run(scenario()) > 0.5


def test_a_partition_that_is_added_is_seen_by_those_who_ask_again(hub: EventHubServer) -> None:
    async def scenario() -> list[str]:
        async with AsyncReader(hub):  # it asks once
            await until_attached(hub, 2)
            assert hub.add_partition() == "2"
            hub.append(b"new", partition="2")
            async with AsyncReader(hub) as later:
                await later.until_events(1)
        return later.partitions

    assert asyncio.run(scenario()) == ["2"]


def test_a_reader_that_was_overtaken_by_retention_goes_on_at_the_oldest(
    hub: EventHubServer,
) -> None:
    async def scenario() -> list[int | None]:
        hub.stall()
        async with AsyncReader(hub, partition_id="0") as reader:
            await until_attached(hub, 1)
            for number in range(5):
                hub.append(b"%d" % number, partition="0")
            hub.drop_before("0", 3)
            hub.stall(False)
            await reader.until_events(2)
        return reader.sequence_numbers

    assert asyncio.run(scenario()) == [3, 4]
