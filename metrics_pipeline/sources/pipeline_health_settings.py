"""The settings of the health score, and the figures of an SQL set that it is made of."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, Field, model_validator

from metrics_pipeline.core.health import Weights
from metrics_pipeline.sources.sql_sets import Name, SqlSet

MEASUREMENT = "scrape_pipeline"
RUN_SUCCESS = "run_success_percent_24h"
LAST_SUCCESS_AGE = "last_success_age_seconds"
ARTIFACT_QUALITY = "artifact_quality_percent"
REVIEW_RATE = "review_rate_percent"
FIGURES = (RUN_SUCCESS, LAST_SUCCESS_AGE, ARTIFACT_QUALITY, REVIEW_RATE)
"""Fields of MEASUREMENT, of which there is one point."""

USUAL = Weights()


class HealthWeights(BaseModel, frozen=True, extra="forbid"):
    """How much each component counts, relative to the others; 0 leaves it out of the score."""

    run_success: float = Field(
        default=USUAL.run_success, ge=0, le=1000, description="Runs that succeeded."
    )
    artifact_quality: float = Field(
        default=USUAL.artifact_quality, ge=0, le=1000, description="Artifacts that can be used."
    )
    freshness: float = Field(
        default=USUAL.freshness, ge=0, le=1000, description="How long ago a run succeeded."
    )
    review: float = Field(
        default=USUAL.review, ge=0, le=1000, description="Artifacts nobody has to look at."
    )

    @model_validator(mode="after")
    def _check_one_counts(self) -> HealthWeights:
        if not any(self.model_dump().values()):
            raise ValueError("expected at least one weight above 0")
        return self

    def to_core(self) -> Weights:
        """The same, for `core/health.py`."""
        return Weights(**self.model_dump())


class HealthSettings(BaseModel, frozen=True, extra="forbid"):
    """The health score, 0 to 100, of the pipeline that an SQL set reads."""

    sql_set: Name = Field(
        default="scrape_pipeline",
        description="Which of sql.sets it is made of, at each reading of it. Without that set "
        "there is no score.",
    )
    weights: HealthWeights = Field(
        default=HealthWeights(),
        description="The score is sum(weight * component) / sum(weight) of the components there "
        "are data of (docs/sql-metrics.md).",
    )
    fresh_seconds: float = Field(
        default=3600,
        ge=0,
        le=31_536_000,
        description="The component freshness is 100 while the last successful run ended at most "
        "so long ago; the usual time between two runs, and some.",
    )
    stale_seconds: float = Field(
        default=86_400,
        gt=0,
        le=31_536_000,
        description="It is 0 from then on, and in a straight line between.",
    )

    @model_validator(mode="after")
    def _check_order(self) -> HealthSettings:
        if self.stale_seconds <= self.fresh_seconds:
            raise ValueError(
                f"stale_seconds: expected more than fresh_seconds ({self.fresh_seconds:g}), "
                f"got {self.stale_seconds:g}"
            )
        return self


def find_health_queries(sql_set: SqlSet) -> Mapping[str, str]:
    """Of each of FIGURES that `sql_set` has, overall, the name of the query that gives it."""
    return {
        field: query.name
        for query in sql_set.queries
        if query.measurement.name == MEASUREMENT and not query.tags
        for field in query.metrics
        if field in FIGURES
    }
