"""How long to wait before trying again, and doing so. Time and randomness come in as arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from metrics_pipeline.core.errors import MetricsPipelineError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """`tries` in all; waits of `base_seconds` that double up to `cap_seconds`, with jitter."""

    tries: int
    base_seconds: float
    cap_seconds: float

    def wait_seconds(self, tried: int, random: Callable[[], float]) -> float:
        """The wait after `tried` tries (from 1): between half of the doubled base and all of it."""
        full = min(self.cap_seconds, self.base_seconds * 2.0 ** (tried - 1))
        return full * (0.5 + 0.5 * random())


@dataclass(frozen=True, slots=True)
class Timing:
    """The world's clock, sleep and dice, so that a test can bring its own."""

    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    random: Callable[[], float]


def call_with_retries(
    call: Callable[[], T], backoff: Backoff, timing: Timing, deadline: float | None = None
) -> T:
    """The result of `call`, tried again while its error says that this may help.

    An error's `retry_after_seconds`, where it has one, is honoured even beyond the cap. The last
    error is raised when the tries are used up, or when the wait would end after `deadline`
    (on the `monotonic` clock).
    """
    tried = 0
    while True:
        try:
            return call()
        except MetricsPipelineError as error:
            tried += 1
            wait = _wait_seconds(error, backoff, tried, timing)
            if wait is None or (deadline is not None and timing.monotonic() + wait > deadline):
                raise
        timing.sleep(wait)


def _wait_seconds(
    error: MetricsPipelineError, backoff: Backoff, tried: int, timing: Timing
) -> float | None:
    if not getattr(error, "retry_helps", False) or tried >= backoff.tries:
        return None
    asked: float | None = getattr(error, "retry_after_seconds", None)
    own = backoff.wait_seconds(tried, timing.random)
    return own if asked is None else max(asked, own)
