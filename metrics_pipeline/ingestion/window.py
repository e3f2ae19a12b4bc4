"""Until when an ingestion goes on, and how it waits and tries again meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from metrics_pipeline.core.backoff import Backoff, Timing
from metrics_pipeline.core.errors import MetricsPipelineError

T = TypeVar("T")
Note = Callable[[MetricsPipelineError], None]

ENDLESS = Backoff(tries=2**31, base_seconds=0.2, cap_seconds=10.0)
"""It is the end of the window that ends the tries."""

LONGEST_DOUBLING = 10


class Window:
    """Ends after `seconds`, or when `stop` is set."""

    def __init__(self, seconds: float, stop: threading.Event, timing: Timing) -> None:
        self._timing = timing
        self._stop = stop
        self._began = timing.monotonic()
        self._end = self._began + seconds

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._timing.monotonic() - self._began

    def is_over(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._stop.is_set() or self._timing.monotonic() >= self._end

    def wait(self, seconds: float) -> None:
        """Let time pass, but not beyond the end."""
        left = self._end - self._timing.monotonic()
        self._stop.wait(max(0.0, min(seconds, left)))

    def wait_after(self, error: MetricsPipelineError, tried: int) -> None:
        """Wait before the next try, after `tried` (from 1) that ended with `error`."""
        wait = ENDLESS.wait_seconds(min(tried, LONGEST_DOUBLING), self._timing.random)
        self.wait(max(wait, getattr(error, "retry_after_seconds", None) or 0.0))

    def until_it_works(
        self, call: Callable[[], T], note: Callable[[MetricsPipelineError], None]
    ) -> T:
        """What `call` gives, tried again until the end while its error says that this may help.

        `note` is told every error that is tried again.
        """
        tried = 0
        while True:
            try:
                return call()
            except MetricsPipelineError as error:
                if not getattr(error, "retry_helps", False) or self.is_over():
                    raise
                note(error)
                tried += 1
                self.wait_after(error, tried)
