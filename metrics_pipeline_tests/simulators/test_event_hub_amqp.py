"""The codec, against the SDK's own encoder and decoder, and against any bytes at all."""

from __future__ import annotations

import contextlib
import struct
from typing import Any
from uuid import UUID

import pytest
from azure.eventhub._pyamqp._decode import _DECODE_BY_CONSTRUCTOR, decode_frame, decode_payload
from azure.eventhub._pyamqp._encode import encode_payload, encode_value
from azure.eventhub._pyamqp.message import BatchMessage
from azure.eventhub._pyamqp.message import Message as SdkMessage
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.simulators.event_hub.amqp_frames import (
    FIELD_COUNTS,
    Frame,
    FrameReader,
    Performative,
    encode_frame,
)
from metrics_pipeline.simulators.event_hub.amqp_messages import (
    make_message,
    parse_batch,
    parse_message,
)
from metrics_pipeline.simulators.event_hub.amqp_types import (
    Array,
    Byte,
    DecodeError,
    Described,
    Float,
    Int,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode,
    encode,
    skip,
)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)
SYMBOLS = st.text(st.characters(codec="ascii"), max_size=300).map(Symbol)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**8 - 1).map(UByte),
    st.integers(0, 2**16 - 1).map(UShort),
    st.integers(0, 2**32 - 1).map(UInt),
    st.integers(0, 2**64 - 1).map(ULong),
    st.integers(-(2**7), 2**7 - 1).map(Byte),
    st.integers(-(2**15), 2**15 - 1).map(Short),
    st.integers(-(2**31), 2**31 - 1).map(Int),
    st.integers(-(2**63), 2**63 - 1).map(Timestamp),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.floats(allow_nan=False),
    st.floats(width=32, allow_nan=False).map(Float),
    st.binary(max_size=300),
    TEXTS,
    SYMBOLS,
    st.uuids(),
)
ARRAYS = st.one_of(
    st.lists(SYMBOLS, max_size=4).map(Array),
    st.lists(TEXTS, max_size=4).map(Array),
    st.lists(st.booleans(), max_size=4).map(Array),
    st.lists(st.integers(0, 2**32 - 1).map(UInt), max_size=4).map(Array),
)
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(SYMBOLS, inner, max_size=5)
        | st.builds(Described, st.integers(0, 2**64 - 1).map(ULong), inner)
    ),
    max_leaves=20,
)


def as_sdk(value: Any) -> Any:
    """`value` as the SDK decodes it: text as bytes, descriptors left out, no types of numbers."""
    match value:
        case str():
            return value.encode()
        case Described(_, inner):
            return as_sdk(inner)
        case list():
            return [as_sdk(each) for each in value]
        case dict():
            return {as_sdk(key): as_sdk(each) for key, each in value.items()}
        case _:
            return value


def sdk_decode(encoded: bytes) -> Any:
    view = memoryview(encoded)
    rest, value = _DECODE_BY_CONSTRUCTOR[view[0]](view[1:])
    assert not rest
    return value


def types(value: Any) -> Any:
    match value:
        case dict():
            return [types(each) for each in value.values()]
        case list():
            return [types(each) for each in value]
        case Described(descriptor, inner):
            return type(descriptor), types(inner)
        case _:
            return type(value)


@given(VALUES)
def test_what_is_encoded_comes_back_with_its_types(value: Any) -> None:
    encoded = encode(value)
    assert decode(encoded) == (value, len(encoded))
    assert types(decode(encoded)[0]) == types(value)
    assert skip(encoded, 0) == len(encoded)


# Of an array of nothing the SDK leaves a byte unread; the hub never sends one.
@given(
    SCALARS
    | ARRAYS.filter(bool)
    | st.lists(SCALARS, max_size=5)
    | st.dictionaries(SYMBOLS, SCALARS)
)
def test_what_is_encoded_is_read_by_the_sdk(value: Any) -> None:
    assert sdk_decode(encode(value)) == as_sdk(value)


SDK_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**31), 2**31 - 1),
        st.floats(allow_nan=False),
        st.binary(max_size=300),
        TEXTS,
        st.uuids(),
    ),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


@given(SDK_VALUES)
def test_what_the_sdk_encodes_is_read(value: Any) -> None:
    encoded = bytearray()
    encode_value(encoded, value)
    assert decode(bytes(encoded)) == (value, len(encoded))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_decode_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        _, end = decode(data)
        assert end == skip(data, 0) <= len(data)


@given(VALUES, st.data())
def test_a_value_that_is_cut_off_is_a_decode_error(value: Any, data: st.DataObject) -> None:
    encoded = encode(value)
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    with pytest.raises(DecodeError):
        decode(cut)
    with pytest.raises(DecodeError):
        skip(cut, 0)


def test_a_list_in_lists_for_ever_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        decode(b"\x00" * 100_000)


def test_a_class_without_a_type_is_refused() -> None:
    with pytest.raises(TypeError, match="no type for set"):
        encode(set())
    with pytest.raises(TypeError, match="made of list"):
        encode(Array([[]]))


