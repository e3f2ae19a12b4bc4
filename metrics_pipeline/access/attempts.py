"""Requests that are tried again while that may help, all within the time of one reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from metrics_pipeline.access.http_client import HttpSettings
from metrics_pipeline.core.backoff import Backoff, Timing, call_with_retries
from metrics_pipeline.core.errors import CredentialRefused, SourceUnreachable

T = TypeVar("T")

BASE_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0


class Attempts:
    """The requests of one reading of `source`; the time for all of them begins now.

    After a refused credential nothing more is asked: the same refusal is raised at once.
    """

    def __init__(self, source: str, settings: HttpSettings, timing: Timing) -> None:
        self._source = source
        self._settings = settings
        self._timing = timing
        self._backoff = Backoff(settings.tries, BASE_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
        self._deadline = timing.monotonic() + settings.deadline_seconds
        self._refusal: CredentialRefused | None = None

    def answer(self, target: str, ask: Callable[[float], T]) -> T:
        """What `ask` returns when it is given the seconds it may take; its last error if none does.

        SourceUnreachable when the time is over before `ask` could be called at all.
        """
        if self._refusal is not None:
            raise self._refusal
        try:
            return call_with_retries(
                lambda: ask(self._seconds_left(target)), self._backoff, self._timing, self._deadline
            )
        except CredentialRefused as error:
            self._refusal = error
            raise

    def _seconds_left(self, target: str) -> float:
        left = self._deadline - self._timing.monotonic()
        if left <= 0:
            raise SourceUnreachable(
                self._source,
                target,
                f"not asked, for the reading's {self._settings.deadline_seconds:g} s are over",
                f"Find out why {self._source} is slow, or raise its deadline_seconds.",
            )
        return min(left, self._settings.request_timeout_seconds)
