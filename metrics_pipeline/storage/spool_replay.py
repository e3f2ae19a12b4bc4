"""What waits in the spool goes to the time-series store, in order; by one thread of one process.

Points that the store refuses are counted by reason, as always. Where it refuses a whole record and
names nothing that is wrong with it (a token that is not valid any more, or a missing bucket, looks
like that, too), the record is set aside only if the store takes another of its measurement and
refuses it once more after that; until then everything waits.

Whoever writes replays: a writer that finds something in the spool starts a thread, which tries for
as long as the writer is open. Only the one that gets `replay.lock` goes on.
"""

from __future__ import annotations

import errno
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from metrics_pipeline.access.file_lock import hold
from metrics_pipeline.core.errors import (
    InvalidPoint,
    RefusedPoint,
    StoreError,
    StoreUnavailable,
)
from metrics_pipeline.core.points import Point
from metrics_pipeline.storage.spool import (
    DAMAGED,
    Spool,
    make_folder,
    read_position,
    segments,
    sync_folder,
    write_position,
    write_through,
)
from metrics_pipeline.storage.spool_records import FORMAT, Damage, Record, decode, encodable

LOG = logging.getLogger(__name__)

BATCH_POINTS = 5000
"""Points of several records that are stored at once, a record at least."""
MAX_WITNESSES = 3
"""If the store refuses so many behind one as well, it lies with the store, not with them."""
MOST_LOOKED_AT = 10_000
"""Records, for one of the same measurement; what waits may be hundreds of megabytes."""
LOOK_SECONDS = 0.02
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_RECORD = "they are no whole record: torn by a death, or damaged on the disk"
OF_ANOTHER_RELEASE = "they are of no format that this release knows"


class KeptPoints(Protocol):
    """What the points of the spool are handed to: the writer, without a spool of its own."""

    def append_kept(self, points: Sequence[Point]) -> object:
        """Store them and count them, the refused by reason; StoreError if that is not done.

        StoreUnavailable if it may be done later.
        """
        ...

    def try_kept(self, points: Sequence[Point]) -> object:
        """The same, but count nothing."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds: between two tries, the longest that a store may ask for, and for the end.

    At its end a process stays for so long if the store takes what waits, or has not answered yet:
    of a process that ends soon, nothing would ever be replayed otherwise.
    """

    between: float = 5.0
    longest: float = 60.0
    at_end: float = 10.0


