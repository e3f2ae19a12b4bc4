"""Messages of AMQP 1.0 as Event Hubs keeps them. Source: OASIS AMQP 1.0, part 3 "Messaging".

A message is taken apart only as far as the service has to: its annotations get company, everything
else stays the bytes that came.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from metrics_pipeline.simulators.event_hub.amqp_types import (
    DecodeError,
    Described,
    Symbol,
    Timestamp,
    ULong,
    decode,
    encode,
    map_of,
    skip,
)

BATCH_FORMAT: Final = 0x80013700
"""The message format of a batch: every data section is a message (Event Hubs' own)."""

PARTITION_KEY: Final = "x-opt-partition-key"
SEQUENCE_NUMBER: Final = "x-opt-sequence-number"
OFFSET: Final = "x-opt-offset"
ENQUEUED_TIME: Final = "x-opt-enqueued-time"

_HEADER, _DELIVERY_ANNOTATIONS, _ANNOTATIONS = 0x70, 0x71, 0x72
_PROPERTIES, _APPLICATION_PROPERTIES = 0x73, 0x74
_DATA, _VALUE, _FOOTER = 0x75, 0x77, 0x78
_SET_BY_THE_SERVICE: Final = frozenset({SEQUENCE_NUMBER, OFFSET, ENQUEUED_TIME, PARTITION_KEY})
_CORRELATION_ID, _MESSAGE_ID = 5, 0


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was sent, in the pieces the service handles apart.

    `annotations` are pairs that are already encoded; those the service sets itself are not among
    them. `bare` is everything from the properties on.
    """

    header: bytes = b""
    annotations: bytes = field(default=b"", repr=False)
    annotation_count: int = 0
    partition_key: str | None = None
    bare: bytes = field(default=b"", repr=False)

    def stored(
        self, sequence_number: int, offset: str, enqueued_ms: int, partition_key: str | None
    ) -> bytes:
        """The bytes a receiver gets."""
        pairs = _SEQUENCE_NUMBER_PAIR.pack(_SEQUENCE_NUMBER_KEY, sequence_number)
        pairs += _OFFSET_KEY + encode(offset)
        pairs += _ENQUEUED_TIME_PAIR.pack(_ENQUEUED_TIME_KEY, enqueued_ms)
        count = 3 + self.annotation_count
        if partition_key is not None:
            pairs += _PARTITION_KEY_KEY + encode(partition_key)
            count += 1
        annotations = map_of(pairs + self.annotations, count)
        return self.header + b"\x00\x53\x72" + annotations + self.bare


_SEQUENCE_NUMBER_KEY: Final = encode(Symbol(SEQUENCE_NUMBER)) + b"\x81"
_OFFSET_KEY: Final = encode(Symbol(OFFSET))
_ENQUEUED_TIME_KEY: Final = encode(Symbol(ENQUEUED_TIME)) + b"\x83"
_PARTITION_KEY_KEY: Final = encode(Symbol(PARTITION_KEY))
_SEQUENCE_NUMBER_PAIR: Final = struct.Struct(f">{len(_SEQUENCE_NUMBER_KEY)}sq")
_ENQUEUED_TIME_PAIR: Final = struct.Struct(f">{len(_ENQUEUED_TIME_KEY)}sq")


def parse_message(payload: bytes) -> Message:
    """The message whose sections `payload` is. Raises DecodeError."""
    header, bare = b"", b""
    annotations, count, partition_key = b"", 0, None
    for code, _, section in _sections(payload):
        if code == _HEADER:
            header = section
        elif code == _ANNOTATIONS:
            annotations, count, partition_key = _annotations(section)
        elif code != _DELIVERY_ANNOTATIONS:
            bare += section
    return Message(header, annotations, count, partition_key, bare)


def parse_batch(payload: bytes) -> list[Message]:
    """The messages of a batch. Raises DecodeError."""
    messages = []
    for code, value_at, section in _sections(payload):
        if code == _DATA:
            content, _ = decode(section, value_at)
            messages.append(parse_message(content))
    return messages


def _sections(payload: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Of each section its code, where in it the value is, and its bytes."""
    at = 0
    while at < len(payload):
        if payload[at] != 0:
            raise DecodeError(f"no section of a message begins at byte {at}")
        code, value_at = decode(payload, at + 1)
        end = skip(payload, value_at)
        if not (isinstance(code, ULong) and _HEADER <= code <= _FOOTER):
            raise DecodeError(f"a message has no section {code!r}")
        yield int(code), value_at - at, payload[at:end]
        at = end


def _annotations(section: bytes) -> tuple[bytes, int, str | None]:
    """The pairs the sender gave, how many, and the partition key."""
    described, _ = decode(section, 0)
    if not isinstance(described.value, dict):
        raise DecodeError("the annotations of a message are no map")
    given = described.value
    key = given.get(PARTITION_KEY)
    kept = {name: value for name, value in given.items() if name not in _SET_BY_THE_SERVICE}
    pairs = b"".join(encode(name) + encode(value) for name, value in kept.items())
    return pairs, len(kept), None if key is None else str(key)


def make_message(
    body: bytes,
    *,
    properties: Mapping[str, Any] | None = None,
    annotations: Mapping[str, Any] | None = None,
) -> Message:
    """A message of one data section, with application `properties` and message `annotations`."""
    pairs = b"".join(
        encode(Symbol(name)) + encode(value) for name, value in (annotations or {}).items()
    )
    bare = _section(_APPLICATION_PROPERTIES, dict(properties)) if properties else b""
    return Message(
        annotations=pairs,
        annotation_count=len(annotations or {}),
        bare=bare + _section(_DATA, body),
    )


def iot_hub_annotations(
    device_id: str, enqueued_ms: int, *, scope: str = "device"
) -> dict[str, Any]:
    """The system properties an IoT Hub adds to a device's message on its built-in endpoint.

    Fact: "Create and read IoT Hub messages", learn.microsoft.com.
    """
    return {
        "iothub-connection-device-id": device_id,
        "iothub-connection-auth-method": (
            f'{{"scope":"{scope}","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}}'
        ),
        "iothub-connection-auth-generation-id": "638000000000000000",
        "iothub-enqueuedtime": Timestamp(enqueued_ms),
        "iothub-message-source": "Telemetry",
    }


def delivery_annotations(values: Mapping[str, Any]) -> bytes:
    """The section that tells a receiver something about this delivery alone."""
    return _section(_DELIVERY_ANNOTATIONS, {Symbol(name): each for name, each in values.items()})


# --- requests and replies, as $cbs and $management take them ------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a node of the service."""

    message_id: Any
    properties: Mapping[str, Any] = field(repr=False)
    value: Any = field(repr=False)


def parse_request(payload: bytes) -> Request:
    """The request whose sections `payload` is. Raises DecodeError."""
    found: dict[int, Any] = {}
    for code, value_at, section in _sections(payload):
        found[code], _ = decode(section, value_at)
    identity = found.get(_PROPERTIES) or [None]
    properties = found.get(_APPLICATION_PROPERTIES)
    return Request(
        identity[_MESSAGE_ID], properties if isinstance(properties, dict) else {}, found.get(_VALUE)
    )


def encode_reply(request: Request, properties: Mapping[str, Any], value: Any) -> bytes:
    """A reply to `request`."""
    identity = [None] * _CORRELATION_ID + [request.message_id]
    return (
        _section(_PROPERTIES, identity)
        + _section(_APPLICATION_PROPERTIES, dict(properties))
        + _section(_VALUE, value)
    )


def _section(code: int, value: Any) -> bytes:
    return encode(Described(ULong(code), value))
