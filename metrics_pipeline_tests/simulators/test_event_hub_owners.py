"""Who may read a partition, as consumers of the Azure SDK see it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline_tests.event_hub_clients import (
    AsyncReader,
    at_once,
    refusal,
    until_attached,
)


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=1, consumer_groups=["second"]) as server:
        yield server


def test_each_consumer_group_gets_all_events(hub: EventHubServer) -> None:
    for number in range(10):
        hub.append(b"%d" % number)

    async def scenario() -> list[list[str]]:
        readers = [AsyncReader(hub, group=group) for group in ("$Default", "second")]
        async with at_once(readers):
            await asyncio.gather(*(reader.until_events(10) for reader in readers))
        return [reader.bodies for reader in readers]

    assert asyncio.run(scenario()) == [[str(number) for number in range(10)]] * 2


@pytest.mark.parametrize(("owner_level", "words"), [(2, "epoch of '2'"), (1, "epoch of '1'")])
def test_an_owner_of_the_same_or_a_higher_level_takes_the_partition(
    hub: EventHubServer, owner_level: int, words: str
) -> None:
    async def scenario() -> tuple[str, list[tuple[str, str, int | None]], list[str]]:
        first = AsyncReader(hub, partition_id="0", owner_level=1, load_balancing_interval=60)
        second = AsyncReader(hub, partition_id="0", owner_level=owner_level)
        async with at_once([first]):
            await until_attached(hub, 1)
            async with at_once([second]):
                error = await first.until_error()
                hub.append(b"for the second", partition="0")
                await second.until_events(1)
                return error, hub.receivers(), first.bodies

    error, receivers, bodies = asyncio.run(scenario())
    assert "New receiver" in error
    assert words in error
    assert (receivers, bodies) == ([("$default", "0", owner_level)], [])


def test_a_lower_level_or_none_is_refused_while_there_is_an_owner(hub: EventHubServer) -> None:
    async def scenario() -> tuple[list[str], list[tuple[str, str, int | None]]]:
        owner = AsyncReader(hub, partition_id="0", owner_level=5)
        others = [AsyncReader(hub, partition_id="0", owner_level=level) for level in (4, None)]
        async with at_once([owner]):
            await until_attached(hub, 1)
            async with at_once(others):
                errors = await asyncio.gather(*(other.until_error() for other in others))
            assert owner.errors == []
            return list(errors), hub.receivers()

    (lower, none), receivers = asyncio.run(scenario())
    assert "with a higher epoch '5' already exists" in lower
    assert "created with epoch of '5', and so non-epoch receiver is not allowed" in none
    assert receivers == [("$default", "0", 5)]


def test_a_sixth_receiver_that_shares_is_refused(hub: EventHubServer) -> None:
    async def scenario() -> str:
        readers = [AsyncReader(hub, partition_id="0") for _ in range(5)]
        async with at_once(readers):
            await until_attached(hub, 5)
            return await asyncio.to_thread(refusal, hub, partition_id="0")

    assert "maximum number of allowed receivers" in asyncio.run(scenario())
