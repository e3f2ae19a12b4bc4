"""The reader of event hubs, over the wire: positions, limits, epochs, and what a hub may do."""

from __future__ import annotations

import asyncio
import gc
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub._pyamqp.message import Message as SdkMessage
from pydantic import ValidationError

from metrics_pipeline.access.event_hub_links import ManagementLink
from metrics_pipeline.core.errors import (
    ConfigurationError,
    CredentialRefused,
    PartitionTaken,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)
from metrics_pipeline.core.telemetry import BatchLimits, PartitionState, Position, RawEvent
from metrics_pipeline.simulators.event_hub.amqp_messages import Message
from metrics_pipeline.simulators.event_hub.amqp_types import (
    Described,
    Opaque,
    Symbol,
    ULong,
    encode,
)
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline.sources.event_hub import EventHubStream
from metrics_pipeline.sources.event_hub_settings import EventHubSettings
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import self_signed

PARTITIONS = 2
SOON = BatchLimits(max_events=1000, max_wait_seconds=0.3)
NS_PER_MS = 1_000_000
DATA, SEQUENCE, VALUE = 0x75, 0x76, 0x77
"""The codes of the sections a body may be in."""


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=PARTITIONS, consumer_groups=["meters"]) as server:
        yield server
    gc.collect()


