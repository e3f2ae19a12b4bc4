"""Ingestions for tests: from an emulated hub into real stores, here or in another process."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.catalog import CATALOG, LORAWAN_UPLINK
from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.lorawan import Rules
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import BatchLimits, Checkpoint, PartitionKey
from metrics_pipeline.ingestion import IngestionReport, Stores, ingest
from metrics_pipeline.simulators.event_hub.amqp_messages import make_message
from metrics_pipeline.simulators.event_hub.process import EventHubProcess
from metrics_pipeline.simulators.event_hub.server import EventHubServer
from metrics_pipeline.sources.event_hub import EventHubStream
from metrics_pipeline.sources.event_hub_settings import EventHubSettings
from metrics_pipeline.storage.checkpoints import (
    BlobCheckpointSettings,
    DatabaseCheckpoints,
    DatabaseCheckpointSettings,
)
from metrics_pipeline.storage.dead_letters import DeadLetters, DeadLetterSettings
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.open import StoreSettings, open_checkpoints, open_writer
from metrics_pipeline.storage.operational import OperationalDatabase

ASSET = "telemetry/lorawan_uplinks"
WAIT_SECONDS = 60.0
SHOWN = 10
DEVICES = 16
ALL_TIME_NS = (0, 2**62)
RULES = Rules(is_iot_hub=False)
QUICKLY = BatchLimits(max_events=50, max_wait_seconds=0.05)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["metrics_pipeline_tests.at_once", "metrics_pipeline_tests.ingestion.imported_once", __name__]
)


def uplink(number: int) -> bytes:
    """Of one of a few devices, with `number` as its frame counter."""
    return json.dumps(
        {"eui": f"{number % DEVICES:016X}", "fcnt": number, "data": {"n": 1}}
    ).encode()


def append(
    hub: EventHubServer,
    numbers: Iterable[int],
    partition: str = "0",
    annotations: Mapping[str, Any] | None = None,
) -> None:
    """Numbered uplinks."""
    messages = (make_message(uplink(number), annotations=annotations) for number in numbers)
    hub.append_all(partition, messages)


@dataclass(frozen=True)
class Pipeline:
    """What an ingestion is given; can be sent to another process."""

    connection_string_file: Path
    store: StoreSettings
    operational: DatabaseSettings
    checkpoints: DatabaseCheckpointSettings | BlobCheckpointSettings = field(
        default_factory=DatabaseCheckpointSettings
    )
    hub: dict[str, Any] = field(default_factory=dict)
    limits: BatchLimits = QUICKLY
    rules: Rules = RULES

    @contextmanager
    def opened(self) -> Iterator[tuple[EventHubStream, Stores]]:
        """The stream and the stores; afterwards closed."""
        secret = SecretReference(file=self.connection_string_file)
        stream = EventHubStream(EventHubSettings(connection_string=secret, **self.hub))
        writer = open_writer(self.store, self.operational, CATALOG)
        database = OperationalDatabase(self.operational)
        names = (stream.namespace, stream.hub, stream.consumer_group)
        letters = DeadLetters(database, DeadLetterSettings(), *names)
        checkpoints = open_checkpoints(self.checkpoints, self.operational, f"pid {os.getpid()}")
        try:
            yield stream, Stores(writer, letters, checkpoints)
        finally:
            stream.close()
            writer.close()
            database.close()
            checkpoints.close()

    def run(
        self,
        until: Callable[[IngestionReport], bool] = lambda _report: False,
        *,
        window_seconds: float = WAIT_SECONDS,
        patience_seconds: float = 0.0,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> IngestionReport:
        """Ingest until the report says so; `meanwhile` is called in a thread of its own."""
        stop = threading.Event()

        def tell(report: IngestionReport) -> None:
            if until(report):
                stop.set()

        helper = threading.Thread(target=meanwhile)
        helper.start()
        with self.opened() as (stream, stores):
            report = ingest(
                *(stream, stores, self.rules, self.limits),
                asset=ASSET,
                window_seconds=window_seconds,
                patience_seconds=patience_seconds,
                stop=stop,
                tell=tell,
            )
        helper.join()
        return report

    def stored(self) -> list[Point]:
        """The uplinks in the embedded store."""
        assert isinstance(self.store, EmbeddedStoreSettings)
        store = EmbeddedStore(self.store)
        try:
            return list(store.read(LORAWAN_UPLINK.name, *ALL_TIME_NS))
        finally:
            store.close()

    def with_(self, **changes: Any) -> Pipeline:
        """The same, but for `changes`."""
        return replace(self, **changes)


def pipeline(hub: EventHubServer | EventHubProcess, folder: Path, **changes: Any) -> Pipeline:
    """From `hub` into the embedded store, all in `folder`."""
    secret = folder / "connection_string"
    secret.write_text(hub.connection_string)
    made = Pipeline(
        secret,
        EmbeddedStoreSettings(path=folder / "embedded.sqlite"),
        DatabaseSettings(url=f"sqlite:///{folder / 'operational.sqlite'}"),
    )
    return made.with_(**changes)


def numbers(points: Iterable[Point]) -> Counter[int]:
    """How often each number is there."""
    return Counter(int(point.fields["frame_counter"]) for point in points)


def not_once(points: Iterable[Point], count: int) -> dict[int, int]:
    """The first of the numbers from 0 to before `count` that are not in one point each, and of
    numbers beyond, with how often they are there."""
    found = numbers(points)
    wrong = {number for number in range(count) if found[number] != 1}
    beyond = {number for number in found if number not in range(count)}
    return {number: found[number] for number in sorted(wrong | beyond)[:SHOWN]}


def events(report: IngestionReport) -> int:
    """How many events of all partitions are stored."""
    return sum(each.events for each in report.partitions.values())


def has_stored(count: int) -> Callable[[IngestionReport], bool]:
    """For `Pipeline.run`."""
    return lambda report: events(report) >= count


def is_drained(report: IngestionReport) -> bool:
    """For `Pipeline.run`: nothing waits, as far as the hub has said."""
    return all(not each.lag_events for each in report.partitions.values())


def errors(report: IngestionReport) -> Sequence[str]:
    """What still was wrong at the end."""
    return [str(each.error) for each in report.partitions.values() if each.error]


class _Unmovable(DatabaseCheckpoints):
    """No checkpoint moves."""

    def advance(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        raise StoreError("checkpoints", "nothing moves", "Wait.")


def run_that_moves_no_checkpoint(made: Pipeline) -> IngestionReport:
    """As one that dies just before its first checkpoint moves."""
    stop = threading.Event()

    def tell(report: IngestionReport) -> None:
        if errors(report):
            stop.set()

    with made.opened() as (stream, stores):
        unmovable = _Unmovable(OperationalDatabase(made.operational), "who dies")
        try:
            return ingest(
                *(stream, replace(stores, checkpoints=unmovable), made.rules, made.limits),
                asset=ASSET,
                window_seconds=WAIT_SECONDS,
                stop=stop,
                tell=tell,
            )
        finally:
            unmovable.close()


# --- processes that are killed --------------------------------------------------------------------


class _Telling(DatabaseCheckpoints):
    """Tells whenever a checkpoint has moved."""

    teller: Connection

    def advance(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        super().advance(key, old, new)
        self.teller.send(new.position.sequence_number)


def ingest_for_ever(made: Pipeline, teller: Connection) -> None:
    """Tell the sequence number of every checkpoint that has moved, until killed."""
    with made.opened() as (stream, stores):
        telling = _Telling(OperationalDatabase(made.operational), f"pid {os.getpid()}")
        telling.teller = teller
        ingest(
            *(stream, replace(stores, checkpoints=telling), RULES, made.limits),
            asset=ASSET,
            window_seconds=WAIT_SECONDS,
            stop=threading.Event(),
        )


def kill_again_and_again(made: Pipeline, times: int, dice: random.Random) -> None:
    """Begin to ingest and be killed with SIGKILL at a random moment.

    Every other time that is while it begins, else after it has moved its first checkpoint.
    """
    for number in range(times):
        told, teller = _CONTEXT.Pipe(duplex=False)
        victim = _CONTEXT.Process(target=ingest_for_ever, args=(made, teller))
        victim.start()
        teller.close()
        if number % 2:
            assert told.poll(WAIT_SECONDS)
        time.sleep(dice.uniform(0, 0.25))
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join(WAIT_SECONDS)
        assert victim.exitcode == -signal.SIGKILL, victim.exitcode
        victim.close()
        told.close()


# --- processes that begin at the same moment ------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How one of several ingestions at once has ended."""

    epoch: int
    events: int
    are_taken: Sequence[bool]
    """For each partition, whether another reader has taken it."""

    errors: Sequence[str]
    moved: Sequence[tuple[str, int]]
    """The partition and the sequence number of each checkpoint that it has moved."""


