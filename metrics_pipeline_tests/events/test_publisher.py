"""The publisher costs its caller nothing, whatever becomes of the transport."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from metrics_pipeline.core.errors import StoreUnavailable
from metrics_pipeline.core.events import Event, Meta, connection_established, parse_event
from metrics_pipeline.events.publisher import EventPublisher
from metrics_pipeline.events.sending import Queued
from metrics_pipeline.events.transport import TransportUnavailable
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import wait_until


class Sink:
    """A transport that keeps what it is given; may be away, or hang, until it is let go."""

    name = "a sink"

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.is_away = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.tries = 0
        self.is_closed = False

    def send(self, lines: Sequence[str]) -> None:
        self.tries += 1
        self.may_go_on.wait()
        if self.is_away:
            raise TransportUnavailable(self.name, "it is away", "Wait.")
        self.lines += lines

    def check(self) -> str:
        return self.name

    def close(self) -> None:
        self.is_closed = True


def an_event(number: int = 0) -> Event:
    return connection_established(f"robot-{number}", connection_id="c", connected_at=1.0)


def robots(sink: Sink) -> list[str]:
    return [parse_event(line).payload["robot_id"] for line in sink.lines]


def test_events_arrive_in_their_order_and_are_counted() -> None:
    sink = Sink()
    publisher = EventPublisher(lambda: sink)
    for number in range(1200):
        publisher.publish(an_event(number))
    publisher.close()
    assert robots(sink) == [f"robot-{number}" for number in range(1200)]
    assert (publisher.published, publisher.dropped) == (1200, {})
    assert sink.is_closed


def test_without_a_transport_nothing_is_done_and_nothing_counted() -> None:
    publisher = EventPublisher(None)
    publisher.publish(an_event())
    publisher.close()
    assert (publisher.is_on, publisher.publishes_metrics) == (False, False)
    assert (publisher.published, publisher.dropped) == (0, {})


def test_no_thread_is_started_before_the_first_event() -> None:
    before = threading.active_count()
    publisher = EventPublisher(Sink)
    assert threading.active_count() == before
    publisher.close()


def test_while_the_transport_hangs_what_does_not_fit_is_dropped_and_nobody_waits() -> None:
    sink = Sink()
    sink.may_go_on.clear()
    publisher = EventPublisher(lambda: sink, queue_events=10)
    publisher.publish(an_event(0))
    wait_until(lambda: sink.tries == 1, "the first event is being sent")
    for number in range(1, 100):
        publisher.publish(an_event(number))
    assert publisher.dropped == {"queue_full": 89}
    sink.may_go_on.set()
    publisher.close()
    assert robots(sink) == [f"robot-{number}" for number in range(11)]
    assert publisher.published == 11


def test_a_transport_that_comes_back_gets_everything_that_was_queued(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Sink()
    sink.is_away = True
    publisher = EventPublisher(lambda: sink)
    with caplog.at_level(logging.INFO, logger="metrics_pipeline.events"):
        for number in range(3):
            publisher.publish(an_event(number))
        wait_until(lambda: sink.tries >= 2, "it was tried again")
        sink.is_away = False
        wait_until(lambda: publisher.published == 3, "all arrived")
    publisher.close()
    assert robots(sink) == ["robot-0", "robot-1", "robot-2"]
    # Once per change of state, however often it was tried.
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_closing_ends_in_time_though_the_transport_is_away_and_counts_what_is_lost() -> None:
    counted: Counter[str] = Counter()
    sink = Sink()
    sink.is_away = True
    publisher = EventPublisher(lambda: sink, count=lambda n, lost: counted.update(lost))
    publisher.publish(an_event())
    publisher.close(timeout_seconds=0.3)
    assert publisher.dropped == counted == {"not_sent": 1}
    publisher.publish(an_event())
    assert publisher.dropped == {"not_sent": 1, "closed": 1}


def test_an_error_that_nobody_thought_of_is_a_transport_that_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted: Counter[str] = Counter()
    sink = Sink()
    ways = iter(("open", "send", "work"))

    class Odd(Sink):
        """Whose first opening and first sending go wrong in a way of its own."""

        def send(self, lines: Sequence[str]) -> None:
            if next(ways, "work") != "work":
                raise LookupError("not this time")
            sink.send(lines)

    def open_transport() -> Odd:
        if next(ways) == "open":
            raise RuntimeError("not yet")
        return Odd()

    publisher = EventPublisher(open_transport, count=lambda n, _: counted.update(sent=n))
    publisher.publish(an_event(0))
    wait_until(lambda: publisher.published == 1, "it was sent at last")
    publisher.publish(an_event(1))
    publisher.close(timeout_seconds=30)
    assert robots(sink) == ["robot-0", "robot-1"]
    assert (publisher.dropped, counted) == ({}, {"sent": 2})
    (said,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert "RuntimeError: not yet" in said


def test_what_a_transport_says_that_nobody_thought_of_is_told_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Odd(Sink):
        """Goes wrong always."""

        def send(self, lines: Sequence[str]) -> None:
            raise LookupError("password=hunter2 is no password")

    publisher = EventPublisher(Odd)
    publisher.publish(an_event())
    publisher.close(timeout_seconds=0.3)
    assert publisher.dropped == {"not_sent": 1}
    assert "LookupError: password=*** is no password" in caplog.text
    assert "hunter2" not in caplog.text


def test_what_a_thread_that_died_left_is_counted() -> None:
    sink = Sink()
    publisher = EventPublisher(lambda: sink)
    publisher.publish(an_event(0))
    wait_until(lambda: publisher.published == 1, "the first is sent")
    thread = publisher._thread
    assert thread is not None
    publisher._sending.end(0.0)
    thread.join()
    publisher._sending.queue.put(Queued(an_event(1), None))
    publisher.close()
    assert publisher.dropped == {"not_sent": 1}


def test_closing_ends_in_time_though_the_transport_hangs() -> None:
    counted: Counter[str] = Counter()
    sink = Sink()
    sink.may_go_on.clear()
    publisher = EventPublisher(lambda: sink, count=lambda n, lost: counted.update(lost))
    publisher.publish(an_event(0))
    wait_until(lambda: sink.tries == 1, "the first event is being sent")
    publisher.publish(an_event(1))
    publisher.close(timeout_seconds=0.3)
    assert publisher.dropped == counted == {"not_sent": 2}
    sink.may_go_on.set()


def test_a_payload_that_json_has_no_words_for_costs_no_other_event() -> None:
    sink = Sink()
    publisher = EventPublisher(lambda: sink)
    circle: dict[str, object] = {}
    circle["again"] = circle
    for payload in ({"a": object()}, circle, {"fine": 1}):
        publisher.publish(Event("id", "x.y", "x_service", None, 1.0, payload, Meta()))
    publisher.close()
    assert publisher.dropped == {"not_json": 2}
    assert [parse_event(line).payload for line in sink.lines] == [{"fine": 1}]


def test_counts_are_told_once_and_told_again_where_that_failed() -> None:
    told: list[tuple[int, Mapping[str, int]]] = []

    def count(published: int, dropped: Mapping[str, int]) -> None:
        told.append((published, dict(dropped)))
        raise StoreUnavailable("a store", "away", "Wait.")

    publisher = EventPublisher(Sink, count=count)
    publisher.publish(an_event())
    publisher.close()
    publisher._sending.tell_counts()
    assert told == [(1, {}), (1, {})]


def test_who_published_hears_when_it_was_sent_and_may_fail() -> None:
    heard: list[str] = []

    def fail() -> None:
        heard.append("sent")
        raise StoreUnavailable("a store", "away", "Wait.")

    publisher = EventPublisher(Sink)
    publisher.publish(an_event(), fail)
    publisher.publish(an_event(), lambda: heard.append("sent too"))
    publisher.close()
    assert heard == ["sent", "sent too"]


def test_many_threads_lose_nothing() -> None:
    sink = Sink()
    publisher = EventPublisher(lambda: sink)

    def publish_many() -> None:
        for number in range(500):
            publisher.publish(an_event(number))

    threads = [threading.Thread(target=publish_many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publisher.close()
    assert publisher.published == len(sink.lines) == 4000
    assert len({parse_event(line).id for line in sink.lines}) == 4000


def test_a_process_that_was_forked_sends_its_own_events_and_none_of_its_parents() -> None:
    sink = Sink()
    sink.may_go_on.clear()
    publisher = EventPublisher(lambda: sink)
    publisher.publish(an_event(1))
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        sink.lines.clear()
        sink.may_go_on = threading.Event()
        sink.may_go_on.set()
        publisher.publish(an_event(2))
        publisher.close()
        os.write(writing, f"{robots(sink)} {publisher.published}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    sink.may_go_on.set()
    publisher.close()
    with os.fdopen(writing, "w"), os.fdopen(reading, "rb", buffering=0) as pipe:
        assert pipe.read(100) == b"['robot-2'] 1"
    assert robots(sink) == ["robot-1"]


EXITING = """
    import sys
    from pathlib import Path
    from metrics_pipeline.core.events import connection_established
    from metrics_pipeline.events.json_lines import JsonLines
    from metrics_pipeline.events.publisher import EventPublisher
    from metrics_pipeline.events.settings import JsonLinesSettings
    settings = JsonLinesSettings(kind="json_lines", path=Path(sys.argv[1]))
    publisher = EventPublisher(lambda: JsonLines(settings))
    for number in range(2000):
        publisher.publish(connection_established("r", connection_id="c", connected_at=1.0))
"""


def test_a_process_that_ends_sends_what_is_queued(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    command = [sys.executable, "-c", textwrap.dedent(EXITING), str(file)]
    subprocess.run(command, check=True, timeout=PATIENCE_SECONDS)
    assert len(file.read_text().splitlines()) == 2000


def test_a_caller_spends_no_more_where_the_transport_is_away_than_where_it_is_there() -> None:
    """Medians of turns, of the caller's CPU time: what the machine does beside is not in it."""

    def spend(publisher: EventPublisher) -> float:
        began = time.thread_time()
        for number in range(200):
            publisher.publish(an_event(number))
        return time.thread_time() - began

    away = Sink()
    away.is_away = True
    there, gone = EventPublisher(Sink), EventPublisher(lambda: away)
    spent = [(spend(there), spend(gone)) for _ in range(15)]
    there.close()
    gone.close(timeout_seconds=0.1)
    median_there, median_gone = (sorted(each)[7] for each in zip(*spent, strict=True))
    assert median_gone < 3 * median_there
