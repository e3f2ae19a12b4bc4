"""What may be stored, and the reason given for each thing that may not."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.catalog import (
    CATALOG,
    Catalog,
    Family,
    Measurement,
    Metric,
    MetricType,
    ValueType,
)
from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.core.validation import NS_PER_DAY, NS_PER_MINUTE, NS_PER_SECOND, validate

NOW_NS = 1_700_000_000 * NS_PER_SECOND
NEWEST_NS = 10 * NS_PER_MINUTE
OLDEST_NS = 7 * NS_PER_DAY
POLLS = Measurement("polls", database="tests", tags=("device_id",))


def metric(field: str, value_type: ValueType, top: float | None = None) -> Metric:
    family = Family(f"polls_{field}", MetricType.GAUGE, "A test's metric.")
    return Metric(POLLS, field, value_type, "1", family, maximum=top)


POLL_CATALOG = Catalog(
    [
        metric("load_percent", ValueType.FLOAT, top=100),
        metric("errors", ValueType.INTEGER),
        metric("up", ValueType.BOOLEAN),
        metric("status", ValueType.STRING),
    ]
)


def counts(
    fields: Mapping[str, FieldValue],
    tags: Mapping[str, str] | None = None,
    time_ns: int = NOW_NS,
) -> Point:
    return Point("fleet_counts", tags or {"provider": "azure"}, fields, time_ns)


def poll(field: str, value: FieldValue) -> Point:
    return Point("polls", {"device_id": "a"}, {field: value}, NOW_NS)


def reason_for(point: Point, catalog: Catalog = CATALOG) -> str:
    with pytest.raises(InvalidPoint) as caught:
        validate(point, catalog, NOW_NS)
    return caught.value.reason


def test_a_good_point_passes_unchanged() -> None:
    point = counts({"device_count": 15, "edge_device_count": 0})
    assert validate(point, CATALOG, NOW_NS) == point


def test_a_whole_float_becomes_the_integer_its_metric_asks_for() -> None:
    value = validate(counts({"device_count": 15.0}), CATALOG, NOW_NS).fields["device_count"]
    assert (value, type(value)) == (15, int)


def test_an_integer_becomes_the_float_its_metric_asks_for() -> None:
    value = validate(poll("load_percent", 7), POLL_CATALOG, NOW_NS).fields["load_percent"]
    assert (value, type(value)) == (7.0, float)


@pytest.mark.parametrize(
    ("field", "value"), [("up", True), ("up", False), ("status", "online"), ("status", "")]
)
def test_booleans_and_strings_are_kept_as_they_are(field: str, value: FieldValue) -> None:
    assert validate(poll(field, value), POLL_CATALOG, NOW_NS).fields == {field: value}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("errors", 1.5),
        ("errors", True),
        ("errors", "1"),
        ("errors", 2**63),
        ("errors", 2.0**63),
        ("errors", math.nan),
        ("load_percent", True),
        ("load_percent", "1.5"),
        ("up", 1),
        ("up", "true"),
        ("status", 1),
    ],
)
def test_a_value_of_another_type_is_refused(field: str, value: FieldValue) -> None:
    assert reason_for(poll(field, value), POLL_CATALOG) == "wrong_type"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    assert reason_for(poll("load_percent", value), POLL_CATALOG) == "not_finite"


def test_a_negative_count_is_refused() -> None:
    assert reason_for(counts({"device_count": -1})) == "out_of_range"


def test_more_than_a_hundred_percent_is_refused() -> None:
    assert reason_for(poll("load_percent", 100.5), POLL_CATALOG) == "out_of_range"


def test_a_zero_is_a_count() -> None:
    assert validate(counts({"device_count": 0}), CATALOG, NOW_NS).fields == {"device_count": 0}


@pytest.mark.parametrize("offset_ns", [-OLDEST_NS, 0, NEWEST_NS])
def test_a_time_at_the_edge_of_the_window_is_accepted(offset_ns: int) -> None:
    point = counts({"device_count": 1}, time_ns=NOW_NS + offset_ns)
    assert validate(point, CATALOG, NOW_NS) == point


@pytest.mark.parametrize("offset_ns", [-OLDEST_NS - 1, NEWEST_NS + 1])
def test_a_time_outside_the_window_is_refused(offset_ns: int) -> None:
    point = counts({"device_count": 1}, time_ns=NOW_NS + offset_ns)
    assert reason_for(point) == "time_out_of_range"


def test_a_time_in_seconds_is_refused_as_out_of_range() -> None:
    point = counts({"device_count": 1}, time_ns=NOW_NS // NS_PER_SECOND)
    assert reason_for(point) == "time_out_of_range"


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (Point("nothing", {}, {"f": 1}, NOW_NS), "unknown_measurement"),
        (counts({"no_such_count": 1}), "unknown_metric"),
        (counts({}), "no_fields"),
        (counts({"device_count": 1}, {"provider": ""}), "empty_tag"),
        (counts({"device_count": 1}, {"cloud": "azure"}), "empty_tag"),
        (counts({"device_count": 1}, {"provider": "azure", "cloud": "a"}), "unknown_tag"),
        (counts({"device_count": 1}, {"provider": "az\nure"}), "unprintable_tag"),
        (counts({"device_count": 1}, {"provider": "az\x00ure"}), "unprintable_tag"),
        (counts({"device_count": 1}, {"provider": "az\ud800ure"}), "unprintable_tag"),
    ],
)
def test_each_mistake_has_its_reason(point: Point, reason: str) -> None:
    assert reason_for(point) == reason


def test_the_message_says_which_metric_what_came_and_what_was_expected() -> None:
    with pytest.raises(InvalidPoint, match=r"fleet_counts\.device_count is '15', expected integer"):
        validate(counts({"device_count": "15"}), CATALOG, NOW_NS)


@given(
    st.one_of(st.integers(), st.floats(), st.booleans(), st.text()),
    st.sampled_from(["load_percent", "errors", "up", "status"]),
)
def test_any_value_either_becomes_its_metrics_type_or_is_refused(
    value: FieldValue, field: str
) -> None:
    types = {"load_percent": float, "errors": int, "up": bool, "status": str}
    try:
        typed = validate(poll(field, value), POLL_CATALOG, NOW_NS).fields[field]
    except InvalidPoint:
        return
    assert type(typed) is types[field]
    assert typed == value or abs(float(value)) >= 2**53


def test_an_integer_too_large_for_a_float_is_refused() -> None:
    assert reason_for(poll("load_percent", 10**400), POLL_CATALOG) == "wrong_type"


# --- fields and tags that others choose -----------------------------------------------------------


def uplink(fields: Mapping[str, FieldValue], age_days: int = 0, **tags: str) -> Point:
    given_tags = {"device_eui": "A84041B3D1874EE2", **tags}
    return Point("lorawan_uplink", given_tags, fields, NOW_NS - age_days * NS_PER_DAY)


@pytest.mark.parametrize("value", [1.5, -1e300, 7, True, "on", ""])
@pytest.mark.parametrize("field", ["payload_status", "payload_a_b_0", "extra_tmst"])
def test_an_open_field_takes_any_type(field: str, value: FieldValue) -> None:
    point = uplink({field: value})
    assert validate(point, CATALOG, NOW_NS) is point


@pytest.mark.parametrize(
    ("value", "reason"),
    [(math.nan, "not_finite"), (-math.inf, "not_finite"), (2**63, "out_of_range")],
)
def test_an_open_field_takes_no_number_that_cannot_be_stored(
    value: FieldValue, reason: str
) -> None:
    assert reason_for(uplink({"payload_x": value})) == reason


@pytest.mark.parametrize("field", ["status", "payload", "Payload_x", "x_payload_"])
def test_a_field_that_nobody_opened_is_refused(field: str) -> None:
    assert reason_for(uplink({field: 1.0})) == "unknown_metric"


def test_another_measurement_has_no_open_fields() -> None:
    assert reason_for(counts({"payload_x": 1})) == "unknown_metric"


def test_the_known_fields_of_an_open_measurement_keep_their_types() -> None:
    value = validate(uplink({"rssi_dbm": -35}), CATALOG, NOW_NS).fields["rssi_dbm"]
    assert (value, type(value)) == (-35.0, float)
    assert reason_for(uplink({"rssi_dbm": "-35"})) == "wrong_type"


def test_optional_tags_may_be_there() -> None:
    point = uplink({"snr_db": 1.0}, gateway_id="g", port="5")
    assert validate(point, CATALOG, NOW_NS) is point
    assert reason_for(uplink({"snr_db": 1.0}, colour="red")) == "unknown_tag"
    assert reason_for(uplink({"snr_db": 1.0}, device_eui="")) == "empty_tag"


def test_a_measurement_says_how_old_its_points_may_be() -> None:
    old = uplink({"snr_db": 1.0}, age_days=91)
    assert validate(old, CATALOG, NOW_NS) is old
    with pytest.raises(InvalidPoint, match="accepted are 91 days back to 840 minutes ahead"):
        validate(uplink({"snr_db": 1.0}, age_days=92), CATALOG, NOW_NS)
