"""Takes events from anybody, at once, and has them sent by a thread of its own.

    publisher = EventPublisher(open_transport)
    publisher.publish(connection_established("robot-1", connection_id="…", connected_at=…))

`publish` puts an event into a queue: it never blocks and never raises. While the transport is away
the sending thread tries again; what does not fit into the queue meanwhile is dropped and counted.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping

from metrics_pipeline.core.events import CLOSED, NOT_SENT, QUEUE_FULL, Event
from metrics_pipeline.events.sending import Count, Queued, Sending
from metrics_pipeline.events.transport import Transport

QUEUE_EVENTS = 10_000
CLOSE_SECONDS = 1.0
"""So long a process that ends may still send what is queued."""

THREAD_NAME = "events"
COUNT_SECONDS = 0.2
"""Of that for telling the counts, where the transport hangs until the end."""


class EventPublisher:
    """Sends events in the background. Safe to share between threads, and across a fork.

    `open_transport` makes where they go; None is nowhere: then nothing is done and nothing counted.
    `count` is told, every 10 s and at the end, how many more were published, and dropped by reason;
    after a MetricsPipelineError it is told again. `publishes_metrics` is a switch for those who
    would make `telemetry.metrics_published`: false without a transport.
    """

    def __init__(
        self,
        open_transport: Callable[[], Transport] | None,
        *,
        queue_events: int = QUEUE_EVENTS,
        count: Count | None = None,
        publishes_metrics: bool = True,
    ) -> None:
        self._open_transport = open_transport
        self._queue_events = queue_events
        self._count = count
        self.publishes_metrics = publishes_metrics and open_transport is not None
        self.begin_anew()
        PUBLISHERS.add(self)

    @property
    def is_on(self) -> bool:
        """Whether events go anywhere."""
        return self._open_transport is not None

    @property
    def published(self) -> int:
        """How many the transport has taken."""
        return self._sending.published

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many were lost, by one of `DROP_REASONS`."""
        return self._sending.dropped

    def publish(self, event: Event, sent: Callable[[], None] | None = None) -> None:
        """Take `event`, or count it as dropped. Never blocks, never raises.

        `sent` is called by the sending thread after the transport has taken it.
        """
        if self._open_transport is None:
            return
        sending = self._sending
        if sending.is_ending:
            sending.drop(CLOSED)
        elif sending.queue.qsize() >= self._queue_events:
            sending.drop(QUEUE_FULL)
        else:
            sending.queue.put(Queued(event, sent))
            if self._thread is None:
                self._start()

    def finish(self) -> None:
        """Take no more; what is queued is sent within a second, for which nobody waits here."""
        self._sending.end(time.monotonic() + CLOSE_SECONDS)

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Take no more, and wait until what is queued is sent, but no longer than that.

        What is not known to be sent by then is counted as dropped.
        """
        atexit.unregister(self.close)
        deadline = time.monotonic() + timeout_seconds
        self._sending.end(deadline - min(COUNT_SECONDS, timeout_seconds / 2))
        if self._thread is None:
            return
        self._thread.join(max(0.0, self._sending.deadline - time.monotonic()))
        if self._sending.abandon(NOT_SENT):
            telling = threading.Thread(target=self._sending.tell_counts, daemon=True)
            telling.start()
            telling.join(max(0.0, deadline - time.monotonic()))

    def begin_anew(self) -> None:
        """With nothing queued and nothing counted, as a process that was forked has to."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._sending = Sending(self._open_transport, self._count)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._sending.run, name=THREAD_NAME, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is about to end, or has no more threads
                self._sending.end(time.monotonic())
                self._sending.abandon(CLOSED)
                return
            self._thread = thread
            atexit.register(self.close)


PUBLISHERS: weakref.WeakSet[EventPublisher] = weakref.WeakSet()


def _begin_all_anew() -> None:
    """What was queued before the fork is the parent's, and so is the connection."""
    for publisher in list(PUBLISHERS):
        publisher.begin_anew()


os.register_at_fork(after_in_child=_begin_all_anew)