class Replayer:
    """Keeps points for a writer, and sees to it that they get to the store."""

    def __init__(
        self, spool: Spool, open_writer: Callable[[], KeptPoints], patience: Patience | None = None
    ) -> None:
        self._spool = spool
        self._open_writer = open_writer
        self._patience = Patience() if patience is None else patience
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._is_failing = False

    def is_needed(self) -> bool:
        """Whether what comes has to wait, since something else does; then that is seen to."""
        is_needed = not self._spool.is_empty()
        if is_needed:
            self._wake()
        return is_needed

    def keep(self, points: Sequence[Point], why: StoreError | None) -> list[RefusedPoint]:
        """Append `points`, and say which were refused. StoreError if that cannot be done.

        `why` is what the store said, unless it was not asked.
        """
        refused: list[RefusedPoint] = []
        try:
            self._spool.append(points)
        except InvalidPoint:
            fit, refused = encodable(points)
            if fit:
                self._spool.append(fit)
        except StoreError as error:
            if why is not None:
                raise type(error)(error.store, f"{error.problem}, and {why}", error.fix) from why
            raise
        if why is not None:
            LOG.warning("%d points wait in the %s: %s", len(points), self._spool.name, why)
        self._wake()
        return refused

    def close(self) -> None:
        """End the thread; not at once if it gets on, or has not found out yet whether it does."""
        self.is_needed()
        thread = self._thread
        deadline = time.monotonic() + self._patience.at_end
        while thread is not None and thread.is_alive() and time.monotonic() < deadline:
            if self._is_failing:
                break
            thread.join(LOOK_SECONDS)
        self._stop.set()
        if thread is not None:
            thread.join(LOOK_SECONDS)  # where the store hangs, it ends with the process

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._is_failing = False
                self._thread = threading.Thread(
                    target=self._run, name="replay the spool", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        try:
            make_folder(self._spool.directory)
            with hold(self._spool.directory / "replay.lock", 0) as is_mine:
                if is_mine:
                    self._replay()
        except OSError as error:
            LOG.warning("%s cannot be replayed: %s", self._spool.name, error)
        finally:
            with self._lock:
                self._thread = None

    def _replay(self) -> None:
        with closing(self._open_writer()) as writer:
            while not (self._stop.is_set() or self._spool.is_empty()):
                try:
                    Drain(self._spool, writer, self._stop).run()
                    self._is_failing = False
                except StoreError as error:
                    self._say(error)
                    self._stop.wait(self._pause(error))

    def _pause(self, error: StoreError) -> float:
        asked: float = getattr(error, "retry_after_seconds", None) or 0.0
        return min(self._patience.longest, max(self._patience.between, asked))

    def _say(self, error: StoreError) -> None:
        """Once, until it works again."""
        if not self._is_failing:
            LOG.warning("%s is not replayed yet: %s", self._spool.name, error)
        self._is_failing = True


class Drain:
    """One go at all that waits, by who has the lock. Ends when nothing does, or `stop` is set."""

    def __init__(self, spool: Spool, writer: KeptPoints, stop: threading.Event) -> None:
        self._spool = spool
        self._writer = writer
        self._stop = stop

    def run(self) -> None:
        """StoreError when the store does not take it; what it has taken is not tried again."""
        with self._spool.translating("cannot be read or changed"):
            while not self._stop.is_set() and (there := segments(self._spool.directory)):
                self._drain(there[0])

    def _drain(self, segment: Path) -> None:
        with self._spool.appending():  # so that no record is seen half
            content = segment.read_bytes()
        name, stored = read_position(self._spool.directory)
        if name != segment.name or not len(FORMAT) <= stored <= len(content):
            stored = len(FORMAT)
        if not content.startswith(FORMAT):
            self._set_aside(segment, content, Damage(0, len(content)), OF_ANOTHER_RELEASE)
            stored = len(content)
        for records in _batches(self._without_damage(segment, content, stored)):
            if self._stop.is_set():
                return
            if self._takes(records):
                self._note(segment, records[-1].end)
                continue
            for record in records:
                if self._stop.is_set():
                    return
                self._store_alone(segment, content, record)
                self._note(segment, record.end)
        self._remove(segment, len(content))

    def _note(self, segment: Path, stored: int) -> None:
        """Up to where it is stored. A disk that is full has no room for that, and gets room by
        going on: who dies before the end of the segment has stored some records twice.
        """
        try:
            write_position(self._spool.directory, segment.name, stored)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise

    def _takes(self, records: Sequence[Record]) -> bool:
        """Store them all at once; not where something refuses that, be it what counts them."""
        try:
            self._writer.append_kept([point for record in records for point in record.points])
        except StoreUnavailable:
            raise
        except StoreError:
            return False
        return True

    def _store_alone(self, segment: Path, content: bytes, record: Record) -> None:
        """Store and count it, or set it aside; raises what keeps it from either."""
        refusal = self._refusal_of(record)
        if refusal is not None:
            witnesses = self._witnesses(segment, content, record)
            if not any(self._refusal_of(witness) is None for witness in witnesses):
                raise refusal
            if self._refusal_of(record) is not None:
                self._set_aside(segment, content, Damage(record.start, record.end), str(refusal))
                return
        self._writer.append_kept(record.points)

    def _refusal_of(self, record: Record) -> StoreError | None:
        """What the store says against it, which has it otherwise, uncounted."""
        try:
            self._writer.try_kept(record.points)
        except StoreUnavailable:
            raise
        except StoreError as refusal:
            return refusal
        return None

    def _witnesses(self, segment: Path, content: bytes, record: Record) -> Iterator[Record]:
        """Some of the same measurement that are behind it. They are stored again in their turn."""
        there = segments(self._spool.directory)
        behind = there[there.index(segment) + 1 :]
        later = (decode(each.read_bytes(), len(FORMAT)) for each in behind)
        others = itertools.chain(decode(content, record.end), itertools.chain.from_iterable(later))
        same = (
            each
            for each in itertools.islice(others, MOST_LOOKED_AT)
            if isinstance(each, Record) and _measurement_of(each) == _measurement_of(record)
        )
        return itertools.islice(same, MAX_WITNESSES)

    def _without_damage(self, segment: Path, content: bytes, start: int) -> Iterator[Record]:
        for piece in decode(content, start):
            if isinstance(piece, Damage):
                self._set_aside(segment, content, piece, NO_RECORD)
            else:
                yield piece

    def _set_aside(self, segment: Path, content: bytes, damage: Damage, why: str) -> None:
        """Copied, under a name that is the same if it is done again. The bound does not hold it
        back: what was copied goes with its segment."""
        if damage.start == damage.end:
            return
        piece = content[damage.start : damage.end]
        copy = _place_aside(segment, damage.start, piece)
        LOG.error(
            "%s: %d bytes could not be stored and are in %s now: %s", segment, len(piece), copy, why
        )
        with suppress(FileNotFoundError):
            copy.unlink()
        write_through(copy, piece)
        sync_folder(copy.parent)

    def _remove(self, segment: Path, size: int) -> None:
        """Unless it has grown meanwhile. The position first: of another segment that people give
        this name, one that a death has left would skip the beginning."""
        with self._spool.appending():
            if segment.stat().st_size == size:
                with suppress(FileNotFoundError):
                    (self._spool.directory / "position").unlink()
                segment.unlink()
                sync_folder(self._spool.directory)


def _place_aside(segment: Path, start: int, piece: bytes) -> Path:
    """A name that no other piece has: people make segments of pieces, under numbers of before.

    What is there and is the beginning of `piece` was left by a death.
    """
    for number in itertools.count():
        again = f"-{number}" if number else ""
        place = segment.with_name(f"{segment.stem}-{start}{again}{DAMAGED}")
        if not place.exists() or piece.startswith(place.read_bytes()):
            break
    return place


def _measurement_of(record: Record) -> str:
    """That of all its points."""
    return record.points[0].measurement if record.points else ""


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    points = 0
    for record in records:
        if batch and points + len(record.points) > BATCH_POINTS:
            yield batch
            batch, points = [], 0
        batch.append(record)
        points += len(record.points)
    if batch:
        yield batch
