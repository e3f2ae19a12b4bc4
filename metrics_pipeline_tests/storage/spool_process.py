"""What processes do that spool and replay, for tests of several at once and of sudden death."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from metrics_pipeline.access.file_lock import hold
from metrics_pipeline.storage import spool_replay
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.spool import Spool, SpoolSettings
from metrics_pipeline.storage.writer import Writer
from metrics_pipeline_tests.storage.contract import CATALOG, TIME_NS, poll
from metrics_pipeline_tests.storage.operational_databases import sqlite_settings

POINTS = 20
"""In a record."""


def spool(folder: Path) -> Spool:
    """The one that all of them use; of many small segments."""
    return Spool(SpoolSettings(directory=folder / "spool", max_bytes=10_000_000), lambda: TIME_NS)


def append(folder: Path, device_id: str, tell: Callable[[int], None]) -> None:
    """For ever; the points of each record have its number, which is told once it is kept."""
    kept = spool(folder)
    kept._segment_bytes = 2000
    for number in itertools.count():
        first_ns = TIME_NS + number * POINTS
        kept.append([poll({"count": number}, first_ns + i, device_id) for i in range(POINTS)])
        tell(number)


def replay(folder: Path) -> None:
    """Until nothing waits, into FOLDER/points.sqlite; one process at a time."""
    spool_replay.BATCH_POINTS = POINTS
    store = EmbeddedStore(EmbeddedStoreSettings(path=folder / "points.sqlite"))
    operational = OperationalDatabase(sqlite_settings(folder, busy_timeout_seconds=30))
    kept = spool(folder)
    with (
        closing(Writer(store, operational, CATALOG)) as writer,
        hold(kept.directory / "replay.lock", 30) as is_mine,
    ):
        assert is_mine
        spool_replay.Drain(kept, writer, threading.Event()).run()


def replay_for_ever(folder: Path, tell: Callable[[str], None]) -> None:
    """Tells each time that it begins."""
    while True:
        tell("begins")
        replay(folder)
