"""The types of AMQP 1.0, to bytes and back. Source: OASIS AMQP 1.0, part 1 "Types".

A Python value stands for the AMQP type that is nearest: None, bool, str, bytes, float (double),
int (long), UUID, list and dict. The other types have a class here, so that a value that was decoded
is encoded as the same type again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

Buffer = bytes | bytearray | memoryview

MAX_SMALL = 255
"""What has a length up to this is written with one byte of length."""


class DecodeError(ValueError):
    """The bytes are not AMQP 1.0."""


class Symbol(str):
    """A name of the protocol, ASCII."""

    __slots__ = ()


class UByte(int):
    """0 to 2**8-1."""

    __slots__ = ()


class UShort(int):
    """0 to 2**16-1."""

    __slots__ = ()


class UInt(int):
    """0 to 2**32-1."""

    __slots__ = ()


class ULong(int):
    """0 to 2**64-1."""

    __slots__ = ()


class Byte(int):
    """-2**7 to 2**7-1."""

    __slots__ = ()


class Short(int):
    """-2**15 to 2**15-1."""

    __slots__ = ()


class Int(int):
    """-2**31 to 2**31-1."""

    __slots__ = ()


class Timestamp(int):
    """Milliseconds since the Unix epoch, in UTC."""

    __slots__ = ()


class Float(float):
    """Four bytes, where `float` has eight."""

    __slots__ = ()


class Opaque(NamedTuple):
    """A type that nothing here looks into (decimals, characters): its constructor and its bytes."""

    constructor: int
    content: bytes


class Described(NamedTuple):
    """A value with a descriptor that says what it means."""

    descriptor: Any
    value: Any


class Array(list[Any]):
    """Values of one type."""


# --- encoding ---------------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """`value` with its constructor. Raises TypeError for a class that has no AMQP type."""
    try:
        encoder = _ENCODERS[type(value)]
    except KeyError:
        raise TypeError(f"AMQP has no type for {type(value).__name__}") from None
    return encoder(value)


def encode_list(values: Sequence[Any]) -> bytes:
    """A list, never in the form without a count, which `azure-eventhub` does not read in frames."""
    return _compound(0xC0, 0xD0, b"".join(map(encode, values)), len(values))


def map_of(pairs: bytes, count: int) -> bytes:
    """A map of `count` pairs that are already encoded, key after value."""
    return _compound(0xC1, 0xD1, pairs, 2 * count)


def _compound(small: int, large: int, content: bytes, count: int) -> bytes:
    if len(content) < MAX_SMALL and count <= MAX_SMALL:
        return bytes((small, len(content) + 1, count)) + content
    return struct.pack(">BII", large, len(content) + 4, count) + content


def _encode_map(values: Mapping[Any, Any]) -> bytes:
    pairs = b"".join(encode(key) + encode(value) for key, value in values.items())
    return map_of(pairs, len(values))


def _encode_array(values: Sequence[Any]) -> bytes:
    if not values:
        return bytes((0xE0, 2, 0, 0x40))
    wide = [_wide(value) for value in values]
    content = wide[0][:1] + b"".join(each[1:] for each in wide)
    return struct.pack(">BII", 0xF0, len(content) + 4, len(values)) + content


def _wide(value: Any) -> bytes:
    """`value` in the form all values of its type fit in, as arrays need it."""
    if isinstance(value, str):
        constructor = 0xB3 if isinstance(value, Symbol) else 0xB1
        return _with_length(constructor, value.encode())
    if isinstance(value, bytes):
        return _with_length(0xB0, value)
    if isinstance(value, bool):
        return bytes((0x56, value))
    try:
        return _FIXED[type(value)](value)
    except KeyError:
        raise TypeError(f"no array is made of {type(value).__name__}") from None


def _with_length(constructor: int, content: bytes) -> bytes:
    return struct.pack(">BI", constructor, len(content)) + content


def _variable(small: int, content: bytes) -> bytes:
    """Binary, string or symbol: the constructor for long ones is the small one plus 0x10."""
    if len(content) <= MAX_SMALL:
        return bytes((small, len(content))) + content
    return _with_length(small + 0x10, content)


def _encode_described(value: Described) -> bytes:
    return b"\x00" + encode(value.descriptor) + encode(value.value)


def _fixed(constructor: int, form: str) -> Callable[[Any], bytes]:
    packer = struct.Struct(">B" + form)
    return lambda value: packer.pack(constructor, value)


_FIXED: Final[Mapping[type, Callable[[Any], bytes]]] = {
    UByte: _fixed(0x50, "B"),
    UShort: _fixed(0x60, "H"),
    UInt: _fixed(0x70, "I"),
    ULong: _fixed(0x80, "Q"),
    Byte: _fixed(0x51, "b"),
    Short: _fixed(0x61, "h"),
    Int: _fixed(0x71, "i"),
    int: _fixed(0x81, "q"),
    Float: _fixed(0x72, "f"),
    float: _fixed(0x82, "d"),
    Timestamp: _fixed(0x83, "q"),
    UUID: lambda value: b"\x98" + value.bytes,
}


def _encode_ulong(value: ULong) -> bytes:
    # Descriptors: the SDK takes for granted that they have the short form.
    return bytes((0x53, value)) if 0 <= value <= MAX_SMALL else _FIXED[ULong](value)


_ENCODERS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    **_FIXED,
    type(None): lambda _: b"\x40",
    bool: lambda value: b"\x41" if value else b"\x42",
    ULong: _encode_ulong,
    bytes: lambda value: _variable(0xA0, value),
    str: lambda value: _variable(0xA1, value.encode()),
    Symbol: lambda value: _variable(0xA3, value.encode()),
    list: encode_list,
    dict: _encode_map,
    Array: _encode_array,
    Described: _encode_described,
    Opaque: lambda value: bytes((value.constructor,)) + value.content,
}


# --- decoding ---------------------------------------------------------------------------------


def decode(buffer: Buffer, at: int = 0) -> tuple[Any, int]:
    """The value that begins at `at`, and where the next one does. Raises DecodeError."""
    try:
        value, end = _decode(buffer, at)
    except (struct.error, IndexError, KeyError, UnicodeDecodeError, TypeError) as error:
        raise DecodeError(f"no AMQP value at byte {at}: {error}") from error
    except RecursionError:
        raise DecodeError(f"the AMQP value at byte {at} is too deep") from None
    if end > len(buffer):
        raise DecodeError(f"the AMQP value at byte {at} is cut off")
    return value, end


def skip(buffer: Buffer, at: int) -> int:
    """Where the value that begins at `at` ends. Raises DecodeError."""
    try:
        end = _skip(buffer, at)
    except (struct.error, IndexError) as error:
        raise DecodeError(f"the AMQP value at byte {at} is cut off") from error
    if end > len(buffer):
        raise DecodeError(f"the AMQP value at byte {at} is cut off")
    return end


_WIDTHS: Final = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
"""Bytes after the constructor, by its upper half."""

_ONE_BYTE_LENGTHS, _FOUR_BYTE_LENGTHS = {0xA, 0xC, 0xE}, {0xB, 0xD, 0xF}


def _skip(buffer: Buffer, at: int) -> int:
    constructor = buffer[at]
    while constructor == 0:
        at = _skip(buffer, at + 1)
        constructor = buffer[at]
    return _skip_content(buffer, constructor, at + 1)


def _skip_content(buffer: Buffer, constructor: int, at: int) -> int:
    kind = constructor >> 4
    if kind in _WIDTHS:
        return at + _WIDTHS[kind]
    if kind in _ONE_BYTE_LENGTHS:
        return at + 1 + int(buffer[at])
    if kind in _FOUR_BYTE_LENGTHS:
        return at + 4 + _u32(buffer, at)
    raise DecodeError(f"there is no AMQP constructor 0x{constructor:02x}")


def _u32(buffer: Buffer, at: int) -> int:
    value: int = struct.unpack_from(">I", buffer, at)[0]
    return value


def _decode(buffer: Buffer, at: int) -> tuple[Any, int]:
    constructor = buffer[at]
    if constructor == 0:
        descriptor, at = _decode(buffer, at + 1)
        value, at = _decode(buffer, at)
        return Described(descriptor, value), at
    return _decode_content(buffer, constructor, at + 1)


def _decode_content(buffer: Buffer, constructor: int, at: int) -> tuple[Any, int]:
    fixed = _UNPACKERS.get(constructor)
    if fixed is not None:
        form, kind = fixed
        return kind(form.unpack_from(buffer, at)[0]), at + form.size
    if constructor in _CONSTANTS:
        return _CONSTANTS[constructor], at
    if constructor == 0x45:  # noqa: PLR2004  (a constructor, as below)
        return [], at
    end = _skip_content(buffer, constructor, at)
    if end > len(buffer):
        raise IndexError("cut off")
    return _CONTENTS.get(constructor >> 4, _opaque)(buffer, constructor, at, end), end


def _opaque(buffer: Buffer, constructor: int, at: int, end: int) -> Any:
    content = bytes(buffer[at:end])
    return UUID(bytes=content) if constructor == _UUID else Opaque(constructor, content)


def _short_variable(buffer: Buffer, constructor: int, at: int, end: int) -> Any:
    return _TEXTS[constructor & 0x0F](bytes(buffer[at + 1 : end]))


def _long_variable(buffer: Buffer, constructor: int, at: int, end: int) -> Any:
    return _TEXTS[constructor & 0x0F](bytes(buffer[at + 4 : end]))


def _short_compound(buffer: Buffer, constructor: int, at: int, end: int) -> Any:
    return _collect(buffer, constructor, at + 2, int(buffer[at + 1]), end)


def _long_compound(buffer: Buffer, constructor: int, at: int, end: int) -> Any:
    return _collect(buffer, constructor, at + 8, _u32(buffer, at + 4), end)


def _collect(buffer: Buffer, constructor: int, at: int, count: int, end: int) -> Any:
    if count > end - at:
        raise IndexError("fewer bytes than values")
    values = []
    for _ in range(count):
        value, at = _decode(buffer, at)
        values.append(value)
    if constructor & 0x0F == 0:
        return values
    return dict(zip(values[::2], values[1::2], strict=True))


def _short_array(buffer: Buffer, _: int, at: int, end: int) -> Array:
    return _array(buffer, at + 2, int(buffer[at + 1]), end)


def _long_array(buffer: Buffer, _: int, at: int, end: int) -> Array:
    return _array(buffer, at + 8, _u32(buffer, at + 4), end)


def _array(buffer: Buffer, at: int, count: int, end: int) -> Array:
    values = Array()
    if count == 0:
        return values
    if count > end - at:
        raise IndexError("fewer bytes than values")
    constructor = buffer[at]
    at += 1
    for _ in range(count):
        value, at = _decode_content(buffer, constructor, at)
        values.append(value)
    return values


_UUID: Final = 0x98
_CONSTANTS: Final = {
    0x40: None,
    0x41: True,
    0x42: False,
    0x43: UInt(0),
    0x44: ULong(0),
}
_UNPACKERS: Final[Mapping[int, tuple[struct.Struct, Callable[[Any], Any]]]] = {
    constructor: (struct.Struct(">" + form), kind)
    for constructor, form, kind in (
        (0x50, "B", UByte),
        (0x51, "b", Byte),
        (0x52, "B", UInt),
        (0x53, "B", ULong),
        (0x54, "b", Int),
        (0x55, "b", int),
        (0x56, "?", bool),
        (0x60, "H", UShort),
        (0x61, "h", Short),
        (0x70, "I", UInt),
        (0x71, "i", Int),
        (0x72, "f", Float),
        (0x80, "Q", ULong),
        (0x81, "q", int),
        (0x82, "d", float),
        (0x83, "q", Timestamp),
    )
}
_TEXTS: Final[Mapping[int, Callable[[bytes], Any]]] = {
    0x0: bytes,
    0x1: bytes.decode,
    0x3: lambda content: Symbol(content.decode()),
}
_CONTENTS: Final[Mapping[int, Callable[[Buffer, int, int, int], Any]]] = {
    0xA: _short_variable,
    0xB: _long_variable,
    0xC: _short_compound,
    0xD: _long_compound,
    0xE: _short_array,
    0xF: _long_array,
}
