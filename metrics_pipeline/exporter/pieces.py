"""A page in pieces that are compressed one by one, so that an unchanged piece never is again.

Deflate (RFC 1951) may be flushed to a whole byte and forget what was before, and what follows then
is a stream of its own. So pieces can be put together, and are one member of gzip (RFC 1952): of
several members some clients read the first alone.

A piece does not keep its plain bytes, which are ten times as many. The checksum of all comes from
those of the pieces: a CRC is a remainder of polynomials over GF(2), so that of bytes with more
bytes behind them is a product (RFC 1952 section 8 has the polynomial).
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

LEVEL = 1
RAW = -zlib.MAX_WBITS
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
"""Deflate, no name, no time, the fastest method, no matter which system."""
LAST_BLOCK = b"\x03\x00"
"""An empty final block."""
POLYNOMIAL = 0xEDB88320
"""Of the CRC, without its highest power; the highest bit stands for the power 0."""
ONE, X_TO_THE_8 = 1 << 31, 1 << 23


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes, deflated; how many they are, and their CRC-32."""

    deflated: bytes
    length: int
    checksum: int

    @classmethod
    def of(cls, plain: bytes) -> Piece:
        """`plain`, compressed."""
        return cls.of_parts([plain])

    @classmethod
    def of_parts(cls, parts: Iterable[bytes]) -> Piece:
        """All `parts`, one after the other, as one piece; there need not be two at a time."""
        compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, RAW)
        deflated, length, checksum = [], 0, 0
        for part in parts:
            deflated.append(compressor.compress(part))
            length += len(part)
            checksum = zlib.crc32(part, checksum)
        deflated.append(compressor.flush(zlib.Z_FULL_FLUSH))
        return cls(b"".join(deflated), length, checksum)


def gzip_join(pieces: Iterable[Piece]) -> bytes:
    """All of them as one gzip member."""
    checksum = length = 0
    parts = [HEADER]
    for piece in pieces:
        checksum = _multiply(_bytes_behind(piece.length), checksum) ^ piece.checksum
        length += piece.length
        parts.append(piece.deflated)
    return b"".join([*parts, LAST_BLOCK, struct.pack("<II", checksum, length & 0xFFFFFFFF)])


def unzip(member: bytes) -> bytes:
    """The plain bytes in `member`, whose end says how many they are: room is made once."""
    length = int.from_bytes(member[-4:], "little")
    return zlib.decompress(member, zlib.MAX_WBITS | 16, max(1, length))


@functools.lru_cache
def _bytes_behind(count: int) -> int:
    """What a checksum is multiplied with when `count` zero bytes follow: x to the 8 `count`."""
    power, square = ONE, X_TO_THE_8
    while count:
        if count & 1:
            power = _multiply(power, square)
        square = _multiply(square, square)
        count >>= 1
    return power


def _multiply(one: int, other: int) -> int:
    """The product of two polynomials, modulo the one of the CRC."""
    product = 0
    while one:
        if one & ONE:
            product ^= other
        one = one << 1 & 0xFFFFFFFF
        other = other >> 1 ^ POLYNOMIAL if other & 1 else other >> 1
    return product
