"""The frames of AMQP 1.0. Source: OASIS AMQP 1.0, part 2 "Transport" and part 5 "Security"."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from metrics_pipeline.simulators.event_hub.amqp_types import (
    DecodeError,
    Described,
    Symbol,
    ULong,
    decode,
    encode_list,
)

AMQP_HEADER: Final = b"AMQP\x00\x01\x00\x00"
SASL_HEADER: Final = b"AMQP\x03\x01\x00\x00"
EMPTY_FRAME: Final = b"\x00\x00\x00\x08\x02\x00\x00\x00"
"""Says only that its sender is there."""

HEADER_BYTES: Final = 8
MAX_FRAME_BYTES: Final = 65_536
"""The largest frame Event Hubs takes and sends (trace in azure-sdk-for-python, issue 5316)."""

_AMQP_FRAME, _SASL_FRAME = 0, 1
_ERROR: Final = ULong(0x1D)
_HEADER: Final = struct.Struct(">IBBH")


class Performative(IntEnum):
    """What a frame does; the value is its descriptor."""

    OPEN = 0x10
    BEGIN = 0x11
    ATTACH = 0x12
    FLOW = 0x13
    TRANSFER = 0x14
    DISPOSITION = 0x15
    DETACH = 0x16
    END = 0x17
    CLOSE = 0x18
    SASL_MECHANISMS = 0x40
    SASL_INIT = 0x41
    SASL_OUTCOME = 0x44


FIELD_COUNTS: Final = {
    Performative.OPEN: 10,
    Performative.BEGIN: 8,
    Performative.ATTACH: 14,
    Performative.FLOW: 11,
    Performative.TRANSFER: 11,
    Performative.DISPOSITION: 6,
    Performative.DETACH: 3,
    Performative.END: 1,
    Performative.CLOSE: 1,
    Performative.SASL_MECHANISMS: 1,
    Performative.SASL_INIT: 3,
    Performative.SASL_OUTCOME: 2,
}
"""How many fields each has; `azure-eventhub` 5.15 reads them by position and needs all of them."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that came. `fields` has as many as the performative has, None where not given."""

    channel: int
    performative: Performative
    fields: Sequence[Any]
    payload: bytes


def error_of(condition: str, description: str) -> Described:
    """An error in the form of the protocol, with all its fields."""
    return Described(_ERROR, [Symbol(condition), description, None])


def encode_frame(
    performative: Performative, fields: Sequence[Any], channel: int = 0, payload: bytes = b""
) -> bytes:
    """A whole frame; fields that are missing at the end are null."""
    missing = FIELD_COUNTS[performative] - len(fields)
    body = bytes((0x00, 0x53, performative)) + encode_list([*fields, *[None] * missing])
    size = HEADER_BYTES + len(body) + len(payload)
    kind = _AMQP_FRAME if performative < Performative.SASL_MECHANISMS else _SASL_FRAME
    return _HEADER.pack(size, 2, kind, channel) + body + payload


class FrameReader:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame | bytes]:
        """The frames that are whole now; a protocol header comes as its eight bytes.

        Empty frames are left out. Raises DecodeError.
        """
        buffer = self._rest + data
        at = 0
        while len(buffer) - at >= HEADER_BYTES:
            end = at + _size(buffer, at)
            if end > len(buffer):
                break
            piece = _piece(buffer, at, end)
            if piece is not None:
                yield piece
            at = end
        self._rest = buffer[at:]


def _size(buffer: bytes, at: int) -> int:
    if buffer[at : at + 4] == AMQP_HEADER[:4]:
        return HEADER_BYTES
    size: int = struct.unpack_from(">I", buffer, at)[0]
    if not HEADER_BYTES <= size <= MAX_FRAME_BYTES:
        raise DecodeError(f"a frame of {size} bytes came, {MAX_FRAME_BYTES} are the most")
    return size


def _piece(buffer: bytes, at: int, end: int) -> Frame | bytes | None:
    if buffer[at : at + 4] == AMQP_HEADER[:4]:
        return buffer[at:end]
    _, words, _, channel = _HEADER.unpack_from(buffer, at)
    start = at + 4 * words
    if start >= end:
        return None
    body, after = decode(buffer, start)
    if after > end or not (isinstance(body, Described) and isinstance(body.value, list)):
        raise DecodeError("a frame came whose body is no performative")
    try:
        performative = Performative(body.descriptor)
    except ValueError:
        raise DecodeError(f"a frame came with the descriptor {body.descriptor!r}") from None
    missing = FIELD_COUNTS[performative] - len(body.value)
    return Frame(channel, performative, [*body.value, *[None] * missing], buffer[after:end])