@given(
    st.sampled_from([each for each in Performative if each < Performative.SASL_MECHANISMS]),
    st.lists(SCALARS, max_size=3),
    st.integers(0, 2**16 - 1),
    st.binary(max_size=50),
)
def test_a_frame_has_all_its_fields_for_the_sdk(
    performative: Performative, fields: list[Any], channel: int, payload: bytes
) -> None:
    fields = fields[: FIELD_COUNTS[performative]]
    payload = payload if performative == Performative.TRANSFER else b""
    encoded = encode_frame(performative, fields, channel, payload)
    code, decoded = decode_frame(memoryview(encoded)[8:])
    expected = [*map(as_sdk, fields), *[None] * (FIELD_COUNTS[performative] - len(fields))]
    assert code == performative
    assert [bytes(each) if isinstance(each, memoryview) else each for each in decoded] == [
        *expected,
        *([payload] if performative == Performative.TRANSFER else []),
    ]


@given(st.lists(st.integers(1, 60), max_size=10), st.lists(st.binary(max_size=40), min_size=1))
def test_frames_come_out_whole_however_the_bytes_are_cut(
    cuts: list[int], payloads: list[bytes]
) -> None:
    sent = b"".join(encode_frame(Performative.TRANSFER, [UInt(1)], 7, each) for each in payloads)
    reader, pieces = FrameReader(), []
    for cut in [*cuts, len(sent)]:
        pieces += list(reader.feed(sent[:cut]))
        sent = sent[cut:]
    assert [each.payload for each in pieces if isinstance(each, Frame)] == payloads


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">IBBH", 7, 2, 0, 0),  # shorter than its own head
        struct.pack(">IBBH", 2**31, 2, 0, 0),
        struct.pack(">IBBH", 12, 2, 0, 0) + b"\x00\x53\x99\x45",
        struct.pack(">IBBH", 9, 2, 0, 0) + b"\x40",
        struct.pack(">IBBH", 11, 2, 0, 0) + b"\x00\x53\x10\xc0\x04\x01\xa0",
    ],
)
def test_what_is_no_frame_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        list(FrameReader().feed(data))


SDK_MESSAGES = st.builds(
    # Not the class itself: hypothesis would make up the sections that are left out.
    lambda **sections: SdkMessage(**sections),  # noqa: PLW0108
    message_annotations=st.dictionaries(
        st.text(st.characters(codec="ascii"), min_size=1, max_size=9).map(str.encode),
        st.text(max_size=9) | st.integers(0, 9),
        max_size=3,
    ),
    application_properties=st.dictionaries(TEXTS, st.text(max_size=9), max_size=3),
    data=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=3),
)


@given(SDK_MESSAGES, st.none() | st.text(max_size=20))
def test_a_stored_message_is_what_was_sent_and_what_the_service_adds(
    sent: SdkMessage, key: str | None
) -> None:
    payload = bytes(encode_payload(bytearray(), sent))
    got: Any = decode_payload(memoryview(parse_message(payload).stored(7, "99", 1_700, key)))
    assert got.data == sent.data
    assert (got.application_properties or {}) == as_sdk(sent.application_properties)
    added = {
        b"x-opt-sequence-number": 7,
        b"x-opt-offset": b"99",
        b"x-opt-enqueued-time": 1_700,
    }
    if key is not None:
        added[b"x-opt-partition-key"] = key.encode()
    assert got.message_annotations == {**as_sdk(sent.message_annotations), **added}


def test_what_the_service_sets_is_not_taken_from_a_sender() -> None:
    sent = SdkMessage(
        message_annotations={b"x-opt-offset": "5", b"x-opt-partition-key": "k", b"mine": 1},
        data=[b"x"],
    )
    message = parse_message(bytes(encode_payload(bytearray(), sent)))
    assert message.partition_key == "k"
    got: Any = decode_payload(memoryview(message.stored(0, "0", 0, None)))
    assert got.message_annotations == {
        b"mine": 1,
        b"x-opt-sequence-number": 0,
        b"x-opt-offset": b"0",
        b"x-opt-enqueued-time": 0,
    }


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5))
def test_a_batch_of_the_sdk_is_its_messages(bodies: list[bytes]) -> None:
    inner = [bytes(encode_payload(bytearray(), SdkMessage(data=[body]))) for body in bodies]
    outer = bytes(encode_payload(bytearray(), BatchMessage(data=inner)))
    got = [decode_payload(memoryview(each.stored(0, "0", 0, None))) for each in parse_batch(outer)]
    assert [each.data for each in got] == [[body] for body in bodies]


def test_bodies_of_the_other_kinds_stay_as_they_are() -> None:
    for body in ({"value": {b"a": 1}}, {"sequence": [[1, 2], [b"x"]]}):
        sent = SdkMessage(**body)
        payload = bytes(encode_payload(bytearray(), sent))
        got: Any = decode_payload(memoryview(parse_message(payload).stored(0, "0", 0, None)))
        assert (got.value, got.sequence) == (sent.value, sent.sequence)


def test_a_made_message_has_its_properties_and_annotations() -> None:
    identity = UUID(int=7)
    message = make_message(b"x", properties={"n": 1, "id": identity}, annotations={"a": "b"})
    got: Any = decode_payload(memoryview(message.stored(0, "0", 0, None)))
    assert (got.data, got.application_properties) == ([b"x"], {b"n": 1, b"id": identity})
    assert got.message_annotations[b"a"] == b"b"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_decode_error(data: bytes) -> None:
    for parse in (parse_message, parse_batch):
        with contextlib.suppress(DecodeError):
            parse(data)
