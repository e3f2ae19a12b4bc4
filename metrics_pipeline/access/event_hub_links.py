"""Links to an event hub: one receives a partition's events, one asks what the hub is like.

Built on the AMQP 1.0 engine inside of azure-eventhub 5.15 (`azure.eventhub._pyamqp`), not on its
consumer client. That one pushes events into a callback, goes back to the first position after an
error, takes up to 30 s to do so, ends within seconds only, and makes an object of every event that
is never looked at: a third of all its time (docs/decisions/0007). The engine is private, so
pyproject.toml admits the versions that were looked at; other versions are refused with a sentence.

What the engine has no limit for has one here: connecting and asking are cut after
`timeout_seconds`, for a peer that accepts and says nothing would hold it for ever.

Every failure leaves here as a SourceError. Facts: `_client_base.py` and `_consumer.py` of
azure-eventhub 5.15.1 (addresses, annotations, properties); "AMQP errors in Azure Service Bus" and
"Azure Event Hubs quotas", learn.microsoft.com (conditions).
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import Any

import azure.eventhub
from azure.core.credentials import AccessToken
from azure.eventhub._pyamqp import ReceiveClient
from azure.eventhub._pyamqp._connection import Connection
from azure.eventhub._pyamqp._decode import decode_empty_frame, decode_frame
from azure.eventhub._pyamqp.authentication import JWTTokenAuth
from azure.eventhub._pyamqp.client import AMQPClient
from azure.eventhub._pyamqp.constants import ReceiverSettleMode
from azure.eventhub._pyamqp.endpoints import ApacheFilters, Source
from azure.eventhub._pyamqp.error import (
    AMQPException,
    AuthenticationException,
    RetryPolicy,
    TokenAuthFailure,
)
from azure.eventhub._pyamqp.message import Message
from azure.eventhub._pyamqp.utils import amqp_long_value, amqp_string_value

from metrics_pipeline.access.event_hub_credentials import HubCredential
from metrics_pipeline.access.event_hub_frames import (
    ENQUEUED_TIME,
    HEADER_BYTES,
    KEPT,
    NS_PER_MS,
    OFFSET,
    SEQUENCE_NUMBER,
    find_event,
    property_name,
    transfer_payload,
)
from metrics_pipeline.core.errors import (
    ConfigurationError,
    CredentialRefused,
    MetricsPipelineError,
    PartitionTaken,
    SourceError,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)
from metrics_pipeline.core.telemetry import (
    BatchLimits,
    PartitionState,
    Position,
    RawEvent,
    SystemProperty,
)

KNOWN_VERSIONS = "5.15."
SOCKET_SECONDS = 0.1
"""How long one look for frames waits where there are none."""

BYTES_AT_ONCE = 1 << 16
"""So many are read between two looks at what a micro-batch may hold; some 100 uplinks."""

CLOSE_SECONDS = 2.0
BUSY_SECONDS = 4.0
"""What a hub that throttles asks for: "Please wait 4 seconds and try again"."""

MAX_REASON_CHARACTERS = 300
EPOCH = b"com.microsoft:epoch"
BEFORE_THE_FIRST = "-1"

_CLIENT: Any = AMQPClient
_RECEIVER: Any = ReceiveClient
_CONNECTION: Any = Connection
_AUTH: Any = JWTTokenAuth
_MESSAGE: Any = Message
_SOURCE: Any = Source
_NO_RETRIES: Any = RetryPolicy
_long: Any = amqp_long_value
_string: Any = amqp_string_value

_BROKEN = (AMQPException, OSError, ValueError, LookupError, TypeError, AttributeError, struct.error)
"""What the engine raises: its own errors, those of a socket, and those of replies that are none."""


@dataclass(frozen=True, slots=True)
class Hub:
    """Where a hub is, and what opens it. `trusted` is None for plain AMQP, to loopback alone."""

    source: str
    host: str
    hub: str
    credential: HubCredential
    trusted: ssl.SSLContext | None
    timeout_seconds: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.host}/{self.hub}"

    def auth(self, path: str) -> Any:
        """What the engine asks for tokens for `path`, when it connects and before one expires."""
        address = f"sb://{self.host}/{self.hub}{path}"

        def get_token() -> AccessToken:
            return AccessToken(*self.credential.token(address, time.time()))

        return _AUTH(address, address, get_token, token_type=self.credential.token_type)

    def connect(self) -> Any:
        """A connection that is not open yet."""
        has_tls = self.trusted is not None
        options = {"context": _BoundedTls(self.trusted, self.timeout_seconds)} if has_tls else {}
        return _CONNECTION(
            f"{'amqps' if has_tls else 'amqp'}://{self.host}",
            sasl_credential=_AUTH(self.host, self.host, lambda: None).sasl,
            ssl_opts=options,
            use_tls=has_tls,
            custom_endpoint_address=f"amqps://{self.host}" if has_tls else None,
            connect_timeout=self.timeout_seconds,
            socket_timeout=SOCKET_SECONDS,
            properties={"product": "metrics-pipeline"},
        )


class _BoundedTls:
    """A TLS context whose handshake ends: the engine sets no limit, and nothing could cut it."""

    def __init__(self, trusted: ssl.SSLContext | None, timeout_seconds: float) -> None:
        self._trusted = trusted
        self._timeout_seconds = timeout_seconds

    def wrap_socket(self, sock: socket.socket, **options: Any) -> ssl.SSLSocket:
        assert self._trusted is not None
        sock.settimeout(self._timeout_seconds)
        return self._trusted.wrap_socket(sock, **options)


class _Link:
    """A connection with one of the engine's clients on it; for one thread at a time, but `cut`."""

    def __init__(self, hub: Hub, target: str, client: Any) -> None:
        self._hub = hub
        self._target = target
        self._client = client
        self._connection: Any = None
        self.is_cut = False
        """Whether somebody has made it fail, as there was no answer in time or no need of one."""

    def open(self) -> None:
        """Connect and be let in."""
        with self._translating(), self._bounded():
            self._connection = self._hub.connect()
            self._connection.open()
            self._client.open(connection=self._connection)
            while not self._client.client_ready() and not self.is_cut:
                pass  # each look waits for frames

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
                with suppress(*_BROKEN):
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
            if self.is_cut:
                raise TimeoutError
        finally:
            timer.cancel()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except MetricsPipelineError:
            raise
        except _BROKEN as error:
            if self.is_cut:
                raise _no_answer(self._hub, self._target) from error
            raise translated(error, self._hub, self._target) from error


