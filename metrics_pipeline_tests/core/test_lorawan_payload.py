"""Names and limits of what devices choose themselves."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.line_protocol import render
from metrics_pipeline.core.lorawan_payload import Leaves, Limits
from metrics_pipeline.core.open_fields import with_typed_names
from metrics_pipeline.core.points import FieldValue, Point

SCALARS = st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
KEYS = st.text(max_size=6) | st.sampled_from(
    ["a", "b", "a_b", "b_2", "a_b_2", "a.b", "x_text", "x_number", "x_flag", "x", "text", "é"]
)
TREES = st.recursive(
    SCALARS,
    lambda children: st.dictionaries(KEYS, children, max_size=5) | st.lists(children, max_size=3),
    max_leaves=15,
)


def gather(data: Any, **limits: int) -> tuple[dict[str, FieldValue], dict[str, int]]:
    leaves = Leaves(Limits(**limits))
    leaves.add_value(("payload",), data)
    return leaves.finish(), leaves.cut


def names_of(data: Any) -> dict[str, FieldValue]:
    fields, cut = gather(data)
    assert not cut
    return fields


def count_leaves(data: Any) -> int:
    if isinstance(data, dict):
        return sum(map(count_leaves, data.values()))
    return sum(map(count_leaves, data)) if isinstance(data, list) else 1


def orders(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(items) for items in itertools.permutations(data.items())]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("temp_c", "payload_temp_c"),
        ("Temp C", "payload_Temp_C"),
        ("temp.c", "payload_temp_c"),
        ("a,b=c\\", "payload_a_b_c_"),
        ("", "payload__"),
        ("température", "payload_température"),
        ("温度", "payload_温度"),
        ("\n\x00", "payload___"),
        ("\ud800", "payload__"),
        ("k" * 100, "payload_" + "k" * 64),
    ],
)
def test_a_key_is_made_fit_for_a_name(key: str, name: str) -> None:
    assert names_of({key: 1}) == {name: 1.0}


@pytest.mark.parametrize("data", orders({"a_b": 1, "a": {"b": 2}, "a.b": 3}))
def test_of_leaves_that_would_be_called_alike_the_outermost_keeps_the_name(data: Any) -> None:
    assert names_of(data) == {"payload_a_b": 3.0, "payload_a_b_2": 1.0, "payload_a_b_3": 2.0}


@pytest.mark.parametrize("data", orders({"a_b": 1, "a": {"b": 2}, "a_b_2": 3}))
def test_a_number_that_is_taken_is_passed_over(data: Any) -> None:
    assert names_of(data) == {"payload_a_b": 1.0, "payload_a_b_2": 3.0, "payload_a_b_3": 2.0}


def test_long_keys_that_begin_alike_are_two_fields() -> None:
    fields = names_of({"k" * 64 + "1": 1, "k" * 64 + "2": 2})
    assert fields == {"payload_" + "k" * 64: 1.0, "payload_" + "k" * 64 + "_2": 2.0}


@given(TREES)
def test_no_leaf_is_lost_to_another_and_every_name_can_be_stored(data: Any) -> None:
    fields, cut = gather(data, depth=50)
    assert not cut
    assert len(fields) == count_leaves(data)
    assert gather(data, depth=50) == (fields, cut)
    assert all(name.startswith("payload_") for name in fields)
    if fields:
        render([Point("lorawan_uplink", {}, fields, 0)])


@given(st.dictionaries(KEYS, TREES, max_size=5), st.randoms())
def test_the_order_of_the_keys_does_not_change_the_names(data: dict[str, Any], dice: Any) -> None:
    items = list(data.items())
    dice.shuffle(items)
    assert gather(dict(items), depth=50) == gather(data, depth=50)


@given(TREES, TREES)
def test_fields_with_typed_names_never_clash_in_type_with_any_other(one: Any, other: Any) -> None:
    types: dict[str, type] = {}
    for data in (one, other):
        fields, _ = gather(data, depth=50)
        typed = with_typed_names(Point("m", {}, fields, 0), ("payload_",)).fields
        assert len(typed) == len(fields)
        natural = {n: v for n, v in fields.items() if n.endswith(("_text", "_number", "_flag"))}
        for name, value in (*typed.items(), *natural.items()):
            assert types.setdefault(name, type(value)) is type(value)


# --- values ---------------------------------------------------------------------------------------


def test_numbers_are_floats_and_the_others_stay() -> None:
    fields = names_of({"a": 1, "b": 1.5, "c": True, "d": "1", "e": 2**70})
    assert {name: type(value) for name, value in fields.items()} == {
        "payload_a": float,
        "payload_b": float,
        "payload_c": bool,
        "payload_d": str,
        "payload_e": float,
    }


def test_half_a_character_is_replaced() -> None:
    assert names_of({"a": "x\ud800y", "b": "😀"}) == {"payload_a": "x\ufffdy", "payload_b": "😀"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "not_finite"),
        (float("-inf"), "not_finite"),
        (10**400, "out_of_range"),
    ],
)
def test_a_number_that_no_store_takes_is_refused(value: float, reason: str) -> None:
    with pytest.raises(InvalidPoint) as caught:
        gather({"a": [value]})
    assert caught.value.reason == reason


# --- limits ---------------------------------------------------------------------------------------


def test_what_is_nested_too_deep_is_cut_off_and_counted() -> None:
    data = {"a": 1, "b": {"c": 2, "d": {"e": 3}, "f": [4]}}
    assert gather(data, depth=2) == ({"payload_a": 1.0, "payload_b_c": 2.0}, {"too_deep": 2})
    assert gather(data, depth=3)[1] == {}


def test_more_fields_than_the_limit_are_cut_off_and_the_uplink_is_counted() -> None:
    assert gather([1, 2, 3, [4, 5], 6], fields=3) == (
        {"payload_0": 1.0, "payload_1": 2.0, "payload_2": 3.0},
        {"too_many_fields": 1},
    )
    assert gather([1, [2, 3], 4], fields=2)[1] == {"too_many_fields": 1}
    assert gather([1, 2, None, {}, []], fields=2)[1] == {}


def test_a_long_text_is_cut_and_counted() -> None:
    fields, cut = gather({"a": "é" * 11, "b": "x" * 10, "c": "y" * 12}, text_characters=10)
    assert list(fields.values()) == ["é" * 10, "x" * 10, "y" * 10]
    assert cut == {"text_too_long": 2}
