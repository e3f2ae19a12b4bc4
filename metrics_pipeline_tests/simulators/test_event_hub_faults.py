"""What goes wrong on request, as clients of the Azure SDK see it."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from metrics_pipeline.simulators.event_hub.amqp_frames import (
    AMQP_HEADER,
    EMPTY_FRAME,
    Frame,
    FrameReader,
    Performative,
    encode_frame,
)
from metrics_pipeline.simulators.event_hub.amqp_types import UInt
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


def test_a_reader_outlives_a_restart(hub: EventHubServer) -> None:
    hub.append(b"before", partition="0")
    with ThreadReader(hub, partition_id="0") as reader:
        reader.until_events(1)
        hub.restart(1.0)
        hub.append(b"while it is down", partition="0")
        reader.until_error()
        # The SDK has given up its link, and begins again where it was told to begin.
        reader.until_events(3)
    assert reader.bodies == ["before", "before", "while it is down"]


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


def test_a_throttled_hub_refuses_new_receivers(hub: EventHubServer) -> None:
    hub.throttle()
    with ThreadReader(hub, partition_id="0") as reader:
        assert "server-busy" in reader.until_error()
        hub.throttle(False)
        hub.append(b"at last", partition="0")
        reader.until_events(1)


def test_a_frozen_hub_answers_nobody_and_comes_back(hub: EventHubServer) -> None:
    hub.append(b"kept", partition="0")
    hub.freeze()
    with opened(hub, None) as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        hub.freeze(False)
        assert client.recv(1) == b""
    with ThreadReader(hub) as reader:
        reader.until_events(1)


def test_a_reader_outlives_a_freeze(hub: EventHubServer) -> None:
    with ThreadReader(hub, partition_id="0", retry_total=3) as reader:
        while not hub.receivers():
            time.sleep(0.02)
        hub.freeze()
        hub.append(b"meanwhile", partition="0")
        time.sleep(0.5)
        assert reader.bodies == []
        hub.freeze(False)
        reader.until_events(1)
    assert (reader.bodies, reader.errors) == (["meanwhile"], [])


def test_while_it_restarts_nobody_is_let_in_and_the_events_stay(hub: EventHubServer) -> None:
    hub.append(b"kept", partition="0")
    hub.restart(1.0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", hub.port))
    with ThreadReader(hub) as reader:
        assert reader.until_events(1)[0].body_as_str() == "kept"


def test_a_hub_that_is_left_while_it_restarts_is_gone() -> None:
    with serve_event_hub() as hub:
        hub.restart(60.0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", hub.port))


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


def opened(hub: EventHubServer, idle_ms: int | None) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", hub.port), timeout=20)
    idle = None if idle_ms is None else UInt(idle_ms)
    client.sendall(AMQP_HEADER + encode_frame(Performative.OPEN, ["c", None, None, None, idle]))
    return client


def test_a_client_that_waits_for_life_signs_gets_them(hub: EventHubServer) -> None:
    with opened(hub, 100) as client:
        received = b""
        while not received.endswith(EMPTY_FRAME * 3):
            received += client.recv(1000)


def test_a_client_that_is_silent_for_too_long_is_turned_out() -> None:
    with EventHubServer(idle_seconds=0.2) as hub, opened(hub, None) as client:
        reader, received = FrameReader(), b""
        while data := client.recv(1000):
            received += data
    frames = [piece for piece in reader.feed(received) if isinstance(piece, Frame)]
    assert [frame.performative for frame in frames] == [Performative.OPEN, Performative.CLOSE]
    assert frames[1].fields[0].value[0] == "amqp:connection:forced"


def test_what_is_no_amqp_is_turned_out(hub: EventHubServer) -> None:
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x00\x00\x09\x01", b"\x00" * 8):
        with socket.create_connection(("127.0.0.1", hub.port), timeout=20) as client:
            client.sendall(nonsense)
            while client.recv(1000):
                pass
