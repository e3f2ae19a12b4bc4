"""Ingestions over the wire: what goes wrong with the hub, the stores and the events."""

from __future__ import annotations

import contextlib
import gc
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from metrics_pipeline.access.garbage_collection import COLLECTED_AFTER
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.thread_switching import SWITCHED_AFTER_SECONDS
from metrics_pipeline.core.catalog import EVENTHUB_LOST_EVENTS, LORAWAN_DEVICES
from metrics_pipeline.core.errors import (
    PartitionTaken,
    SourceRefused,
    SourceUnreachable,
    StoreUnavailable,
)
from metrics_pipeline.core.lorawan_payload import Limits
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import EventStream
from metrics_pipeline.core.telemetry import BatchLimits, Checkpoint, DeadLetter, PartitionKey
from metrics_pipeline.core.telemetry_assets import SEEN_UP_TO
from metrics_pipeline.ingestion import IngestionReport, ingest
from metrics_pipeline.simulators.event_hub.amqp_messages import make_message
from metrics_pipeline.simulators.event_hub.server import (
    EventHubServer,
    epoch_milliseconds,
    serve_event_hub,
)
from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, Request
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.checkpoints import BlobCheckpointSettings, DatabaseCheckpoints
from metrics_pipeline.storage.dead_letters import DeadLetters, DeadLetterSettings, KeepReport
from metrics_pipeline.storage.influx import InfluxStoreSettings
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.snapshots import Packing
from metrics_pipeline_tests.azurite import azurite
from metrics_pipeline_tests.ingestion import ingesting
from metrics_pipeline_tests.ingestion.ingesting import (
    ASSET,
    DEVICES,
    Pipeline,
    append,
    errors,
    events,
    has_stored,
    not_once,
    numbers,
    pipeline,
)

PARTITIONS = 2
SILENCE_SECONDS = 30.0
"""So long a hub may take to answer."""


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with serve_event_hub(partition_count=PARTITIONS) as server:
        yield server
    gc.collect()  # what a client left open is this test's, not the next one's


