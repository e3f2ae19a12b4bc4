"""Records of the spool: points come back as they were, and whatever is damaged is noticed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.points import Point
from metrics_pipeline.storage.spool_records import (
    MARK,
    Damage,
    Record,
    decode,
    encodable,
    encode,
    heads,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.one_of(INT64, st.floats(allow_nan=False, allow_infinity=False), st.booleans(), TEXT)
POINTS = st.builds(
    Point,
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=3),
    st.dictionaries(TEXT, VALUES, min_size=1, max_size=4),
    INT64,
)
BATCHES = st.lists(st.lists(POINTS, min_size=1, max_size=4), min_size=1, max_size=4)
KEPT_AT_NS = 1_700_000_000_000_000_000


def written(batches: list[list[Point]]) -> bytes:
    return b"".join(encode(batch, KEPT_AT_NS + i) for i, batch in enumerate(batches))


def typed(points: tuple[Point, ...]) -> list[object]:
    """Also -0.0 is told from 0.0, and 1 from True and 1.0."""
    return [
        (p.measurement, p.tags, [(k, type(v), repr(v)) for k, v in p.fields.items()], p.time_ns)
        for p in points
    ]


def points_in(segment: bytes) -> list[Point]:
    pieces = decode(segment, 0)
    return [point for piece in pieces if isinstance(piece, Record) for point in piece.points]


@given(BATCHES)
@settings(max_examples=60)
def test_points_come_back_with_their_types_in_their_order(batches: list[list[Point]]) -> None:
    records = list(decode(written(batches), 0))
    assert all(isinstance(record, Record) for record in records)
    found = [record for record in records if isinstance(record, Record)]
    assert [typed(record.points) for record in found] == [typed(tuple(b)) for b in batches]
    assert [record.kept_at_ns - KEPT_AT_NS for record in found] == list(range(len(batches)))
    assert [head.points for head in heads(written(batches), 0)] == [len(b) for b in batches]


@given(BATCHES, st.data())
@settings(max_examples=150)
def test_a_flipped_bit_costs_its_record_alone(
    batches: list[list[Point]], data: st.DataObject
) -> None:
    whole = bytearray(written(batches))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    ends = [r.end for r in decode(written(batches), 0)]
    hit = next(i for i, end in enumerate(ends) if at < end)
    pieces = list(decode(bytes(whole), 0))
    assert sum(isinstance(piece, Damage) for piece in pieces) == 1
    others = [point for i, batch in enumerate(batches) if i != hit for point in batch]
    assert points_in(bytes(whole)) == others


@given(BATCHES, st.data())
@settings(max_examples=100)
def test_a_cut_anywhere_costs_what_is_behind_it(
    batches: list[list[Point]], data: st.DataObject
) -> None:
    whole = written(batches)
    at = data.draw(st.integers(0, len(whole)))
    ends = [record.end for record in decode(whole, 0)]
    kept = [point for end, batch in zip(ends, batches, strict=True) if end <= at for point in batch]
    assert points_in(whole[:at]) == kept
    damaged = [p for p in decode(whole[:at], 0) if isinstance(p, Damage)]
    assert bool(damaged) is (at not in (0, *ends))


@given(BATCHES, POINTS, st.data())
@settings(max_examples=60)
def test_what_comes_behind_a_torn_record_is_found(
    batches: list[list[Point]], last: Point, data: st.DataObject
) -> None:
    torn = written(batches)[: data.draw(st.integers(1, len(written(batches)) - 1))]
    assert points_in(torn + encode([last], KEPT_AT_NS))[-1] == last


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_without_an_error(noise: bytes) -> None:
    pieces = list(decode(noise + MARK + noise, 0))
    assert sum(piece.end - piece.start for piece in pieces) == len(noise + MARK + noise)
    list(heads(noise + MARK + noise, 0))


def test_text_without_a_form_in_unicode_is_refused_and_costs_no_other_point() -> None:
    bad, good = (Point("m", {"t": "x"}, {"value": text}, 1) for text in ("\ud800", "ü"))
    with pytest.raises(InvalidPoint, match="not_unicode"):
        encode([good, bad], 0)
    fit, refused = encodable([good, bad])
    assert fit == [good]
    assert [(each.point, each.reason) for each in refused] == [(bad, "not_unicode")]


def test_a_float_of_another_library_is_a_float() -> None:
    class Float64(float):
        pass

    (point,) = points_in(encode([Point("m", {}, {"value": Float64(2)}, 1)], 0))
    assert type(point.fields["value"]) is float
    assert math.isclose(float(point.fields["value"]), 2.0)
