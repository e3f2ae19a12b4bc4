"""Lines through samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline_tests.soak.trend import HOURS_PER_YEAR, trend_of


@given(st.floats(-50, 50), st.floats(0, 500), st.integers(3, 60))
def test_a_straight_line_is_found_without_an_error(slope: float, start: float, count: int) -> None:
    trend = trend_of([(600.0 * n, start + slope * n / 6) for n in range(count)])
    assert trend.an_hour == pytest.approx(slope, abs=1e-6)
    assert trend.error == pytest.approx(0, abs=1e-6)
    assert trend.in_a_year == pytest.approx(max(0.0, slope) * HOURS_PER_YEAR, abs=0.02)


def test_noise_alone_does_not_grow_for_certain() -> None:
    trend = trend_of([(60.0 * n, 100.0 + (n % 2)) for n in range(61)])
    assert trend.an_hour == pytest.approx(0, abs=0.05)
    assert trend.error > 0
    assert trend.at_least < 0
    assert (trend.last, trend.highest) == (100.0, 101.0)


def test_two_samples_are_no_trend() -> None:
    with pytest.raises(ValueError, match="three samples"):
        trend_of([(0.0, 1.0), (10.0, 2.0)])
