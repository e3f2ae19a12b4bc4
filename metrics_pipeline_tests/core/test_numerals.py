"""A person reads a number without counting in exponents, and loses none of its digits."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.numerals import in_digits


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (-3.0, "-3"),
        (0.1 + 0.2, "0.3"),
        (3.241173798e-05, "0.00003241173798"),
        (1_234_567, "1234567"),
        (41_234_567_890_123.0, "41234567890123"),
        (2**64 - 1, "18446744073709551615"),
        (12_345_678_901.7, "12345678902"),
        (1e300, "1e+300"),
        (-2e-300, "-2e-300"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_a_number_is_shown_as_a_person_writes_it(value: float, shown: str) -> None:
    assert in_digits(value) == shown


@given(st.floats(min_value=1e-9, max_value=1e20))
def test_what_is_shown_is_the_number_and_has_no_exponent(value: float) -> None:
    assert re.fullmatch(r"\d+(\.\d+)?", in_digits(value))
    assert float(in_digits(value)) == pytest.approx(value, rel=1e-9)


@given(st.integers(min_value=-(2**64), max_value=2**64))
def test_of_a_whole_number_no_digit_is_lost(value: int) -> None:
    assert int(in_digits(value)) == value
