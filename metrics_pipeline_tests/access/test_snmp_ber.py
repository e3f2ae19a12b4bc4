"""BER both ways, against pyasn1, and against any bytes at all."""

from __future__ import annotations

import contextlib
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.snmp_ber import (
    OBJECT_ID,
    SEQUENCE,
    BerError,
    decode_oid,
    decode_value,
    encode,
    encode_integer,
    encode_oid,
    read_header,
    read_integer,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyasn1.codec.ber import decoder, encoder
    from pyasn1.type.univ import Integer, ObjectIdentifier, OctetString

SUB_IDENTIFIERS = st.integers(0, 2**32 - 1)
OIDS = st.one_of(
    st.tuples(st.sampled_from([0, 1]), st.integers(0, 39)),
    st.tuples(st.just(2), st.integers(0, 2**32 - 81)),
).flatmap(
    lambda first: st.lists(SUB_IDENTIFIERS, max_size=20).map(
        lambda rest: ".".join(map(str, (*first, *rest)))
    )
)


@given(OIDS)
def test_an_object_identifier_is_encoded_as_pyasn1_does_and_comes_back(oid: str) -> None:
    encoded = encode_oid(oid)
    assert encoded == encoder.encode(ObjectIdentifier(oid))
    start, stop = read_header(encoded, 0, OBJECT_ID, len(encoded))
    assert decode_oid(encoded[start:stop]) == oid


@pytest.mark.parametrize("oid", ["", "1", "x.y", "3.1", "1.40", "1.3.-1", f"1.3.{2**32}", "1..3"])
def test_what_is_no_object_identifier_is_not_encoded(oid: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 Python's own words for some of them
        encode_oid(oid)


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_is_encoded_as_pyasn1_does_and_comes_back(value: int) -> None:
    encoded = encode_integer(value)
    # pyasn1 takes a byte more than it must for -128 and its like.
    assert encoded == encoder.encode(Integer(value)) or value < 0
    assert read_integer(encoded, 0, len(encoded)) == (value, len(encoded))
    assert int(decoder.decode(encoded)[0]) == value


@given(st.integers(0, 70_000))
def test_a_length_is_encoded_as_pyasn1_does(size: int) -> None:
    assert encode(0x04, bytes(size)) == encoder.encode(OctetString(bytes(size)))


@given(st.binary(max_size=12), st.integers(0, 14), st.integers(0, 14))
def test_reading_any_bytes_anywhere_ends_in_a_value_or_a_ber_error(
    data: bytes, at: int, end: int
) -> None:
    end = min(end, len(data))
    with contextlib.suppress(BerError):
        start, stop = read_header(data, at, SEQUENCE, end)
        assert at < start <= stop <= end
    with contextlib.suppress(BerError):
        _, stop = read_integer(data, at, end)
        assert at < stop <= end


@given(st.integers(0, 255), st.binary(max_size=12))
def test_any_tag_with_any_content_is_a_value_or_a_ber_error(tag: int, content: bytes) -> None:
    with contextlib.suppress(BerError):
        value = decode_value(tag, content)
        assert value is None or isinstance(value, int | float | bytes | str)


@given(st.integers(0, 30), st.binary(max_size=20))
def test_a_padded_length_means_the_same(padding: int, content: bytes) -> None:
    size = len(content).to_bytes(min(padding % 4 + 1, 4), "big")
    data = bytes([SEQUENCE, 0x80 | len(size)]) + size + content
    start, stop = read_header(data, 0, SEQUENCE, len(data))
    assert data[start:stop] == content
