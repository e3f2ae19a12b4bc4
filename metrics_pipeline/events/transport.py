"""Where events go: one seam, which each transport has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from metrics_pipeline.core.errors import MetricsPipelineError


class TransportUnavailable(MetricsPipelineError):
    """Nothing, or a part only, is known to have arrived; the same events may be sent again."""

    def __init__(self, where: str, problem: str, fix: str) -> None:
        super().__init__(f"{where}: {problem}. {fix}")
        self.where = where
        self.problem = problem
        self.fix = fix


class Transport(Protocol):
    """Used by one thread at a time. `name` is where it sends to, without a secret."""

    @property
    def name(self) -> str:
        """The place."""
        ...

    def send(self, lines: Sequence[str]) -> None:
        """Hand over events, each as one line of JSON, in order.

        May take a few seconds. Raises TransportUnavailable, and ConfigurationError for a secret
        that is not where the settings say.
        """
        ...

    def check(self) -> str:
        """Look whether events would arrive, send none, and say what was found; raises as `send`."""
        ...

    def close(self) -> None:
        """Let go of what is open; it is opened again by the next `send`."""
        ...
