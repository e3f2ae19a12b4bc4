"""How points lie in a segment of the spool: a line that says the format, then records.

A record is 24 bytes of head and a body. The head, little-endian: MARK, the CRC-32 of all that
follows it, the body's length in bytes, the number of points, and when it was kept, in nanoseconds
since the epoch. The body is zlib over JSON, a list of [measurement, tags, fields, time_ns]: JSON
tells 5 from 5.0, so every value keeps its type. decisions/0011 has the figures that chose it.

Whatever does not add up is damage, which ends where the next whole record begins.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from metrics_pipeline.core.errors import InvalidPoint, RefusedPoint
from metrics_pipeline.core.points import Point

FORMAT = b"metrics_pipeline spool 1\n"
"""The first line of a segment; another number is another format."""

MARK = b"\xf5MPR"
FASTEST = 1
"""The level of zlib."""

_HEAD = struct.Struct("<4sIIIQ")
_AFTER_CRC = struct.Struct("<IIQ")
HEAD_BYTES = _HEAD.size


@dataclass(frozen=True, slots=True)
class Record:
    """Points that were kept at once, whole; `start` and `end` are offsets in the segment."""

    start: int
    end: int
    kept_at_ns: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes from `start` up to `end` that are no record."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Head:
    """What a record says of itself; whether its body is whole was not looked at."""

    end: int
    kept_at_ns: int
    points: int


def encode(points: Sequence[Point], kept_at_ns: int) -> bytes:
    """A record of `points`, which passed validation. InvalidPoint for text that is no Unicode."""
    rows = [[p.measurement, dict(p.tags), dict(p.fields), p.time_ns] for p in points]
    try:
        text = orjson.dumps(rows, default=_plain)
    except orjson.JSONEncodeError as error:
        raise InvalidPoint("not_unicode", f"a point cannot be written as JSON: {error}") from error
    body = zlib.compress(text, FASTEST)
    tail = _AFTER_CRC.pack(len(body), len(points), kept_at_ns)
    crc = zlib.crc32(body, zlib.crc32(tail))
    return _HEAD.pack(MARK, crc, len(body), len(points), kept_at_ns) + body


def encodable(points: Sequence[Point]) -> tuple[list[Point], list[RefusedPoint]]:
    """Those of `points` that `encode` takes, and those that it does not."""
    fit: list[Point] = []
    refused: list[RefusedPoint] = []
    for point in points:
        try:
            encode([point], 0)
            fit.append(point)
        except InvalidPoint as error:
            refused.append(RefusedPoint(point, error.reason, error.detail))
    return fit, refused


def decode(segment: bytes, start: int) -> Iterator[Record | Damage]:
    """All that lies in `segment` from `start` on, the offset of a record, in order."""
    at, damaged_from = start, start
    while at < len(segment):
        record = _record_at(segment, at)
        if record is None:
            found = segment.find(MARK, at + 1)
            at = len(segment) if found < 0 else found
            continue
        if damaged_from < at:
            yield Damage(damaged_from, at)
        yield record
        at = damaged_from = record.end
    if damaged_from < at:
        yield Damage(damaged_from, at)


def heads(segment: bytes, start: int) -> Iterator[Head]:
    """The heads of the records in `segment` from `start` on, for who only counts."""
    at = start
    while at + HEAD_BYTES <= len(segment):
        mark, _, length, points, kept_at_ns = _HEAD.unpack_from(segment, at)
        end = at + HEAD_BYTES + length
        if mark == MARK and end <= len(segment):
            yield Head(end, kept_at_ns, points)
            at = end
        else:
            found = segment.find(MARK, at + 1)
            at = len(segment) if found < 0 else found


def _record_at(segment: bytes, at: int) -> Record | None:
    if len(segment) - at < HEAD_BYTES:
        return None
    mark, crc, length, count, kept_at_ns = _HEAD.unpack_from(segment, at)
    body_at = at + HEAD_BYTES
    end = body_at + length
    if mark != MARK or end > len(segment):
        return None
    body = memoryview(segment)[body_at:end]
    tail = segment[body_at - _AFTER_CRC.size : body_at]
    if zlib.crc32(body, zlib.crc32(tail)) != crc:
        return None
    points = _points(body)
    if points is None or len(points) != count:
        return None
    return Record(at, end, kept_at_ns, points)


def _points(body: memoryview) -> tuple[Point, ...] | None:
    try:
        return tuple(Point(*row) for row in orjson.loads(zlib.decompress(body)))
    except (zlib.error, TypeError, ValueError):  # whole, but not of this format
        return None


def _plain(value: object) -> float:
    """A subclass of float (numpy has one) as a float."""
    if isinstance(value, float):
        return float(value)
    raise TypeError(type(value).__name__)
