"""How fast something grows: a line through samples, by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SECONDS_PER_HOUR = 3600
HOURS_PER_YEAR = 24 * 365
SAMPLES_OF_TREND = 3
"""At least, at as many times."""

SURE = 2.0
"""Standard errors below the slope: what it is at least, as far as noise can tell."""


@dataclass(frozen=True, slots=True)
class Trend:
    """In the unit of the samples, an hour. `error` is the standard error of the slope.

    It takes samples for independent. What grows in steps is less certain than it says.
    """

    last: float
    highest: float
    an_hour: float
    error: float

    @property
    def at_least(self) -> float:
        """An hour."""
        return self.an_hour - SURE * self.error

    @property
    def in_a_year(self) -> float:
        """What is added by then, if it goes on like that."""
        return max(0.0, self.an_hour) * HOURS_PER_YEAR


def trend_of(samples: Sequence[tuple[float, float]]) -> Trend:
    """Of (time in seconds, value); ValueError if those are not at three times at least."""
    times = [at / SECONDS_PER_HOUR for at, _ in samples]
    values = [value for _, value in samples]
    if len(set(times)) < SAMPLES_OF_TREND:
        raise ValueError(f"A trend takes three samples at least, and there are {len(samples)}.")
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    slope = sum((at - middle) * value for at, value in zip(times, values, strict=True)) / spread
    off = [v - mean - slope * (at - middle) for at, v in zip(times, values, strict=True)]
    error = (sum(each**2 for each in off) / (len(off) - 2) / spread) ** 0.5
    return Trend(values[-1], max(values), slope, error)
