"""From readings to points, and who is online."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.device_points import (
    StatusBoard,
    metric_points,
    outcome_of,
    status_point,
    statuses_in,
)
from metrics_pipeline.core.devices import (
    DISK_USAGE,
    DISKS,
    HOST_METRICS,
    INTERFACES,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    PING_METRICS,
    DeviceReading,
    Miss,
)
from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.validation import validate

NOW_NS = 1_700_000_000_000_000_000
UP = DeviceReading("d1", is_up=True)
DOWN = DeviceReading("d1", is_up=False, reason=Miss.TIMEOUT)


@pytest.mark.parametrize("name", [*HOST_METRICS, *PING_METRICS])
def test_every_metric_of_a_probe_can_be_stored(name: str) -> None:
    [point] = metric_points(DeviceReading("d1", True, {name: 1}), NOW_NS)
    assert point.tags == {"device_id": "d1", "metric_name": name}
    assert validate(point, CATALOG, NOW_NS).fields == {"value": 1.0}


def test_every_row_of_detail_can_be_stored_under_its_name() -> None:
    details = {
        INTERFACES: {"Gi0/1": {NETWORK_RECEIVE: 5.0, NETWORK_TRANSMIT: 6.0}},
        DISKS: {"C:/ Label: a=b, c": {DISK_USAGE: 7.0}},
    }
    points = metric_points(DeviceReading("d1", True, {"uptime_seconds": 1}, details=details), 5)
    found = {(p.measurement, p.tags["metric_name"], p.tags.get("name")): p.fields for p in points}
    assert found == {
        ("device_metrics", "uptime_seconds", None): {"value": 1.0},
        (INTERFACES, NETWORK_RECEIVE, "Gi0/1"): {"value": 5.0},
        (INTERFACES, NETWORK_TRANSMIT, "Gi0/1"): {"value": 6.0},
        (DISKS, DISK_USAGE, "C:/ Label: a=b, c"): {"value": 7.0},
    }
    assert {point.time_ns for point in points} == {5}
    assert all(validate(point, CATALOG, 5) == point for point in points)


def test_a_row_of_detail_without_a_name_or_with_a_metric_of_another_table_is_refused() -> None:
    for table, name, metric in [(DISKS, "", DISK_USAGE), (DISKS, "/", NETWORK_RECEIVE)]:
        reading = DeviceReading("d1", True, details={table: {name: {metric: 1.0}}})
        [point] = metric_points(reading, NOW_NS)
        with pytest.raises(InvalidPoint):
            validate(point, CATALOG, NOW_NS)


def test_a_status_is_one_of_two_words() -> None:
    for is_online, word in ((True, "online"), (False, "offline")):
        point = validate(status_point("d1", is_online, NOW_NS), CATALOG, NOW_NS)
        assert point.fields == {"status": word}
        assert statuses_in([point]) == {"d1": is_online}


def judged(board: StatusBoard, readings: Iterable[DeviceReading]) -> list[bool]:
    """What is shown after each reading, a second apart."""
    return [
        statuses_in(board.judge(reading, second))["d1"] for second, reading in enumerate(readings)
    ]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([UP], [True]),
        ([DOWN], [False]),
        ([UP, DOWN], [True, True]),
        ([UP, DOWN, DOWN], [True, True, False]),
        ([UP, DOWN, UP, DOWN], [True, True, True, True]),
        ([UP, DOWN, DOWN, DOWN, UP], [True, True, False, False, True]),
    ],
)
def test_a_device_goes_offline_with_its_second_missed_answer(
    readings: list[DeviceReading], expected: list[bool]
) -> None:
    assert judged(StatusBoard(misses_allowed=2, online={}), readings) == expected


def test_a_device_that_was_online_in_the_last_run_may_miss_once() -> None:
    assert judged(StatusBoard(2, {"d1": True}), [DOWN, DOWN]) == [True, False]


def test_an_answer_missed_in_the_last_run_counts() -> None:
    assert judged(StatusBoard(2, {"d1": True}, {"d1": [5]}), [DOWN]) == [False]


@pytest.mark.parametrize("reason", list(Miss))
def test_only_who_was_asked_can_go_offline(reason: Miss) -> None:
    board = StatusBoard(misses_allowed=1, online={"d1": True})
    [point] = board.judge(DeviceReading("d1", is_up=False, reason=reason), 30)
    is_ours = reason in {Miss.RESOLVE, Miss.CREDENTIAL, Miss.DEFECT}
    assert point.fields["status"] == ("online" if is_ours else "offline")
    assert board.missed == {}


@pytest.mark.parametrize("reason", list(Miss))
def test_a_new_device_is_offline_until_its_first_answer(reason: Miss) -> None:
    board = StatusBoard(misses_allowed=3, online={})
    lost = DeviceReading("d1", is_up=False, reason=reason)
    assert judged(board, [lost, lost, UP, DOWN]) == [False, False, True, True]


@given(st.lists(st.sampled_from([None, *Miss]), min_size=1, max_size=20), st.integers(1, 4))
def test_every_reading_gives_its_device_a_status(
    reasons: list[Miss | None], misses_allowed: int
) -> None:
    board = StatusBoard(misses_allowed, {})
    for second, reason in enumerate(reasons):
        points = board.judge(DeviceReading("d1", is_up=reason is None, reason=reason), second)
        assert second in {point.time_ns for point in points}


def test_offline_is_written_with_the_time_of_the_first_missed_answer() -> None:
    board = StatusBoard(misses_allowed=3, online={"d1": True})
    points = [point for second in (30, 60, 90, 120) for point in board.judge(DOWN, second)]
    kept = {point.time_ns: point.fields["status"] for point in points}
    assert kept == dict.fromkeys((30, 60, 90, 120), "offline")
    assert board.missed == {}


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4))
def test_history_has_a_status_for_each_sweep_and_offline_for_each_long_enough_silence(
    answers: list[bool], misses_allowed: int
) -> None:
    board = StatusBoard(misses_allowed, {"d1": True})
    history: dict[int, bool] = {}
    for second, answered in enumerate(answers):
        for point in board.judge(UP if answered else DOWN, second):
            history[point.time_ns] = point.fields["status"] == "online"
    expected: list[bool] = []
    for answered, run in groupby(answers):
        length = len(list(run))
        expected += [answered or length < misses_allowed] * length
    assert [history[second] for second in range(len(answers))] == expected


def test_outcomes_are_complete_partial_or_a_reason() -> None:
    complete = DeviceReading("a", True, {"x": 1.0}, {"y": Miss.UNSUPPORTED})
    partial = DeviceReading("b", True, {"x": 1.0}, {"y": Miss.TIMEOUT})
    senseless = DeviceReading("c", True, {}, {"x": Miss.UNSUPPORTED, "y": Miss.PARSE})
    assert [outcome_of(reading) for reading in (complete, partial, senseless, DOWN)] == [
        "complete",
        "partial",
        "parse",
        "timeout",
    ]
