"""The grid of a source that is sampled: which slot is due, and how many were missed. No clock.

The slots of a source are the multiples of its interval since the epoch. A slot is begun within a
tolerance or not at all: a sample never has the time of a slot that it was not taken at.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from metrics_pipeline.core.validation import NS_PER_SECOND

LONGEST_COUNTED_SECONDS = 3600
"""Of a gap no more slots than of an hour are counted as missed: a machine that was off for a week
would else be most of the counter."""

LONGEST_BEHIND_SECONDS = 600
"""A clock that was set back is waited for, as no slot is sampled twice; if by more than this, the
times before were the wrong ones, and the grid begins anew."""

SHORTEST_TOLERANCE_NS = NS_PER_SECOND // 2
TOLERANCE_SHARE = 10
"""Of the interval: one tenth of it."""


class Outcome(StrEnum):
    """What became of a slot; the label `outcome` of the counter of slots."""

    SAMPLED = "sampled"
    FAILED = "failed"
    NOT_STORED = "not_stored"
    BUSY = "missed_busy"
    LATE = "missed_late"
    CLOCK = "missed_clock"
    STOPPED = "missed_stopped"


MISSED = (Outcome.BUSY, Outcome.LATE, Outcome.CLOCK, Outcome.STOPPED)
"""The source was not asked: it had not answered yet, the process or the machine was held up, the
clock went forward, or nobody sampled."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done now: sample `slot_ns` (None: nothing), and count `missed` slots."""

    slot_ns: int | None = None
    missed: int = 0


@dataclass(slots=True)
class Slots:
    """The grid of one source. `last_ns` is the newest slot that is accounted for."""

    every_ns: int
    last_ns: int

    @classmethod
    def beginning(cls, every_seconds: float, now_ns: int, last_ns: int | None) -> Slots:
        """The grid from now on, or from `last_ns` on, up to which others have accounted for it."""
        every_ns = round(every_seconds * NS_PER_SECOND)
        return cls(every_ns, _floor(now_ns if last_ns is None else last_ns, every_ns))

    @property
    def tolerance_ns(self) -> int:
        """So long after a slot its sample may begin."""
        return max(SHORTEST_TOLERANCE_NS, self.every_ns // TOLERANCE_SHARE)

    def wait_seconds(self, now_ns: int) -> float:
        """How long it is to the next slot."""
        return max(0.0, (self.last_ns + self.every_ns - now_ns) / NS_PER_SECOND)

    def advance(self, now_ns: int) -> Due:
        """Account for all slots up to `now_ns`: the newest is begun if it is not too late."""
        newest = _floor(now_ns, self.every_ns)
        if self.last_ns - now_ns > LONGEST_BEHIND_SECONDS * NS_PER_SECOND:
            self.last_ns = newest
        if newest <= self.last_ns:
            return Due()
        is_in_time = now_ns - newest <= self.tolerance_ns
        passed = (newest - self.last_ns) // self.every_ns
        self.last_ns = newest
        return Due(newest if is_in_time else None, self._bounded(passed - is_in_time))

    def skip(self, now_ns: int) -> int:
        """Account for all slots up to `now_ns` as missed; gives how many they are."""
        due = self.advance(now_ns)
        return due.missed + (due.slot_ns is not None)

    def _bounded(self, missed: int) -> int:
        return min(missed, max(1, LONGEST_COUNTED_SECONDS * NS_PER_SECOND // self.every_ns))


def _floor(time_ns: int, every_ns: int) -> int:
    return time_ns - time_ns % every_ns