def settings_for(text: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> EventHubSettings:
    monkeypatch.setenv("HUB", text)
    return EventHubSettings.model_validate({"connection_string": {"env": "HUB"}, **changes})


@pytest.fixture
def stream(hub: EventHubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventHubStream]:
    opened = EventHubStream(settings_for(hub.connection_string, monkeypatch, timeout_seconds=5))
    yield opened
    opened.close()


@contextmanager
def streaming(
    text: str, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> Iterator[EventHubStream]:
    opened = EventHubStream(settings_for(text, monkeypatch, **changes))
    try:
        yield opened
    finally:
        opened.close()


def append(hub: EventHubServer, count: int, partition: str = "0") -> None:
    for number in range(count):
        hub.append(b"event %d" % number, partition=partition)


def message_of(section: int, value: Any, annotations: dict[Any, Any] | None = None) -> Message:
    """A message whose body is `value` in a section of this code, with annotations of any keys."""
    given = annotations or {}
    pairs = b"".join(encode(name) + encode(each) for name, each in given.items())
    bare = encode(Described(ULong(section), value))
    return Message(annotations=pairs, annotation_count=len(given), bare=bare)


def bodies(events: Any) -> list[bytes]:
    return [event.body for event in events]


def read(stream: EventHubStream, after: Position | None = None, epoch: int = 1) -> list[RawEvent]:
    """All there is."""
    reader = stream.open("0", after, epoch)
    try:
        return list(reader.receive(SOON))
    finally:
        reader.close()


# --- events ---------------------------------------------------------------------------------------


def test_an_event_comes_as_the_hub_gave_it(hub: EventHubServer, stream: EventHubStream) -> None:
    annotations = {"iothub-connection-device-id": "meter-1", "x-other": "no"}
    now_ms = time.time_ns() // NS_PER_MS
    hub.append(b"{}", partition="0", annotations=annotations, enqueued_ms=now_ms)
    (event,) = read(stream)
    assert event.body == b"{}"
    assert (event.partition, event.sequence_number) == ("0", 0)
    assert event.enqueued_time_ns == now_ms * NS_PER_MS
    assert event.offset.isdigit()
    assert event.system_properties == {"iothub-connection-device-id": "meter-1"}


def test_a_body_of_many_frames_comes_whole(hub: EventHubServer, stream: EventHubStream) -> None:
    body = bytes(range(256)) * 4000
    hub.append(body, partition="0")
    assert bodies(read(stream)) == [body]


@pytest.mark.parametrize("key", [ULong(5), 5, "text", None, True, 1.5])
def test_an_event_with_an_annotation_of_any_key_is_not_lost(
    hub: EventHubServer, stream: EventHubStream, key: Any
) -> None:
    odd = message_of(DATA, b"odd", {key: "x"})
    usual = message_of(DATA, b"usual")
    hub.append_all("0", [usual, odd, usual])
    events = read(stream)
    assert bodies(events) == [b"usual", b"odd", b"usual"]
    assert [event.sequence_number for event in events] == [0, 1, 2]


@pytest.mark.parametrize(
    ("section", "value", "body"),
    [
        (VALUE, {"a": 1}, b"{b'a': 1}"),
        (VALUE, 5, b"5"),
        (VALUE, 1.5, b"1.5"),
        (VALUE, False, b"False"),
        (VALUE, None, b""),
        (VALUE, "text", b"text"),
        (VALUE, b"bytes", b"bytes"),
        (DATA, [1], b"[1]"),
        (SEQUENCE, [1, 2], b"[[1, 2]]"),
    ],
)
def test_a_body_of_any_type_comes_as_bytes(
    hub: EventHubServer, stream: EventHubStream, section: int, value: Any, body: bytes
) -> None:
    hub.append_all("0", [message_of(section, value), message_of(DATA, b"next")])
    assert bodies(read(stream)) == [body, b"next"]


CHARACTER = Opaque(0x73, b"\x00\x00\x00A")
NESTED = b"\x00\x53\x77" + b"\x00\x53\x01" * 2000 + b"\x40"


@pytest.mark.parametrize(
    "odd",
    [
        message_of(VALUE, CHARACTER),
        message_of(VALUE, Opaque(0x74, b"\x00\x00\x00A")),
        message_of(DATA, b"body", {Symbol("x-odd"): CHARACTER, CHARACTER: "x"}),
        message_of(DATA, b"body" * 50_000, {Symbol("x-odd"): CHARACTER}),
        Message(header=encode(Described(ULong(0x70), [1.5] * 7)), bare=message_of(VALUE, 1).bare),
        Message(bare=NESTED),
    ],
    ids=["character", "decimal", "annotation", "many frames", "header", "nested"],
)
def test_an_event_that_cannot_be_decoded_does_not_hold_up_the_next(
    hub: EventHubServer, stream: EventHubStream, odd: Message
) -> None:
    usual = message_of(DATA, b"usual")
    hub.append_all("0", [usual, odd, usual])
    events = read(stream)
    assert [event.sequence_number for event in events] == [0, 1, 2]
    assert events[1].body.startswith(b"\x00\x53")
    assert odd.bare in events[1].body
    assert bodies(events[::2]) == [b"usual", b"usual"]


def test_reading_goes_on_after_a_position(hub: EventHubServer, stream: EventHubStream) -> None:
    append(hub, 5)
    events = read(stream)
    after = Position(events[2].offset, events[2].sequence_number)
    assert bodies(read(stream, after, epoch=2)) == [b"event 3", b"event 4"]


def test_reading_begins_with_the_oldest_after_a_position_that_is_gone(
    hub: EventHubServer, stream: EventHubStream
) -> None:
    append(hub, 5)
    first = read(stream)[0]
    hub.drop_before("0", 3)
    after = Position(first.offset, first.sequence_number)
    assert bodies(read(stream, after, epoch=2)) == [b"event 3", b"event 4"]


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (BatchLimits(max_events=2, max_wait_seconds=0.3), [2, 2, 1]),
        (BatchLimits(max_bytes=14, max_wait_seconds=0.3), [2, 2, 1]),
        (BatchLimits(max_bytes=1, max_wait_seconds=0.3), [1, 1, 1, 1, 1]),
    ],
)
def test_a_micro_batch_is_bounded(
    hub: EventHubServer, stream: EventHubStream, limits: BatchLimits, sizes: list[int]
) -> None:
    append(hub, 5)
    reader = stream.open("0", None, 1)
    assert [len(reader.receive(limits)) for _ in sizes] == sizes
    assert reader.receive(limits) == []
    reader.close()


