"""The envelope has exactly the keys of the contract, and comes back as it was sent."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.events import (
    EVENT_TYPES,
    MAX_MESSAGE_CHARACTERS,
    Event,
    Meta,
    NotAnEvent,
    RobotMetrics,
    RunIdentity,
    aggregation_completed,
    aggregation_failed,
    aggregation_started,
    connection_closed,
    connection_established,
    metrics_published,
    parse_event,
)

AT = 1_700_000_000.25
RUN = RunIdentity("5b4a6c1e-0000-4000-8000-000000000001", AT)
METRICS = RobotMetrics(
    cpu_usage=12.5, memory_usage=40.0, network_latency_ms=7.0, battery_percentage=None
)
EVENTS = (
    (aggregation_started("fleet", run=RUN, started_at=AT), ["job_id", "started_at"]),
    (
        aggregation_completed(
            "fleet", run=RUN, entries_processed=7, duration_ms=12.5, completed_at=AT
        ),
        ["job_id", "entries_processed", "duration_ms", "completed_at"],
    ),
    (
        aggregation_failed("fleet", run=RUN, error_message="no", error_type="E", failed_at=AT),
        ["job_id", "error_message", "error_type", "failed_at"],
    ),
    (
        connection_established("robot-1", connection_id="c1", connected_at=AT),
        ["robot_id", "connection_id", "connected_at"],
    ),
    (
        connection_closed("r", connection_id="c", duration_seconds=1.5, disconnected_at=AT),
        ["robot_id", "connection_id", "duration_seconds", "disconnected_at"],
    ),
    (
        connection_closed(
            "r", connection_id="c", duration_seconds=1.5, disconnected_at=AT, reason="timeout"
        ),
        ["robot_id", "connection_id", "duration_seconds", "reason", "disconnected_at"],
    ),
    (
        metrics_published("robot-1", metrics=METRICS, published_at=AT),
        ["robot_id", "metrics", "published_at"],
    ),
)
TEXTS = st.text(st.characters(codec=None), max_size=30)  # halves of characters, too
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def an_event(payload: dict[str, Any]) -> Event:
    return Event("evt_x_1_abcdef", "x.y", "x_service", None, AT, payload, Meta("run"))


@pytest.mark.parametrize(("event", "keys"), EVENTS)
def test_an_event_has_the_keys_of_the_contract_in_their_order(
    event: Event, keys: list[str]
) -> None:
    sent = json.loads(event.to_json())
    module = event.type.partition(".")[0]
    assert list(sent) == ["id", "type", "source", "target", "timestamp", "payload", "meta"]
    assert list(sent["payload"]) == keys
    assert list(sent["meta"]) == ["correlation_id", "version"]
    assert re.fullmatch(rf"evt_{module}_1700000000250_[0-9a-z]{{6}}", sent["id"])
    assert (sent["source"], sent["target"], sent["timestamp"]) == (f"{module}_service", None, AT)
    assert sent["meta"]["version"] == "1.0"
    assert sent["meta"]["correlation_id"] == (RUN.run_id if module == "metrics" else None)
    assert parse_event(event.to_json()) == event


def test_every_type_of_the_contract_has_a_constructor() -> None:
    assert {event.type for event, _ in EVENTS} == set(EVENT_TYPES)
    assert EVENT_TYPES == (
        "metrics.aggregation_started",
        "metrics.aggregation_completed",
        "metrics.aggregation_failed",
        "telemetry.connection_established",
        "telemetry.connection_closed",
        "telemetry.metrics_published",
    )


def test_the_metrics_of_a_robot_have_the_names_of_the_contract() -> None:
    sent = json.loads(metrics_published("r", metrics=METRICS, published_at=AT).to_json())
    assert list(sent["payload"]["metrics"]) == [
        "cpu_usage",
        "memory_usage",
        "network_latency_ms",
        "battery_percentage",
    ]


def test_of_one_run_each_event_has_one_id_whoever_sends_it_and_when() -> None:
    def failed(run: RunIdentity, at: float) -> str:
        said = {"error_message": "x", "error_type": "E"}
        return aggregation_failed("fleet", run=run, failed_at=at, **said).id

    assert failed(RUN, AT) == failed(RUN, AT + 60)
    assert failed(RUN, AT) != failed(RunIdentity("another", AT), AT)
    assert failed(RUN, AT) != aggregation_started("fleet", run=RUN, started_at=AT).id


def test_ids_are_unique_across_processes_that_were_forked_in_the_same_millisecond() -> None:
    def ids() -> list[str]:
        told = (connection_established("r", connection_id="c", connected_at=AT) for _ in range(300))
        return [event.id for event in told]

    reading, writing = os.pipe()
    for _ in range(4):
        if (pid := os.fork()) == 0:
            os.write(writing, "".join(f"{each}\n" for each in ids()).encode())
            os._exit(0)
        os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = [*pipe.read().split(), *ids()]
    assert len(found) == len(set(found)) == 5 * 300


def test_an_error_that_quotes_a_secret_is_told_without_it_and_not_in_full_length() -> None:
    said = "cannot connect to postgresql://me:hunter2@db/x, password=hunter2 " + "x" * 5000
    event = aggregation_failed("f", run=RUN, error_message=said, error_type="E", failed_at=AT)
    assert "hunter2" not in event.to_json()
    assert len(event.payload["error_message"]) == MAX_MESSAGE_CHARACTERS


def test_a_number_that_is_none_is_null_and_half_a_character_is_replaced() -> None:
    sent = json.loads(an_event({"a": float("nan"), "b": "\udc80", "c": float("inf")}).to_json())
    assert sent["payload"] == {"a": None, "b": "?", "c": None}


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_whatever_json_has_words_for_is_one_line_that_can_be_read_again(
    payload: dict[str, Any],
) -> None:
    try:
        line = an_event(payload).to_json()
    except TypeError:  # an integer that needs more than 64 bits
        return
    assert "\n" not in line
    line.encode()
    assert parse_event(line).payload.keys() == json.loads(line)["payload"].keys()


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_what_is_no_event_is_refused_whatever_it_is(line: bytes) -> None:
    with pytest.raises(NotAnEvent):
        parse_event(line)


@given(st.sampled_from(["id", "type", "source", "timestamp", "payload", "meta"]), VALUES)
def test_an_envelope_with_a_wrong_type_is_refused(key: str, value: Any) -> None:
    whole = json.loads(EVENTS[0][0].to_json())
    good = {"timestamp": (int, float), "payload": dict, "meta": dict}.get(key, str)
    if isinstance(value, good) and not isinstance(value, bool):  # type: ignore[arg-type]
        return
    with pytest.raises(NotAnEvent):
        parse_event(json.dumps({**whole, key: value}))


def test_an_envelope_with_another_key_is_refused_by_name() -> None:
    whole = json.loads(EVENTS[0][0].to_json())
    with pytest.raises(NotAnEvent, match="id, type, source"):
        parse_event(json.dumps({**whole, "extra": 1}))
    with pytest.raises(NotAnEvent, match="correlation_id, version"):
        parse_event(json.dumps({**whole, "meta": {}}))
