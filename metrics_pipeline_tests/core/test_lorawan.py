"""From one event to points or to a reason; names are literally those of CONTRACTS, section 3."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.lorawan import Decoded, Reason, Rules, decode, uplink_time_ns
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import DeadLetter, RawEvent
from metrics_pipeline.core.validation import NS_PER_DAY, NS_PER_MINUTE, validate

NOW_NS = 1_700_000_000_123_456_789
EUI = "A84041B3D1874EE2"
DEVICE = '{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}'
PROPERTIES = {
    "iothub-connection-auth-method": DEVICE,
    "iothub-connection-device-id": EUI,
    "iothub-enqueuedtime": 1_700_000_000_123,
}
UPLINK = {
    "time": "2023-11-14T22:13:20.123Z",
    "tmms": 1384250000000,
    "tmst": 3512348611,
    "freq": 868.1,
    "chan": 2,
    "rfch": 0,
    "stat": 1,
    "modu": "LORA",
    "datr": "SF7BW125",
    "codr": "4/5",
    "rssi": -35,
    "lsnr": 5.1,
    "size": 32,
    "data": {"temperature": 21, "battery": {"low": False, "volts": [3.6, 3]}, "status": "ok"},
    "port": 5,
    "fcnt": 1432,
    "edgets": 1700000000123,
    "rawdata": "AQIDBA==",
    "eui": EUI,
    "gatewayid": "AA555A0000000000",
    "stationeui": "AA555A0000000001",
    "dupmsg": False,
}
PLAIN = Rules(is_iot_hub=False)


def event(body: bytes, **changes: Any) -> RawEvent:
    given = {"partition": "3", "sequence_number": 1_234_567, "offset": "4294967296"}
    return RawEvent(
        **{**given, "enqueued_time_ns": NOW_NS, "system_properties": PROPERTIES, **changes},
        body=body,
    )


def decoded(value: object, rules: Rules = Rules(), **changes: Any) -> Decoded:  # noqa: B008
    return decode(event(json.dumps(value).encode(), **changes), rules, NOW_NS)


def only_point(value: object, **changes: Any) -> Point:
    result = decoded(value, **changes)
    assert not result.refused
    assert result.dead_letter is None
    (point,) = result.points
    return point


def reason_of(body: bytes, rules: Rules = PLAIN, **changes: Any) -> str:
    result = decode(event(body, **changes), rules, NOW_NS)
    assert not result.points
    (reason,) = result.refused
    assert result.dead_letter is not None
    assert result.dead_letter.reason == reason
    assert result.dead_letter.detail.isprintable()
    return reason


# --- what an uplink becomes -----------------------------------------------------------------------


def test_an_uplink_becomes_the_point_of_the_contract() -> None:
    point = only_point(UPLINK)
    assert point.measurement == "lorawan_uplink"
    assert point.tags == {"device_eui": EUI, "gateway_id": "AA555A0000000000", "port": "5"}
    expected: Mapping[str, object] = {
        "rssi_dbm": -35.0,
        "snr_db": 5.1,
        "frequency_mhz": 868.1,
        "spreading_factor": 7,
        "bandwidth_khz": 125.0,
        "frame_counter": 1432,
        "rawdata": "AQIDBA==",
        "payload_temperature": 21.0,
        "payload_battery_low": False,
        "payload_battery_volts_0": 3.6,
        "payload_battery_volts_1": 3.0,
        "payload_status": "ok",
        "extra_time": "2023-11-14T22:13:20.123Z",
        "extra_tmms": 1384250000000.0,
        "extra_tmst": 3512348611.0,
        "extra_chan": 2.0,
        "extra_rfch": 0.0,
        "extra_stat": 1.0,
        "extra_modu": "LORA",
        "extra_codr": "4/5",
        "extra_size": 32.0,
        "extra_edgets": 1700000000123.0,
        "extra_stationeui": "AA555A0000000001",
        "extra_dupmsg": False,
    }
    assert point.fields == expected
    types = {name: type(value) for name, value in point.fields.items()}
    assert types == {name: type(value) for name, value in expected.items()}
    assert validate(point, CATALOG, NOW_NS) == point


def test_the_time_is_the_enqueued_millisecond_the_partition_and_the_number_modulo_1000() -> None:
    times = {
        partition: decoded(UPLINK, partition=partition).points[0].time_ns
        for partition in ("0", "3", "31", "1003", "eu-7")
    }
    assert times == {
        "0": 1_700_000_000_123_000_567,  # literally as in CONTRACTS
        "3": 1_700_000_000_123_003_567,
        "31": 1_700_000_000_123_031_567,
        "1003": 1_700_000_000_123_003_567,
        "eu-7": 1_700_000_000_123_000_567 + crc32(b"eu-7") % 1000 * 1000,
    }


def test_the_uplinks_of_an_array_are_a_microsecond_apart() -> None:
    times = [point.time_ns for point in decoded([UPLINK, UPLINK, UPLINK]).points]
    first = 1_700_000_000_123_003_567
    assert times == [first, first + 1000, first + 2000]


@pytest.mark.parametrize("partition", ["0", "3", "999"])
def test_events_of_a_partition_do_not_collide_and_neither_do_their_uplinks(partition: str) -> None:
    events = [
        event(b"", partition=partition, sequence_number=number, enqueued_time_ns=accepted_ns)
        for accepted_ns in (NOW_NS, NOW_NS + 1_000_000)
        for number in range(5000, 6000)
    ]
    times = {uplink_time_ns(one, place) for one in events for place in range(0, 1000, 37)}
    assert len(times) == 2 * 1000 * len(range(0, 1000, 37))


def test_the_same_number_on_two_partitions_is_two_points() -> None:
    """Of one device, in one millisecond: nothing but the partition tells them apart."""
    points = [only_point(UPLINK, partition=str(partition)) for partition in range(1000)]
    assert len({point.series for point in points}) == 1
    assert len({point.time_ns for point in points}) == 1000


@pytest.mark.parametrize("partition", ["", "٣", "²", "-1", "9" * 5000, "\ud800"])
def test_any_name_of_a_partition_gives_a_time_within_the_millisecond(partition: str) -> None:
    time_ns = only_point(UPLINK, partition=partition).time_ns
    assert 0 <= time_ns - NOW_NS // 1_000_000 * 1_000_000 < 1_000_000


def test_only_the_eui_is_required() -> None:
    point = only_point({"eui": EUI})
    assert point.tags == {"device_eui": EUI}
    assert point.fields == {"extra_empty": True}
    assert validate(point, CATALOG, NOW_NS) == point


def test_who_was_connected_is_kept_where_it_is_not_the_device() -> None:
    bridge = {**PROPERTIES, "iothub-connection-device-id": "bridge-7"}
    (point,) = decoded({"eui": EUI, "connection_device_id": "x"}, system_properties=bridge).points
    assert point.tags == {"device_eui": EUI}
    assert point.fields == {
        "extra_connection_device_id": "bridge-7",
        "extra_connection_device_id_2": "x",
    }
    same = {**PROPERTIES, "iothub-connection-device-id": EUI.lower()}
    (point,) = decoded({"eui": EUI, "fcnt": 1}, system_properties=same).points
    assert point.fields == {"frame_counter": 1}


# --- who sent it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["module", "hub", "", "Device"])
def test_what_no_device_sent_is_skipped_and_counted_without_a_dead_letter(scope: str) -> None:
    properties = {"iothub-connection-auth-method": json.dumps({"scope": scope})}
    for rules in (Rules(), PLAIN):
        result = decoded(UPLINK, rules, system_properties=properties)
        assert result == Decoded((), {"foreign_scope": 1}, {})


@pytest.mark.parametrize(
    "given", [None, "", "device", "[]", "{}", '{"scope":1}', "[" * 9999, 7, True, " " * 3000]
)
def test_an_iot_hub_says_who_sent_an_event(given: object) -> None:
    body = json.dumps(UPLINK).encode()
    properties = {"iothub-connection-auth-method": given}
    assert reason_of(body, Rules(), system_properties=properties) == "invalid_auth_method"
    assert reason_of(body, Rules(), system_properties={}) == "invalid_auth_method"


def test_a_hub_that_is_no_iot_hub_need_not() -> None:
    result = decoded(UPLINK, PLAIN, system_properties={})
    assert len(result.points) == 1
    properties = {"iothub-connection-auth-method": "{"}
    body = json.dumps(UPLINK).encode()
    assert reason_of(body, PLAIN, system_properties=properties) == "invalid_auth_method"


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff{}", "not_utf8"),
        ('{"eui":"é"}'.encode("utf-16"), "not_utf8"),
        (b"{'eui':1}", "not_json"),
        (b"{} {}", "not_json"),
        (b"\x00" * 20, "not_json"),
        (gzip.compress(b"{}", mtime=0), "compressed"),
        (b" " * 262_145, "too_large"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * 30_000, "too_deep"),
        (b"7", "wrong_shape"),
        (b"null", "wrong_shape"),
        (b'"text"', "wrong_shape"),
        (b"[[]]", "wrong_shape"),
        (b"[null]", "wrong_shape"),
        (b"{}", "missing_eui"),
        (b'{"eui":null}', "missing_eui"),
        (b'{"eui":""}', "missing_eui"),
        (b'{"eui":"A84041B3D1874EE"}', "invalid_eui"),
        (b'{"eui":8121069065841246209}', "invalid_eui"),
        (b'{"eui":["A84041B3D1874EE2"]}', "invalid_eui"),
        (b'{"eui":"A84041B3D1874EE2","rssi":NaN}', "not_finite"),
        (b'{"eui":"A84041B3D1874EE2","fcnt":-Infinity}', "not_finite"),
        (b'{"eui":"A84041B3D1874EE2","time":Infinity}', "not_finite"),
        (b'{"eui":"A84041B3D1874EE2","data":[1,{"a":1e400}]}', "not_finite"),
        (b'{"eui":"A84041B3D1874EE2","x":1' + b"0" * 400 + b"}", "out_of_range"),
        (b'{"eui":"A84041B3D1874EE2","port":1' + b"0" * 400 + b"}", "out_of_range"),
        (b'{"eui":"A84041B3D1874EE2","x":1' + b"0" * 5000 + b"}", "out_of_range"),
    ],
    ids=lambda given: repr(given)[:40],
)
def test_each_thing_that_cannot_be_decoded_has_its_reason(body: bytes, reason: str) -> None:
    assert reason_of(body) == reason
    assert reason in set(Reason)


def test_a_dead_letter_says_where_the_event_is_and_holds_it() -> None:
    bad = event(b"{}")
    assert decode(bad, Rules(), NOW_NS).dead_letter == DeadLetter(
        "3",
        1_234_567,
        "4294967296",
        NOW_NS,
        "missing_eui",
        "1 of 1 uplinks refused: there is no eui",
        b"{}",
    )


def test_one_bad_uplink_of_an_array_does_not_cost_the_others() -> None:
    result = decoded([UPLINK, {}, {"eui": "zz"}, UPLINK, 7, {"eui": "yy"}])
    assert len(result.points) == 2
    assert result.points[1].time_ns - result.points[0].time_ns == 3000
    assert result.refused == {"missing_eui": 1, "invalid_eui": 2, "wrong_shape": 1}
    assert result.dead_letter is not None
    assert result.dead_letter.reason == "missing_eui"
    assert result.dead_letter.detail == "4 of 6 uplinks refused: there is no eui"


def test_not_a_number_in_one_uplink_of_an_array_costs_that_one() -> None:
    body = b'[{"eui":"%b","rssi":NaN},{"eui":"%b"}]' % (EUI.encode(), EUI.encode())
    result = decode(event(body), Rules(), NOW_NS)
    assert len(result.points) == 1
    assert result.refused == {"not_finite": 1}


def test_an_uplink_behind_the_last_that_has_a_time_of_its_own_is_refused() -> None:
    result = decoded([{"eui": EUI}] * 1003)
    assert len(result.points) == 1000
    assert result.refused == {"too_many": 3}
    assert result.dead_letter is not None
    assert result.dead_letter.reason == "too_many"
    assert result.dead_letter.detail == "3 of 1003 uplinks refused: an array holds too many"
    assert decoded([*[{"eui": EUI}] * 999, 7, 7]).refused == {"wrong_shape": 1, "too_many": 1}


def test_an_empty_array_is_nothing() -> None:
    assert decoded([]) == Decoded([], {}, {})


def test_a_byte_order_mark_is_passed_over() -> None:
    body = b"\xef\xbb\xbf" + json.dumps(UPLINK).encode()
    assert len(decode(event(body), Rules(), NOW_NS).points) == 1


@pytest.mark.parametrize("age_days", [0, 8, 90])
def test_what_a_hub_still_has_is_decoded_and_may_be_stored(age_days: int) -> None:
    (point,) = decoded(UPLINK, enqueued_time_ns=NOW_NS - age_days * NS_PER_DAY).points
    assert validate(point, CATALOG, NOW_NS) == point


@pytest.mark.parametrize("ahead_hours", [1, 14])
def test_what_a_hub_accepted_while_our_clock_was_behind_is_decoded_and_may_be_stored(
    ahead_hours: int,
) -> None:
    (point,) = decoded(
        UPLINK, enqueued_time_ns=NOW_NS + ahead_hours * 60 * NS_PER_MINUTE - 1
    ).points
    assert validate(point, CATALOG, NOW_NS) == point


@pytest.mark.parametrize("age_days", [-1, 92, 19_675])
def test_a_time_that_no_hub_has_is_a_reason(age_days: int) -> None:
    time_ns = NOW_NS - age_days * NS_PER_DAY
    assert reason_of(b"{}", enqueued_time_ns=time_ns) == "time_out_of_range"


def test_what_was_cut_off_in_the_uplinks_of_an_array_is_added_up() -> None:
    long = {"eui": EUI, "note": "x" * 2001}
    assert decoded([long, long, UPLINK]).altered == {"text_too_long": 2}


# --- anything -------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4)
    ),
    max_leaves=12,
)
KNOWN = st.sampled_from(sorted(UPLINK))


def check(result: Decoded) -> None:
    """All that holds for whatever comes."""
    for point in result.points:
        assert validate(point, CATALOG, NOW_NS) == point
        assert all(value.isascii() or value.encode() for value in map(str, point.fields.values()))
    assert set(result.refused) <= set(Reason)
    assert {type(reason) for reason in result.refused} <= {str}
    assert (result.dead_letter is None) == (not set(result.refused) - {Reason.FOREIGN_SCOPE})


@given(st.dictionaries(KNOWN | st.text(), JSON_VALUES, max_size=8), KNOWN, JSON_VALUES)
def test_any_value_of_any_field_is_stored_or_has_a_reason(
    document: dict[str, Any], name: str, value: Any
) -> None:
    for given_document in (document, {**UPLINK, name: value}, {"eui": EUI, **document}):
        result = decoded(given_document)
        check(result)
        assert len(result.points) + sum(result.refused.values()) == 1
        assert decoded(given_document) == result


@given(st.binary(), st.dictionaries(st.sampled_from(sorted(PROPERTIES)), st.text()))
def test_any_bytes_from_any_sender_have_a_reason(body: bytes, properties: dict[str, str]) -> None:
    one = event(body)._replace(system_properties=properties)
    for rules in (Rules(), PLAIN):
        result = decode(one, rules, NOW_NS)
        check(result)
        assert decode(one, rules, NOW_NS) == result


@given(st.lists(JSON_VALUES | st.just({"eui": EUI}), max_size=5))
def test_every_element_of_an_array_is_a_point_or_counted(documents: list[Any]) -> None:
    result = decoded(documents)
    check(result)
    assert len(result.points) + sum(result.refused.values()) == len(documents)
