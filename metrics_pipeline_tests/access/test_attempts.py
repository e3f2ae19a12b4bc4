"""How long a reading goes on asking, and when it stops, with a clock that moves when one sleeps."""

from __future__ import annotations

import pytest

from metrics_pipeline.access.attempts import Attempts
from metrics_pipeline.access.http_client import HttpSettings
from metrics_pipeline.core.backoff import Timing
from metrics_pipeline.core.errors import (
    CredentialRefused,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
)


class FarSide:
    """Takes `seconds` for each request, and raises the next of `troubles` until there are none."""

    def __init__(self, *troubles: Exception, seconds: float = 0.0) -> None:
        self.troubles = list(troubles)
        self.seconds = seconds
        self.now = 1000.0
        self.timeouts: list[float] = []
        self.slept: list[float] = []

    @property
    def timing(self) -> Timing:
        return Timing(lambda: self.now, self._sleep, lambda: 1.0)

    def ask(self, timeout_seconds: float) -> str:
        self.timeouts.append(timeout_seconds)
        self.now += self.seconds
        if self.troubles:
            raise self.troubles.pop(0)
        return "answer"

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def attempts(far_side: FarSide, **settings: float) -> Attempts:
    return Attempts("cloud", HttpSettings.model_validate(settings), far_side.timing)


def unreachable() -> SourceUnreachable:
    return SourceUnreachable("cloud", "things", "HTTP 503", "Wait.")


def test_an_answer_is_given_on() -> None:
    far_side = FarSide()
    assert attempts(far_side).answer("things", far_side.ask) == "answer"
    assert far_side.timeouts == [10]


def test_what_passes_is_survived_with_waits_that_double() -> None:
    far_side = FarSide(unreachable(), unreachable())
    assert attempts(far_side).answer("things", far_side.ask) == "answer"
    assert far_side.slept == [0.5, 1.0]


def test_tries_are_counted_for_each_request_anew() -> None:
    far_side = FarSide(unreachable(), unreachable())
    two = attempts(far_side, tries=2)
    with pytest.raises(SourceUnreachable):
        two.answer("things", far_side.ask)
    assert two.answer("things", far_side.ask) == "answer"
    assert len(far_side.timeouts) == 3


def test_a_request_gets_no_more_than_what_is_left_of_the_reading() -> None:
    far_side = FarSide(seconds=7)
    slow = attempts(far_side, deadline_seconds=15)
    for _ in range(3):
        slow.answer("things", far_side.ask)
    assert far_side.timeouts == [10, 8, 1]


def test_after_the_deadline_nothing_is_asked() -> None:
    far_side = FarSide(seconds=20)
    slow = attempts(far_side, deadline_seconds=15)
    slow.answer("things", far_side.ask)
    with pytest.raises(SourceUnreachable, match="the reading's 15 s are over"):
        slow.answer("cores", far_side.ask)
    assert len(far_side.timeouts) == 1


def test_a_wait_that_would_end_after_the_deadline_is_not_begun() -> None:
    far_side = FarSide(SourceThrottled("cloud", "things", "HTTP 429", "Wait.", 200))
    with pytest.raises(SourceThrottled):
        attempts(far_side).answer("things", far_side.ask)
    assert far_side.slept == []


def test_after_a_refused_credential_nothing_is_asked() -> None:
    far_side = FarSide(CredentialRefused("cloud", "things", "HTTP 401", "Check the key."))
    refused = attempts(far_side)
    for target in ("things", "cores"):
        with pytest.raises(CredentialRefused, match="HTTP 401"):
            refused.answer(target, far_side.ask)
    assert len(far_side.timeouts) == 1


def test_after_a_refused_request_others_are_asked() -> None:
    far_side = FarSide(SourceRefused("cloud", "things", "HTTP 403", "Grant the right."))
    refused = attempts(far_side)
    with pytest.raises(SourceRefused):
        refused.answer("things", far_side.ask)
    assert refused.answer("cores", far_side.ask) == "answer"
