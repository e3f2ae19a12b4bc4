"""What became of the slots, summed up for the next report to Dagster."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from metrics_pipeline.core.fetches import FAILED, OK
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.sampling.slot import Slot

MOST_TIMES = 1000
"""So many durations are kept for a report."""


def _times() -> deque[float]:
    return deque(maxlen=MOST_TIMES)


@dataclass(slots=True)
class Summary:
    """What became of the slots of one source since the last report. Times are seconds."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    points: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    artifacts: Counter[str] = field(default_factory=Counter)
    """What was asked of the source, by whether it came."""
    delays: deque[float] = field(default_factory=_times)
    durations: deque[float] = field(default_factory=_times)
    problem: str = ""
    """The last one, in words."""

    def add(self, slot: Slot, rejected: Mapping[str, int]) -> None:
        """Take what became of one more slot."""
        self.outcomes[slot.outcome] += slot.number
        self.points += len(slot.reading.points) - sum(rejected.values())
        self.rejected.update(rejected)
        self.failures.update(slot.problems.keys())
        for fetch in slot.reading.fetches:
            self.artifacts.update({OK: fetch.succeeded, FAILED: fetch.failed})
        self.problem = next(iter(slot.problems.values()), self.problem)
        if slot.took_seconds:
            self.delays.append(slot.delay_seconds)
            self.durations.append(slot.took_seconds)

    def merge(self, later: Summary) -> None:
        """Take what came after."""
        self.outcomes += later.outcomes
        self.points += later.points
        self.rejected += later.rejected
        self.failures += later.failures
        self.artifacts += later.artifacts
        self.delays.extend(later.delays)
        self.durations.extend(later.durations)
        self.problem = later.problem or self.problem


class Ledger:
    """The summaries for the next report. May be shared between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._summaries: dict[str, Summary] = {}

    def add(self, slot: Slot, rejected: Mapping[str, int]) -> None:
        """Note what became of `slot`."""
        with self._lock:
            self._summaries.setdefault(slot.source, Summary()).add(slot, rejected)

    def take(self, source: str) -> Summary:
        """What came since it was last taken, which it forgets."""
        with self._lock:
            return self._summaries.pop(source, Summary())