class EventLink(_Link):
    """Receives the events of one partition that come after `after`, as a reader of `epoch`."""

    def __init__(
        self,
        hub: Hub,
        consumer_group: str,
        partition: str,
        after: Position | None,
        *,
        epoch: int,
        prefetch: int,
    ) -> None:
        self._partition = partition
        self._prefetch = prefetch
        self._arrived: deque[RawEvent] = deque()
        self._bytes = 0
        """Of the bodies of those that have arrived."""

        offset = BEFORE_THE_FIRST if after is None else after.offset
        selector = _string(f"amqp.annotation.x-opt-offset > '{offset}'".encode())
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
            link_properties={EPOCH: _long(epoch)},
            link_credit=prefetch,
            streaming_receive=True,
            message_received_callback=self._take,
        )
        super().__init__(hub, f"partition {partition} of {hub.name}", client)

    def receive(self, limits: BatchLimits) -> Sequence[RawEvent]:
        """The next events within `limits`, and none if none came in time, or after `cut`."""
        deadline = time.monotonic() + limits.max_wait_seconds
        with self._translating():
            while not self._is_enough(limits) and not self.is_cut:
                self._look()
                if time.monotonic() >= deadline:
                    break
        # The engine keeps the tag of every event for a settlement that never comes.
        if self._client._link is not None:
            self._client._link._received_delivery_tags.clear()
        return self._pop(limits)

    def _look(self) -> None:
        if not self._client.client_ready():
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
            return b""
        if not data:
            raise ConnectionError("the hub has closed the connection")
        self._connection._last_frame_received_time = time.time()
        return data

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
            payload = (
                None if link._received_payload else transfer_payload(frame, link.remote_handle)
            )
            event = None if payload is None else find_event(self._partition, payload)
            if event is None:
                self._count(count)
                count = 0
                self._pass_on(frame)
            else:
                count += 1
                self._arrived.append(event)
                self._bytes += len(event.body)
        self._count(count)
        return at

    def _count(self, transfers: int) -> None:
        """Tell the engine of so many whole messages that it has not seen."""
        link = self._client._link
        link.current_link_credit -= transfers
        link.delivery_count += transfers
        session = self._client._session
        session.next_incoming_id += transfers
        session.remote_outgoing_window -= transfers
        session.incoming_window -= transfers
        if session.incoming_window == 0:
            session.incoming_window = session.target_incoming_window
            session._outgoing_flow()

    def _pass_on(self, frame: bytes) -> None:
        """Let the engine read `frame`."""
        payload = memoryview(frame)[4 * frame[4] :]
        decoded = decode_frame(payload) if payload else decode_empty_frame(memoryview(frame))
        channel = int.from_bytes(frame[6:8], "big")
        self._connection._process_incoming_frame(channel, decoded)

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

    def _take(self, message: Any) -> None:
        event = event_of(self._partition, message)
        self._arrived.append(event)
        self._bytes += len(event.body)


