"""The sending side of a publisher: a queue, what was counted, and the thread that empties it."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from random import SystemRandom
from typing import NamedTuple

from metrics_pipeline.access.one_line import one_line
from metrics_pipeline.core.backoff import Backoff
from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.events import NOT_JSON, NOT_SENT, Event
from metrics_pipeline.core.redaction import without_secrets
from metrics_pipeline.events.transport import Transport

LOG = logging.getLogger(__name__)

Count = Callable[[int, Mapping[str, int]], None]
"""Is told how many more events were published, and how many more dropped, by reason."""

BATCH_EVENTS = 500
COUNT_EVERY_SECONDS = 10.0
PAUSES = Backoff(tries=1, base_seconds=0.1, cap_seconds=5.0)
LAST_PAUSE_SECONDS = 0.05
"""Between two tries while the process ends."""

UNPRINTABLE = (TypeError, ValueError, RecursionError)
"""What the two JSON libraries raise for what they have no words for."""


class Queued(NamedTuple):
    """An event, and what is to be done once the transport has it."""

    event: Event
    sent: Callable[[], None] | None


class Sending:
    """Everything that a fork leaves to the parent. `run` is the body of one thread."""

    def __init__(self, open_transport: Callable[[], Transport] | None, count: Count | None) -> None:
        self.queue: queue.SimpleQueue[Queued | None] = queue.SimpleQueue()
        self.published = 0
        self.deadline = float("inf")
        """On the monotonic clock: when what is not sent is given up."""
        self._open_transport = open_transport
        self._transport: Transport | None = None
        self._count = count
        self._lock = threading.Lock()
        self._dropped: Counter[str] = Counter()
        self._told_published, self._told_dropped = 0, Counter[str]()
        self._told_at = time.monotonic()
        self._in_hand = 0
        self._ending = threading.Event()
        self._is_abandoned = False
        self._is_ill = False

    @property
    def is_ending(self) -> bool:
        """Whether no more is taken."""
        return self._ending.is_set()

    @property
    def dropped(self) -> Mapping[str, int]:
        """Events that were lost, by reason."""
        with self._lock:
            return dict(self._dropped)

    def drop(self, reason: str, events: int = 1) -> None:
        """Count events as lost."""
        with self._lock:
            self._dropped[reason] += events

    def end(self, deadline: float) -> None:
        """Take no more, and give up what is not sent by `deadline`, on the monotonic clock."""
        self.deadline = min(self.deadline, deadline)
        self._ending.set()
        self.queue.put(None)

    def abandon(self, reason: str) -> bool:
        """Count as lost what is queued, and what the thread has in hand; whether that is any."""
        with self._lock:
            self._is_abandoned = True
            in_hand, self._in_hand = self._in_hand, 0
        lost = in_hand + len(self._take_all())
        if lost:
            self.drop(reason, lost)
        return lost > 0

    def run(self) -> None:
        """Send what comes, in its order, until the end is asked for and nothing is left."""
        while not (self.is_ending and self.queue.empty()):
            self._send(self._take_batch())
            if time.monotonic() - self._told_at >= COUNT_EVERY_SECONDS:
                self.tell_counts()
        self.tell_counts()
        if self._transport is not None:
            _failure_of(self._transport.close)

    def tell_counts(self) -> None:
        """Tell what was counted since the last time."""
        if self._count is None:
            return
        self._told_at = time.monotonic()
        published, dropped = self.published, Counter(self.dropped)
        more = published - self._told_published, dropped - self._told_dropped
        if not any(more):
            return
        failure = _failure_of(partial(self._count, *more))
        if failure:
            LOG.warning("events are missing in the exporter's totals for now: %s", failure)
        else:
            self._told_published, self._told_dropped = published, dropped

    def _take_batch(self) -> Sequence[Queued]:
        """What waits, or what comes next; nothing if that takes long."""
        try:
            first = self.queue.get(timeout=COUNT_EVERY_SECONDS)
        except queue.Empty:
            return ()
        rest = self._take_all(BATCH_EVENTS - 1)
        return rest if first is None else (first, *rest)

    def _take_all(self, at_most: int | None = None) -> Sequence[Queued]:
        taken: list[Queued] = []
        while at_most is None or len(taken) < at_most:
            try:
                queued = self.queue.get_nowait()
            except queue.Empty:
                break
            if queued is not None:
                taken.append(queued)
        return taken

    def _send(self, batch: Sequence[Queued]) -> None:
        lines = self._to_lines(batch)
        if not lines:
            return
        with self._lock:
            self._in_hand = len(lines)
        is_sent = self._try_to_send([line for line, _ in lines])
        with self._lock:
            self._in_hand = 0
            if self._is_abandoned:
                return
            if is_sent:
                self.published += len(lines)
            else:
                self._dropped[NOT_SENT] += len(lines)
        if is_sent:
            self._tell_senders(queued for _, queued in lines)

    def _to_lines(self, batch: Sequence[Queued]) -> list[tuple[str, Queued]]:
        lines = []
        for queued in batch:
            try:
                lines.append((queued.event.to_json(), queued))
            except UNPRINTABLE as error:
                self.drop(NOT_JSON)
                LOG.warning("an event of type %s was dropped: %s", queued.event.type, error)
        return lines

    def _try_to_send(self, lines: Sequence[str]) -> bool:
        for tried in itertools.count(1):
            failure = _failure_of(partial(self._hand_over, lines))
            self._say(failure)
            if not failure:
                return True
            if not self._pause(tried):
                break
        return False

    def _hand_over(self, lines: Sequence[str]) -> None:
        if self._transport is None:
            assert self._open_transport is not None
            self._transport = self._open_transport()
        self._transport.send(lines)

    def _pause(self, tried: int) -> bool:
        """Whether there is time for another try."""
        if not self.is_ending:
            self._ending.wait(PAUSES.wait_seconds(min(tried, 10), SystemRandom().random))
        else:
            time.sleep(LAST_PAUSE_SECONDS)
        return time.monotonic() < self.deadline

    def _tell_senders(self, sent: Iterable[Queued]) -> None:
        for queued in sent:
            if queued.sent is None:
                continue
            failure = _failure_of(queued.sent)
            if failure:
                LOG.warning("that %s was sent could not be noted: %s", queued.event.type, failure)

    def _say(self, failure: str) -> None:
        """Once per change of state."""
        if failure and not self._is_ill:
            LOG.warning("events wait, and are dropped once the queue is full: %s", failure)
        elif not failure and self._is_ill:
            LOG.info("events are sent again")
        self._is_ill = bool(failure)


def _failure_of(act: Callable[[], None]) -> str:
    """What went wrong, without secrets; empty where nothing did.

    An error that nobody thought of is a failure like any other: where it ended the thread, no event
    would be sent any more, and none counted as lost.
    """
    try:
        act()
    except MetricsPipelineError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 (who publishes was promised that each is counted)
        said = without_secrets(one_line(error))
        return f"{type(error).__name__}: {said}. This was not expected: please report it."
    return ""
