"""A page in pieces that are compressed one by one, so that an unchanged piece never is again.

Deflate (RFC 1951) may be flushed to a whole byte and forget what was before, and what follows then
is a stream of its own. So pieces can be put together, and are one member of gzip (RFC 1952): of
several members some clients read the first alone.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes, and the same deflated."""

    plain: bytes
    deflated: bytes

    @classmethod
    def of(cls, plain: bytes) -> Piece:
        """`plain` with its compressed form."""
        compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, RAW)
        return cls(plain, compressor.compress(plain) + compressor.flush(zlib.Z_FULL_FLUSH))


def join(pieces: Iterable[Piece]) -> bytes:
    """All of them, plain."""
    return b"".join(piece.plain for piece in pieces)


def gzip_join(pieces: Iterable[Piece]) -> bytes:
    """All of them as one gzip member."""
    checksum = length = 0
    parts = [HEADER]
    for piece in pieces:
        checksum = zlib.crc32(piece.plain, checksum)
        length += len(piece.plain)
        parts.append(piece.deflated)
    return b"".join([*parts, LAST_BLOCK, struct.pack("<II", checksum, length & 0xFFFFFFFF)])
