"""What becomes of each known field, in every form it may come in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.lorawan_payload import Limits
from metrics_pipeline.core.lorawan_uplink import Uplink, read_eui, read_uplink
from metrics_pipeline.core.points import FieldValue

EUI = "A84041B3D1874EE2"


def read(**document: Any) -> Uplink:
    return read_uplink({"eui": EUI, **document}, EUI, Limits())


def fields(**document: Any) -> dict[str, FieldValue]:
    """The fields of an uplink of which nothing was cut off and nothing was unusable."""
    uplink = read(**document)
    assert not uplink.altered
    return dict(uplink.fields)


# --- the EUI --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "A84041B3D1874EE2",
        "a84041b3d1874ee2",
        "A8-40-41-B3-D1-87-4E-E2",
        "a8:40:41:b3:d1:87:4e:e2",
        "0xa84041b3d1874ee2",
        "0XA84041B3D1874EE2",
        "a840 41b3 d187 4ee2",
        "A84041B3-D1874EE2",
        "A840:41B3:D187:4EE2",
        "a840.41b3.d187.4ee2",
        "  a84041b3d1874ee2\n",
    ],
)
def test_an_eui_in_any_notation_is_the_same_device(text: str) -> None:
    assert read_eui(text) == "A84041B3D1874EE2"


@pytest.mark.parametrize(
    "text",
    [
        "A84041B3D1874EE",
        "A84041B3D1874EE21",
        "G84041B3D1874EE2",
        "0x",
        "0x0xA84041B3D1874EE2",
        "A8--40-41-B3-D1-87-4E-E2",
        "A-84041B3D1874EE2",
        "A84041B3D1874EE2-",
        "١٢٣٤٥٦٧٨١٢٣٤٥٦٧٨",
        "A84041B3D1874EE2" * 9,
        "device-7",
    ],
)
def test_what_is_no_eui_is_refused(text: str) -> None:
    with pytest.raises(InvalidPoint) as caught:
        read_eui(text)
    assert caught.value.reason == "invalid_eui"


@given(st.integers(0, 2**64 - 1), st.sampled_from(["", "-", ":"]), st.sampled_from([1, 2, 4, 8]))
def test_every_eui_is_found_in_any_groups(number: int, separator: str, octets: int) -> None:
    octet_list = [f"{octet:02x}" for octet in number.to_bytes(8)]
    groups = ["".join(octet_list[at : at + octets]) for at in range(0, 8, octets)]
    assert read_eui(separator.join(groups)) == f"{number:016X}"


# --- tags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_id", "tag"),
    [
        ("AA555A0000000000", "AA555A0000000000"),
        (7, "7"),
        (7.0, "7"),
        ("a\\b\n c", "a/b c"),
        ("x" * 200, "x" * 200),
    ],
)
def test_a_gateway_is_a_tag(given_id: object, tag: str) -> None:
    assert read(gatewayid=given_id).tags == {"device_eui": EUI, "gateway_id": tag}


@pytest.mark.parametrize("given_id", [True, 1.5, -1, "", " \n", "x" * 201, ["a"], {"id": "a"}])
def test_a_gateway_that_cannot_be_a_tag_is_kept_as_text(given_id: object) -> None:
    uplink = read(gatewayid=given_id)
    assert uplink.tags == {"device_eui": EUI}
    assert uplink.altered["unusable_field"] == 1
    assert all(name.startswith("extra_gatewayid") for name in uplink.fields)


@pytest.mark.parametrize(("port", "tag"), [(0, "0"), (1, "1"), (255, "255"), (2.0, "2")])
def test_a_port_is_a_tag(port: object, tag: str) -> None:
    assert read(port=port).tags == {"device_eui": EUI, "port": tag}


@pytest.mark.parametrize("port", [-1, 256, 1.5, "5", True])
def test_a_port_that_is_none_is_kept_as_text(port: object) -> None:
    uplink = read(port=port)
    assert uplink.tags == {"device_eui": EUI}
    assert isinstance(uplink.fields["extra_port"], str)
    assert uplink.altered == {"unusable_field": 1}


def test_what_is_null_or_absent_is_no_tag_and_no_field() -> None:
    names = ("gatewayid", "port", "rssi", "fcnt", "datr", "rawdata", "time", "data", "other")
    assert fields(**dict.fromkeys(names), stat=1) == {"extra_stat": 1.0}
    assert read(**dict.fromkeys(names)).tags == {"device_eui": EUI}


# --- fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datr", "spreading_factor", "bandwidth_khz"),
    [
        ("SF7BW125", 7, 125.0),
        ("SF12BW500", 12, 500.0),
        ("SF5BW1625", 5, 1625.0),
        ("SF9BW62.5", 9, 62.5),
    ],
)
def test_the_data_rate_of_lora_is_two_fields(
    datr: str, spreading_factor: int, bandwidth_khz: float
) -> None:
    expected = {"spreading_factor": spreading_factor, "bandwidth_khz": bandwidth_khz}
    assert fields(datr=datr) == expected


@pytest.mark.parametrize(
    ("datr", "text"),
    [
        (50000, "50000"),  # FSK
        ("M0CW137", "M0CW137"),  # LR-FHSS
        ("SF13BW125", "SF13BW125"),
        ("SF4BW125", "SF4BW125"),
        ("SF7BW", "SF7BW"),
        ("SF7BW125 ", "SF7BW125 "),
        ("SF7BW125" * 99, "SF7BW125" * 99),
    ],
)
def test_another_data_rate_is_kept_as_text(datr: object, text: str) -> None:
    assert fields(datr=datr) == {"extra_datr": text}


@pytest.mark.parametrize(
    ("time", "text"),
    [("2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z"), (1700000000, "1700000000"), (1.5, "1.5")],
)
def test_a_time_is_a_text_always(time: object, text: str) -> None:
    assert fields(time=time) == {"extra_time": text}


@pytest.mark.parametrize("counter", [0, 65_535, 2**32 - 1, 7.0])
def test_a_frame_counter_is_an_integer(counter: float) -> None:
    value = fields(fcnt=counter)["frame_counter"]
    assert (value, type(value)) == (counter, int)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("fcnt", -1, "-1"),
        ("fcnt", 2**32, "4294967296"),
        ("fcnt", 2**64, "18446744073709551616"),
        ("fcnt", 1.5, "1.5"),
        ("fcnt", "12", "12"),
        ("fcnt", False, "false"),
        ("rssi", "-35", "-35"),
        ("rssi", True, "true"),
        ("lsnr", "", ""),
        ("freq", "868.1 MHz", "868.1 MHz"),
        ("rawdata", 7, "7"),
    ],
)
def test_a_known_field_that_cannot_be_used_is_kept_as_text_and_counted(
    name: str, value: object, text: str
) -> None:
    uplink = read(**{name: value})
    assert uplink.fields == {f"extra_{name}": text}
    assert uplink.altered == {"unusable_field": 1}


def test_a_known_field_that_is_an_object_is_kept_leaf_by_leaf() -> None:
    uplink = read(rssi={"min": -40, "max": -35}, time={"$date": 5})
    assert uplink.fields == {
        "extra_rssi_min": -40.0,
        "extra_rssi_max": -35.0,
        "extra_time__date": 5.0,
    }
    assert uplink.altered == {"unusable_field": 1}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (21, {"payload_value": 21.0}),
        (True, {"payload_value": True}),
        ("on", {"payload_value": "on"}),
        ([1, "a", [2]], {"payload_0": 1.0, "payload_1": "a", "payload_2_0": 2.0}),
        ({"a": {"b": [{"c": 1}]}}, {"payload_a_b_0_c": 1.0}),
        ({"value": 1}, {"payload_value": 1.0}),
        ({"a": None, "b": {}, "c": [], "d": 0}, {"payload_d": 0.0}),
    ],
)
def test_data_is_an_object_an_array_a_text_or_a_number(
    data: object, expected: dict[str, FieldValue]
) -> None:
    assert fields(data=data) == expected


def test_unknown_fields_are_kept_with_their_leaves() -> None:
    assert fields(lrr="x", ns={"delay": 3, "ok": True}, rxinfo=[{"id": "a"}]) == {
        "extra_lrr": "x",
        "extra_ns_delay": 3.0,
        "extra_ns_ok": True,
        "extra_rxinfo_0_id": "a",
    }
