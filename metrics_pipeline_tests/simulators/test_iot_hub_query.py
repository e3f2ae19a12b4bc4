"""The query language: what is written is what is evaluated, and nonsense is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.simulators.fleet import Device
from metrics_pipeline.simulators.iot_hub_query import (
    KEYWORDS,
    All,
    AnyOf,
    Comparison,
    Condition,
    CountQuery,
    IsDefined,
    Not,
    Path,
    QueryError,
    Scalar,
    evaluate,
    parse_query,
)

COUNT_WHERE = "SELECT COUNT() AS n FROM devices WHERE "
DOCUMENT = {
    "deviceId": "a",
    "capabilities": {"iotEdge": False},
    "tags": {"floor": 3, "deviceType": "LoRa Device", "note": None, "place": {"room": "12"}},
}


def truth(condition: str, document: dict[str, Any] | None = None) -> bool | None:
    parsed = parse_query(f"SELECT COUNT() AS n FROM devices WHERE {condition}").condition
    assert parsed is not None
    return evaluate(parsed, DOCUMENT if document is None else document)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("capabilities.iotEdge = false", True),
        ("capabilities.iotEdge = true", False),
        ("devices.capabilities.iotEdge = false", True),
        ("tags.place.room = '12'", True),
        ("tags.floor = 3", True),
        ("tags.floor = 3.0", True),
        ("tags.floor <> 4", True),
        ("'LoRa Device' = tags.deviceType", True),
        ('tags.deviceType = "LoRa Device"', True),
        ("tags.deviceType != 'lora device'", True),
        ("NOT tags.floor = 3", False),
        ("NOT (tags.floor = 3 AND deviceId = 'b')", True),
        ("deviceId = 'b' OR deviceId = 'a' AND tags.floor = 3", True),
        ("(deviceId = 'a' OR deviceId = 'b') AND tags.floor = 4", False),
        ("is_defined(tags.note)", True),
        ("IS_DEFINED(tags.other)", False),
        ("IS_DEFINED(tags.floor.below)", False),
        ("not is_defined(tags.other) or tags.other != 'x'", True),
        ("1 = 1 aNd NoT 1 = 2", True),
    ],
)
def test_a_condition_means_what_it_says(condition: str, expected: bool) -> None:
    assert truth(condition) is expected


@pytest.mark.parametrize(
    "condition",
    [
        "tags.other = 'x'",
        "tags.other != 'x'",
        "NOT tags.other = 'x'",
        "tags.other = tags.other",
        "tags.note = 'x'",
        "tags.floor = '3'",
        "capabilities.iotEdge = 0",
        "tags.place = 'x'",
        "tags.other = 'x' AND deviceId = 'a'",
        "tags.other = 'x' OR deviceId = 'b'",
    ],
)
def test_what_cannot_be_compared_is_neither_true_nor_false(condition: str) -> None:
    assert truth(condition) is None


def test_a_decisive_side_settles_what_cannot_be_compared() -> None:
    assert truth("tags.other = 'x' OR deviceId = 'a'") is True
    assert truth("tags.other = 'x' AND deviceId = 'b'") is False


def test_only_documents_the_condition_is_true_for_count() -> None:
    query = parse_query("SELECT COUNT() AS n FROM devices WHERE tags.deviceType != 'x'")
    documents = [Device("a").twin(), Device("b", device_type="x").twin()]
    assert query.count([*documents, Device("c", device_type="y").twin()]) == 1


def test_without_a_condition_all_count() -> None:
    assert parse_query("select count() as total from devices") == CountQuery("total", None)
    assert CountQuery("total", None).count([{}, {}]) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "SELECT"),
        ("SELECT * FROM devices", "a word"),
        ("SELECT COUNT() FROM devices", "AS"),
        ("SELECT COUNT() AS FROM devices", "a name"),
        ("SELECT COUNT() AS n", "FROM"),
        ("SELECT COUNT() AS n FROM devices.modules", "the end of the query"),
        ("SELECT COUNT() AS n FROM devices GROUP BY tags.x", "the end of the query"),
        ("SELECT COUNT() AS n FROM devices WHERE", "a name"),
        ("SELECT COUNT() AS n FROM devices WHERE a", "=, != or <>"),
        ("SELECT COUNT() AS n FROM devices WHERE a > 1", "a literal"),
        ("SELECT COUNT() AS n FROM devices WHERE a = 'x", "a literal"),
        ("SELECT COUNT() AS n FROM devices WHERE (a = 1", ")"),
        ("SELECT COUNT() AS n FROM devices WHERE a = 1)", "the end of the query"),
        ("SELECT COUNT() AS n FROM devices WHERE a. = 1", "a name"),
        ("SELECT COUNT() AS n FROM devices WHERE IS_DEFINED('a')", "a name"),
        ("SELECT COUNT() AS n FROM devices WHERE " + "(" * 5000 + "a", "at most 50"),
        ("SELECT COUNT() AS n FROM devices WHERE " + "NOT " * 5000 + "a", "at most 50"),
    ],
)
def test_a_bad_query_says_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(QueryError, match="expected ") as caught:
        parse_query(text)
    assert expected in str(caught.value)


# --- properties -----------------------------------------------------------------------------

names = st.from_regex(r"[A-Za-z_$][A-Za-z0-9_$]{0,5}", fullmatch=True).filter(
    lambda name: name.lower() not in KEYWORDS and name.lower() not in ("devices", "is_defined")
)
paths = st.builds(Path, st.lists(names, min_size=1, max_size=3).map(tuple))
scalars: st.SearchStrategy[Scalar] = st.one_of(
    st.booleans(), st.text(max_size=8), st.floats(-1e6, 1e6, allow_nan=False)
)
operands: st.SearchStrategy[Path | Scalar] = st.one_of(paths, scalars)
predicates: st.SearchStrategy[Condition] = st.one_of(
    st.builds(IsDefined, paths),
    st.builds(Comparison, operands, st.sampled_from(("=", "!=")), operands),
)


def _several(
    kind: type[All] | type[AnyOf], inner: st.SearchStrategy[Condition]
) -> st.SearchStrategy[Condition]:
    return st.builds(kind, st.lists(inner, min_size=2, max_size=3).map(tuple))


conditions = st.recursive(
    predicates,
    lambda inner: st.one_of(st.builds(Not, inner), _several(All, inner), _several(AnyOf, inner)),
    max_leaves=8,
)


def written(condition: Condition) -> str:
    """`condition` in the language, with parentheses around everything that has parts."""
    match condition:
        case Comparison(left, operator, right):
            return f"{written_operand(left)} {operator} {written_operand(right)}"
        case IsDefined(path):
            return f"IS_DEFINED ( {written_operand(path)} )"
        case Not(inner):
            return f"NOT({written(inner)})"
        case All(several):
            return " AND ".join(f"({written(each)})" for each in several)
        case AnyOf(several):
            return "\nor ".join(f"({written(each)})" for each in several)


def written_operand(operand: Path | Scalar) -> str:
    if isinstance(operand, Path):
        return ".".join(operand.parts)
    if isinstance(operand, str):
        return "'" + operand.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(operand).upper() if isinstance(operand, bool) else repr(operand)


@given(alias=names, condition=conditions)
def test_what_is_written_is_what_is_parsed(alias: str, condition: Condition) -> None:
    text = f"SELECT COUNT() AS {alias} FROM devices WHERE {written(condition)}"
    assert parse_query(text) == CountQuery(alias, condition)


WORDS = "SELECT COUNT ( ) AS n FROM devices WHERE a . = != 'x' 1 NOT AND OR IS_DEFINED"
jumbles = st.lists(st.sampled_from(WORDS.split())).map(" ".join)


def parsed_or_error(text: str) -> CountQuery | QueryError:
    try:
        return parse_query(text)
    except QueryError as error:
        return error


@given(text=st.one_of(st.text(max_size=60), jumbles), start=st.sampled_from(("", COUNT_WHERE)))
def test_any_text_is_a_query_or_an_error_at_a_place_in_it(text: str, start: str) -> None:
    found = parsed_or_error(start + text)
    if isinstance(found, QueryError):
        assert 0 <= found.position <= len(start + text)
    else:
        assert found.count([{}, DOCUMENT]) in (0, 1, 2)


@given(condition=conditions)
def test_a_negation_is_undone_by_another(condition: Condition) -> None:
    assert evaluate(Not(Not(condition)), DOCUMENT) is evaluate(condition, DOCUMENT)


@given(several=st.lists(conditions, min_size=2, max_size=3).map(tuple))
def test_and_is_the_opposite_of_or_over_opposites(several: tuple[Condition, ...]) -> None:
    opposites = AnyOf(tuple(Not(each) for each in several))
    assert evaluate(All(several), DOCUMENT) is evaluate(Not(opposites), DOCUMENT)


twins = st.builds(
    Device,
    id=st.text(min_size=1, max_size=3),
    is_edge=st.booleans(),
    device_type=st.sampled_from((None, "LoRa Concentrator", "LoRa Device", "")),
    is_connected=st.booleans(),
)


@given(devices=st.lists(twins, max_size=8))
def test_the_products_queries_count_like_plain_python(devices: list[Device]) -> None:
    from metrics_pipeline.core.catalog import CONNECTED_DEVICE_COUNT, DEVICE_COUNT
    from metrics_pipeline.sources.azure_iot_hub import QUERIES

    documents = [device.twin() for device in devices]
    standard = [
        device
        for device in devices
        if not device.is_edge and device.device_type != "LoRa Concentrator"
    ]
    connected = [device for device in standard if device.is_connected]
    assert parse_query(QUERIES[DEVICE_COUNT]).count(documents) == len(standard)
    assert parse_query(QUERIES[CONNECTED_DEVICE_COUNT]).count(documents) == len(connected)
