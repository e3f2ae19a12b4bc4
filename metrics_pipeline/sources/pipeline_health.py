"""An SQL set that is read with one thing more: how well its pipeline does (`core/health.py`).

The score is made of what one reading says, and stored and shown with it. What is not known is not
made up: a query that is left out for a missing column costs its component; one that gives no answer
now costs the score of this reading, so that no score rises because a bad part of it was not heard
of. Without an answer of when a run succeeded last there is none at all.
"""

from __future__ import annotations

from collections.abc import Mapping

from metrics_pipeline.core.health import Inputs, health_points, judge
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sources.pipeline_health_settings import (
    ARTIFACT_QUALITY,
    LAST_SUCCESS_AGE,
    MEASUREMENT,
    REVIEW_RATE,
    RUN_SUCCESS,
    HealthSettings,
    find_health_queries,
)
from metrics_pipeline.sources.sql_metrics import SqlMetrics
from metrics_pipeline.sources.sql_sets import SqlSet

PERCENT = 100.0


class JudgedSqlMetrics:
    """Reads `metrics`, which are those of `sql_set`, and judges. For one thread at a time."""

    def __init__(self, metrics: SqlMetrics, sql_set: SqlSet, health: HealthSettings) -> None:
        self.name = metrics.name
        self._metrics = metrics
        self._health = health
        self._queries = find_health_queries(sql_set)

    def read(self, time_ns: int) -> Reading:
        """What the set gives, with the points of the score where it is known."""
        reading = self._metrics.read(time_ns)
        judged = self._judge(reading, time_ns)
        whole = {(point.measurement, name) for point in judged for name in point.fields}
        return reading + Reading(judged, whole=frozenset(whole))

    def close(self) -> None:
        """Close the connection."""
        self._metrics.close()

    def _judge(self, reading: Reading, time_ns: int) -> tuple[Point, ...]:
        names = set(self._queries.values())
        last_success = self._queries.get(LAST_SUCCESS_AGE)
        if last_success not in self._metrics.answered or names & self._metrics.unanswered:
            return ()
        health = self._health
        inputs = _inputs(_figures(reading))
        found = judge(inputs, health.weights.to_core(), health.fresh_seconds, health.stale_seconds)
        return tuple(health_points(found, time_ns))


def _figures(reading: Reading) -> Mapping[str, float]:
    """The numbers of the one point of MEASUREMENT; of a NULL there is none."""
    points = (point for point in reading.points if point.measurement == MEASUREMENT)
    return {
        name: float(value)
        for point in points
        for name, value in point.fields.items()
        if not isinstance(value, str)
    }


def _inputs(figures: Mapping[str, float]) -> Inputs:
    def share(name: str) -> float | None:
        percent = figures.get(name)
        return None if percent is None else percent / PERCENT

    return Inputs(
        run_success=share(RUN_SUCCESS),
        artifact_quality=share(ARTIFACT_QUALITY),
        review_rate=share(REVIEW_RATE),
        age_seconds=figures.get(LAST_SUCCESS_AGE),
    )