class ManagementLink(_Link):
    """Asks a hub for its partitions and how far they go."""

    def __init__(self, hub: Hub) -> None:
        self._auth = hub.auth("")
        client = _CLIENT(hub.host, auth=self._auth, retry_policy=_NO_RETRIES(retry_total=0))
        super().__init__(hub, f"the partitions of {hub.name}", client)

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
        if status != HTTPStatus.OK:
            raise _refused(status, _text(description), self._hub, self._target)
        value: Mapping[bytes, Any] = reply.value
        return value


def check_version() -> None:
    """ConfigurationError if the SDK is of a version whose inside nobody has looked at."""
    version = azure.eventhub.__version__
    if not version.startswith(KNOWN_VERSIONS):
        raise ConfigurationError(
            "azure-eventhub",
            f"version {version} is installed, and only {KNOWN_VERSIONS}* has been tried",
            "Install the version that constraints.txt names.",
        )


# --- what came ------------------------------------------------------------------------------------


def event_of(partition: str, message: Any) -> RawEvent:
    """The event in a message that the engine has decoded."""
    annotations = message.message_annotations
    return RawEvent(
        partition,
        annotations[SEQUENCE_NUMBER],
        annotations[OFFSET].decode(),
        annotations[ENQUEUED_TIME] * NS_PER_MS,
        _body(message),
        {
            property_name(name): _property(value)
            for name, value in annotations.items()
            if name.startswith(KEPT)
        },
    )


def _property(value: Any) -> SystemProperty:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str | int | float) else None


def _body(message: Any) -> bytes:
    data = message.data
    if data is None:
        value = message.value
        return value.encode() if isinstance(value, str) else value or b""
    return data[0] if len(data) == 1 else b"".join(data)


def _state(found: Mapping[bytes, Any]) -> PartitionState:
    return PartitionState(
        first_sequence_number=found[b"begin_sequence_number"],
        last_sequence_number=found[b"last_enqueued_sequence_number"],
        last_offset=found[b"last_enqueued_offset"].decode(),
        last_enqueued_time_ns=found[b"last_enqueued_time_utc"] * NS_PER_MS,
        is_empty=found[b"is_partition_empty"],
    )


# --- what went wrong ------------------------------------------------------------------------------

_Refusal = Callable[[Hub, str, str], SourceError]


def _taken(hub: Hub, target: str, problem: str) -> SourceError:
    fix = "Let this reader end; if nobody should read there, find out who does."
    return PartitionTaken(hub.source, target, f"another reader has taken it ({problem})", fix)


