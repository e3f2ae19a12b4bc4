"""One partition of an ingestion, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from metrics_pipeline.core.errors import (
    CheckpointMoved,
    MetricsPipelineError,
    PartitionTaken,
    SourceError,
    SourceRefused,
)
from metrics_pipeline.core.lorawan import Rules
from metrics_pipeline.core.ports import EventStream, PartitionReader
from metrics_pipeline.core.telemetry import (
    BatchLimits,
    Checkpoint,
    PartitionKey,
    PartitionState,
    Position,
    RawEvent,
)
from metrics_pipeline.core.telemetry_backlog import Mark, PartitionBacklog, look_at
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.ingestion.decoding import Batch, decode_batch
from metrics_pipeline.ingestion.latest import LatestDevices
from metrics_pipeline.ingestion.report import PartitionReport, Stores
from metrics_pipeline.ingestion.window import Window

LOG = logging.getLogger(__name__)
FAILURES_KEPT = 5

CLOCKS_APART_SECONDS = 60.0
"""An event that is further in the future shows that our clock is behind."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    """What all partitions of an ingestion have in common."""

    stream: EventStream
    stores: Stores
    rules: Rules
    limits: BatchLimits
    devices: LatestDevices
    window: Window
    clock_ns: Callable[[], int] = time.time_ns


@dataclass(slots=True)
class _Totals:
    events: int = 0
    points: int = 0
    bytes: int = 0
    lost_events: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    altered: Counter[str] = field(default_factory=Counter)


class PartitionIngestion:
    """Reads one partition from `checkpoint` on, which is of `epoch`, or None.

    `state` is what the hub said of it last.
    """

    def __init__(
        self,
        work: Work,
        key: PartitionKey,
        state: PartitionState,
        checkpoint: Checkpoint | None,
        epoch: int,
    ) -> None:
        self._work = work
        self._key = key
        self._state = state
        self._checkpoint = checkpoint
        self._epoch = epoch
        self._totals = _Totals()
        self._failures: deque[MetricsPipelineError] = deque(maxlen=FAILURES_KEPT)
        self._error: MetricsPipelineError | None = None
        self._is_taken = False
        self._has_told_of_clock = False
        self.defect: Exception | None = None
        """What our own code did wrong, if anything: nothing is read any more."""

        self._waiting: tuple[Mark, ...] = ()
        """Events that were not stored when the last report was made."""

        self._in_hand: Mark | None = None
        """The first event of the micro-batch that is being stored."""

        self._reader: PartitionReader | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._run, name=f"partition-{key.partition}", daemon=True
        )

    # --- for the thread that looks after all of them ------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it still reads."""
        return self._thread.is_alive()

    @property
    def is_taken(self) -> bool:
        """Whether another reader has taken the partition over."""
        return self._is_taken

    def end(self, seconds: float) -> None:
        """Wait for its end, which comes with that of the window; after `seconds` hurry it up."""
        if self._thread.ident is None:
            return  # whoever was to start it was interrupted
        self._thread.join(seconds)
        reader = self._reader
        if self._thread.is_alive() and reader is not None:
            reader.close()
        self._thread.join()

    def report(self, state: PartitionState | None, now_ns: int) -> PartitionReport:
        """What it did until now; `state` is what the hub last said of it."""
        with self._lock:
            totals, backlog = self._totals, self._look(state) if state else None
            return PartitionReport(
                events=totals.events,
                points=totals.points,
                bytes=totals.bytes,
                refused=dict(totals.refused),
                dead_letters=dict(totals.dead_letters),
                rejected=dict(totals.rejected),
                altered=dict(totals.altered),
                lost_events=totals.lost_events,
                lag_events=backlog.lag_events if backlog else 0,
                lag_seconds=backlog.lag_seconds(now_ns) if backlog else 0.0,
                checkpoint=self._checkpoint,
                is_taken=self._is_taken,
                failures=tuple(self._failures),
                error=self._error,
            )

    def _look(self, state: PartitionState) -> PartitionBacklog:
        in_hand = () if self._in_hand is None else (self._in_hand,)
        known = tuple(sorted({*self._waiting, *in_hand}))
        backlog = look_at(state, self._checkpoint, known)
        self._waiting = backlog.waiting
        return backlog

    # --- in its own thread --------------------------------------------------------------------

    def _run(self) -> None:
        tried = 0
        try:
            self._skip_what_is_gone()
            while not self._work.window.is_over():
                before = self._totals.events
                error = self._read_on()
                tried = 1 if self._totals.events > before else tried + 1
                if error is not None:
                    self._note(error)
                    self._work.window.wait_after(error, tried)
        except (PartitionTaken, CheckpointMoved) as error:
            self._note(error)
            self._is_taken = True
            self._error = None  # whatever it was, it is the other reader's now
        except MetricsPipelineError as error:
            self._note(error)
            self._error = error
        except Exception as error:
            # It must not cost the other partitions theirs; who looks after them raises it.
            LOG.exception("partition %s: reading failed unexpectedly", self._key.partition)
            self.defect = error

    def _skip_what_is_gone(self) -> None:
        """Where all events after the checkpoint were too old and none has come, go behind them.

        Otherwise the next event shows how many are gone.
        """
        old, state = self._checkpoint, self._state
        lost = state.lost_events(old.position) if old else 0
        if not lost or not state.is_empty:
            return
        assert old is not None
        end = Position(state.last_offset, state.last_sequence_number)
        new = Checkpoint(end, self._epoch)
        self._tally_lost(old.position.sequence_number, lost)
        advance = self._work.stores.checkpoints.advance
        self._until_it_works(lambda: advance(self._key, old, new))
        self._checkpoint = new
        self._tell_lost(lost)

    def _read_on(self) -> SourceError | None:
        """Store what comes until the window ends; else the error, if it is no refusal."""
        position = self._checkpoint.position if self._checkpoint else None
        reader = self._work.stream.open(self._key.partition, position, self._epoch)
        self._reader = reader
        try:
            while not self._work.window.is_over():
                events = reader.receive(self._work.limits)
                self._error = None
                if events:
                    now_ns = self._work.clock_ns()
                    self._compare_clocks(events[-1], now_ns)
                    self._store(decode_batch(events, self._work.rules, now_ns))
        except SourceRefused:
            raise
        except SourceError as error:
            self._error = error
            return error
        finally:
            with suppress(SourceError):
                reader.close()
        return None

    def _compare_clocks(self, newest: RawEvent, now_ns: int) -> None:
        ahead_seconds = (newest.enqueued_time_ns - now_ns) / NS_PER_SECOND
        if ahead_seconds <= CLOCKS_APART_SECONDS or self._has_told_of_clock:
            return
        self._has_told_of_clock = True
        LOG.warning(
            "partition %s: the hub accepted event %d at a time that is %.0f s ahead of the clock "
            "of this machine. Set the clock: lags are shown too short by as much.",
            *(self._key.partition, newest.sequence_number, ahead_seconds),
        )

    def _store(self, batch: Batch) -> None:
        """Points, dead letters, what is lost, checkpoint: each once the one before is kept."""
        stores, first, last = self._work.stores, batch.events[0], batch.events[-1]
        self._in_hand = (first.sequence_number, first.enqueued_time_ns)
        new = Checkpoint(Position(last.offset, last.sequence_number), self._epoch)
        append = stores.writer.append
        part = self._until_it_works(lambda: append(batch.points, names_refused=True))
        letters = batch.letters_after(part.refused) if part.refused else batch.letters
        kept = self._until_it_works(lambda: stores.dead_letters.keep(letters))
        old = self._checkpoint
        before = first.sequence_number - 1 if old is None else old.position.sequence_number
        # A hub leaves no number out.
        lost = max(0, last.sequence_number - before - len(batch.events))
        self._tally_lost(before, lost)
        self._until_it_works(lambda: stores.checkpoints.advance(self._key, old, new))
        with self._lock:
            self._checkpoint = new
            self._in_hand = None
            self._add(batch)
            self._totals.points += part.written.total()
            self._totals.rejected.update(part.rejected)
            self._totals.dead_letters.update(kept.kept)
        self._tell_lost(lost)
        self._work.devices.take(self._key.partition, batch.points, last.sequence_number)

    def _add(self, batch: Batch) -> None:
        totals = self._totals
        totals.events += len(batch.events)
        totals.bytes += sum(len(event.body) for event in batch.events)
        totals.refused.update(batch.refused)
        totals.altered.update(batch.altered)

    def _until_it_works(self, call: Callable[[], T]) -> T:
        done = self._work.window.until_it_works(call, self._note_waiting)
        self._error = None
        return done

    def _note_waiting(self, error: MetricsPipelineError) -> None:
        self._note(error)
        self._error = error

    def _note(self, error: MetricsPipelineError) -> None:
        LOG.warning("partition %s: %s", self._key.partition, error)
        with self._lock:
            self._failures.append(error)

    def _tally_lost(self, after: int, lost: int) -> None:
        """Before the checkpoint moves: whoever dies in between has counted them, and once."""
        if lost:
            tally = self._work.stores.writer.count_lost
            self._until_it_works(lambda: tally(self._key, after, lost))

    def _tell_lost(self, lost: int) -> None:
        if not lost:
            return
        LOG.warning(
            "partition %s of %s: %d events were gone before they were read: the hub keeps events "
            "for a limited time. Read more often, or let it keep them for longer.",
            *(self._key.partition, self._work.stream.name, lost),
        )
        with self._lock:
            self._totals.lost_events += lost
