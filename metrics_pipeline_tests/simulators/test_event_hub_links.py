"""Windows, credit and drain to the frame: a client that asks for what the SDK never does."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import pytest

from metrics_pipeline.simulators.event_hub.amqp_frames import (
    AMQP_HEADER,
    Frame,
    FrameReader,
    Performative,
    encode_frame,
)
from metrics_pipeline.simulators.event_hub.amqp_types import Described, Symbol, UInt, ULong, encode
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline_tests.event_hub_clients import sas_token
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

CREDIT = 1000


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=1) as server:
        yield server


def section(code: int, value: Any) -> bytes:
    return encode(Described(ULong(code), value))


def source(address: str) -> Described:
    return Described(ULong(0x28), [address])


def target(address: str) -> Described:
    return Described(ULong(0x29), [address])


class Client:
    """One session of one connection; every frame is seen."""

    def __init__(self, hub: EventHubServer, window: int = 5000, frame_bytes: int = 4096) -> None:
        self._hub = hub
        self._socket = socket.create_connection(("127.0.0.1", hub.port), timeout=PATIENCE_SECONDS)
        self._reader = FrameReader()
        self._frames: list[Frame] = []
        self.taken = 1  # the hub's first transfer
        self.window = window
        self._socket.sendall(AMQP_HEADER)
        self.send(Performative.OPEN, ["client", None, UInt(frame_bytes)])
        self.send(Performative.BEGIN, [None, UInt(0), UInt(window), UInt(1000)])
        self.until(Performative.BEGIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def authorize(self, seconds: int = 60) -> Self:
        """Put a good token, for so long."""
        self.attach_receiver(0, "$cbs")
        self.attach_sender(1, "$cbs")
        self.until(Performative.FLOW)
        self.flow(0, 2)
        self.put_token(seconds)
        return self

    def put_token(self, seconds: int) -> None:
        """Put a good token, for so long, on the links there are."""
        token = sas_token(self._hub, int(time.time()) + seconds)
        request = section(0x73, ["id"]) + section(0x74, {"operation": "put-token"})
        self.transfer(1, request + section(0x77, token))
        self.until(Performative.TRANSFER)

    def send(self, performative: Performative, fields: list[Any], payload: bytes = b"") -> None:
        self._socket.sendall(encode_frame(performative, fields, 0, payload))

    def attach_receiver(self, handle: int, address: str) -> None:
        ends = [source(address), target("here")]
        fields = [f"link {handle}", UInt(handle), True, None, None, *ends]
        self.send(Performative.ATTACH, fields)

    def attach_sender(self, handle: int, address: str) -> None:
        ends = [source("here"), target(address)]
        fields = [f"link {handle}", UInt(handle), False, None, None, *ends, None, None, UInt(0)]
        self.send(Performative.ATTACH, fields)

    def flow(self, handle: int | None, credit: int, **flags: Any) -> None:
        """Open the window again, and give so much credit from the first delivery on."""
        named = None if handle is None else UInt(handle)
        session = [UInt(self.taken), UInt(self.window), UInt(0), UInt(1000)]
        rest = [UInt(flags.get("delivery_count", 0)), UInt(credit), None]
        self.send(
            Performative.FLOW,
            [*session, named, *rest, flags.get("drain", False), flags.get("echo", False)],
        )

    def transfer(self, handle: int, payload: bytes, **options: Any) -> None:
        fields = [
            UInt(handle),
            UInt(0),
            b"tag",
            UInt(0),
            options.get("settled", True),
            options.get("more", False),
        ]
        aborted = [None, None, None, options.get("aborted", False)]
        self.send(Performative.TRANSFER, [*fields, *aborted], payload)

    def next(self) -> Frame:
        while not self._frames:
            data = self._socket.recv(65_536)
            assert data, "the hub has closed the connection"
            self._frames += [each for each in self._reader.feed(data) if isinstance(each, Frame)]
        frame = self._frames.pop(0)
        self.taken += frame.performative == Performative.TRANSFER
        return frame

    def until(self, performative: Performative) -> Frame:
        while (frame := self.next()).performative != performative:
            pass
        return frame

    def nothing_comes(self, seconds: float = 0.2) -> bool:
        self._socket.settimeout(seconds)
        try:
            self.next()
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE_SECONDS)
        return False


def reader(hub: EventHubServer, **options: Any) -> Client:
    client = Client(hub, **options).authorize()
    client.attach_receiver(2, "telemetry/ConsumerGroups/$Default/Partitions/0")
    client.until(Performative.ATTACH)
    return client


def test_no_event_comes_without_credit_and_no_more_than_it(hub: EventHubServer) -> None:
    for number in range(5):
        hub.append(b"%d" % number)
    with reader(hub) as client:
        assert client.nothing_comes()
        client.flow(2, 2)
        assert [client.next().performative for _ in range(2)] == [Performative.TRANSFER] * 2
        assert client.nothing_comes()
        client.flow(2, 2)  # counted from the first delivery: it is used up
        assert client.nothing_comes()
        client.flow(2, 1, delivery_count=2)
        assert client.next().performative == Performative.TRANSFER
        assert client.nothing_comes()


def test_no_more_frames_come_than_the_window_takes(hub: EventHubServer) -> None:
    hub.append(b"a" * 10_000)  # three frames of 4096 bytes
    hub.append(b"b")
    with reader(hub, window=2) as client:
        client.taken = 2  # one was the reply to the token
        client.flow(2, CREDIT)
        frames = [client.next(), client.next()]
        assert client.nothing_comes()
        client.flow(2, CREDIT)
        frames += [client.next(), client.next()]
    assert [frame.fields[5] for frame in frames] == [True, True, False, False]
    assert [frame.fields[1] - frames[0].fields[1] for frame in frames] == [0, 0, 0, 1]
    assert b"".join(frame.payload for frame in frames[:3]).endswith(b"a" * 10_000)
    assert all(len(frame.payload) <= 4096 for frame in frames)


def test_a_flow_of_the_session_alone_opens_the_window(hub: EventHubServer) -> None:
    for number in range(3):
        hub.append(b"%d" % number)
    with reader(hub, window=1) as client:
        client.flow(2, CREDIT)
        for _ in range(3):
            assert client.next().performative == Performative.TRANSFER
            assert client.nothing_comes(0.1)
            client.flow(None, 0)


def test_a_drained_link_gives_what_there_is_and_returns_its_credit(hub: EventHubServer) -> None:
    hub.append(b"one")
    with reader(hub) as client:
        client.flow(2, 10, drain=True)
        assert client.next().performative == Performative.TRANSFER
        flow = client.next()
        assert flow.performative == Performative.FLOW
        assert flow.fields[4:9] == [2, 10, 0, None, True]
        hub.append(b"two")
        assert client.nothing_comes()


def test_a_flow_that_asks_for_an_echo_gets_one(hub: EventHubServer) -> None:
    with reader(hub) as client:
        client.flow(2, 7, echo=True)
        assert client.next().fields[4:7] == [2, 0, 7]


def test_settled_sends_get_no_word_and_aborted_ones_are_not_kept(hub: EventHubServer) -> None:
    with Client(hub).authorize() as client:
        client.attach_sender(2, "telemetry/Partitions/0")
        client.until(Performative.FLOW)
        client.transfer(2, section(0x75, b"dropped"), more=True)
        client.transfer(2, b"", aborted=True)
        client.transfer(2, section(0x75, b"kept")[:3], more=True)
        client.transfer(2, section(0x75, b"kept")[3:])
        client.transfer(2, section(0x75, b"answered"), settled=False)
        answer = client.next()
    assert (answer.performative, answer.fields[4]) == (
        Performative.DISPOSITION,
        Described(ULong(0x24), []),
    )
    assert hub.event_counts() == {"0": 2}


def test_a_message_that_is_none_is_rejected_and_the_link_goes_on(hub: EventHubServer) -> None:
    with Client(hub).authorize() as client:
        client.attach_sender(2, "telemetry")
        client.until(Performative.FLOW)
        client.transfer(2, b"nonsense", settled=False)
        rejected = client.next().fields[4]
        client.transfer(2, section(0x75, b"fine"), settled=False)
        assert client.next().fields[4] == Described(ULong(0x24), [])
    assert (rejected.descriptor, rejected.value[0].value[0]) == (0x25, "amqp:decode-error")


@pytest.mark.parametrize("address", ["telemetry/Partitions/0", "other", "a/b/c"])
def test_nobody_attaches_without_a_token(hub: EventHubServer, address: str) -> None:
    with Client(hub) as client:
        client.attach_sender(2, address)
        attached, detached = client.next(), client.next()
    assert (attached.performative, attached.fields[5:7]) == (Performative.ATTACH, [None, None])
    assert detached.performative == Performative.DETACH
    condition = detached.fields[2].value[0]
    expected = "amqp:not-found" if address == "a/b/c" else "amqp:unauthorized-access"
    assert condition == Symbol(expected)


def test_whoever_puts_no_new_token_is_shut_out_when_the_old_one_expires(
    hub: EventHubServer,
) -> None:
    with Client(hub).authorize(seconds=2) as client:
        client.attach_receiver(2, "telemetry/ConsumerGroups/$Default/Partitions/0")
        client.attach_receiver(3, "$management")
        ended = [client.until(Performative.DETACH).fields for _ in range(2)]
        assert {(handle, error.value[0]) for handle, _, error, *_ in ended} == {
            (2, "amqp:unauthorized-access"),
            (3, "amqp:unauthorized-access"),
        }
        assert hub.receivers() == []
        client.attach_sender(4, "telemetry/Partitions/0")
        assert client.until(Performative.DETACH).fields[2].value[0] == "amqp:unauthorized-access"
        client.put_token(seconds=60)  # the links to $cbs are there still
        client.attach_sender(5, "telemetry/Partitions/0")
        client.until(Performative.FLOW)


def test_whoever_puts_a_new_token_in_time_stays(hub: EventHubServer) -> None:
    with Client(hub).authorize(seconds=2) as client:
        client.attach_receiver(2, "telemetry/ConsumerGroups/$Default/Partitions/0")
        client.until(Performative.ATTACH)
        client.put_token(seconds=60)
        time.sleep(2.5)
        assert hub.receivers() == [("$default", "0", None)]


def test_links_and_sessions_end_when_they_are_told_to(hub: EventHubServer) -> None:
    with reader(hub) as client:
        assert hub.receivers() == [("$default", "0", None)]
        client.send(Performative.DETACH, [UInt(2), True])
        assert client.next().fields[:2] == [2, True]
        assert hub.receivers() == []
        client.attach_receiver(2, "telemetry/ConsumerGroups/$Default/Partitions/0")
        client.until(Performative.ATTACH)
        client.send(Performative.END, [])
        assert client.next().performative == Performative.END
        assert hub.receivers() == []
        client.send(Performative.CLOSE, [])
        assert client.next().performative == Performative.CLOSE


def test_a_link_may_be_used_after_its_end_was_said_by_the_other_side(hub: EventHubServer) -> None:
    with reader(hub) as client:
        assert hub.detach() == 1
        client.flow(2, 5)  # on its way while the hub detached
        client.send(Performative.DETACH, [UInt(2), True])
        client.attach_receiver(2, "telemetry/ConsumerGroups/$Default/Partitions/0")
        assert client.until(Performative.ATTACH).fields[5] is not None
