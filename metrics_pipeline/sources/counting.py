"""What all sources of fleet counts do alike: count one metric after the other, and lose no other.

A source brings a function that counts one metric or raises; which failure is whose is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from metrics_pipeline.core.catalog import FLEET_COUNTS, Metric
from metrics_pipeline.core.errors import ConfigurationError, SourceError, SourceRefused
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading


def read_counts(
    source: str,
    answers: Collection[Metric],
    count: Callable[[Metric], int],
    metrics: Sequence[Metric],
    time_ns: int,
) -> Reading:
    """One point with one integer field for each of `metrics`, counted in the order of `answers`.

    A count that fails is a failure about its metric, and the others are kept. A setting that turns
    out wrong and a metric that is none of `answers` are a SourceRefused.
    """
    total = Reading((), tuple(_refuse_others(source, answers, metrics)))
    for metric in answers:
        if metric in metrics:
            total += _read_one(source, count, metric, time_ns)
    return total


def _read_one(source: str, count: Callable[[Metric], int], metric: Metric, time_ns: int) -> Reading:
    try:
        fields = {metric.field: count(metric)}
    except SourceError as error:
        return Reading((), (error.about(metric.field),))
    except ConfigurationError as error:
        problem = f"{error.where}: {error.problem}"
        return Reading((), (SourceRefused(source, metric.field, problem, error.fix),))
    return Reading((Point(FLEET_COUNTS.name, {"provider": source}, fields, time_ns),))


def _refuse_others(
    source: str, answers: Collection[Metric], metrics: Sequence[Metric]
) -> Iterator[SourceRefused]:
    fix = f"Ask another source; this one counts {', '.join(each.field for each in answers)}."
    for metric in metrics:
        if metric not in answers:
            yield SourceRefused(source, metric.field, "this source does not count it", fix)
