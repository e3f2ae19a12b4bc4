"""How many slots of samples were due by the clock, and what the exporter says became of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from metrics_pipeline.core.catalog import SAMPLE_SLOTS
from metrics_pipeline.core.sample_slots import Outcome

SLOT = f"{SAMPLE_SLOTS.name}{{"
BAD = (Outcome.NOT_STORED, Outcome.BUSY, Outcome.LATE, Outcome.CLOCK, Outcome.STOPPED)
SHOWN_WITHIN_SECONDS = 15.0
"""From a slot to its outcome on the page: it is stored, and the exporter looks."""

Outcomes = Mapping[str, Mapping[str, int]]
"""By source, what became of how many slots."""


@dataclass(frozen=True, slots=True)
class SlotsOfSource:
    """Of one source: `due` by the clock, at every so many seconds, and what became of them."""

    source: str
    every_seconds: float
    due: int
    outcomes: Mapping[str, int]

    @property
    def unexplained(self) -> int:
        """So many more or fewer than due does the product speak of, beyond what the page lags."""
        lag = math.ceil(SHOWN_WITHIN_SECONDS / self.every_seconds) + 1
        off = abs(self.due - sum(self.outcomes.values()))
        return off if off > lag else 0

    @property
    def missed(self) -> int:
        """Those told as missed, and those unexplained."""
        return sum(self.outcomes.get(what, 0) for what in BAD) + self.unexplained

    @property
    def told(self) -> str:
        """What became of them, in words."""
        each = [f"{n} {what}" for what, n in sorted(self.outcomes.items()) if n]
        if self.unexplained:
            each.append(f"{self.unexplained} unexplained")
        return ", ".join(each)


def outcomes_on(page: str) -> Outcomes:
    """What the exporter's page says."""
    found: dict[str, dict[str, int]] = {}
    for line in page.splitlines():
        if line.startswith(SLOT):
            source, what = _label(line, "source"), _label(line, "outcome")
            found.setdefault(source, {})[what] = round(float(line.rpartition(" ")[2]))
    return found


def slots_between(
    every_seconds: Mapping[str, float], before: Outcomes, after: Outcomes, seconds: float
) -> list[SlotsOfSource]:
    """Of each source that is to be sampled, in so many seconds between two pages."""
    return [
        SlotsOfSource(source, every, int(seconds // every), _less(after, before, source))
        for source, every in every_seconds.items()
    ]


def _less(after: Outcomes, before: Outcomes, source: str) -> Mapping[str, int]:
    earlier = before.get(source, {})
    return {what: n - earlier.get(what, 0) for what, n in after.get(source, {}).items()}


def _label(line: str, name: str) -> str:
    return line.partition(f'{name}="')[2].partition('"')[0]
