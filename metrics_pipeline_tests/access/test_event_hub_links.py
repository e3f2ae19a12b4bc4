"""Events out of whatever the engine may have decoded."""

from __future__ import annotations

from typing import Any

import pytest
from azure.eventhub._pyamqp.message import Message
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.event_hub_frames import ENQUEUED_TIME, OFFSET, SEQUENCE_NUMBER
from metrics_pipeline.access.event_hub_links import decoded, event_of
from metrics_pipeline.core.telemetry import RawEvent

PLACE: dict[Any, Any] = {SEQUENCE_NUMBER: 7, OFFSET: b"4096", ENQUEUED_TIME: 1_700_000_000_000}
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text() | st.uuids()
)
VALUES = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(SCALARS, each, max_size=3)
)
KEYS = SCALARS | st.sampled_from([*PLACE, b"iothub-connection-device-id", "iothub-x"])
ANNOTATIONS = VALUES | st.dictionaries(KEYS, VALUES, max_size=5)
BODIES = st.fixed_dictionaries(
    {}, optional={"data": st.lists(VALUES, max_size=3), "value": VALUES, "sequence": VALUES}
)


def message_of(annotations: Any, **sections: Any) -> Any:
    make: Any = Message
    return make(message_annotations=annotations, **sections)


@given(st.dictionaries(KEYS, VALUES, max_size=5), BODIES)
def test_every_event_whose_place_is_known_is_given(
    annotations: dict[Any, Any], sections: dict[str, Any]
) -> None:
    event = event_of("3", message_of({**annotations, **PLACE}, **sections))
    assert (event.partition, event.sequence_number, event.offset) == ("3", 7, "4096")
    assert event.enqueued_time_ns == 1_700_000_000_000_000_000
    assert isinstance(event.body, bytes)
    assert all(name.startswith("iothub-") for name in event.system_properties)


@given(ANNOTATIONS, BODIES)
def test_nothing_but_a_value_error_comes_of_any_message(
    annotations: Any, sections: dict[str, Any]
) -> None:
    try:
        event = event_of("3", message_of(annotations, **sections))
    except ValueError:
        return
    assert isinstance(event, RawEvent)


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_to_a_message(payload: bytes) -> None:
    # A list of so many values that memory would not do is of no interest here.
    assert decoded(payload.replace(b"\xd0", b"").replace(b"\xf0", b"")) is not None


@pytest.mark.parametrize("missing", list(PLACE))
@pytest.mark.parametrize("value", [None, True, [4096], 1.5])
def test_an_event_that_does_not_say_where_it_is_is_refused(missing: bytes, value: Any) -> None:
    with pytest.raises(ValueError, match="an event of partition 3 has sequence number"):
        event_of("3", message_of({**PLACE, missing: value}, data=[b"{}"]))
