"""What a robot may say: any text is a message or an error that says what to do, never a crash."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.errors import InvalidMessage
from metrics_pipeline.core.robots import (
    FIELDS,
    UNREADABLE,
    RobotMessage,
    acknowledgement,
    is_robot_id,
    parse,
    refusal,
)

NOW_NS = 1_800_000_000_000_000_000
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
PERCENT = st.floats(0, 100) | st.integers(0, 100)


def parsed(text: str) -> RobotMessage:
    return parse(text, "robot-1", NOW_NS)


def parsed_or_refused(text: str) -> RobotMessage | InvalidMessage:
    try:
        return parsed(text)
    except InvalidMessage as error:
        return error


def test_the_fields_are_those_of_the_contract() -> None:
    assert FIELDS == ("cpu_usage", "memory_usage", "network_latency_ms", "battery_percentage")
    measurement = CATALOG.measurements["robot_metrics"]
    assert (measurement.database, measurement.tags) == ("network_metrics", ("robot_id",))


@given(
    number=st.integers(-(2**53) + 1, 2**53 - 1) | st.text("aZ9-é", max_size=64) | st.none(),
    fields=st.dictionaries(st.sampled_from([f for f in FIELDS if "ms" not in f]), PERCENT),
    latency=st.floats(0, 1e9),
    at=st.floats(NOW_NS / 1e9 - 1e6, NOW_NS / 1e9 + 500),
)
def test_a_message_becomes_its_point(
    number: int | str | None, fields: dict[str, float], latency: float, at: float
) -> None:
    content = {"id": number, "time": at, "network_latency_ms": latency, **fields}
    message = parsed(json.dumps(content))
    assert message.id == number
    assert message.point.time_ns == round(at * 1e6) * 1000
    assert message.point.fields == {**fields, "network_latency_ms": latency}
    assert message.point.tags == {"robot_id": "robot-1"}
    assert parsed(json.dumps(content)) == message  # so it is stored once


@given(st.text() | ANYTHING.map(json.dumps) | st.dictionaries(st.text(), ANYTHING).map(json.dumps))
def test_any_text_is_a_message_or_is_refused(text: str) -> None:
    found = parsed_or_refused(text)
    if isinstance(found, InvalidMessage):
        assert json.loads(refusal(found))["reason"] == found.reason
        assert len(refusal(found)) < 2000


@given(
    st.dictionaries(st.sampled_from(["id", "time", *FIELDS]), ANYTHING).map(json.dumps),
)
def test_the_right_names_with_any_values_are_a_message_or_are_refused(text: str) -> None:
    found = parsed_or_refused(text)
    if isinstance(found, InvalidMessage):
        assert found.reason not in UNREADABLE
    else:
        assert found.point.fields


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not_json"),
        ("[" * 100_000, "not_json"),
        ("{", "not_json"),
        ("\x00", "not_json"),
        ("null", "not_an_object"),
        ("NaN", "not_an_object"),
        ('"text"', "not_an_object"),
    ],
)
def test_what_is_no_object_is_unreadable(text: str, reason: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parsed(text)
    assert caught.value.reason == reason
    assert reason in UNREADABLE


@pytest.mark.parametrize("days", [-32, 1])
def test_a_time_that_the_store_would_not_take_is_refused(days: float) -> None:
    at = NOW_NS / 1e9 + days * 86_400
    with pytest.raises(InvalidMessage) as caught:
        parsed(json.dumps({"id": 9, "time": at, "cpu_usage": 1}))
    assert (caught.value.reason, caught.value.message_id) == ("time_out_of_range", 9)


def test_without_a_time_it_is_of_now() -> None:
    assert parsed('{"cpu_usage": 1}').point.time_ns == NOW_NS


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("robot-7", True),
        ("AGV_1.b:2", True),
        ("7", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("", False),
        ("a/b", False),
        ("a\nb", False),
        ("a\n", False),
        ("a\x00", False),
        ("..", False),
        ("ä", False),
        ("a b", False),
    ],
)
def test_a_robots_id_is_plain(text: str, is_one: bool) -> None:
    assert is_robot_id(text) is is_one


def test_answers_are_what_the_document_says() -> None:
    assert json.loads(acknowledgement("a")) == {"type": "ack", "id": "a"}
    said: dict[str, Any] = json.loads(refusal(InvalidMessage("not_finite", "x" * 999, 3)))
    assert (said["type"], said["id"], said["reason"]) == ("refused", 3, "not_finite")
    assert len(said["detail"]) == 200
