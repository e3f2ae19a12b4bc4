"""Producers of the Azure SDK against the simulated hub, and what the hub says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from azure.eventhub import EventData, EventHubProducerClient, TransportType
from azure.eventhub.aio import EventHubProducerClient as AsyncProducerClient
from azure.eventhub.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType
from azure.eventhub.exceptions import EventHubError

from metrics_pipeline.simulators.event_hub.links import MAX_MESSAGE_BYTES
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline_tests.event_hub_clients import AsyncReader, ThreadReader


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=3) as server:
        yield server


def producer(hub: EventHubServer, connection_string: str = "") -> EventHubProducerClient:
    return EventHubProducerClient.from_connection_string(
        connection_string or hub.connection_string,
        retry_total=0,
        transport_type=TransportType.Amqp,
    )


def test_single_events_batches_and_keys_arrive_with_all_they_have(hub: EventHubServer) -> None:
    single = EventData(b"single")
    single.properties = {"colour": "green", "number": 7}
    single.message_id, single.content_type = "id-1", "application/json"
    with producer(hub) as client, ThreadReader(hub) as reader:
        client.send_event(single, partition_id="2")
        client.send_event(EventData(b"keyed"), partition_key="a key")
        batch = client.create_batch(partition_key="a key")
        for number in range(10):
            batch.add(EventData(f"of a batch {number}"))
        client.send_batch(batch)
        client.send_batch([EventData(b"x"), EventData(b"y")], partition_id="0")
        events = {event.body_as_str(): event for event in reader.until_events(14)}
    got = events["single"]
    assert (got.properties, got.message_id, got.content_type) == (
        {b"colour": b"green", b"number": 7},
        "id-1",
        "application/json",
    )
    assert (got.sequence_number, got.offset, got.partition_key) == (0, "0", None)
    keyed = [event for event in events.values() if event.partition_key == b"a key"]
    assert sorted(event.body_as_str() for event in keyed) == sorted(
        ["keyed", *(f"of a batch {number}" for number in range(10))]
    )
    assert [event.sequence_number for event in keyed] == list(range(11))
    assert reader.errors == []


def test_bodies_of_the_other_kinds_arrive(hub: EventHubServer) -> None:
    value = AmqpAnnotatedMessage(value_body={"a": [1, None, True]}, annotations={"x-mine": 5})
    sequence = AmqpAnnotatedMessage(sequence_body=[1, "two", b"three"])
    with producer(hub) as client, ThreadReader(hub) as reader:
        client.send_event(value, partition_id="0")
        client.send_event(sequence, partition_id="0")
        first, second = reader.until_events(2)
    assert first.body_type is AmqpMessageBodyType.VALUE
    assert first.body == {b"a": [1, None, True]}
    assert first.raw_amqp_message.annotations[b"x-mine"] == 5
    assert second.body_type is AmqpMessageBodyType.SEQUENCE
    assert list(second.body) == [[1, b"two", b"three"]]


def test_events_of_asyncio_arrive_and_take_turns_over_the_partitions(hub: EventHubServer) -> None:
    async def scenario() -> list[str]:
        client = AsyncProducerClient.from_connection_string(hub.connection_string)
        async with client, AsyncReader(hub) as reader:
            for number in range(6):
                await client.send_event(EventData(f"{number}"))
            await reader.until_events(6)
            return sorted(reader.partitions)

    assert asyncio.run(scenario()) == ["0", "0", "1", "1", "2", "2"]


def test_a_message_as_large_as_allowed_passes_and_a_larger_one_does_not(
    hub: EventHubServer,
) -> None:
    body = b"x" * (MAX_MESSAGE_BYTES - 1000)
    with producer(hub) as client, ThreadReader(hub) as reader:
        client.send_event(EventData(body), partition_id="0")
        with pytest.raises(EventHubError, match="exceeds the limit"):
            client.send_event(EventData(body + b"x" * 1000), partition_id="0")
        client.send_event(EventData(b"afterwards"), partition_id="0")
        large, small = reader.until_events(2)
    assert (b"".join(large.body), small.body_as_str()) == (body, "afterwards")


def test_many_single_sends_pass_on_one_link(hub: EventHubServer) -> None:
    with producer(hub) as client:
        for number in range(700):
            client.send_event(EventData(f"{number}"), partition_id="0")
    assert hub.event_counts() == {"0": 700, "1": 0, "2": 0}


def test_a_buffered_producer_is_served(hub: EventHubServer) -> None:
    failed: list[object] = []
    client = EventHubProducerClient.from_connection_string(
        hub.connection_string,
        buffered_mode=True,
        max_wait_time=0.2,
        on_success=lambda *_: None,
        on_error=lambda *error: failed.append(error),
    )
    with client:
        for number in range(50):
            client.send_event(EventData(f"{number}"))
        client.flush()
    assert (sum(hub.event_counts().values()), failed) == (50, [])


def test_a_throttled_hub_refuses_sends_until_it_is_not(hub: EventHubServer) -> None:
    with producer(hub) as client:
        hub.throttle(partition="0")
        with pytest.raises(EventHubError, match="server-busy"):
            client.send_event(EventData(b"refused"), partition_id="0")
        client.send_event(EventData(b"elsewhere"), partition_id="1")
        hub.throttle(False, partition="0")
        client.send_event(EventData(b"taken"), partition_id="0")
    assert hub.event_counts() == {"0": 1, "1": 1, "2": 0}
