"""Events in the log: one line of JSON each, at level INFO of the logger `metrics_pipeline_events`.

The logger is not one of the package's, so that a log of ours that is made quieter keeps the events.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

LOGGER = "metrics_pipeline_events"


class LogLines:
    """Writes to standard error where nobody else has said what becomes of the log."""

    name = f"the log, logger {LOGGER}"

    def __init__(self) -> None:
        self._log = logging.getLogger(LOGGER)
        if self._log.level == logging.NOTSET:
            self._log.setLevel(logging.INFO)
        if not self._log.hasHandlers():
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(message)s"))
            self._log.addHandler(handler)

    def send(self, lines: Sequence[str]) -> None:
        """Log each; what a handler cannot write is logging's to tell."""
        for line in lines:
            self._log.info("%s", line)

    def check(self) -> str:
        """There is nothing that could be away."""
        return self.name

    def close(self) -> None:
        """Nothing is open."""
