"""Events in frames: what is read here is what the engine of azure-eventhub reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from azure.eventhub._pyamqp._decode import decode_payload
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.event_hub_frames import find_event, transfer_payload
from metrics_pipeline.access.event_hub_links import event_of
from metrics_pipeline.simulators.event_hub.amqp_frames import Performative, encode_frame
from metrics_pipeline.simulators.event_hub.amqp_messages import make_message
from metrics_pipeline.simulators.event_hub.amqp_types import UInt
from metrics_pipeline.simulators.event_hub.partition_log import PartitionLog, Retention

HANDLE = 3

names = st.text(st.characters(codec="ascii"), min_size=1, max_size=20).map("iothub-{}".format)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=300),
    st.floats(),
    st.binary(max_size=10),
)
annotated = st.dictionaries(names, values, max_size=40)
properties = st.dictionaries(st.text(min_size=1, max_size=10), st.text(max_size=10), max_size=5)


def delivered(
    body: bytes, annotations: Mapping[str, Any], application: Mapping[str, Any] | None = None
) -> bytes:
    """The message as a hub's receiver gets it."""
    log = PartitionLog(Retention(), lambda: 1_700_000_000_000)
    log.append(make_message(body, properties=application, annotations=annotations), None, None)
    return log.payload(0)


@given(st.binary(max_size=600), annotated, properties)
def test_an_event_is_what_the_engine_makes_of_it(
    body: bytes, annotations: dict[str, Any], application: dict[str, str]
) -> None:
    message = delivered(body, annotations, application)
    found = find_event("0", message)
    expected = event_of("0", decode_payload(memoryview(message)))
    if found is not None:
        assert repr(found) == repr(expected)
    unusual = (bytes, float)
    assert (found is not None) or any(isinstance(v, unusual) for v in annotations.values())


@given(st.binary(max_size=600))
def test_no_message_is_too_strange(message: bytes) -> None:
    found = find_event("0", message)
    assert found is None or isinstance(found.body, bytes)


@given(st.data())
def test_a_message_that_is_cut_or_changed_is_an_event_or_none(data: st.DataObject) -> None:
    message = bytearray(delivered(b"{}", {"iothub-connection-device-id": "a"}))
    message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    found = find_event("0", bytes(message[: data.draw(st.integers(0, len(message)))]))
    assert found is None or isinstance(found.offset, str)


def transfer(*, handle: int = HANDLE, delivery: int = 0, more: Any = False) -> bytes:
    fields = [UInt(handle), UInt(delivery), b"\x00" * 8, UInt(0), False, more]
    return encode_frame(Performative.TRANSFER, fields, 1, b"payload")


@pytest.mark.parametrize("delivery", [0, 7, 70_000])
@pytest.mark.parametrize("more", [False, None])
def test_the_payload_of_a_transfer_is_found(delivery: int, more: bool | None) -> None:
    assert transfer_payload(transfer(delivery=delivery, more=more), HANDLE) == b"payload"


@pytest.mark.parametrize("handle", [0, 200, 70_000])
def test_every_form_of_a_handle_is_read(handle: int) -> None:
    assert transfer_payload(transfer(handle=handle), handle) == b"payload"


@pytest.mark.parametrize(
    "frame",
    [
        transfer(more=True),
        transfer(handle=4),
        encode_frame(Performative.FLOW, [None, UInt(1)], 1),
        b"\x00\x00\x00\x08\x02\x00\x00\x01",
        b"\x00\x00\x00\x0c\x02\x00\x00\x01\x00\x53\x14\xc0",
        b"\x00\x00\x00\x0c\x02\x00\x00\x01\x00\x53\x14\x70",
    ],
)
def test_all_other_frames_are_the_engines(frame: bytes) -> None:
    assert transfer_payload(frame, HANDLE) is None


@given(st.binary(min_size=8, max_size=60))
def test_no_frame_is_too_strange(frame: bytes) -> None:
    found = transfer_payload(frame, HANDLE)
    assert found is None or isinstance(found, bytes)