def _not_let_in(hub: Hub, target: str, problem: str) -> SourceError:
    return CredentialRefused(hub.source, target, problem, hub.credential.fix())


def _not_there(hub: Hub, target: str, problem: str) -> SourceError:
    fix = "Check the names of namespace, hub and consumer group in the settings."
    return SourceRefused(hub.source, target, problem, fix)


def _not_taken(hub: Hub, target: str, problem: str) -> SourceError:
    fix = "If the hub was made anew, its checkpoints are of another: rewind or remove them."
    return SourceRefused(hub.source, target, problem, fix)


def _busy(hub: Hub, target: str, problem: str) -> SourceError:
    fix = "Give the namespace more throughput units, or ask for less."
    return SourceThrottled(hub.source, target, problem, fix, BUSY_SECONDS)


def _unreachable(hub: Hub, target: str, problem: str) -> SourceError:
    return SourceUnreachable(hub.source, target, problem, "Check the network to the hub.")


_CONDITIONS: Mapping[str, _Refusal] = {
    "amqp:link:stolen": _taken,
    "amqp:unauthorized-access": _not_let_in,
    "amqp:not-found": _not_there,
    "com.microsoft:argument-error": _not_taken,
    "com.microsoft:argument-out-of-range": _not_taken,
    "com.microsoft:server-busy": _busy,
    "amqp:resource-limit-exceeded": _busy,  # readers of a group, or connections
}


def translated(error: Exception, hub: Hub, target: str) -> SourceError:
    """`error` of the engine, as what it means for reading `target` of `hub`."""
    if isinstance(error, AMQPException):
        return _of_amqp(error, hub, target)
    if isinstance(error, OSError):
        return _unreachable(hub, target, _reason(error) or error.__class__.__name__)
    if isinstance(error, AttributeError | TypeError):
        # The engine goes on for a moment with a connection that it has given up.
        return _unreachable(hub, target, f"the connection broke ({_reason(error)})")
    return UnexpectedReply(
        hub.source, target, "what came back is not AMQP as it should be", _reason(error).encode()
    )


def _of_amqp(error: AMQPException, hub: Hub, target: str) -> SourceError:
    if isinstance(error, TokenAuthFailure) and error.status_code:
        return _refused(error.status_code, _text(error.status_description), hub, target)
    if isinstance(error, AuthenticationException):
        return _not_let_in(hub, target, _reason(error))
    if isinstance(error.inner_error, ssl.SSLCertVerificationError):
        return _not_trusted(error.inner_error, hub, target)
    condition = error.condition.decode(errors="replace")
    told = _text(error.description) or _reason(error)
    return _CONDITIONS.get(condition, _unreachable)(hub, target, f"{condition}: {told}")


def _not_trusted(error: ssl.SSLCertVerificationError, hub: Hub, target: str) -> SourceError:
    problem = f"its certificate is not to be trusted ({error.verify_message})"
    return SourceRefused(hub.source, target, problem, "Check the host, or name its CA in ca_file.")


def _refused(status: int, description: str, hub: Hub, target: str) -> SourceError:
    problem = f"status {status} {description}".strip()
    kind = {
        HTTPStatus.UNAUTHORIZED: _not_let_in,
        HTTPStatus.FORBIDDEN: _not_let_in,
        HTTPStatus.NOT_FOUND: _not_there,
        HTTPStatus.TOO_MANY_REQUESTS: _busy,
    }.get(HTTPStatus(status) if status in set(HTTPStatus) else HTTPStatus.OK)
    if kind is not None:
        return kind(hub, target, problem)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unreachable(hub, target, problem)
    return _not_taken(hub, target, problem)


def _no_answer(hub: Hub, target: str) -> SourceError:
    problem = f"no answer within {hub.timeout_seconds:g} s"
    return SourceUnreachable(hub.source, target, problem, "Check the network to the hub.")


def _text(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
    return " ".join(text.split())[:MAX_REASON_CHARACTERS]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_REASON_CHARACTERS]
