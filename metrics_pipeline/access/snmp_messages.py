"""SNMP's requests and replies as bytes: PDUs, and messages of version 1 and 2c.

Sources: RFC 1157 section 4, RFC 1901, RFC 3416 section 3. Whatever bytes come in, what is wrong
with them is BerError.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from metrics_pipeline.access.snmp_ber import (
    COUNTER_32,
    COUNTER_64,
    GAUGE_32,
    INTEGER,
    NULL,
    OBJECT_ID,
    OCTETS,
    REMEMBERED_OIDS,
    SEQUENCE,
    TIME_TICKS,
    UINTEGER_32,
    BerError,
    Value,
    decode_oid,
    decode_value,
    encode,
    encode_integer,
    encode_oid,
    read_header,
    read_integer,
)

VERSION_1, VERSION_2C, VERSION_3 = 0, 1, 3

ID_BYTES = 4
"""Every identifier is written in four bytes, so it is FIRST_ID and 30 bits of chance."""
FIRST_ID, RANDOM_ID_MASK = 0x0100_0000, 0x3FFF_FFFF

REMEMBERED_REQUESTS = 4096
"""Lists of object identifiers that are kept encoded: devices of one kind are asked the same."""

_NULL = encode(NULL, b"")
_ZERO = encode_integer(0)
_LONG = 0x80
_BYTES_OF_32_BITS, _BYTES_OF_64_BITS = 4, 8
_MAX_UNSIGNED_BYTES = bytearray(256)
"""By tag, how long an unsigned number is at most; 0 where the tag is for something else."""
_MAX_UNSIGNED_BYTES[COUNTER_64] = _BYTES_OF_64_BITS
for _tag in (COUNTER_32, GAUGE_32, TIME_TICKS, UINTEGER_32):
    _MAX_UNSIGNED_BYTES[_tag] = _BYTES_OF_32_BITS


class Pdu(IntEnum):
    """The tags of the PDUs that are asked with and answered with."""

    GET = 0xA0
    GET_NEXT = 0xA1
    RESPONSE = 0xA2
    GET_BULK = 0xA5
    REPORT = 0xA8


class ErrorStatus(IntEnum):
    """RFC 3416's error-status, as far as a reader meets it."""

    NO_ERROR = 0
    TOO_BIG = 1
    NO_SUCH_NAME = 2
    GENERAL = 5
    NO_ACCESS = 6
    AUTHORIZATION = 16


class Reply(NamedTuple):
    """What came back: names, and the value of each, None where there is no such variable.

    `error_index` counts from 1.
    """

    error_status: int
    error_index: int
    names: Sequence[str]
    values: Sequence[Value | None]


class ReplyPdu(NamedTuple):
    """A PDU whose variables are not decoded yet: they are `data[start:stop]`."""

    tag: int
    request_id: int
    error_status: int
    error_index: int
    start: int
    stop: int


def encode_request(tag: Pdu, request_id: int, oids: tuple[str, ...], repetitions: int) -> bytes:
    """A PDU that asks for `oids`; `repetitions` is for GET_BULK (0 non-repeaters) alone."""
    head = encode(INTEGER, request_id.to_bytes(ID_BYTES, "big")) + _ZERO
    third = encode_integer(repetitions) if repetitions else _ZERO
    return encode(tag, head + third + _encode_variables(oids))


def encode_community_message(version: int, community: bytes, pdu: bytes) -> bytes:
    """A whole datagram of version 1 or 2c."""
    return encode(SEQUENCE, encode_integer(version) + encode(OCTETS, community) + pdu)


def read_version(data: bytes) -> tuple[int, int]:
    """The version of a whole message, and where what follows it begins."""
    start, stop = read_header(data, 0, SEQUENCE, len(data))
    if stop != len(data):
        raise BerError("bytes after the message")
    return read_integer(data, start, stop)


def read_community_reply(data: bytes, at: int) -> ReplyPdu:
    """The PDU of a message of version 1 or 2c, whose community begins at `at`."""
    _, at = read_header(data, at, OCTETS, len(data))
    return read_pdu(data, at, len(data))