def test_more_comes_than_was_asked_for_at_first(
    hub: EventHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(hub, 50)
    with streaming(hub.connection_string, monkeypatch, prefetch=7) as stream:
        assert len(read(stream)) == 50


def test_what_the_engine_remembers_of_events_does_not_grow(
    hub: EventHubServer, stream: EventHubStream
) -> None:
    # It keeps a tag of every message that it takes itself, for a settlement that never comes.
    hub.append_all("0", [message_of(DATA, b"event", {Symbol("x-odd"): 1.5})] * 50)
    hub.append_all("0", [message_of(DATA, b"event")] * 50)
    reader = stream.open("0", None, 1)
    assert len(reader.receive(SOON)) == 100
    link: Any = reader._link._client._link
    assert len(link._received_delivery_tags) == 0
    reader.close()


def test_the_window_of_the_session_opens_again_after_many_events_at_once(
    hub: EventHubServer, stream: EventHubStream
) -> None:
    reader = stream.open("0", None, 1)
    reader.receive(SOON)
    session: Any = reader._link._client._session
    session.incoming_window = 7
    hub.append_all("0", [message_of(DATA, b"event")] * 100)
    assert len(reader.receive(SOON)) == 100
    assert session.incoming_window > 0
    reader.close()


# --- partitions -----------------------------------------------------------------------------------


def test_partitions_tell_how_far_they_go(hub: EventHubServer, stream: EventHubStream) -> None:
    now_ms = time.time_ns() // NS_PER_MS
    hub.append(b"old", partition="0", enqueued_ms=now_ms - 1)
    hub.append(b"new", partition="0", enqueued_ms=now_ms)
    hub.drop_before("0", 1)
    (event,) = read(stream)
    states = stream.partitions()
    assert sorted(states) == ["0", "1"]
    assert states["0"] == PartitionState(1, 1, event.offset, now_ms * NS_PER_MS, False)
    assert states["1"].is_empty
    assert states["0"].lag_events(None) == 1
    assert states["0"].lost_events(Position("", -1)) == 1


def test_a_partition_that_keeps_nothing_still_tells_of_the_newest_there_was(
    hub: EventHubServer, stream: EventHubStream
) -> None:
    now_ms = time.time_ns() // NS_PER_MS
    for number in range(3):
        hub.append(b"%d" % number, partition="0", enqueued_ms=now_ms)
    newest = read(stream)[-1]
    hub.drop_before("0", 3)
    states = stream.partitions()
    said = (states["0"].last_sequence_number, states["0"].last_offset)
    assert (states["0"].is_empty, *said) == (True, 2, newest.offset)
    assert states["0"].last_enqueued_time_ns == now_ms * NS_PER_MS
    assert (states["0"].lag_events(None), states["0"].lost_events(Position("", 0))) == (0, 2)
    assert (states["1"].is_empty, states["1"].last_sequence_number) == (True, -1)


def test_a_partition_that_is_added_is_seen(hub: EventHubServer, stream: EventHubStream) -> None:
    stream.partitions()
    hub.add_partition()
    assert sorted(stream.partitions()) == ["0", "1", "2"]


def test_one_connection_is_kept_to_ask(hub: EventHubServer, stream: EventHubStream) -> None:
    for _ in range(3):
        stream.partitions()
    assert hub.abort_connections() == 1


def test_a_connection_over_which_much_was_asked_is_made_anew(
    hub: EventHubServer, stream: EventHubStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.sources.event_hub.MOST_ANSWERS", 6)
    made, open_link = [], ManagementLink.open

    def noted(link: ManagementLink) -> None:
        made.append(link)
        open_link(link)

    monkeypatch.setattr(ManagementLink, "open", noted)
    for _ in range(5):  # each asks for the hub and its two partitions
        stream.partitions()
    assert [link.answers for link in made] == [6, 6, 3]
    assert hub.abort_connections() == 1


def test_a_connection_that_was_cut_is_made_anew(
    hub: EventHubServer, stream: EventHubStream
) -> None:
    stream.partitions()
    hub.abort_connections()
    assert sorted(stream.partitions()) == ["0", "1"]


# --- epochs and ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [4, 5])
def test_a_later_reader_shuts_out_the_one_before(
    hub: EventHubServer, stream: EventHubStream, epoch: int
) -> None:
    append(hub, 1)
    first, second = stream.open("0", None, 4), stream.open("0", None, epoch)
    assert len(first.receive(SOON)) == 1
    assert len(second.receive(SOON)) == 1
    with pytest.raises(PartitionTaken, match="another reader has taken it"):
        first.receive(SOON)
    append(hub, 1)
    assert len(second.receive(SOON)) == 1


def test_a_reader_of_an_earlier_epoch_is_not_let_in(stream: EventHubStream) -> None:
    stream.open("0", None, 4).receive(SOON)
    with pytest.raises(PartitionTaken):
        stream.open("0", None, 3).receive(SOON)


def test_another_thread_may_end_a_reader(hub: EventHubServer, stream: EventHubStream) -> None:
    reader = stream.open("0", None, 1)
    timer = threading.Timer(0.3, reader.close)
    timer.start()
    began = time.monotonic()
    assert len(reader.receive(BatchLimits(max_wait_seconds=PATIENCE_SECONDS))) == 0
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    timer.join()
    reader.close()
    assert reader.receive(SOON) == ()
    while hub.receivers():
        assert time.monotonic() - began < PATIENCE_SECONDS


def test_another_thread_may_end_a_reader_that_cannot_connect(
    hub: EventHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.freeze()
    with streaming(hub.connection_string, monkeypatch, timeout_seconds=60) as stream:
        reader = stream.open("0", None, 1)
        timer = threading.Timer(0.3, reader.close)
        timer.start()
        began = time.monotonic()
        assert len(reader.receive(SOON)) == 0
        assert time.monotonic() - began < PATIENCE_SECONDS
        timer.join()


def test_a_link_that_is_cut_says_so_at_every_look(
    hub: EventHubServer, stream: EventHubStream
) -> None:
    append(hub, 1)
    reader = stream.open("0", None, 1)
    assert len(reader.receive(SOON)) == 1
    reader._link.cut()
    for _ in range(2):
        with pytest.raises(SourceUnreachable, match="no answer"):
            reader.receive(SOON)
    reader.close()


def test_a_link_that_is_cut_when_it_has_just_opened_is_not_open(
    hub: EventHubServer, stream: EventHubStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer may fire between the last look and its end."""

    class LateTimer(threading.Timer):
        def cancel(self) -> None:
            self.function()
            super().cancel()

    append(hub, 1)
    with monkeypatch.context() as change:
        change.setattr(threading, "Timer", LateTimer)
        reader = stream.open("0", None, 1)
        with pytest.raises(SourceUnreachable, match="no answer"):
            reader.receive(SOON)
    reader.close()


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["partitions", "receive"])
@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (("SharedAccessKey=", "SharedAccessKey=x"), CredentialRefused, "right Listen"),
        (("EntityPath=telemetry", "EntityPath=other"), SourceRefused, "names of namespace, hub"),
    ],
)
def test_whoever_is_not_let_in_is_told_what_to_do(
    hub: EventHubServer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    asked: str,
    change: tuple[str, str],
    kind: type[Exception],
    words: str,
) -> None:
    text = hub.connection_string
    text = text.replace(*change)
    with streaming(text, monkeypatch) as stream, pytest.raises(kind, match=words) as raised:
        stream.partitions() if asked == "partitions" else read(stream)
    assert hub.policy.key not in str(raised.value)


def test_a_consumer_group_that_is_not_there_is_refused(
    hub: EventHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        streaming(hub.connection_string, monkeypatch, consumer_group="nobody") as stream,
        pytest.raises(SourceRefused, match=r"partition 0 of 127\.0\.0\.1.*not-found"),
    ):
        read(stream)


def test_a_position_the_hub_never_had_is_refused(
    hub: EventHubServer, stream: EventHubStream
) -> None:
    with pytest.raises(SourceRefused, match="checkpoints are of another"):
        read(stream, Position("99999999", 99))


def test_a_hub_that_throttles_says_how_long_to_wait(
    hub: EventHubServer, stream: EventHubStream
) -> None:
    hub.throttle()
    with pytest.raises(SourceThrottled, match="server-busy") as raised:
        read(stream)
    assert raised.value.retry_after_seconds == 4


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("detach", "amqp:link:detach-forced"),
        ("close_connections", "amqp:connection:forced"),
        ("abort_connections", "closed|reset|socket"),
    ],
)
def test_a_reader_that_the_hub_ends_is_unreachable(
    hub: EventHubServer, stream: EventHubStream, fault: str, words: str
) -> None:
    append(hub, 1)
    reader = stream.open("0", None, 1)
    reader.receive(SOON)
    getattr(hub, fault)()
    with pytest.raises(SourceUnreachable, match=words):
        reader.receive(BatchLimits(max_wait_seconds=PATIENCE_SECONDS))


def test_an_event_that_does_not_say_where_it_is_is_not_passed_over(
    hub: EventHubServer, stream: EventHubStream
) -> None:
    reader = stream.open("0", None, 1)
    reader.receive(SOON)
    # The emulator numbers every event, so this one is put where the engine puts its own.
    reader._link._decoded.append(SdkMessage(data=[b"{}"]))
    append(hub, 1)
    for _ in range(2):
        with pytest.raises(UnexpectedReply, match="partition 0 has sequence number None") as raised:
            reader.receive(SOON)
        assert "The reply begins" not in str(raised.value)
    reader.close()


@pytest.mark.parametrize("asked", ["partitions", "receive"])
def test_a_hub_that_accepts_and_says_nothing_is_given_up(
    hub: EventHubServer, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    hub.freeze()
    with (
        streaming(hub.connection_string, monkeypatch, timeout_seconds=0.5) as stream,
        pytest.raises(SourceUnreachable, match=r"no answer within 0\.5 s"),
    ):
        stream.partitions() if asked == "partitions" else read(stream)


def test_a_hub_that_falls_silent_is_given_up(
    hub: EventHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with streaming(hub.connection_string, monkeypatch, timeout_seconds=0.5) as stream:
        stream.partitions()
        hub.freeze()
        with pytest.raises(SourceUnreachable, match="no answer"):
            stream.partitions()


@pytest.fixture
def watchful(hub: EventHubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventHubStream]:
    """A stream to whose readers the hub shows itself every second."""
    settings = settings_for(hub.connection_string, monkeypatch, timeout_seconds=5)
    opened = EventHubStream(settings, idle_seconds=1)
    yield opened
    opened.close()


def test_a_hub_that_falls_silent_while_it_is_read_is_given_up_and_read_on(
    hub: EventHubServer, watchful: EventHubStream
) -> None:
    append(hub, 3)
    reader = watchful.open("0", None, 1)
    events = list(reader.receive(SOON))
    hub.freeze()
    append(hub, 2)
    with pytest.raises(SourceUnreachable, match="no sign of the hub for 2 s"):
        reader.receive(BatchLimits(max_wait_seconds=PATIENCE_SECONDS))
    reader.close()
    hub.freeze(False)
    events += read(watchful, Position(events[-1].offset, events[-1].sequence_number), epoch=2)
    assert [event.sequence_number for event in events] == list(range(5))


def test_a_hub_without_events_is_not_taken_for_silent(
    hub: EventHubServer, watchful: EventHubStream
) -> None:
    reader = watchful.open("0", None, 1)
    longer_than_silence = 2.5
    assert reader.receive(BatchLimits(max_wait_seconds=longer_than_silence)) == []
    time.sleep(longer_than_silence)  # as a reader does whose store is slow
    append(hub, 1)
    assert len(reader.receive(SOON)) == 1
    reader.close()


def test_nobody_listening_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = (
        f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=a;SharedAccessKey=b;"
        "UseDevelopmentEmulator=true;EntityPath=telemetry"
    )
    with (
        streaming(text, monkeypatch) as stream,
        pytest.raises(SourceUnreachable, match="refused"),
    ):
        stream.partitions()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9,
        b"\x00" * 400,
        b"AMQP\x03\x01\x00\x00" + b"\xff" * 90,
    ],
)
def test_whatever_else_answers_is_no_crash(monkeypatch: pytest.MonkeyPatch, reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer, suppress(OSError):
                peer.sendall(reply)
                peer.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        text = (
            f"Endpoint=sb://127.0.0.1:{server.getsockname()[1]};SharedAccessKeyName=a;"
            "SharedAccessKey=b;UseDevelopmentEmulator=true;EntityPath=telemetry"
        )
        with (
            streaming(text, monkeypatch, timeout_seconds=1) as stream,
            pytest.raises((SourceUnreachable, UnexpectedReply)),
        ):
            stream.partitions()
        thread.join()


@contextmanager
def tls_in_front_of(hub: EventHubServer, pem: Path) -> Iterator[int]:
    """A port where TLS is spoken, whose plain text goes to `hub` and back."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection("127.0.0.1", hub.port)
        await asyncio.gather(copy(reader, ahead), copy(behind, writer))

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    async def serve() -> None:
        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        ports.put(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(stop.wait)
        server.close()

    ports: queue.Queue[int] = queue.Queue()
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield ports.get(timeout=PATIENCE_SECONDS)
    finally:
        stop.set()
        thread.join()


def test_over_tls_many_events_come_through(
    hub: EventHubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = self_signed(tmp_path)
    append(hub, 3000)
    hub.append(bytes(200_000), partition="0")
    with tls_in_front_of(hub, pem) as port:
        text = hub.connection_string.replace("UseDevelopmentEmulator=true;", "")
        text = text.replace(f":{hub.port};", f":{port};")
        with streaming(text, monkeypatch, ca_file=str(pem)) as stream:
            assert sorted(stream.partitions()) == ["0", "1"]
            reader = stream.open("0", None, 1)
            limits = BatchLimits(max_events=5000, max_wait_seconds=1)
            events = [event for _ in range(5) for event in reader.receive(limits)]
            reader.close()
    assert [event.sequence_number for event in events] == list(range(3001))
    assert len(events[-1].body) == 200_000


def test_a_certificate_nobody_vouches_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def shake_hands() -> None:
            peer, _ = server.accept()
            with peer, pytest.raises((ssl.SSLError, OSError)):
                context.wrap_socket(peer, server_side=True)

        thread = threading.Thread(target=shake_hands)
        thread.start()
        text = (
            f"Endpoint=sb://127.0.0.1:{server.getsockname()[1]};SharedAccessKeyName=a;"
            "SharedAccessKey=b;EntityPath=telemetry"
        )
        with (
            streaming(text, monkeypatch) as stream,
            pytest.raises(SourceRefused, match="certificate is not to be trusted"),
        ):
            stream.partitions()
        thread.join()


def test_a_certificate_of_another_host_is_refused(
    hub: EventHubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = self_signed(tmp_path)  # for 127.0.0.1
    with tls_in_front_of(hub, pem) as port:
        text = hub.connection_string.replace("UseDevelopmentEmulator=true;", "")
        text = text.replace(f"127.0.0.1:{hub.port};", f"localhost:{port};")
        with (
            streaming(text, monkeypatch, ca_file=str(pem)) as stream,
            pytest.raises(SourceRefused, match=r"not to be trusted .*Hostname mismatch"),
        ):
            stream.partitions()


def test_a_handshake_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = (
            f"Endpoint=sb://127.0.0.1:{server.getsockname()[1]};SharedAccessKeyName=a;"
            "SharedAccessKey=b;EntityPath=telemetry"
        )
        with (
            streaming(text, monkeypatch, timeout_seconds=0.5) as stream,
            pytest.raises(SourceUnreachable),
        ):
            stream.partitions()


# --- settings -------------------------------------------------------------------------------------


def test_plain_amqp_is_for_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "Endpoint=sb://hub.example.net;SharedAccessKeyName=a;SharedAccessKey=b;"
        "UseDevelopmentEmulator=true;EntityPath=telemetry"
    )
    with pytest.raises(ConfigurationError, match="in the clear"):
        EventHubStream(settings_for(text, monkeypatch))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "has no Endpoint"),
        ("Endpoint=https://x;SharedAccessKeyName=a;SharedAccessKey=b", "not sb://"),
        ("Endpoint=sb://x/;SharedAccessKey=b", "has no SharedAccessKeyName"),
        ("Endpoint=sb://x/;SharedAccessKeyName=a", "has no SharedAccessKey"),
        ("Endpoint=sb://x/;SharedAccessKeyName=a;SharedAccessKey=b", "no EntityPath"),
    ],
)
def test_a_connection_string_that_is_none_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        EventHubStream(settings_for(text, monkeypatch))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "exactly one of"),
        ({"connection_string": {"env": "A"}, "entra_id": {"host": "a.b"}}, "exactly one of"),
        ({"entra_id": {"host": "a.b"}}, "needs hub"),
        ({"entra_id": {"host": "sb://a.b"}, "hub": "c"}, "without sb://"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        EventHubSettings.model_validate(given)


def test_no_repr_shows_the_key(hub: EventHubServer, stream: EventHubStream) -> None:
    shown = f"{stream!r} {stream.name} {vars(stream)!r}"
    assert hub.policy.key not in shown


def test_another_version_of_the_sdk_is_refused(
    hub: EventHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("azure.eventhub.__version__", "5.16.0")
    with pytest.raises(ConfigurationError, match=r"5\.16\.0 is installed"):
        EventHubStream(settings_for(hub.connection_string, monkeypatch))
