"""Line protocol against its grammar, read by a parser of our own, and against `influxdb-client`.

The parser follows how InfluxDB 1 and 2 split a line: a separator counts unless the character
before it is a backslash (https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from influxdb_client.client.write.point import Point as ClientPoint

from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.line_protocol import render
from metrics_pipeline.core.points import FieldValue, Point

TIME_NS = 1_700_000_000_123_456_789

# --- a reader of the grammar, for these tests alone -------------------------------------------


def split_unescaped(text: str, separator: str) -> list[str]:
    return re.split(rf"(?<!\\){re.escape(separator)}", text)


def unescaped(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


def parse_value(text: str) -> FieldValue:
    if text.startswith('"'):
        assert text.endswith('"')
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if text in ("true", "false"):
        return text == "true"
    return int(text.removesuffix("i")) if text.endswith("i") else float(text)


def parse_fields(text: str) -> tuple[dict[str, FieldValue], str]:
    """The fields at the start of `text`, and what follows them."""
    fields: dict[str, FieldValue] = {}
    value_pattern = re.compile(r'"(?:[^"\\]|\\.)*"|[^ ,]+', re.DOTALL)
    while True:
        end_of_key = re.compile(r"(?<!\\)=").search(text)
        assert end_of_key
        value = value_pattern.match(text, end_of_key.end())
        assert value
        fields[unescaped(text[: end_of_key.start()])] = parse_value(value.group())
        rest = text[value.end() :]
        if not rest.startswith(","):
            return fields, rest
        text = rest[1:]


def parse_line(line: str) -> Point:
    head, *_ = split_unescaped(line, " ")
    measurement, *tags = split_unescaped(head, ",")
    fields, rest = parse_fields(line[len(head) + 1 :])
    assert rest.startswith(" ")
    pairs = (split_unescaped(tag, "=") for tag in tags)
    return Point(
        unescaped(measurement).replace("\\=", "="),
        {unescaped(key): unescaped(value) for key, value in pairs},
        fields,
        int(rest[1:]),
    )


# --- what there is to render --------------------------------------------------------------------

AMBIGUOUS = re.compile(r"\\(?:[,= \n\r\t]|\Z)")
TRICKY = st.sampled_from([",", " ", "=", "\\", '"', "#", "a", "é", "😀", "\x00", "\u2028"])
ANY_TEXT = st.text(st.one_of(TRICKY, st.characters(exclude_categories=["Cs"])), max_size=12)
NAMES = st.text(
    st.one_of(TRICKY, st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\t")),
    min_size=1,
    max_size=12,
).filter(lambda text: not AMBIGUOUS.search(text))
VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    ANY_TEXT,
)
POINTS = st.builds(
    Point,
    NAMES.filter(lambda name: not name.startswith("#")),
    st.dictionaries(NAMES, st.one_of(st.just(""), NAMES), max_size=4),
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=4),
    st.integers(-(2**63), 2**63 - 1),
)


def client_line(point: Point) -> str:
    theirs = ClientPoint.from_dict(
        {
            "measurement": point.measurement,
            "tags": dict(point.tags),
            "fields": dict(point.fields),
            "time": point.time_ns,
        }
    )
    line: str = theirs.to_line_protocol()
    return line


def one_point(
    measurement: str = "device_metrics",
    tags: dict[str, str] | None = None,
    fields: dict[str, FieldValue] | None = None,
) -> Point:
    return Point(measurement, tags or {}, {"value": 1.5} if fields is None else fields, TIME_NS)


# --- tests --------------------------------------------------------------------------------------


@given(POINTS)
@example(one_point(tags={"interface": "Gigabit 0/1, uplink=a"}))
@example(one_point(fields={"a": -0.0, "b": 1e-300, "c": 5e-324, "d": 1e22, "e": -(2**63)}))
def test_a_rendered_point_reads_back_as_itself_without_its_empty_tags(point: Point) -> None:
    read = parse_line(render([point]).decode())
    assert read.measurement == point.measurement
    assert read.tags == {key: value for key, value in point.tags.items() if value}
    assert read.time_ns == point.time_ns
    assert read.fields == point.fields
    for name, value in point.fields.items():
        assert type(read.fields[name]) is type(value)


@given(POINTS)
def test_the_output_is_the_one_of_influxdb_client(point: Point) -> None:
    assert render([point]).decode() == client_line(point)


@given(st.text("\n\r\tab", min_size=1), st.text("\n\r\tab"), st.text("\n\r\tab", min_size=1))
def test_line_breaks_never_split_a_line_and_look_as_influxdb_client_writes_them(
    measurement: str, tag: str, field: str
) -> None:
    point = Point(measurement, {"t" + field: tag}, {field: 1}, TIME_NS)
    line = render([point]).decode()
    assert line.splitlines() == [line]
    assert line == client_line(point)


def test_many_points_are_lines_in_their_order() -> None:
    points = [Point("m", {"n": str(i)}, {"value": i}, TIME_NS + i) for i in range(3)]
    assert render(points) == (
        b"m,n=0 value=0i 1700000000123456789\n"
        b"m,n=1 value=1i 1700000000123456790\n"
        b"m,n=2 value=2i 1700000000123456791"
    )


def test_no_points_are_no_bytes() -> None:
    assert render([]) == b""


def test_tags_and_fields_are_sorted_so_that_a_series_always_looks_the_same() -> None:
    point = one_point(tags={"b": "2", "a": "1"}, fields={"z": 1, "y": True, "x": "s"})
    assert render([point]) == b'device_metrics,a=1,b=2 x="s",y=true,z=1i 1700000000123456789'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.0, "1"),
        (0.1, "0.1"),
        (-0.0, "-0"),
        (1e22, "1e+22"),
        (5e-324, "5e-324"),
        (0.1 + 0.2, "0.30000000000000004"),
        (0, "0i"),
        (2**63 - 1, "9223372036854775807i"),
        (-(2**63), "-9223372036854775808i"),
        (True, "true"),
        (False, "false"),
        ("", '""'),
        ('say "no"\\', '"say \\"no\\"\\\\"'),
        ("two\nlines", '"two\nlines"'),
    ],
)
def test_a_value_keeps_its_type(value: FieldValue, shown: str) -> None:
    assert (
        render([one_point(fields={"f": value})]).decode() == f"device_metrics f={shown} {TIME_NS}"
    )


def test_a_number_of_a_subclass_looks_like_its_plain_value() -> None:
    class Celsius(float):
        def __repr__(self) -> str:
            return f"Celsius({float(self)})"

    class Port(int):
        def __repr__(self) -> str:
            return "Port()"

    point = one_point(fields={"a": Celsius(21.5), "b": Port(5)})
    assert render([point]).startswith(b"device_metrics a=21.5,b=5i ")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    assert reason_of(one_point(fields={"f": value})) == "not_finite"


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_an_integer_beyond_64_bits_is_refused(value: int) -> None:
    assert reason_of(one_point(fields={"f": value})) == "out_of_range"


@pytest.mark.parametrize("value", [None, [1], b"x"])
def test_a_value_of_another_type_is_refused(value: FieldValue) -> None:
    assert reason_of(one_point(fields={"f": value})) == "wrong_type"


BACKSLASHED = ["C:\\", "a\\,b", "a\\ b", "a\\=b", "a\\\nb"]
PLACES: list[Callable[[str], Point]] = [
    lambda text: one_point(measurement=text),
    lambda text: one_point(tags={text: "a"}),
    lambda text: one_point(tags={"a": text}),
    lambda text: one_point(fields={text: 1}),
]


@pytest.mark.parametrize("text", BACKSLASHED)
@pytest.mark.parametrize("place", PLACES)
def test_a_backslash_that_would_move_the_end_of_a_name_is_refused(
    place: Callable[[str], Point], text: str
) -> None:
    assert reason_of(place(text)) == "ambiguous_backslash"


def test_a_backslash_inside_a_tag_is_kept() -> None:
    assert b",disk=C:\\Data " in render([one_point(tags={"disk": "C:\\Data"})])


@pytest.mark.parametrize("place", [PLACES[0], PLACES[1], PLACES[3]])
def test_an_empty_name_is_refused(place: Callable[[str], Point]) -> None:
    assert reason_of(place("")) == "unwritable_name"


def test_a_measurement_that_would_read_as_a_comment_is_refused() -> None:
    assert reason_of(one_point(measurement="#devices")) == "unwritable_name"


def test_a_point_without_fields_is_refused() -> None:
    assert reason_of(one_point(fields={})) == "no_fields"


@pytest.mark.parametrize("place", PLACES)
def test_half_a_surrogate_pair_is_refused(place: Callable[[str], Point]) -> None:
    assert reason_of(place("a\ud800b")) == "not_unicode"


def reason_of(point: Point) -> str:
    with pytest.raises(InvalidPoint) as caught:
        render([one_point(), point])
    return caught.value.reason