def read_pdu(data: bytes, at: int, end: int) -> ReplyPdu:
    """The PDU at `at`, which must fill what there is up to `end`."""
    tag = data[at] if at < end else 0
    if tag not in {Pdu.RESPONSE, Pdu.REPORT}:
        raise BerError(f"PDU {tag:#04x} where a response is expected")
    at, stop = read_header(data, at, tag, end)
    request_id, at = read_integer(data, at, stop)
    status, at = read_integer(data, at, stop)
    index, at = read_integer(data, at, stop)
    start, last = read_header(data, at, SEQUENCE, stop)
    if last != stop or stop != end:
        raise BerError("bytes after the variables")
    return ReplyPdu(tag, request_id, status, index, start, last)


def decode_reply(data: bytes, pdu: ReplyPdu, asked: tuple[str, ...] = ()) -> Reply:
    """The reply with its variables; `asked` are the names that are expected, if any are."""
    names, values = decode_variables(data, pdu.start, pdu.stop, asked)
    return Reply(pdu.error_status, pdu.error_index, names, values)


def decode_variables(
    data: bytes, at: int, stop: int, asked: tuple[str, ...] = ()
) -> tuple[Sequence[str], list[Value | None]]:
    """Names and values between `at` and `stop`.

    The hot path of a sweep: 110 variables a device, ten thousand devices. So as long as the names
    are the `asked` ones, they are compared in their encoded form, and not decoded.
    """
    try:
        values, at = _decode_expected(data, at, stop, asked)
        if at == stop and len(values) == len(asked):
            return asked, values
        names = list(asked[: len(values)])
        while at < stop:
            name_at, value_at, start, end = _find_variable(data, at, stop)
            names.append(decode_oid(data[name_at:value_at]))
            values.append(decode_value(data[value_at], data[start:end]))
            at = end
    except IndexError:
        raise BerError("truncated") from None
    return names, values


def _decode_expected(
    data: bytes, at: int, stop: int, asked: tuple[str, ...]
) -> tuple[list[Value | None], int]:
    """The values of as many of `asked` as come in this order, and where the next variable is.

    Small numbers, and lengths below 128, are read in place.
    """
    values: list[Value | None] = []
    to_number = int.from_bytes
    for name, value_after in _encode_names(asked):
        if not data.startswith(name, at + 2):
            break
        value_at = at + value_after
        size, start = data[value_at + 1], value_at + 2
        end = start + size
        if data[at] != SEQUENCE or not data[at + 1] == end - at - 2 < _LONG or end > stop:
            break
        tag, content = data[value_at], data[start:end]
        if 0 < size <= _MAX_UNSIGNED_BYTES[tag]:
            values.append(to_number(content, "big"))
        elif tag == INTEGER and 0 < size <= _BYTES_OF_64_BITS:
            values.append(to_number(content, "big", signed=True))
        else:
            values.append(decode_value(tag, content))
        at = end
    return values, at


@lru_cache(REMEMBERED_REQUESTS)
def _encode_names(oids: tuple[str, ...]) -> tuple[tuple[bytes, int], ...]:
    """Each name, and how far after the beginning of its variable the value begins."""
    names = map(encode_oid, oids)
    return tuple((name, 2 + len(name)) for name in names)


def _find_variable(data: bytes, at: int, stop: int) -> tuple[int, int, int, int]:
    """Where name, value, the value's content and the variable's end are, whatever its lengths."""
    size, name_at = data[at + 1], at + 4
    end, value_at = at + 2 + size, name_at + data[at + 3]
    start = value_at + 2
    is_usual = (
        size < _LONG
        and data[at] == SEQUENCE
        and data[at + 2] == OBJECT_ID
        and start + data[value_at + 1] == end <= stop
    )
    if is_usual:
        return name_at, value_at, start, end
    at, end = read_header(data, at, SEQUENCE, stop)
    name_at, value_at = read_header(data, at, OBJECT_ID, end)
    start, last = read_header(data, value_at, data[value_at], end)
    if last != end:
        raise BerError("a value that does not fill its variable")
    return name_at, value_at, start, end


@lru_cache(REMEMBERED_REQUESTS)
def _encode_variables(oids: tuple[str, ...]) -> bytes:
    return encode(SEQUENCE, b"".join(map(_encode_variable, oids)))


@lru_cache(REMEMBERED_OIDS)
def _encode_variable(oid: str) -> bytes:
    return encode(SEQUENCE, encode_oid(oid) + _NULL)
