"""When the sweeps of a status run are: every 30 s, and none when runs change over. Pure.

A run is due every 5 minutes and starts some seconds later, so the grid is shifted: the last sweep
of a run ends before the next run is due, and the first of the next comes after it has started.
"""

from collections.abc import Iterator

WINDOW_SECONDS = 300
EVERY_SECONDS = 30
SHIFT_SECONDS = 15


def sweep_times(now_seconds: float) -> Iterator[int]:
    """The times of the sweeps that are left in the window of `now_seconds`, since the epoch."""
    window = int(now_seconds // WINDOW_SECONDS) * WINDOW_SECONDS
    for offset in range(SHIFT_SECONDS, WINDOW_SECONDS, EVERY_SECONDS):
        if window + offset >= now_seconds:
            yield window + offset
