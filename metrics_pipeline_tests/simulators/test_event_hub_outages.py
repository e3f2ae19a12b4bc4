"""A hub that is down, busy or silent, and clients that are."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Iterator

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
from metrics_pipeline_tests.event_hub_clients import ThreadReader
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
"""The SDK does not close its end of a connection that was cut."""


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=2) as server:
        yield server
    gc.collect()  # what a client left open is this test's, not the next one's


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


def test_while_it_restarts_nobody_is_let_in_and_the_events_stay(hub: EventHubServer) -> None:
    hub.append(b"kept", partition="0")
    hub.restart(1.0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", hub.port))
    with ThreadReader(hub) as reader:
        assert reader.until_events(1)[0].body_as_str() == "kept"


def test_a_second_restart_takes_the_place_of_the_first(hub: EventHubServer) -> None:
    hub.restart(60.0)
    hub.restart(0.0)
    with ThreadReader(hub) as reader:
        hub.append(b"up again")
        reader.until_events(1)


def test_a_hub_that_is_left_while_it_restarts_is_gone() -> None:
    with serve_event_hub() as hub:
        hub.restart(60.0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", hub.port))


def opened(hub: EventHubServer, idle_ms: int | None) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", hub.port), timeout=PATIENCE_SECONDS)
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
        with socket.create_connection(("127.0.0.1", hub.port), timeout=PATIENCE_SECONDS) as client:
            client.sendall(nonsense)
            while client.recv(1000):
                pass
