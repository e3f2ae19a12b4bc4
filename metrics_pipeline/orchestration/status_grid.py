"""When the sweeps of a status run are: on a fixed grid, and none when runs change over. Pure.

A run is due every 5 minutes and starts some seconds later, so the grid is shifted by half a step:
the last sweep of a run ends before the next run is due, and the first of the next comes after it
has started. Where it starts later than that, the slot that is going on is swept at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from metrics_pipeline.core.device_assets import WINDOW_SECONDS

END_SECONDS = 5
"""What a run takes from its last sweep to its end, so that the next is not skipped."""


@dataclass(frozen=True, slots=True)
class StatusGrid:
    """Slots so many seconds apart; each is the time of a sweep, in seconds since the epoch."""

    every_seconds: int

    def slots(self, now_seconds: float) -> Iterator[int]:
        """Those that are going on or to come in the window of `now_seconds`: one at least."""
        window = _window_of(now_seconds)
        for offset in range(self.every_seconds // 2, WINDOW_SECONDS, self.every_seconds):
            if window + offset + self.every_seconds > now_seconds:
                yield window + offset

    def is_in_time(self, slot: int, now_seconds: float, last_took: float) -> bool:
        """Whether to sweep for `slot`, if that takes as many seconds as the last sweep did.

        Not if the next slot has begun, nor if the run would still be there when the next is due.
        """
        starts = max(now_seconds, slot)
        ends = starts + last_took + END_SECONDS
        return starts < slot + self.every_seconds and ends <= _window_of(slot) + WINDOW_SECONDS


def _window_of(seconds: float) -> int:
    return int(seconds // WINDOW_SECONDS) * WINDOW_SECONDS
