"""Names that devices chose for their interfaces and disks, made fit to be a tag."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.line_protocol import render
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.row_names import MAX_CHARACTERS, clean_name, distinct_names
from metrics_pipeline.core.validation import validate

NOW_NS = 1_700_000_000_000_000_000


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("Gi1/0/1", "Gi1/0/1"),
        ("MS TCP Loopback interface\0", "MS TCP Loopback interface"),
        ("C:\\ Label:  Serial Number 1848504c", "C:/ Label: Serial Number 1848504c"),
        ("C:\\", "C:/"),
        ("\x1b[31mred\x07", "[31mred"),
        ("  two\r\nlines\t", "two lines"),
        ("a\x00 \x01b", "a b"),
        ("non-breaking\u00a0space", "non-breaking space"),
        ("half \ud800 a character", "half a character"),
        ("caf\ufffd", "caf\ufffd"),
        ("Übertragung 上", "Übertragung 上"),
        ("\0\0", ""),
        ("", ""),
        ("x" * 300, "x" * MAX_CHARACTERS),
    ],
)
def test_a_name_is_one_line_that_can_be_printed(told: str, name: str) -> None:
    assert clean_name(told) == name


def test_equal_names_are_told_apart_by_their_index() -> None:
    assert distinct_names({"1": "eth", "2": "eth\0", "7": "lan"}) == {
        "1": "eth#1",
        "2": "eth#2",
        "7": "lan",
    }


def test_a_row_without_a_name_is_called_by_its_index() -> None:
    assert distinct_names({"1": "", "2": "2", "10.3": "\0"}) == {
        "1": "1",
        "2": "2",
        "10.3": "10.3",
    }


def test_a_name_that_looks_like_a_marked_one_is_told_apart_too() -> None:
    names = distinct_names({"1": "a", "2": "a", "3": "a#1"})
    assert names == {"1": "a#1", "2": "a#2", "3": "a#1#3"}


def test_names_that_are_cut_to_the_same_are_told_apart() -> None:
    long = "x" * MAX_CHARACTERS
    assert distinct_names({"1": long + "1", "2": long + "2"}) == {
        "1": f"{long}#1",
        "2": f"{long}#2",
    }


def test_twenty_thousand_equal_names_are_told_apart() -> None:
    names = distinct_names({str(n): "port" for n in range(20_000)})
    assert len(set(names.values())) == 20_000


NAMES = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(["a", "a#1", "a#2", "\\"])


@given(names=st.dictionaries(st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3})?", fullmatch=True), NAMES))
@example(names={"1": "a", "2": "a", "3": "a#1", "4": "a#1#3"})
def test_whatever_rows_are_called_each_has_a_name_of_its_own_that_can_be_stored(
    names: dict[str, str],
) -> None:
    made = distinct_names(names)
    assert made.keys() == names.keys()
    assert len(set(made.values())) == len(made)
    for name in made.values():
        tags = {"device_id": "d", "metric_name": "disk_usage_percent", "name": name}
        point = Point("device_disks", tags, {"value": 1.0}, NOW_NS)
        assert validate(point, CATALOG, NOW_NS) == point
        assert render([point]).count(b"\n") == 0


@given(told=st.text(st.characters(codec=None), max_size=900))
def test_a_clean_name_stays_as_it_is(told: str) -> None:
    name = clean_name(told)
    assert clean_name(name) == name
    assert len(name) <= MAX_CHARACTERS
