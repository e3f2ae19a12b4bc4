"""The score: its parts, its ends, and that it never lies outside of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.catalog import CATALOG, HEALTH_COMPONENTS
from metrics_pipeline.core.health import Inputs, Weights, health_points, judge
from metrics_pipeline.core.validation import validate

FRESH, STALE = 3600.0, 86_400.0
SHARES = st.none() | st.floats(0, 1)
WEIGHTS = st.builds(Weights, *(st.floats(0, 1000) for _ in HEALTH_COMPONENTS))


def score(inputs: Inputs, weights: Weights | None = None) -> float:
    return judge(inputs, weights or Weights(), FRESH, STALE).score


def test_a_pipeline_in_which_all_is_well_has_a_hundred() -> None:
    assert score(Inputs(1.0, 1.0, 0.0, 0.0)) == 100


def test_one_in_which_nothing_is_has_none() -> None:
    assert score(Inputs(0.0, 0.0, 1.0, STALE)) == 0


def test_empty_tables_have_none_and_say_that_it_is_for_freshness() -> None:
    found = judge(Inputs(None, None, None, None), Weights(), FRESH, STALE)
    assert (found.score, found.components) == (0.0, {"freshness": 0.0})


def test_the_score_is_the_weighted_mean_of_its_components() -> None:
    found = judge(Inputs(0.9, 0.8, 0.3, 0.0), Weights(40, 30, 20, 10), FRESH, STALE)
    assert found.components == pytest.approx(
        {"run_success": 90, "artifact_quality": 80, "freshness": 100, "review": 70}
    )
    assert found.score == pytest.approx((40 * 90 + 30 * 80 + 20 * 100 + 10 * 70) / 100)


def test_a_component_without_data_is_left_out() -> None:
    assert score(Inputs(0.5, None, None, 0.0), Weights(60, 30, 40, 10)) == pytest.approx(70)


@pytest.mark.parametrize(
    ("age_seconds", "freshness"),
    [(-5.0, 100), (0.0, 100), (FRESH, 100), ((FRESH + STALE) / 2, 50), (STALE, 0), (1e12, 0)],
)
def test_freshness_falls_in_a_straight_line(age_seconds: float, freshness: float) -> None:
    found = judge(Inputs(None, None, None, age_seconds), Weights(), FRESH, STALE)
    assert found.components["freshness"] == pytest.approx(freshness)


def test_where_only_what_does_not_count_is_known_nothing_says_that_it_is_well() -> None:
    assert score(Inputs(None, None, None, 0.0), Weights(freshness=0)) == 0


def test_score_and_components_are_points_that_may_be_stored() -> None:
    health = judge(Inputs(0.9, 0.8, 0.3, 0.0), Weights(), FRESH, STALE)
    points = health_points(health, 1)
    assert [validate(point, CATALOG, 1) for point in points] == points
    assert {point.tags["component"] for point in points} == {"score", *HEALTH_COMPONENTS}


@given(SHARES, SHARES, SHARES, st.none() | st.floats(-1e9, 1e9), WEIGHTS)
def test_the_score_lies_between_its_components(
    runs: float | None,
    quality: float | None,
    review: float | None,
    age: float | None,
    weights: Weights,
) -> None:
    found = judge(Inputs(runs, quality, review, age), weights, FRESH, STALE)
    assert all(0 <= value <= 100 for value in found.components.values())
    assert 0 <= found.score <= max(found.components.values()) + 1e-9
