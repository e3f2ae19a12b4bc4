"""The events of a partition: numbered, found again, dropped when they are too many or too old."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from azure.eventhub._utils import event_position_selector
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.simulators.event_hub.amqp_messages import make_message
from metrics_pipeline.simulators.event_hub.hub import Hub, parse_address
from metrics_pipeline.simulators.event_hub.partition_log import PartitionLog, Retention
from metrics_pipeline.simulators.event_hub.positions import PositionError, first_sequence_number

SECOND_MS = 1000


class Clock:
    """Goes only when it is told."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


def log_of(
    count: int, retention: Retention | None = None, clock: Clock | None = None
) -> PartitionLog:
    """A log with `count` events, one second apart."""
    clock = clock or Clock()
    log = PartitionLog(retention or Retention(), clock)
    for number in range(count):
        log.append(make_message(b"%d" % number))
        clock.now_ms += SECOND_MS
    return log


def position(log: PartitionLog, value: Any, inclusive: bool = False) -> int:
    """Where a consumer of the SDK begins that asks for `value`."""
    return first_sequence_number(log, event_position_selector(value, inclusive).decode())


def test_sequence_numbers_count_from_zero_and_offsets_grow_by_the_bytes() -> None:
    log = log_of(3)
    first, second = len(log.payload(0)), len(log.payload(1))
    assert (log.first_sequence_number, log.last_sequence_number) == (0, 2)
    assert log.last_offset == str(first + second)
    assert log.last_enqueued_ms == Clock().now_ms + 2 * SECOND_MS


def test_an_empty_log_says_so_as_the_service_does() -> None:
    log = log_of(0)
    assert (len(log), log.first_sequence_number, log.last_sequence_number) == (0, 0, -1)
    assert (log.last_offset, log.last_enqueued_ms) == ("-1", 0)


def test_an_event_never_comes_before_the_last_one() -> None:
    log = log_of(2)
    log.append(make_message(b"early"), enqueued_ms=5)
    assert log.last_enqueued_ms == Clock().now_ms + SECOND_MS


def test_events_that_are_too_old_go_while_others_come() -> None:
    log = log_of(3000, Retention(max_age_seconds=60))
    assert len(log) <= 60 + 1024


def test_a_clock_that_goes_back_does_not_turn_the_order() -> None:
    clock = Clock()
    log = log_of(2, clock=clock)
    clock.now_ms = 0
    log.append(make_message(b"late"))
    assert log.last_enqueued_ms == Clock().now_ms + SECOND_MS


@pytest.mark.parametrize(
    ("value", "inclusive", "expected"),
    [
        ("-1", False, 0),
        ("-1", True, 0),
        ("0", False, 1),
        ("0", True, 0),
        ("1", False, 1),
        ("@latest", False, 5),
        ("@latest", True, 4),
        (-1, False, 0),
        (0, True, 0),
        (2, False, 3),
        (2, True, 2),
        (4, False, 5),
        (5, True, 5),
        (datetime.fromtimestamp(1_700_000_002, UTC), False, 3),
        (datetime.fromtimestamp(1_700_000_002, UTC), True, 2),
        (datetime.fromtimestamp(0, UTC), False, 0),
        (datetime.fromtimestamp(2_000_000_000, UTC), False, 5),
    ],
)
def test_a_position_of_the_sdk_is_found(value: object, inclusive: bool, expected: int) -> None:
    assert position(log_of(5), value, inclusive) == expected


@pytest.mark.parametrize("value", ["999999", 5])
def test_a_position_the_partition_has_not_reached_is_refused(value: object) -> None:
    with pytest.raises(PositionError, match=f"'{value}' is invalid. The last .* is '"):
        position(log_of(5), value)


@pytest.mark.parametrize("selector", ["", "x-opt-offset > 3", "amqp.annotation.x-opt-offset < '3'"])
def test_another_selector_is_refused(selector: str) -> None:
    with pytest.raises(PositionError, match="no position"):
        first_sequence_number(log_of(1), selector)


def test_no_selector_is_the_oldest_event() -> None:
    assert first_sequence_number(log_of(3, Retention(max_events=2)), None) == 1


def test_positions_of_events_that_are_gone_are_the_oldest_that_is_there() -> None:
    log = log_of(5)
    log.drop_before(3)
    assert [position(log, value) for value in ("-1", "0", 0, 1)] == [3, 3, 3, 3]
    log.drop_before(99)
    assert (len(log), position(log, "-1"), position(log, "@latest")) == (0, 5, 5)
    assert log.append(make_message(b"next")) == 5


def test_no_more_events_are_kept_than_allowed() -> None:
    log = log_of(10_000, Retention(max_events=3))
    assert (log.first_sequence_number, len(log)) == (9_997, 3)
    assert list(log.payloads(9_997, 9)) == [log.payload(number) for number in range(9_997, 10_000)]


def test_no_more_bytes_are_kept_than_allowed() -> None:
    log = log_of(100, Retention(max_bytes=1000))
    assert log.size_bytes == sum(map(len, log.payloads(log.first_sequence_number, 100))) <= 1000
    assert log.last_sequence_number == 99


def test_events_are_kept_as_long_as_allowed() -> None:
    clock = Clock()
    log = log_of(5, Retention(max_age_seconds=3), clock)
    log.drop_expired()
    assert (log.first_sequence_number, len(log)) == (2, 3)


@given(st.lists(st.integers(0, 2_500), max_size=6), st.integers(0, 2_000))
def test_what_is_kept_is_found_whatever_was_dropped(drops: list[int], sought: int) -> None:
    log = log_of(2_000)
    for drop in drops:
        log.drop_before(drop)
    first = min(2_000, max([0, *drops]))
    assert (log.first_sequence_number, log.last_sequence_number) == (first, 1_999)
    assert position(log, sought, inclusive=True) == max(first, sought)
    assert len(log.payloads(first, 10_000)) == 2_000 - first


def hub(partition_count: int = 4) -> Hub:
    return Hub("hub", partition_count, ["reader"], Retention(), Clock())


def test_the_same_key_is_always_the_same_partition_and_keys_spread() -> None:
    chosen = [hub().partition_for(f"key {number}") for number in range(400)]
    assert chosen == [hub().partition_for(f"key {number}") for number in range(400)]
    assert {name: chosen.count(name) > 50 for name in "0123"} == dict.fromkeys("0123", True)


def test_without_a_key_partitions_take_turns() -> None:
    shared = hub()
    assert [shared.partition_for(None) for _ in range(5)] == ["0", "1", "2", "3", "0"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hub", ("hub", None, None)),
        ("amqps://127.0.0.1:5/hub/Partitions/3", ("hub", None, "3")),
        ("hub/ConsumerGroups/$Default/Partitions/0", ("hub", "$Default", "0")),
        ("hub/consumergroups/a/partitions/0", ("hub", "a", "0")),
    ],
)
def test_an_address_is_taken_apart(text: str, expected: tuple[str, str | None, str | None]) -> None:
    address = parse_address(text)
    assert address is not None
    assert (address.hub, address.group, address.partition) == expected


@pytest.mark.parametrize("text", ["", "/", "hub/else", "hub/Partitions/1/2"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None
