"""BER as SNMP uses it: object identifiers, integers, lengths, and the values of variables.

Sources: ITU-T X.690, RFC 1157 section 3.2.1, RFC 2578 section 7, RFC 3417 section 8; Opaque floats
are net-snmp's (`OPAQUE_FLOAT` and `OPAQUE_DOUBLE` in its asn1.h). Object identifiers are dotted
strings without a leading dot. Everything that is wrong is BerError; nothing else is raised for
whatever bytes come in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from socket import inet_ntoa

Value = int | float | bytes | str
"""What a variable holds: numbers, octets, and an OID or IPv4 address as text."""

INTEGER, OCTETS, NULL, OBJECT_ID, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
IP_ADDRESS, COUNTER_32, GAUGE_32, TIME_TICKS, OPAQUE, COUNTER_64, UINTEGER_32 = (
    0x40,
    0x41,
    0x42,
    0x43,
    0x44,
    0x46,
    0x47,
)
NO_SUCH_OBJECT, NO_SUCH_INSTANCE, END_OF_MIB_VIEW = 0x80, 0x81, 0x82

MAX_SUB_IDENTIFIER = 2**32 - 1
MAX_SUB_IDENTIFIERS = 128
MAX_INTEGER_BYTES = 8
IPV4_BYTES = 4
OPAQUE_FLOATS = {b"\x9f\x78\x04": ">f", b"\x9f\x79\x08": ">d"}

REMEMBERED_OIDS = 65_536
"""Object identifiers that are kept in both forms: a fleet repeats them."""

_LONG = 0x80
_MORE = 0x80


class BerError(ValueError):
    """Bytes that are not what they must be; the text says what was expected."""


def encode(tag: int, content: bytes) -> bytes:
    """Tag, length and content."""
    size = len(content)
    if size < _LONG:
        return b"%c%c%b" % (tag, size, content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG | len(length))) + length + content


def encode_integer(value: int) -> bytes:
    """An INTEGER, tag included."""
    size = (value if value >= 0 else ~value).bit_length() // 8 + 1
    return encode(INTEGER, value.to_bytes(size, "big", signed=True))


@lru_cache(REMEMBERED_OIDS)
def encode_oid(oid: str) -> bytes:
    """An OBJECT IDENTIFIER, tag included; ValueError when `oid` is none."""
    first, second, *rest = (int(part) for part in oid.split("."))
    if first > 2 or second < 0 or (first < 2 and second > 39):  # noqa: PLR2004 X.690 8.19.4
        raise ValueError(f"{oid} is no object identifier")
    return encode(OBJECT_ID, b"".join(map(_sub_identifier, (40 * first + second, *rest))))


def read_header(data: bytes, at: int, tag: int, end: int) -> tuple[int, int]:
    """Where the content of the `tag` at `at` begins and stops; all of it before `end`."""
    try:
        if data[at] != tag:
            raise BerError(f"tag {data[at]:#04x} where {tag:#04x} is expected")
        size, start = data[at + 1], at + 2
        if size >= _LONG:
            size, start = long_length(data, size, start)
    except IndexError:
        raise BerError("truncated") from None
    if start + size > end:
        raise BerError("truncated")
    return start, start + size


def long_length(data: bytes, first: int, at: int) -> tuple[int, int]:
    """The length whose first byte said that more follow at `at`, and where its content begins."""
    count = first & ~_LONG
    if not 0 < count <= IPV4_BYTES or at + count > len(data):
        raise BerError("a length that is indefinite, truncated or beyond reason")
    return int.from_bytes(data[at : at + count], "big"), at + count


def read_integer(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The INTEGER at `at`, and where it stops."""
    if at + 2 < end <= len(data) and data[at] == INTEGER:  # the usual one, without a call
        stop = at + 2 + data[at + 1]
        if at + 2 < stop <= min(end, at + 2 + MAX_INTEGER_BYTES):
            return int.from_bytes(data[at + 2 : stop], "big", signed=True), stop
    start, stop = read_header(data, at, INTEGER, end)
    return decode_integer(data[start:stop]), stop


@lru_cache(REMEMBERED_OIDS)
def decode_oid(content: bytes) -> str:
    """The dotted form of the content of an OBJECT IDENTIFIER."""
    parts, value = [], 0
    for byte in content:
        value = value << 7 | byte & ~_MORE
        if byte & _MORE:
            continue
        if value > MAX_SUB_IDENTIFIER:
            raise BerError("a sub-identifier beyond 32 bits")
        parts.append(value)
        value = 0
    if not parts or content[-1] & _MORE or len(parts) > MAX_SUB_IDENTIFIERS:
        raise BerError("an object identifier that is empty, truncated or beyond 128 numbers")
    first = min(parts[0] // 40, 2)
    return ".".join(map(str, (first, parts[0] - 40 * first, *parts[1:])))


def decode_integer(content: bytes) -> int:
    """An INTEGER's content. Up to 64 bits: agents send sizes beyond 32 (seen in hrStorageSize)."""
    if not 0 < len(content) <= MAX_INTEGER_BYTES:
        raise BerError(f"an integer of {len(content)} bytes")
    return int.from_bytes(content, "big", signed=True)


def decode_value(tag: int, content: bytes) -> Value | None:
    """What the content of a variable of this tag is; None when there is no such variable."""
    decode_content = _DECODERS.get(tag)
    if decode_content is None:
        raise BerError(f"no type of SNMP has tag {tag:#04x}")
    return decode_content(content)


def decode_opaque(content: bytes) -> Value:
    """A number for net-snmp's floats and doubles; the bytes of any other Opaque."""
    form = OPAQUE_FLOATS.get(content[:3])
    if form is None or len(content) != 3 + struct.calcsize(form):
        return content
    number: float = struct.unpack(form, content[3:])[0]
    return number


def _sub_identifier(value: int) -> bytes:
    if not 0 <= value <= MAX_SUB_IDENTIFIER:
        raise ValueError(f"{value} is no part of an object identifier")
    encoded = [value & ~_MORE & 0xFF]
    while value := value >> 7:
        encoded.append(value & 0x7F | _MORE)
    return bytes(reversed(encoded))


def _unsigned(bits: int) -> Callable[[bytes], int]:
    """Counters and gauges: agents that forget the leading zero mean no negative number."""

    def decode_unsigned(content: bytes) -> int:
        size = len(content)
        if not 0 < size <= bits // 8 + 1 or (size > bits // 8 and content[0] != 0):
            raise BerError(f"an unsigned number of {size} bytes where {bits} bits are most")
        return int.from_bytes(content, "big")

    return decode_unsigned


def _address(content: bytes) -> str:
    if len(content) != IPV4_BYTES:
        raise BerError(f"an IP address of {len(content)} bytes")
    return inet_ntoa(content)


def _absent(_content: bytes) -> None:
    return None


_DECODERS: dict[int, Callable[[bytes], Value | None]] = {
    INTEGER: decode_integer,
    OCTETS: bytes,
    NULL: _absent,
    OBJECT_ID: decode_oid,
    IP_ADDRESS: _address,
    COUNTER_32: _unsigned(32),
    GAUGE_32: _unsigned(32),
    TIME_TICKS: _unsigned(32),
    OPAQUE: decode_opaque,
    COUNTER_64: _unsigned(64),
    UINTEGER_32: _unsigned(32),
    NO_SUCH_OBJECT: _absent,
    NO_SUCH_INSTANCE: _absent,
    END_OF_MIB_VIEW: _absent,
}