class _Noting(DatabaseCheckpoints):
    """Notes every checkpoint that has moved."""

    moved: list[tuple[str, int]]

    def advance(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        super().advance(key, old, new)
        self.moved.append((key.partition, new.position.sequence_number))


def _ingest_once_all_are_there(
    made: Pipeline, all_are_there: Barrier, window_seconds: float, teller: Connection
) -> None:
    with made.opened() as (stream, stores):
        noting = _Noting(OperationalDatabase(made.operational), f"pid {os.getpid()}")
        noting.moved = []
        all_are_there.wait(WAIT_SECONDS)
        report = ingest(
            *(stream, replace(stores, checkpoints=noting), RULES, made.limits),
            asset=ASSET,
            window_seconds=window_seconds,
            stop=threading.Event(),
        )
    are_taken = [each.is_taken for each in report.partitions.values()]
    teller.send(Ended(report.epoch, events(report), are_taken, errors(report), noting.moved))


def ingest_at_once(made: Pipeline, times: int, window_seconds: float) -> list[Ended]:
    """So many ingestions, each in a process of its own, that begin at the same moment."""
    all_are_there = _CONTEXT.Barrier(times)
    started = []
    for _ in range(times):
        told, teller = _CONTEXT.Pipe(duplex=False)
        arguments = (made, all_are_there, window_seconds, teller)
        process = _CONTEXT.Process(target=_ingest_once_all_are_there, args=arguments)
        process.start()
        teller.close()
        started.append((process, told))
    ended = []
    for process, told in started:
        assert told.poll(WAIT_SECONDS)
        ended.append(told.recv())
        told.close()
        process.join(WAIT_SECONDS)
        assert process.exitcode == 0
        process.close()
    return ended
