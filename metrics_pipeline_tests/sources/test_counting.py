"""Which failure is whose when one metric after the other is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metrics_pipeline.core.catalog import (
    CONCENTRATOR_COUNT,
    DEVICE_COUNT,
    EDGE_DEVICE_COUNT,
    LAST_SUCCESS,
    Measurement,
    Metric,
    ValueType,
)
from metrics_pipeline.core.errors import ConfigurationError, SourceRefused, SourceUnreachable
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sources.counting import read_counts

TIME_NS = 1_700_000_000_000_000_000
ANSWERS = (DEVICE_COUNT, EDGE_DEVICE_COUNT)


def read(metrics: Sequence[Metric], found: Mapping[Metric, int | Exception]) -> Reading:
    def count(metric: Metric) -> int:
        value = found[metric]
        if isinstance(value, Exception):
            raise value
        return value

    return read_counts("cloud", ANSWERS, count, metrics, TIME_NS)


def point(field: str, value: int) -> Point:
    return Point("fleet_counts", {"provider": "cloud"}, {field: value}, TIME_NS)


def test_each_metric_is_one_point_in_the_order_of_the_answers() -> None:
    reading = read((EDGE_DEVICE_COUNT, DEVICE_COUNT), {DEVICE_COUNT: 5, EDGE_DEVICE_COUNT: 0})
    assert reading == Reading((point("device_count", 5), point("edge_device_count", 0)))


def test_only_what_is_wanted_is_counted() -> None:
    assert read((DEVICE_COUNT,), {DEVICE_COUNT: 5}) == Reading((point("device_count", 5),))


def test_a_metric_that_fails_is_a_failure_about_it_and_the_others_are_kept() -> None:
    trouble = SourceUnreachable("cloud", "GET /things", "HTTP 503", "Wait.")
    reading = read(ANSWERS, {DEVICE_COUNT: trouble, EDGE_DEVICE_COUNT: 2})
    assert reading.points == (point("edge_device_count", 2),)
    (failure,) = reading.failures
    assert isinstance(failure, SourceUnreachable)
    assert (failure.target, failure.problem) == ("device_count", "GET /things: HTTP 503")


def test_a_setting_that_turns_out_wrong_is_a_refusal_that_says_where_it_is() -> None:
    wrong = ConfigurationError("environment variable KEY", "no secret is there", "Set it.")
    (failure,) = read((DEVICE_COUNT,), {DEVICE_COUNT: wrong}).failures
    assert isinstance(failure, SourceRefused)
    assert failure.problem == "environment variable KEY: no secret is there"
    assert failure.fix == "Set it."


def test_a_metric_the_source_does_not_count_is_refused_and_the_others_are_kept() -> None:
    measurement = Measurement("other", "database", ())
    foreign = Metric(measurement, "temperature", ValueType.INTEGER, "1", LAST_SUCCESS)
    reading = read((foreign, DEVICE_COUNT, CONCENTRATOR_COUNT), {DEVICE_COUNT: 5})
    assert reading.points == (point("device_count", 5),)
    assert [type(failure) for failure in reading.failures] == [SourceRefused] * 2
    assert [failure.target for failure in reading.failures] == ["temperature", "concentrator_count"]
    assert "device_count, edge_device_count" in reading.failures[0].fix


def test_nothing_wanted_is_nothing_read() -> None:
    assert read((), {}) == Reading(())
