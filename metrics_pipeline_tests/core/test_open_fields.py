"""The names that keep fields of different types apart."""

from __future__ import annotations

import pytest

from metrics_pipeline.core.open_fields import FLAG, NUMBER, TEXT, open_name, with_typed_names
from metrics_pipeline.core.points import FieldValue, Point


def test_open_fields_get_the_word_of_their_type_and_the_others_stay() -> None:
    fields: dict[str, FieldValue] = {
        "rssi_dbm": 1.0,
        "payload_a": "x",
        "payload_b": 1.5,
        "extra_c": True,
        "payload_d": 7,
    }
    point = Point("lorawan_uplink", {"device_eui": "A"}, fields, 5)
    assert with_typed_names(point, ("payload_", "extra_")) == Point(
        "lorawan_uplink",
        {"device_eui": "A"},
        {
            "rssi_dbm": 1.0,
            "payload_a_text": "x",
            "payload_b_number": 1.5,
            "extra_c_flag": True,
            "payload_d_number": 7,
        },
        5,
    )


@pytest.mark.parametrize(
    ("name", "word", "expected"),
    [
        ("status", TEXT, "status"),
        ("status_text", TEXT, "status_text"),
        ("status_text", NUMBER, "status_text_number"),
        ("status_number", FLAG, "status_number_flag"),
        ("text", NUMBER, "text"),
    ],
)
def test_a_name_that_ends_in_a_word_holds_that_type(name: str, word: str, expected: str) -> None:
    assert open_name(name, word) == expected
