"""How well a pipeline does, as one number from 0 to 100, and what the number is made of. Pure.

score = sum of weight * component / sum of weight, over the components that are known, each from 0
to 100:

- `run_success`: share of the runs that finished in the last day and succeeded, 0 if none finished:
  were it left out, a pipeline that stops would be better than one that fails;
- `artifact_quality`: share of artifacts with status 2xx and a body, or 304: what was there holds;
- `freshness`: 100 while the last successful run is not older than `fresh_seconds`, 0 from
  `stale_seconds` on, in a straight line between; 0 if no run has ever succeeded;
- `review`: 100 less the review rate, the share that a person has to look at.

A component without data is left out: no artifact is neither a good nor a bad one. Freshness is
always known, so empty tables have the score 0. Where the last success cannot be asked for, there is
nothing to judge: no score is better than one that is right only by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metrics_pipeline.core.catalog import PIPELINE_HEALTH, SCORE
from metrics_pipeline.core.points import Point

WHOLE = 100.0


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each component counts, relative to the others; none below 0, not all 0."""

    run_success: float = 40.0
    artifact_quality: float = 30.0
    freshness: float = 20.0
    review: float = 10.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the tables say. Shares are from 0 to 1, None where there is nothing to have a share of.

    `age_seconds` is since the end of the last successful run, None if there never was one.
    """

    run_success: float | None
    artifact_quality: float | None
    review_rate: float | None
    age_seconds: float | None


@dataclass(frozen=True, slots=True)
class Health:
    """The score, and each component that is known, from 0 to 100."""

    score: float
    components: Mapping[str, float]


def health_points(health: Health, time_ns: int) -> list[Point]:
    """A point for the score, and one for each component that is known."""
    values = {SCORE: health.score, **health.components}
    return [
        Point(PIPELINE_HEALTH.name, {"component": name}, {"value": value}, time_ns)
        for name, value in values.items()
    ]


def judge(inputs: Inputs, weights: Weights, fresh_seconds: float, stale_seconds: float) -> Health:
    """The health of a pipeline; `fresh_seconds` is below `stale_seconds`."""
    known = {
        "run_success": inputs.run_success,
        "artifact_quality": inputs.artifact_quality,
        "freshness": _freshness(inputs.age_seconds, fresh_seconds, stale_seconds),
        "review": None if inputs.review_rate is None else 1 - inputs.review_rate,
    }
    components = {
        name: WHOLE * min(1.0, max(0.0, share))
        for name, share in known.items()
        if share is not None
    }
    weight = {name: getattr(weights, name) for name in components}
    total = sum(weight.values())
    # Where only what does not count is known, nothing says that it is well.
    score = sum(weight[name] * components[name] for name in components) / total if total else 0.0
    return Health(score, components)


def _freshness(age_seconds: float | None, fresh_seconds: float, stale_seconds: float) -> float:
    if age_seconds is None:
        return 0.0
    return (stale_seconds - age_seconds) / (stale_seconds - fresh_seconds)
