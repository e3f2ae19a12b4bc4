"""Asks one source on its slots, and says which it missed, and why."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.ports import Reading, SampledSource
from metrics_pipeline.core.sample_slots import Due, Outcome, Slots
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.sampling.slot import NOTHING, Sampled, Slot

LOG = logging.getLogger(__name__)

WAIT_SECONDS = 1.0
"""The longest wait between two looks at the clock, which somebody may set."""

JUMP_SECONDS = 0.5
"""A clock that goes further than time has passed, by more than this, was set."""


class SourceLoop:
    """Asks one source on its slots; the body of its thread."""

    def __init__(
        self,
        sampled: Sampled,
        slots: Slots,
        hand_in: Callable[[Slot], None],
        stop: threading.Event,
        clock_ns: Callable[[], int],
    ) -> None:
        self._sampled = sampled
        self._slots = slots
        self._hand_in = hand_in
        self._stop = stop
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._is_asked = False
        self._looked = clock_ns(), time.monotonic()
        self._source: SampledSource | None = None
        self._problem = ""

    def run(self) -> None:
        """Sample until `stop` is set."""
        try:
            due = self._advance(Outcome.STOPPED)
            while not self._stop.is_set():
                if due.slot_ns is None:
                    due = self._wait()
                else:
                    self._sample(due.slot_ns)
                    due = self._advance(Outcome.BUSY)
        finally:
            self._forget_source()

    def count_hang(self) -> None:
        """Count what is missed while the source is asked still; called by the watching thread."""
        with self._lock:
            if self._is_asked:
                at_ns, why = self._look(Outcome.BUSY)
                # A slot that has just come may be begun in time yet.
                missed = self._slots.skip(at_ns - self._slots.tolerance_ns)
                self._count(why, Due(None, missed))

    def _advance(self, why: Outcome) -> Due:
        with self._lock:
            if self._stop.is_set():
                return Due()  # who samples next accounts for what has passed
            at_ns, why = self._look(why)
            due = self._slots.advance(at_ns)
            self._count(why, due)
            return due

    def _look(self, why: Outcome) -> tuple[int, Outcome]:
        """At the clock, and why what it has passed is missed: by `why`, unless it was set."""
        at_ns, at = self._clock_ns(), time.monotonic()
        before_ns, before = self._looked
        self._looked = at_ns, at
        jumped = (at_ns - before_ns) / NS_PER_SECOND - (at - before)
        return at_ns, Outcome.CLOCK if jumped > JUMP_SECONDS else why

    def _count(self, why: Outcome, due: Due) -> None:
        if due.missed:
            # One that is begun is not among them.
            last_ns = self._slots.last_ns - (0 if due.slot_ns is None else self._slots.every_ns)
            self._hand_in(Slot(self._sampled.name, last_ns, why, due.missed))

    def _wait(self) -> Due:
        """Until the next slot, or some of the time until then."""
        self._stop.wait(min(WAIT_SECONDS, self._slots.wait_seconds(self._clock_ns())))
        return self._advance(Outcome.LATE)

    def _sample(self, slot_ns: int) -> None:
        with self._lock:
            self._is_asked = True
        delay = (self._clock_ns() - slot_ns) / NS_PER_SECOND
        began = time.monotonic()
        reading, problems = self._ask(slot_ns)
        took = time.monotonic() - began
        with self._lock:
            self._is_asked = False
            outcome = Outcome.FAILED if problems and not reading.points else Outcome.SAMPLED
            name = self._sampled.name
            self._hand_in(Slot(name, slot_ns, outcome, 1, reading, problems, delay, took))

    def _ask(self, slot_ns: int) -> tuple[Reading, Mapping[str, str]]:
        """What came, and what did not, in words, by the class of the error."""
        try:
            if self._source is None:
                self._source = self._sampled.build()
            reading = self._source.read(slot_ns)
        except MetricsPipelineError as error:
            return self._failed(error)
        except Exception as error:
            # A defect of ours. It must not end the thread, and must not go unseen.
            if not self._problem:
                LOG.exception("%s: sampling failed unexpectedly", self._sampled.name)
            return self._failed(error)
        self._problem = ""
        return reading, {type(each).__name__: str(each) for each in reading.failures}

    def _failed(self, error: Exception) -> tuple[Reading, Mapping[str, str]]:
        """Told once until it changes; the source is made anew at the next slot."""
        problem = f"{type(error).__name__}: {error}"
        if problem != self._problem:
            LOG.warning("%s is not sampled: %s", self._sampled.name, problem)
        self._problem = problem
        self._forget_source()
        return NOTHING, {type(error).__name__: str(error)}

    def _forget_source(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            with suppress(MetricsPipelineError, OSError):
                source.close()
