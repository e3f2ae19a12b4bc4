r"""Points as InfluxDB line protocol: `measurement,tag=value field=1i 1700000000000000000`.

Written by hand because `influxdb-client`'s own Point objects cost some 18 µs each (COMPONENTS.md);
`benchmarks/line_protocol.py` measures both. The output is byte for byte the one of
`influxdb-client` 1.50, with these exceptions:

- What that client leaves out silently is refused here: a value that is not finite, a point
  without fields, a name that is empty, a measurement that would be read as a comment (`#`).
- A backslash at the end of a name or tag value, or before a comma, space or equals sign in it.
  InfluxDB 1 and 2 read a backslash before such a character as escaping it, InfluxDB 3 reads two
  backslashes as one (`escaped_value` in its parser): no spelling means the same to both, and the
  wrong one moves the end of the tag. The client writes another value (`a\` becomes `a `), which
  would quietly join two series. Here such a point is refused as `ambiguous_backslash`.

Line breaks and tabs in names and tag values are written `\n`, `\r`, `\t`, as that client does, and
stay these two characters in the store. InfluxDB 3 keeps one of two neighbouring backslashes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache

from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.points import FieldValue, Point

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

_NAMES = 4096
"""Names of measurements, tags and fields remembered in their escaped form; they come from the
catalogue, so there are few."""

_TAGS = 16_384
"""Tags with their values remembered in their escaped form: a fleet's devices, in about 5 MB."""

_AMBIGUOUS = re.compile(r"\\(?:[,= \n\r\t]|\Z)")
_KEY_ESCAPES = str.maketrans(
    {",": r"\,", "=": r"\=", " ": r"\ ", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
)
_MEASUREMENT_ESCAPES = {c: escaped for c, escaped in _KEY_ESCAPES.items() if c != ord("=")}
_STRING_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\"})


def render(points: Iterable[Point]) -> bytes:
    """One UTF-8 line for each of `points`, joined by line feeds; timestamps in nanoseconds.

    Raises InvalidPoint for the first point that cannot be written; nothing is left out silently.
    """
    text = "\n".join(map(_line, points))
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        broken = text[error.start : error.end]
        raise InvalidPoint("not_unicode", f"{broken!r} has no UTF-8 form") from None


def _line(point: Point) -> str:
    tags = point.tags
    if len(tags) == 2:  # noqa: PLR2004 (as in device_metrics; sorting would cost a seventh more)
        (key, value), (other_key, other) = tags.items()
        one, two = _tag(key, value), _tag(other_key, other)
        shown = one + two if key < other_key else two + one
    else:
        shown = "".join([_tag(*tag) for tag in sorted(tags.items())])
    return f"{_measurement(point.measurement)}{shown} {_fields(point)} {point.time_ns}"


def _fields(point: Point) -> str:
    fields = point.fields
    if len(fields) == 1:
        ((key, value),) = fields.items()
        return _field(key, value)
    if not fields:
        raise InvalidPoint("no_fields", f"a point of {point.measurement} has no field")
    return ",".join([_field(key, value) for key, value in sorted(fields.items())])


def _field(key: str, value: FieldValue) -> str:
    # The common case first: this function is half of the cost of a point.
    if type(value) is float and math.isfinite(value):
        return f"{_name(key)}={repr(value).removesuffix('.0')}"
    return f"{_name(key)}={_value(value)}"


def _value(value: FieldValue) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() if INT64_MIN <= value <= INT64_MAX:
            return f"{value:d}i"
        case str():
            return f'"{value.translate(_STRING_ESCAPES)}"'
        case float() if math.isfinite(value):
            # A subclass (numpy's float64) may print its type around the number.
            return float.__repr__(value).removesuffix(".0")
        case float():
            raise InvalidPoint("not_finite", f"a field is {value}")
        case int():
            raise InvalidPoint("out_of_range", f"{value} does not fit into 64 bits")
    raise InvalidPoint("wrong_type", f"{type(value).__name__} cannot be stored in a field")


@lru_cache(_NAMES)
def _measurement(name: str) -> str:
    if not name or name.startswith("#"):
        raise InvalidPoint("unwritable_name", f"a measurement is called {name!r}")
    if _AMBIGUOUS.search(name):
        raise _ambiguous(name)
    return name.translate(_MEASUREMENT_ESCAPES)


@lru_cache(_NAMES)
def _name(name: str) -> str:
    if not name:
        raise InvalidPoint("unwritable_name", "a tag or field has an empty name")
    return _escape(name)


@lru_cache(_TAGS)
def _tag(key: str, value: str) -> str:
    return f",{_name(key)}={_escape(value)}" if value else ""


def _escape(text: str) -> str:
    if _AMBIGUOUS.search(text):
        raise _ambiguous(text)
    return text.translate(_KEY_ESCAPES)


def _ambiguous(text: str) -> InvalidPoint:
    return InvalidPoint(
        "ambiguous_backslash",
        f"{text!r} has a backslash at its end or before a comma, space or equals sign, which "
        "line protocol cannot say",
    )