@pytest.fixture
def made(hub: EventHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr("metrics_pipeline.ingestion.run.PUBLISH_SECONDS", 0.1)
    monkeypatch.setattr("metrics_pipeline.ingestion.run.ASK_SECONDS", 0.3)
    return pipeline(hub, tmp_path)


def until(condition: object) -> None:
    """Wait until `condition()` holds."""
    assert callable(condition)
    deadline = time.monotonic() + ingesting.WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def snapshot_points(made: Pipeline) -> Sequence[Point]:
    """All that is in the snapshot of the devices."""
    with made.opened() as (_, stores):
        snapshot = stores.writer.latest(ASSET)
    return () if snapshot is None else snapshot.points


def device_rows(made: Pipeline) -> Sequence[Point]:
    """The latest values of each device."""
    return [point for point in snapshot_points(made) if point.measurement == LORAWAN_DEVICES.name]


# --- what is fine ---------------------------------------------------------------------------------


def test_a_run_goes_on_where_the_last_one_ended(hub: EventHubServer, made: Pipeline) -> None:
    append(hub, range(100), "0")
    append(hub, range(100, 150), "1")
    first = made.run(has_stored(150))
    append(hub, range(150, 170), "1")
    second = made.run(has_stored(20))
    assert not_once(made.stored(), 170) == {}
    assert (events(first), events(second)) == (150, 20)
    assert [each.error for each in second.partitions.values()] == [None, None]
    checkpoints = [each.checkpoint for each in second.partitions.values()]
    assert [(c.position.sequence_number, c.epoch) for c in checkpoints if c] == [(99, 2), (69, 2)]


def test_the_report_counts_what_was_read(hub: EventHubServer, made: Pipeline) -> None:
    append(hub, range(10))
    hub.append(b"[]", partition="0")
    hub.append(b"no JSON", partition="0")
    hub.append(b'[{"eui": "1"}, {"eui": "A840410000000001", "fcnt": 10}]', partition="0")
    report = made.run(has_stored(13)).partitions["0"]
    assert (report.events, report.points) == (13, 11)
    assert report.bytes == sum(len(ingesting.uplink(n)) for n in range(10)) + 2 + 7 + 55
    assert report.refused == {"not_json": 1, "invalid_eui": 1}
    assert report.dead_letters == report.refused
    assert (report.lag_events, report.lag_seconds, report.lost_events) == (0, 0.0, 0)


def test_the_interpreter_is_left_as_it_was(hub: EventHubServer, made: Pipeline) -> None:
    def settings() -> tuple[int, float]:
        return gc.get_threshold()[0], round(sys.getswitchinterval(), 6)

    before = settings()
    during: set[tuple[int, float]] = set()

    def look(report: IngestionReport) -> bool:
        during.add(settings())
        return events(report) == 1

    append(hub, range(1))
    made.run(look)
    assert during == {
        (max(before[0], COLLECTED_AFTER), max(before[1], SWITCHED_AFTER_SECONDS)),
    }
    assert settings() == before


def test_latest_values_are_published_while_the_run_goes_on(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(100))
    shown: list[int] = []

    def look(report: IngestionReport) -> bool:
        shown.append(len(device_rows(made)))
        return shown[-1] == DEVICES

    report = made.run(look)
    assert shown[-1] == DEVICES
    assert report.seconds < ingesting.WAIT_SECONDS


def test_frames_are_counted_across_runs(hub: EventHubServer, made: Pipeline) -> None:
    append(hub, range(0, 320, DEVICES))
    made.run(has_stored(20))
    append(hub, range(320, 640, DEVICES))
    made.run(has_stored(20))
    (row,) = device_rows(made)
    assert row.fields["frames_received_total"] == 40
    assert row.fields["frame_counter"] == 624


def show(made: Pipeline, points: Sequence[Point]) -> None:
    """Make `points` the snapshot of the devices, as if no run since then had shown anything."""
    packing = Packing()
    packing.add(points)
    with made.opened() as (_, stores):
        stores.writer.publish(ASSET, packing, ())


def test_frames_that_a_dead_run_stored_and_did_not_show_are_not_lost(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(0, 5 * DEVICES, DEVICES))
    made.run(has_stored(5))
    shown = snapshot_points(made)
    append(hub, range(5 * DEVICES, 10 * DEVICES, DEVICES))
    made.run(has_stored(5))
    show(made, shown)
    append(hub, [10 * DEVICES])
    made.run(has_stored(1))
    (row,) = device_rows(made)
    assert row.fields["frame_counter"] == 10 * DEVICES
    assert row.fields["frames_lost_total"] == 4 * (DEVICES - 1)  # between the first five


def test_rows_and_how_far_they_go_are_never_seen_apart(hub: EventHubServer, made: Pipeline) -> None:
    seen: set[tuple[Any, Any]] = set()

    def send_and_look() -> None:
        append(hub, [0])
        until(lambda: snapshot_points(made))
        for number in range(1, 40):
            append(hub, [number * DEVICES])
            time.sleep(0.02)
            counts = {point.measurement: point.fields for point in snapshot_points(made)}
            received = counts[LORAWAN_DEVICES.name]["frames_received_total"]
            seen.add((received, counts[SEEN_UP_TO]["sequence_number"]))

    made.run(has_stored(40), meanwhile=send_and_look)
    assert len(seen) > 1
    assert all(received == number + 1 for received, number in seen)


def test_a_device_that_was_silent_for_too_long_is_not_published_any_more(
    hub: EventHubServer, made: Pipeline
) -> None:
    minutes_ago = epoch_milliseconds() - 1_200_000
    hub.append(ingesting.uplink(1), partition="0", enqueued_ms=minutes_ago)
    append(hub, [2], "1")
    with made.opened() as (stream, stores):
        ingest(
            *(stream, stores, made.rules, made.limits),
            asset=ASSET,
            window_seconds=1,
            stop=threading.Event(),
            devices_kept_days=600 / 86_400,
        )
    assert numbers(made.stored()).keys() == {1, 2}
    assert [row.tags["device_eui"] for row in device_rows(made)] == [f"{2:016X}"]


def test_it_waits_for_events_until_the_window_ends(hub: EventHubServer, made: Pipeline) -> None:
    def later() -> None:
        for number in range(10):
            time.sleep(0.05)
            append(hub, [number], "1")

    report = made.run(window_seconds=1.5, meanwhile=later)
    assert not_once(made.stored(), 10) == {}
    assert 1.5 <= report.seconds < 10


def test_it_ends_soon_when_it_is_told_to(hub: EventHubServer, made: Pipeline) -> None:
    limits = BatchLimits(max_wait_seconds=30)
    report = made.with_(limits=limits).run(lambda report: report.seconds > 0.5)
    assert report.seconds < 20
    assert errors(report) == []


def test_checkpoints_may_be_in_blob_storage(
    hub: EventHubServer, made: Pipeline, tmp_path: Path
) -> None:
    from azure.storage.blob import ContainerClient

    with azurite() as account:
        (tmp_path / "account").write_text(account)
        with ContainerClient.from_connection_string(account, "checkpoints") as container:
            container.create_container()
        secret = SecretReference(file=tmp_path / "account")
        settings = BlobCheckpointSettings(
            kind="blob", container="checkpoints", connection_string=secret
        )
        blobs = made.with_(checkpoints=settings)
        append(hub, range(40))
        blobs.run(has_stored(40))
        append(hub, range(40, 60))
        report = blobs.run(has_stored(20))
    assert events(report) == 20
    assert not_once(made.stored(), 60) == {}


class _FoundUntilInterrupted(dict[str, Checkpoint]):
    """Checkpoints of which the second that is looked up never comes: somebody interrupts."""

    looked_up = 0

    def get(self, _key: str, default: Any = None) -> Any:
        self.looked_up += 1
        if self.looked_up > 1:
            raise KeyboardInterrupt
        return default


class _InterruptedCheckpoints(DatabaseCheckpoints):
    def find_all(self, *_names: str) -> dict[str, Checkpoint]:
        return _FoundUntilInterrupted()


def test_an_interrupt_while_it_begins_ends_the_partitions_that_have_begun(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(10))
    stop = threading.Event()
    with made.opened() as (stream, stores):
        interrupted = _InterruptedCheckpoints(OperationalDatabase(made.operational), "test")
        with contextlib.closing(interrupted), pytest.raises(KeyboardInterrupt):
            ingest(
                *(stream, replace(stores, checkpoints=interrupted), made.rules, made.limits),
                asset=ASSET,
                window_seconds=5,
                stop=stop,
            )
        left = [t.name for t in threading.enumerate() if t.name.startswith("partition-")]
    assert left == []
    assert stop.is_set()


def test_an_interrupt_ends_it_at_once_though_the_hub_is_silent(
    hub: EventHubServer, made: Pipeline
) -> None:
    patient = made.with_(hub={"timeout_seconds": SILENCE_SECONDS})
    append(hub, range(10))

    def interrupt(report: IngestionReport) -> bool:
        if events(report) == 10 and not frozen:
            frozen.append(time.monotonic())
            hub.freeze()
            raise KeyboardInterrupt
        return False

    frozen: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        patient.run(interrupt)
    assert time.monotonic() - frozen[0] < SILENCE_SECONDS
    hub.freeze(False)
    assert not_once(made.stored(), 10) == {}
    assert {row.fields["frames_received_total"] for row in device_rows(made)} == {1}
    assert made.run(lambda report: report.seconds > 1).partitions["0"].events == 0


class _InterruptedAtTheEnd:
    """A stream that somebody is tired of when it is asked how far it is once `stop` is set."""

    def __init__(self, stream: EventStream, stop: threading.Event) -> None:
        self._stream = stream
        self._stop = stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def partitions(self) -> Any:
        if self._stop.is_set():
            raise KeyboardInterrupt
        return self._stream.partitions()


def test_an_interrupt_while_the_hub_is_asked_at_the_end_costs_no_latest_values(
    hub: EventHubServer, made: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.ingestion.run.PUBLISH_SECONDS", 1000.0)
    append(hub, range(10))
    stop = threading.Event()
    with made.opened() as (stream, stores):

        def stop_later() -> None:
            until(lambda: len(made.stored()) == 10)
            stop.set()

        ended = threading.Thread(target=stop_later)
        ended.start()
        with pytest.raises(KeyboardInterrupt):
            ingest(
                *(cast("EventStream", _InterruptedAtTheEnd(stream, stop)), stores),
                *(made.rules, made.limits),
                asset=ASSET,
                window_seconds=ingesting.WAIT_SECONDS,
                stop=stop,
            )
        ended.join()
    assert len(device_rows(made)) == 10


# --- the hub --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["restart", "detach", "close_connections", "abort_connections"])
def test_whatever_the_hub_does_reading_goes_on(
    hub: EventHubServer, made: Pipeline, fault: str
) -> None:
    def disturb() -> None:
        for number in range(30):
            append(hub, range(number * 10, number * 10 + 10), str(number % PARTITIONS))
            if number in (5, 15):
                until(lambda: len(hub.receivers()) == PARTITIONS)
                hub.restart(0.3) if fault == "restart" else getattr(hub, fault)()
            time.sleep(0.03)

    report = made.run(has_stored(300), meanwhile=disturb)
    assert not_once(made.stored(), 300) == {}
    assert errors(report) == []
    assert any(each.failures for each in report.partitions.values())


def test_a_hub_that_throttles_is_asked_again(
    hub: EventHubServer, made: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.access.event_hub_errors.BUSY_SECONDS", 0.5)
    append(hub, range(20))
    hub.throttle()

    def relent_once_it_was_asked(report: IngestionReport) -> bool:
        if report.partitions["0"].failures:
            hub.throttle(False)
        return has_stored(20)(report)

    report = made.run(relent_once_it_was_asked)
    assert not_once(made.stored(), 20) == {}
    assert "server-busy" in str(report.partitions["0"].failures[0])


def test_the_lag_of_a_partition_that_was_never_read_is_that_of_its_newest_event(
    hub: EventHubServer, made: Pipeline
) -> None:
    hub.append(ingesting.uplink(0), partition="0", enqueued_ms=epoch_milliseconds() - 60_000)
    hub.throttle()
    report = made.run(window_seconds=1.0).partitions["0"]
    assert report.lag_events == 1
    assert 60 <= report.lag_seconds < 120


def test_after_a_quiet_time_the_lag_is_that_of_the_event_that_waits(
    hub: EventHubServer, made: Pipeline
) -> None:
    hub.append(ingesting.uplink(0), partition="0", enqueued_ms=epoch_milliseconds() - 200_000)

    def keep_waiting() -> None:
        until(lambda: len(made.stored()) == 1)
        hub.throttle()
        hub.detach()
        append(hub, [1])

    report = made.run(
        lambda r: r.partitions["0"].lag_events == 1 == events(r), meanwhile=keep_waiting
    )
    assert report.partitions["0"].lag_events == 1
    assert 0 < report.partitions["0"].lag_seconds < 100


def test_a_partition_that_another_reader_takes_is_let_go(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(10))
    others: list[object] = []

    def take() -> None:
        until(lambda: len(made.stored()) == 10)
        with made.opened() as (stream, _):
            reader = stream.open("0", None, 99)
            others.extend(reader.receive(BatchLimits(max_wait_seconds=5, max_events=10)))
            until(stopped.is_set)
            reader.close()

    stopped = threading.Event()

    def is_taken(report: IngestionReport) -> bool:
        if report.partitions["0"].is_taken:
            stopped.set()
        return stopped.is_set()

    report = made.run(is_taken, meanwhile=take)
    assert len(others) == 10
    assert [p.is_taken for p in report.partitions.values()] == [True, False]
    assert errors(report) == []


class _ClaimedWhileAnEarlierRunPublishes(DatabaseCheckpoints):
    publish: Callable[[], None]

    def claim(self, keys: Collection[PartitionKey]) -> int:
        epoch = super().claim(keys)
        self.publish()
        return epoch


def test_what_an_earlier_run_publishes_until_it_is_shut_out_is_not_lost(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(2))
    made.run(has_stored(2))
    shown = [*snapshot_points(made)]
    row = device_rows(made)[0]
    late = replace(row, tags={"device_eui": "F" * 16})
    stop = threading.Event()
    with made.opened() as (stream, stores):
        checkpoints = _ClaimedWhileAnEarlierRunPublishes(
            OperationalDatabase(made.operational), "test"
        )
        checkpoints.publish = lambda: show(made, [*shown, late])
        append(hub, range(2, 4))
        with contextlib.closing(checkpoints):
            ingest(
                *(stream, replace(stores, checkpoints=checkpoints), made.rules, made.limits),
                asset=ASSET,
                window_seconds=ingesting.WAIT_SECONDS,
                stop=stop,
                tell=lambda report: stop.set() if events(report) == 2 else None,
            )
    assert {row.tags["device_eui"] for row in device_rows(made)} >= {"F" * 16, f"{3:016X}"}


def test_a_run_that_takes_over_shows_what_the_one_before_had_stored_and_not_shown(
    hub: EventHubServer, made: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = "metrics_pipeline.ingestion.run.PUBLISH_SECONDS"
    monkeypatch.setattr(seconds, 1000.0)
    append(hub, range(5))

    def is_over(report: IngestionReport) -> bool:
        return all(each.is_taken for each in report.partitions.values())

    first = threading.Thread(target=made.run, args=(is_over,))
    first.start()
    until(lambda: len(made.stored()) == 5)
    append(hub, [5])
    until(lambda: len(made.stored()) == 6)
    assert device_rows(made) == []
    monkeypatch.setattr(seconds, 0.1)
    append(hub, [6])
    made.run(has_stored(1), patience_seconds=ingesting.WAIT_SECONDS)
    first.join(ingesting.WAIT_SECONDS)
    assert len(device_rows(made)) == 7


@pytest.mark.parametrize(("take_over_seconds", "published"), [(1000.0, 1), (0.0, 3)])
def test_while_a_later_run_may_be_taking_over_nothing_is_published(
    hub: EventHubServer,
    made: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    take_over_seconds: float,
    published: int,
) -> None:
    monkeypatch.setattr("metrics_pipeline.ingestion.run.TAKE_OVER_SECONDS", take_over_seconds)
    append(hub, [0])

    def take() -> None:
        until(lambda: len(device_rows(made)) == 1)
        with made.opened() as (stream, _):
            reader = stream.open("0", None, 99)
            reader.receive(BatchLimits(max_wait_seconds=0.1))
            assert is_taken.wait(ingesting.WAIT_SECONDS)
            reader.close()

    is_taken = threading.Event()

    def look(report: IngestionReport) -> bool:
        if report.partitions["0"].is_taken and not is_taken.is_set():
            is_taken.set()
            append(hub, range(1, 3), "1")
        return report.partitions["1"].events == 2

    made.run(look, meanwhile=take)
    assert len(device_rows(made)) == published


def test_what_failed_before_another_reader_took_the_partition_is_no_error_of_it(
    hub: EventHubServer, made: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.access.event_hub_errors.BUSY_SECONDS", 2.0)
    hub.throttle()
    is_busy, is_taken = threading.Event(), threading.Event()

    def take() -> None:
        assert is_busy.wait(ingesting.WAIT_SECONDS)
        hub.throttle(False)
        with made.opened() as (stream, _):
            reader = stream.open("0", None, 99)
            reader.receive(BatchLimits(max_wait_seconds=0.1))
            assert is_taken.wait(ingesting.WAIT_SECONDS)
            reader.close()

    def look(report: IngestionReport) -> bool:
        if report.partitions["0"].error is not None:
            is_busy.set()
        if report.partitions["0"].is_taken:
            is_taken.set()
        return is_taken.is_set()

    of_0 = made.run(look, meanwhile=take).partitions["0"]
    busy, taken = of_0.failures
    assert "server-busy" in str(busy)
    assert isinstance(taken, PartitionTaken)
    assert (of_0.is_taken, of_0.error) == (True, None)


def test_of_two_runs_at_once_the_later_goes_on(hub: EventHubServer, made: Pipeline) -> None:
    reports: list[IngestionReport] = []

    def run_too() -> None:
        until(lambda: len(hub.receivers()) == PARTITIONS)
        append(hub, range(50))
        reports.append(made.run(lambda report: len(made.stored()) == 100))

    append_later = threading.Timer(1.5, append, (hub, range(50, 100), "1"))
    append_later.start()
    first = made.run(meanwhile=run_too)
    append_later.join()
    assert [p.is_taken for p in first.partitions.values()] == [True, True]
    assert first.seconds < ingesting.WAIT_SECONDS
    assert errors(reports[0]) == []
    assert not_once(made.stored(), 100) == {}


def test_events_older_than_the_retention_are_counted_as_lost(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(10))
    made.run(has_stored(10))
    append(hub, range(10, 100))
    hub.drop_before("0", 70)
    report = made.run(has_stored(30)).partitions["0"]
    assert (report.events, report.lost_events) == (30, 60)
    assert sorted(numbers(made.stored())) == [*range(10), *range(70, 100)]


def test_where_everything_was_too_old_it_is_said_once(hub: EventHubServer, made: Pipeline) -> None:
    append(hub, range(10))
    made.run(has_stored(10))
    append(hub, range(10, 40))
    hub.drop_before("0", 40)
    told = made.run(lambda report: bool(report.partitions["0"].lost_events))
    again = made.run(lambda report: report.seconds > 0.3)
    assert told.partitions["0"].lost_events == 30
    assert again.partitions["0"].lost_events == 0
    assert again.partitions["0"].lag_events == 0


def lost(made: Pipeline) -> dict[str, int]:
    """By partition, as the exporter counts it."""
    database = OperationalDatabase(made.operational)
    with contextlib.closing(database), database.reading() as connection:
        found = tallies.totals(connection)
    return found.get(EVENTHUB_LOST_EVENTS.name, {})


def test_what_is_lost_is_counted_for_good_and_once_though_runs_die_before_the_checkpoint_moves(
    hub: EventHubServer, made: Pipeline
) -> None:
    for partition in ("0", "1"):
        append(hub, range(10), partition)
    made.run(has_stored(20))
    assert lost(made) == {}
    append(hub, range(10, 100))
    for oldest in (70, 70, 80):  # while runs die the hub drops more
        hub.drop_before("0", oldest)
        ingesting.run_that_moves_no_checkpoint(made)
        assert lost(made) == {"0": oldest - 10}
    report = made.run(has_stored(20)).partitions["0"]
    assert report.lost_events == 70
    append(hub, range(100, 120))
    hub.drop_before("0", 115)
    made.run(has_stored(5))
    assert lost(made) == {"0": 70 + 15}


def test_where_nothing_is_left_what_is_lost_is_counted_once(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(10))
    made.run(has_stored(10))
    append(hub, range(10, 40))
    hub.drop_before("0", 40)
    for _ in range(2):
        ingesting.run_that_moves_no_checkpoint(made)
        assert lost(made) == {"0": 30}
    append(hub, range(40, 45))
    ingesting.run_that_moves_no_checkpoint(made)
    made.run(has_stored(5))
    assert lost(made) == {"0": 30}


def test_a_partition_that_is_added_is_read(hub: EventHubServer, made: Pipeline) -> None:
    append(hub, range(10))

    def add() -> None:
        until(lambda: len(made.stored()) == 10)
        append(hub, range(10, 30), hub.add_partition())

    report = made.run(has_stored(30), meanwhile=add)
    assert sorted(report.partitions) == ["0", "1", "2"]
    assert not_once(made.stored(), 30) == {}


def test_partitions_are_reported_in_the_order_of_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.ingestion.run.PUBLISH_SECONDS", 0.1)
    with serve_event_hub(partition_count=12) as hub:
        append(hub, range(3), "10")
        report = pipeline(hub, tmp_path).run(has_stored(3))
    assert list(report.partitions) == [f"{number}" for number in range(12)]


def test_a_hub_that_is_not_there_is_an_error_at_the_end_of_the_window(made: Pipeline) -> None:
    secret = made.connection_string_file
    text = secret.read_text()
    endpoint, rest = text.split(";", 1)
    secret.write_text(f"{endpoint.rpartition(':')[0]}:1;{rest}")
    with pytest.raises(SourceUnreachable, match="event_hub: reading the partitions of 127"):
        made.run(window_seconds=0.5)


def test_a_consumer_group_that_is_not_there_is_an_error_of_each_partition(
    hub: EventHubServer, made: Pipeline
) -> None:
    report = made.with_(hub={"consumer_group": "nobody"}).run()
    found = [each.error for each in report.partitions.values()]
    assert [type(error) for error in found] == [SourceRefused, SourceRefused]
    assert "consumer group" in str(found[0])
    assert report.seconds < ingesting.WAIT_SECONDS


# --- the stores -----------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else writes all the time."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def test_while_the_store_is_away_the_checkpoint_stays_and_the_lag_is_told(
    hub: EventHubServer, made: Pipeline, tmp_path: Path
) -> None:
    store = made.store.model_copy(update={"busy_timeout_seconds": 0.05})
    impatient = made.with_(store=store)
    append(hub, range(10))
    impatient.run(has_stored(10))
    seen: list[tuple[int, int | None, int]] = []
    shown = threading.Event()

    def look(report: IngestionReport) -> bool:
        of_0 = report.partitions["0"]
        at = of_0.checkpoint.position.sequence_number if of_0.checkpoint else None
        seen.append((of_0.lag_events, at, of_0.events))
        if of_0.lag_events == 40 and isinstance(of_0.error, StoreUnavailable):
            assert of_0.lag_seconds > 0
            shown.set()
        return of_0.events == 40

    def take_away() -> None:
        with locked(tmp_path / "embedded.sqlite"):
            append(hub, range(10, 50))
            assert shown.wait(ingesting.WAIT_SECONDS)

    report = impatient.run(look, meanwhile=take_away)
    assert {at for lag, at, _ in seen if lag == 40} == {9}
    assert errors(report) == []
    assert not_once(made.stored(), 50) == {}


def test_a_store_that_stays_away_loses_nothing(
    hub: EventHubServer, made: Pipeline, tmp_path: Path
) -> None:
    store = made.store.model_copy(update={"busy_timeout_seconds": 0.05})
    append(hub, range(10))
    made.run(has_stored(10))
    append(hub, range(10, 30))
    with locked(tmp_path / "embedded.sqlite"):
        report = made.with_(store=store).run(window_seconds=1.0).partitions["0"]
    assert isinstance(report.error, StoreUnavailable)
    assert (report.events, report.lag_events) == (0, 20)
    assert report.checkpoint is not None
    assert report.checkpoint.position.sequence_number == 9
    made.run(has_stored(20))
    assert not_once(made.stored(), 30) == {}


class _NoStore(LoopbackServer):
    """Answers every request as nginx does where it expects TLS."""

    def respond(self, _request: Request) -> Answer:
        return Answer(400, b"<h1>The plain HTTP request was sent to HTTPS port</h1>")


@pytest.mark.parametrize("count", [1, 200])
def test_a_store_that_refuses_whatever_it_is_sent_loses_nothing(
    hub: EventHubServer, made: Pipeline, count: int
) -> None:
    append(hub, range(count))
    with _NoStore() as server:
        url = f"http://{server.host}"
        wrong = made.with_(store=InfluxStoreSettings(kind="influxdb", url=url, api="v3"))
        of_0 = wrong.run(lambda report: bool(errors(report))).partitions["0"]
    assert "sent to HTTPS port" in str(of_0.error)
    assert (of_0.events, of_0.dead_letters, of_0.checkpoint) == (0, {}, None)
    assert events(made.run(has_stored(count))) == count
    assert not_once(made.stored(), count) == {}


class _UnavailableLetters(DeadLetters):
    """Whose table is away until `is_back`; `asked` is how often somebody came in vain."""

    is_back = False
    asked = 0

    def keep(self, letters: Sequence[DeadLetter]) -> KeepReport:
        if letters and not self.is_back:
            self.asked += 1
            raise StoreUnavailable("dead letters", "the table is away", "Wait.")
        return super().keep(letters)


def test_while_dead_letters_cannot_be_kept_the_checkpoint_stays(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(10))
    made.run(has_stored(10))
    hub.append(b"no JSON", partition="0")
    append(hub, range(10, 20))
    stop = threading.Event()
    seen: list[int] = []

    with made.opened() as (stream, stores), contextlib.ExitStack() as opened:
        database = opened.enter_context(contextlib.closing(OperationalDatabase(made.operational)))
        names = (stream.namespace, stream.hub, stream.consumer_group)
        letters = _UnavailableLetters(database, DeadLetterSettings(), *names)

        def look(report: IngestionReport) -> None:
            checkpoint = report.partitions["0"].checkpoint
            assert checkpoint is not None
            if letters.asked and not letters.is_back:
                stored = stores.checkpoints.find_all(*names)["0"]
                seen.extend((checkpoint.position.sequence_number, stored.position.sequence_number))
                letters.is_back = letters.asked >= 3
            if events(report) == 11:
                stop.set()

        report = ingest(
            *(stream, replace(stores, dead_letters=letters), made.rules, made.limits),
            asset=ASSET,
            window_seconds=ingesting.WAIT_SECONDS,
            stop=stop,
            tell=look,
        )
        counts = letters.counts()
    assert set(seen) == {9}
    assert counts == report.partitions["0"].dead_letters == {"not_json": 1}
    assert not_once(made.stored(), 20) == {}


# --- the events -----------------------------------------------------------------------------------

POISON = (
    (b"\xff\xfe not UTF-8", "not_utf8"),
    (b"{", "not_json"),
    (b'"text"', "wrong_shape"),
    (b"x" * 1_000_000, "too_large"),
    (b'{"eui": "A840410000000001", "data": {"n": 1%b}}' % (b"0" * 400), "out_of_range"),
    (b'{"eui": "A840410000000001", "rssi": 1e400}', "not_finite"),
    (b'{"eui": "A840410000000001", "data": {"n": NaN}}', "not_finite"),
    (b"\x1f\x8b\x08 gzip", "compressed"),
    (b'{"rssi": 1}', "missing_eui"),
)


def test_an_event_on_which_our_own_code_fails_is_a_dead_letter_and_reading_goes_on(
    hub: EventHubServer, made: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    # A limit that is no number stands for any defect: it fails on text alone.
    defective = replace(made.rules, limits=Limits(text_characters=cast("int", "2000")))
    append(hub, range(10))
    hub.append(b'{"eui": "A840410000000001", "data": "text"}', partition="0")
    append(hub, range(10, 20))
    report = made.with_(rules=defective).run(has_stored(21)).partitions["0"]
    assert not_once(made.stored(), 20) == {}
    assert report.refused == report.dead_letters == {"internal": 1}
    assert (report.error, report.lag_events) == (None, 0)
    with made.opened() as (_, stores):
        (kept,) = stores.dead_letters.find()
    assert kept.letter.detail.startswith("decoding failed with TypeError(")
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert logged.message.startswith("event 10 of partition 0: decoding failed unexpectedly")


HOUR_MS = 3_600_000


def test_while_our_clock_is_behind_the_hub_s_nothing_becomes_a_dead_letter(
    hub: EventHubServer, made: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        accepted_ms = epoch_milliseconds() + 3 * HOUR_MS
        hub.append(ingesting.uplink(number), partition="0", enqueued_ms=accepted_ms)
    report = made.run(has_stored(20)).partitions["0"]
    assert (report.points, report.dead_letters, report.rejected) == (20, {}, {})
    assert not_once(made.stored(), 20) == {}
    told = [r.getMessage() for r in caplog.records if "Set the clock" in r.getMessage()]
    assert len(told) == 1
    assert "partition 0: the hub accepted event" in told[0]


def test_a_time_that_no_clock_is_off_by_is_a_dead_letter(
    hub: EventHubServer, made: Pipeline
) -> None:
    append(hub, range(5))
    accepted_ms = epoch_milliseconds() + 48 * HOUR_MS
    hub.append(ingesting.uplink(5), partition="0", enqueued_ms=accepted_ms)
    report = made.run(has_stored(6)).partitions["0"]
    assert report.dead_letters == {"time_out_of_range": 1}
    assert not_once(made.stored(), 5) == {}


def test_poison_by_the_thousand_is_kept_and_costs_the_good_ones_nothing(
    hub: EventHubServer, made: Pipeline
) -> None:
    count = 3000
    small = [make_message(body) for body, _ in POISON if len(body) < 1000]
    append(hub, range(100))
    hub.append_all("0", (small[number % len(small)] for number in range(count)))
    for body, _ in POISON:
        hub.append(body, partition="0")
    append(hub, range(100, 200))
    total = 200 + count + len(POISON)
    report = made.with_(limits=BatchLimits(max_events=500)).run(has_stored(total))
    of_0 = report.partitions["0"]
    assert not_once(made.stored(), 200) == {}
    assert set(of_0.dead_letters) == {reason for _, reason in POISON}
    assert sum(of_0.dead_letters.values()) == count + len(POISON)
    assert of_0.lag_events == 0
