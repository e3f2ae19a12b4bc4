"""What the simulated hub says of itself, and whom it lets in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.exceptions import AuthenticationError, ConnectError

from metrics_pipeline.simulators.event_hub.access_tokens import hub_of
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline_tests.event_hub_clients import sas_token


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=3) as server:
        yield server


def producer(hub: EventHubServer, connection_string: str = "") -> EventHubProducerClient:
    return EventHubProducerClient.from_connection_string(
        connection_string or hub.connection_string, retry_total=0
    )


def test_the_hub_and_its_partitions_say_what_they_are(hub: EventHubServer) -> None:
    with producer(hub) as client:
        about = client.get_eventhub_properties()
        empty = client.get_partition_properties("1")
        for body in (b"one", b"two"):
            hub.append(body, partition="1")
        filled = client.get_partition_properties("1")
        hub.drop_before("1", 1)
        dropped = client.get_partition_properties("1")
    assert (about["eventhub_name"], about["partition_ids"]) == ("telemetry", ["0", "1", "2"])
    assert abs((filled["last_enqueued_time_utc"] - about["created_at"]).total_seconds()) < 60
    states = [
        (
            each["beginning_sequence_number"],
            each["last_enqueued_sequence_number"],
            each["last_enqueued_offset"] != "-1",
            each["is_empty"],
        )
        for each in (empty, filled, dropped)
    ]
    assert states == [(0, -1, False, True), (0, 1, True, False), (1, 1, True, False)]


def test_another_key_is_not_let_in(hub: EventHubServer) -> None:
    wrong = hub.connection_string.replace(hub.policy.key, "d3Jvbmc=")
    with producer(hub, wrong) as client, pytest.raises(AuthenticationError, match="401"):
        client.send_event(EventData(b"x"))


def test_another_hub_is_not_found(hub: EventHubServer) -> None:
    other = hub.connection_string.replace("EntityPath=telemetry", "EntityPath=other")
    with (
        producer(hub, other) as client,
        pytest.raises(AuthenticationError, match="'other' could not be found"),
    ):
        client.get_eventhub_properties()


def test_a_partition_that_is_not_there_is_refused(hub: EventHubServer) -> None:
    with producer(hub) as client:
        with pytest.raises(ConnectError, match="Invalid partition 3"):  # the SDK asked before
            client.send_event(EventData(b"x"), partition_id="3")
        with pytest.raises(ConnectError, match="Status code: 400"):
            client.get_partition_properties("3")


EXPIRY = 2_000_000_000


def test_a_token_of_the_sdk_is_good_until_it_expires(hub: EventHubServer) -> None:
    token = sas_token(hub, EXPIRY)
    assert hub.policy.is_signed(token, EXPIRY - 1)
    assert not hub.policy.is_signed(token, EXPIRY)
    assert hub_of(token) == "telemetry"


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("telemetry&", "telemetry2&"),
        (f"se={EXPIRY}", f"se={EXPIRY + 1}"),
        (f"se={EXPIRY}", "se=soon"),
        ("skn=Root", "skn=Other"),
        ("sig=", "sig=A"),
        ("SharedAccessSignature ", "Bearer "),
        ("&", " "),
        ("SharedAccessSignature sr=", ""),
    ],
)
def test_a_token_that_was_changed_is_not(hub: EventHubServer, part: str, other: str) -> None:
    token = sas_token(hub, EXPIRY)
    assert part in token
    assert not hub.policy.is_signed(token.replace(part, other), EXPIRY - 1)


def test_a_hub_does_not_show_its_key(hub: EventHubServer) -> None:
    assert hub.policy.key not in repr(hub.policy)
    assert hub.policy.key not in repr(hub)
