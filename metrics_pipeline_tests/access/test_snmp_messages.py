"""Messages of version 1 and 2c: what pysnmp makes of ours, and what we make of anything."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.snmp_ber import SEQUENCE, BerError, encode, encode_integer, encode_oid
from metrics_pipeline.access.snmp_messages import (
    VERSION_2C,
    Pdu,
    decode_reply,
    decode_variables,
    encode_community_message,
    encode_request,
    read_community_reply,
    read_version,
)
from metrics_pipeline_tests.hostile_snmp_agent import number, read_question, text

UPTIME = "1.3.6.1.2.1.1.3.0"


@given(
    st.sampled_from([Pdu.GET, Pdu.GET_NEXT, Pdu.GET_BULK]),
    st.lists(st.sampled_from([UPTIME, "1.3.6.1.2.1.2.2.1.10.4294967295"]), max_size=200),
    st.integers(0, 1000),
)
def test_a_request_says_what_was_asked(tag: Pdu, oids: list[str], repetitions: int) -> None:
    pdu = encode_request(tag, 0x0123_4567, tuple(oids), repetitions)
    asked = read_question(encode_community_message(VERSION_2C, b"public", pdu))
    assert asked[:7] == (VERSION_2C, b"public", tag, 0x0123_4567, 0, repetitions, tuple(oids))


@given(st.binary(max_size=120))
def test_variables_of_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(BerError):
        names, values = decode_variables(data, 0, len(data))
        assert len(names) == len(values)


OTHER = "1.3.6.1.2.1.2.2.1.10.4294967295"
VALUES = st.one_of(
    st.builds(encode, st.sampled_from([0x02, 0x41, 0x42, 0x43, 0x46]), st.binary(max_size=10)),
    st.sampled_from([text("x" * 130), text(""), b"\x81\x00"]),
)


@given(
    st.lists(st.tuples(st.sampled_from([UPTIME, OTHER]), VALUES), max_size=6),
    st.lists(st.sampled_from([UPTIME, OTHER]), max_size=6),
    st.integers(0, 120),
    st.binary(max_size=2),
)
def test_variables_are_the_same_whatever_names_are_expected(
    variables: list[tuple[str, bytes]], asked: list[str], at: int, change: bytes
) -> None:
    whole = b"".join(encode(SEQUENCE, encode_oid(name) + value) for name, value in variables)
    data = whole[:at] + change + whole[at + len(change) :]

    def read(*expected: str) -> object:
        try:
            names, values = decode_variables(data, 0, len(whole), expected)
            return list(names), values
        except BerError as error:
            return str(error)

    told = read()
    assert read(*asked) == told
    assert read(*(name for name, _ in variables)) == told


@given(
    st.lists(st.tuples(st.sampled_from([number(1), text("x" * 130), text("")]), st.booleans())),
)
def test_lengths_in_the_long_form_mean_the_same(variables: list[tuple[bytes, bool]]) -> None:
    name = encode_oid(UPTIME)
    data = b""
    for value, is_long in variables:
        content = name + value
        size = len(content).to_bytes(3, "big")
        data += bytes([SEQUENCE, 0x83]) + size + content if is_long else encode(SEQUENCE, content)
    names, values = decode_variables(data, 0, len(data))
    assert list(names) == [UPTIME] * len(variables)
    assert len(values) == len(variables)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (encode(SEQUENCE, b""), "truncated|tag"),
        (encode(SEQUENCE, encode_oid(UPTIME)), "truncated|tag"),
        (encode(SEQUENCE, encode_oid(UPTIME) + number(1) + number(2)), "does not fill"),
        (encode(SEQUENCE, number(1) + number(1)), "tag 0x02"),
        (encode(SEQUENCE, encode_oid(UPTIME) + b"\x02\x7f\x01"), "truncated"),
        (b"\x30", "truncated"),
        (b"\x30\x7f\x06\x01\x2b", "truncated"),
    ],
)
def test_a_broken_variable_is_refused(variables: bytes, words: str) -> None:
    with pytest.raises(BerError, match=words):
        decode_variables(variables, 0, len(variables))


@pytest.mark.parametrize(
    ("pdu", "words"),
    [
        (encode(Pdu.GET, b""), "response is expected"),
        (encode(Pdu.RESPONSE, encode_integer(1) * 3), "truncated"),
        (encode(Pdu.RESPONSE, encode_integer(1) * 3 + encode(SEQUENCE, b"") + b"x"), "after"),
    ],
)
def test_a_broken_reply_is_refused(pdu: bytes, words: str) -> None:
    data = encode_community_message(VERSION_2C, b"public", pdu)
    with pytest.raises(BerError, match=words):
        read_community_reply(data, read_version(data)[1])


def test_a_reply_is_read_with_its_error() -> None:
    variables = encode(SEQUENCE, encode(SEQUENCE, encode_oid(UPTIME) + number(-5)))
    pdu = encode(Pdu.RESPONSE, b"".join(map(encode_integer, (77, 5, 1))) + variables)
    data = encode_community_message(VERSION_2C, b"public", pdu)
    read = read_community_reply(data, read_version(data)[1])
    assert read.request_id == 77
    assert decode_reply(data, read) == (5, 1, [UPTIME], [-5])
