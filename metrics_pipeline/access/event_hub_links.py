"""Links to an event hub: one receives a partition's events, one asks what the hub is like.

Built on the AMQP 1.0 engine inside of azure-eventhub 5.15 (`azure.eventhub._pyamqp`), not on its
consumer client. That one pushes events into a callback, goes back to the first position after an
error, takes up to 30 s to do so, ends within seconds only, and makes an object of every event that
is never looked at: a third of all its time (docs/decisions/0007).

What the engine has no limit for has one here: connecting and asking are cut after
`timeout_seconds`, for a peer that accepts and says nothing would hold it for ever. One that falls
silent while events are waited for is given up after twice the time in which it has to show itself.

Every failure leaves here as a SourceError. Facts: `_client_base.py` and `_consumer.py` of
azure-eventhub 5.15.1 (addresses, annotations, properties).
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from io import BytesIO
from typing import Any

from azure.eventhub._pyamqp import ReceiveClient
from azure.eventhub._pyamqp._decode import decode_empty_frame, decode_frame, decode_payload
from azure.eventhub._pyamqp.client import AMQPClient
from azure.eventhub._pyamqp.constants import ReceiverSettleMode
from azure.eventhub._pyamqp.endpoints import ApacheFilters, Source
from azure.eventhub._pyamqp.error import RetryPolicy
from azure.eventhub._pyamqp.message import Message
from azure.eventhub._pyamqp.utils import amqp_long_value, amqp_string_value

from metrics_pipeline.access.event_hub_connection import SOCKET_SECONDS, Hub
from metrics_pipeline.access.event_hub_errors import (
    BROKEN,
    no_answer,
    refused,
    shut_out,
    text,
    translated,
)
from metrics_pipeline.access.event_hub_frames import (
    ENQUEUED_TIME,
    HEADER_BYTES,
    NS_PER_MS,
    OFFSET,
    SEQUENCE_NUMBER,
    find_event,
    kept_name,
    known_annotations,
    transfer_payload,
)
from metrics_pipeline.core.errors import CredentialRefused, MetricsPipelineError
from metrics_pipeline.core.telemetry import (
    BEFORE_THE_FIRST,
    UNKNOWN_OFFSET,
    BatchLimits,
    PartitionState,
    Position,
    RawEvent,
    SystemProperty,
)

BYTES_AT_ONCE = 1 << 16
"""So many are read between two looks at what a micro-batch may hold; some 100 uplinks."""

SILENT_INTERVALS = 2
"""After so many `idle_seconds` without a sign the hub is given up (AMQP 1.0, part 2, 2.4.5)."""

CLOSE_SECONDS = 2.0
EPOCH = b"com.microsoft:epoch"

UNREADABLE = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError, struct.error)
"""What the engine raises at a message that it cannot decode."""

_CLIENT: Any = AMQPClient
_RECEIVER: Any = ReceiveClient
_MESSAGE: Any = Message
_SOURCE: Any = Source
_NO_RETRIES: Any = RetryPolicy
_long: Any = amqp_long_value
_string: Any = amqp_string_value


class _Link:
    """A connection with one of the engine's clients on it; for one thread at a time, but `cut`."""

    def __init__(self, hub: Hub, target: str, client: Any, idle_seconds: int | None = None) -> None:
        """With `idle_seconds`, the hub says so often that it is there."""
        self._hub = hub
        self._idle_seconds = idle_seconds
        self._target = target
        self._client = client
        self._connection: Any = None
        self.is_cut = False
        """Whether somebody has made it fail, as there was no answer in time or no need of one."""

        self._has_worked = False
        """Whether the hub has let it in, and not only taken its connection."""

    def open(self) -> None:
        """Connect and be let in."""
        with self._translating(), self._bounded():
            self._connection = self._hub.connect(self._idle_seconds)
            self._connection.open()
            self._client.open(connection=self._connection)
            while not self._client.client_ready() and not self.is_cut:
                pass  # each look waits for frames
            # The engine would count the time in which nobody looks as silence of the hub.
            self._connection._idle_timeout = None

    def cut(self) -> None:
        """Make whoever waits for the hub fail at once; from any thread."""
        self.is_cut = True
        transport = getattr(self._connection, "_transport", None)
        sock = getattr(transport, "sock", None)
        if sock is not None:
            with suppress(OSError):
                # Not SSLSocket's own: that one takes the object away from who reads with it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Say good-bye, and give back the connection."""
        timer = threading.Timer(CLOSE_SECONDS, self.cut)
        timer.start()
        try:
            for part in (self._client, self._connection):
                with suppress(*BROKEN):
                    part.close()
            self._close_socket()
        finally:
            timer.cancel()

    def _close_socket(self) -> None:
        """The engine leaves the socket of a connection that was cut to the garbage collector."""
        sock = getattr(getattr(self._connection, "_transport", None), "sock", None)
        if sock is not None:
            sock.close()

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        timer = threading.Timer(self._hub.timeout_seconds, self.cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # it may have begun: then the link is cut, and nobody should take it over
        if self.is_cut:
            raise TimeoutError

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except CredentialRefused as error:  # by who gives tokens
            if self._has_worked:
                raise shut_out(error) from error
            raise
        except MetricsPipelineError:
            raise
        except BROKEN as error:
            if self.is_cut:
                raise no_answer(self._hub, self._target) from error
            meant = translated(error, self._hub, self._target)
            if self._has_worked and isinstance(meant, CredentialRefused):
                raise shut_out(meant) from error
            raise meant from error


class EventLink(_Link):
    """Receives the events of one partition that come after `after`, as a reader of `epoch`.

    With None for an epoch it shares the partition with others that have none.
    """

    def __init__(
        self,
        hub: Hub,
        consumer_group: str,
        partition: str,
        after: Position | None,
        *,
        epoch: int | None,
        prefetch: int,
    ) -> None:
        self._partition = partition
        self._prefetch = prefetch
        self._arrived: deque[RawEvent] = deque()
        self._bytes = 0
        """Of the bodies of those that have arrived."""

        self._decoded: deque[Any] = deque()
        """Messages that nobody has looked at."""

        self._silent_seconds = 0.0
        """So long it was looked for something of the hub, since something came."""

        selector = _string(_selector(after).encode())
        group = f"/consumergroups/{consumer_group}"
        address = f"amqps://{hub.host}/{hub.hub}/ConsumerGroups/{consumer_group}/Partitions"
        source = _SOURCE(address=f"{address}/{partition}", filters={})
        source.filters[ApacheFilters.selector_filter] = (ApacheFilters.selector_filter, selector)
        client = _RECEIVER(
            hub.host,
            source,
            auth=hub.auth(group),
            receive_settle_mode=ReceiverSettleMode.First,
            retry_policy=_NO_RETRIES(retry_total=0),
            link_properties={} if epoch is None else {EPOCH: _long(epoch)},
            link_credit=prefetch,
            streaming_receive=True,
            message_received_callback=self._decoded.append,
        )
        super().__init__(hub, f"partition {partition} of {hub.name}", client, hub.idle_seconds)

    def receive(self, limits: BatchLimits) -> Sequence[RawEvent]:
        """The next events within `limits`, and none if none came in time. Raises after `cut`."""
        deadline = time.monotonic() + limits.max_wait_seconds
        with self._translating():
            while not self._is_enough(limits) and not self.is_cut:
                self._look()
                if time.monotonic() >= deadline:
                    break
            if self.is_cut:
                raise TimeoutError
        self._has_worked = True
        return self._pop(limits)

    def _look(self) -> None:
        is_ready = self._client.client_ready()
        self._take_decoded()  # asking for a new token, the engine reads by itself
        if not is_ready:
            return
        link = self._client._link
        if link.current_link_credit <= self._prefetch // 2:
            link.flow(link_credit=self._prefetch)
        connection = self._connection
        connection.listen(batch=0)  # says that we are there, and raises what has gone wrong
        transport = connection._transport
        rest = transport._read_buffer.read()
        data = self._read(transport)
        buffer = rest + data
        # The engine goes on from there when it reads itself: for a new token, now and then.
        transport._read_buffer = BytesIO(buffer[self._take_frames(buffer) :])

    def _read(self, transport: Any) -> bytes:
        """What is there, or comes soon; the engine reads every frame by itself, in two parts."""
        try:
            data: bytes = transport.sock.recv(BYTES_AT_ONCE)
        except TimeoutError:
            self._silent_seconds += SOCKET_SECONDS
            self._check_silence()
            return b""
        if not data:
            raise ConnectionError("the hub has closed the connection")
        self._silent_seconds = 0.0
        self._connection._last_frame_received_time = time.time()
        return data

    def _check_silence(self) -> None:
        """A connection whose other end is gone says nothing for ever, like one without events."""
        allowed = SILENT_INTERVALS * self._hub.idle_seconds
        if self._silent_seconds >= allowed:
            raise ConnectionError(f"no sign of the hub for {allowed} s")

    def _take_frames(self, buffer: bytes) -> int:
        """Take the whole frames in `buffer`; how many bytes these are."""
        link = self._client._link
        at, end, count = 0, len(buffer), 0
        while end - at >= HEADER_BYTES:
            after = at + int.from_bytes(buffer[at : at + 4], "big")
            if after > end:
                break
            frame = buffer[at:after]
            at = after if after > at else end
            payload = transfer_payload(frame, link.remote_handle)
            if payload is None:
                self._count(count)
                count = 0
                self._pass_on(frame)
            else:
                count += 1
                self._take_message(link, payload)
        self._count(count)
        return at

    def _take_message(self, link: Any, payload: bytes) -> None:
        """Take the event whose last bytes are `payload`; the engine keeps those before."""
        if link._received_payload:
            payload = bytes(link._received_payload) + payload
            link._received_payload = bytearray()
        event = find_event(self._partition, payload)
        if event is None:
            self._decoded.append(decoded(payload))
            self._take_decoded()
        else:
            self._add(event)

    def _count(self, transfers: int) -> None:
        """Tell the engine of so many whole messages that it has not seen."""
        link = self._client._link
        link.current_link_credit -= transfers
        link.delivery_count += transfers
        session = self._client._session
        session.next_incoming_id += transfers
        session.remote_outgoing_window -= transfers
        session.incoming_window -= transfers
        if session.incoming_window <= 0:
            session.incoming_window = session.target_incoming_window
            session._outgoing_flow()

    def _pass_on(self, frame: bytes) -> None:
        """Let the engine read `frame`."""
        payload = memoryview(frame)[4 * frame[4] :]
        decoded = decode_frame(payload) if payload else decode_empty_frame(memoryview(frame))
        channel = int.from_bytes(frame[6:8], "big")
        self._connection._process_incoming_frame(channel, decoded)
        self._take_decoded()

    def _is_enough(self, limits: BatchLimits) -> bool:
        return len(self._arrived) >= limits.max_events or self._bytes >= limits.max_bytes

    def _pop(self, limits: BatchLimits) -> Sequence[RawEvent]:
        events: list[RawEvent] = []
        size = 0
        while self._arrived and len(events) < limits.max_events:
            size += len(self._arrived[0].body)
            if events and size > limits.max_bytes:
                break
            events.append(self._arrived.popleft())
            self._bytes -= len(events[-1].body)
        return events

    def _take_decoded(self) -> None:
        """Take the events in what is decoded.

        Not in the engine's callback: it logs what that raises and goes on, and the event is lost.
        """
        while self._decoded:
            # It stays where it is if it is no event: no later one is given as if it were the next.
            self._add(event_of(self._partition, self._decoded[0]))
            self._decoded.popleft()

    def _add(self, event: RawEvent) -> None:
        self._arrived.append(event)
        self._bytes += len(event.body)


class ManagementLink(_Link):
    """Asks a hub for its partitions and how far they go.

    The engine remembers each answer's tag for as long as the link is open.
    """

    def __init__(self, hub: Hub) -> None:
        self._auth = hub.auth("")
        client = _CLIENT(hub.host, auth=self._auth, retry_policy=_NO_RETRIES(retry_total=0))
        super().__init__(hub, f"the partitions of {hub.name}", client)
        self.answers = 0
        """How many have come."""

    def partitions(self) -> dict[str, PartitionState]:
        """Every partition, by its id."""
        with self._translating(), self._bounded():
            found = self._ask("eventhub")
            names = [name.decode() for name in found[b"partition_ids"]]
            return {name: _state(self._ask("partition", partition=name)) for name in names}

    def _ask(self, kind: str, **properties: str) -> Mapping[bytes, Any]:
        asked = {"name": self._hub.hub, "security_token": self._auth.get_token().token}
        message = _MESSAGE(application_properties={**asked, **properties})
        status, description, reply = self._client.mgmt_request(
            message,
            operation="READ",
            operation_type=f"com.microsoft:{kind}",
            status_code_field=b"status-code",
            status_description_field=b"status-description",
        )
        self.answers += 1
        if status != HTTPStatus.OK:
            raise refused(status, text(description), self._hub, self._target)
        value: Mapping[bytes, Any] = reply.value
        return value


def _selector(after: Position | None) -> str:
    if after is not None and after.offset == UNKNOWN_OFFSET:
        return f"amqp.annotation.x-opt-sequence-number > '{after.sequence_number}'"
    offset = BEFORE_THE_FIRST if after is None else after.offset
    return f"amqp.annotation.x-opt-offset > '{offset}'"


# --- what came ------------------------------------------------------------------------------------


def decoded(payload: bytes) -> Any:
    """The message whose sections `payload` is.

    The engine has no decoder for some types (characters, most decimals), none for keys that are
    lists or maps, and none without end. Of what it cannot read there is the place, for the stream
    has to go on, and all bytes as the body.
    """
    try:
        return decode_payload(memoryview(payload))
    except UNREADABLE:
        return _MESSAGE(message_annotations=known_annotations(payload), data=[payload])


def event_of(partition: str, message: Any) -> RawEvent:
    """The event in a message that the engine has decoded. ValueError if it says not where it is."""
    found = message.message_annotations
    annotations = found if isinstance(found, Mapping) else {}
    number, enqueued = annotations.get(SEQUENCE_NUMBER), annotations.get(ENQUEUED_TIME)
    offset = annotations.get(OFFSET)
    offset = offset.decode() if isinstance(offset, bytes) else offset
    if type(number) is not int or type(offset) is not str or type(enqueued) is not int:
        given = f"sequence number {number!r}, offset {offset!r}, enqueued time {enqueued!r}"
        raise ValueError(f"an event of partition {partition} has {given}")
    properties = {
        kept: _property(value)
        for name, value in annotations.items()
        if isinstance(name, bytes) and (kept := kept_name(name)) is not None
    }
    time_ns = enqueued * NS_PER_MS
    return RawEvent(partition, number, offset, time_ns, _body(message), properties)


def _property(value: Any) -> SystemProperty:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str | int | float) else None


def _body(message: Any) -> bytes:
    if message.data is not None:
        return b"".join(map(_bytes, message.data))
    return _bytes(message.value if message.sequence is None else message.sequence)


def _bytes(value: Any) -> bytes:
    """As they came; of a value that is no text, what shows in a dead letter what it was."""
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode(errors="replace")
    return value if isinstance(value, bytes) else repr(value).encode(errors="replace")


def _state(found: Mapping[bytes, Any]) -> PartitionState:
    return PartitionState(
        first_sequence_number=found[b"begin_sequence_number"],
        last_sequence_number=found[b"last_enqueued_sequence_number"],
        last_offset=found[b"last_enqueued_offset"].decode(),
        last_enqueued_time_ns=found[b"last_enqueued_time_utc"] * NS_PER_MS,
        is_empty=found[b"is_partition_empty"],
    )
