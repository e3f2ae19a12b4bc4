"""The spool: points on this machine's disk while the time-series store is down.

A folder of segments, `NUMBER.spool`, each of whole records (`spool_records.py`), read in the order
of their numbers. Whoever appends holds `append.lock`, and what `append` has returned from is on the
disk. `position` says up to where the oldest segment is in the store; what is behind it may be
there, too, and is written once more, which changes nothing. What was damaged lies in `*.damaged`
and counts as long as it lies there. docs/decisions/0011 says why it is so.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, Field

from metrics_pipeline.access.file_lock import hold
from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.access.whole_writes import write_all
from metrics_pipeline.core.errors import StoreError, StoreUnavailable
from metrics_pipeline.core.points import Point
from metrics_pipeline.storage.spool_records import FORMAT, encode

SUFFIX = ".spool"
DAMAGED = ".damaged"
SEGMENT_BYTES = 8_000_000
"""A segment is not added to any more when it has grown beyond this."""
PATIENCE_SECONDS = 30.0
"""Appending takes milliseconds, and who waits is let in by chance: of 30 processes that appended 90
records at once, with 80 ms for each sync, some waited for 8 s."""
NAME_DIGITS = 20


class SpoolSettings(BaseModel, frozen=True, extra="forbid"):
    """Where points wait while the time-series store is down; telemetry waits in the hub instead."""

    directory: StatePath = Field(
        default=Path("spool"),
        validate_default=True,
        description="A folder that outlives processes. Runs and samples in several containers or "
        "pods share it, with each other and with the exporter, or it does not help them: set "
        "`spool` to null where they cannot.",
    )
    max_bytes: int = Field(
        default=500_000_000,
        ge=10_000,
        description="What may lie in it at most. A write beyond it fails. A point of a poll takes "
        "about 20 bytes, a sample of its own 150. While something damaged is set aside it takes an "
        "eighth more, 8 MB at most.",
    )


class Spool:
    """Appends to the folder, and hands out its segments. May be shared between threads."""

    def __init__(self, settings: SpoolSettings, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.directory = settings.directory
        self.max_bytes = settings.max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, settings.max_bytes // 8)
        self._clock_ns = clock_ns
        self.name = f"spool {settings.directory}"

    def is_empty(self) -> bool:
        """Whether nothing waits for the store; also where there is no such folder yet."""
        return not segments(self.directory)

    def append(self, points: Sequence[Point]) -> None:
        """Keep `points`, which passed validation: all of them are on the disk, or it raises.

        StoreUnavailable when there is no room or the folder cannot be written; InvalidPoint for
        text that is no Unicode.
        """
        record = encode(points, self._clock_ns())
        with self.translating("cannot be written"):
            make_folder(self.directory)
            with self.appending():
                size = size_of(self.directory)
                if size + len(record) + len(FORMAT) > self.max_bytes:
                    raise self._full(size)
                self._append(record)

    def check(self) -> None:
        """Make a file and take it away again; StoreUnavailable if that cannot be done."""
        with self.translating("cannot be written"):
            make_folder(self.directory)
            probe = self.directory / f".check-{os.getpid()}"
            write_through(probe, b"\0")
            probe.unlink()

    @contextmanager
    def appending(self) -> Iterator[None]:
        """While nobody else appends, or takes a segment away."""
        with hold(self.directory / "append.lock", PATIENCE_SECONDS) as is_held:
            if not is_held:
                raise StoreUnavailable(
                    self.name,
                    f"append.lock was others' for {PATIENCE_SECONDS:g} s",
                    "A process that has it open (fuser) hangs, or its disk is slow for so many.",
                )
            yield

    @contextmanager
    def translating(self, what: str) -> Iterator[None]:
        """OSError leaves as StoreUnavailable, which says that the spool `what`."""
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(
                self.name,
                f"{what} ({error.strerror or error})",
                "Check spool.directory in the settings: disk space, rights, whether it is mounted.",
            ) from error

    def _append(self, record: bytes) -> None:
        there = segments(self.directory)
        newest = there[-1] if there else None
        if newest is not None and self._takes_more(newest):
            write_through(newest, record)
            return
        number = max([self._clock_ns(), *(_number_of(each) + 1 for each in there)])
        write_through(self.directory / f"{number:0{NAME_DIGITS}d}{SUFFIX}", FORMAT + record)
        sync_folder(self.directory)

    def _takes_more(self, segment: Path) -> bool:
        with segment.open("rb") as file:
            is_of_this_format = file.read(len(FORMAT)) == FORMAT
        return is_of_this_format and segment.stat().st_size < self._segment_bytes

    def _full(self, size: int) -> StoreError:
        return StoreUnavailable(
            self.name,
            f"is full: {size} of {self.max_bytes} bytes (spool.max_bytes)",
            "Bring the time-series store back: what waits is then stored by itself and makes room. "
            "Or raise spool.max_bytes; what lies in *.damaged counts, too.",
        )


def _number_of(segment: Path) -> int:
    """0 where somebody gave it another name."""
    digits = segment.stem[:NAME_DIGITS]
    return int(digits) if digits.isdecimal() else 0


def segments(directory: Path) -> list[Path]:
    """The segments in `directory`, the oldest first; none where there is no such folder."""
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))
        return [directory / name for name in names]
    return []


def size_of(directory: Path) -> int:
    """Bytes of segments and of what was damaged."""
    size = 0
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith((SUFFIX, DAMAGED)):
                with suppress(FileNotFoundError):
                    size += entry.stat().st_size
    return size


def read_position(directory: Path) -> tuple[str, int]:
    """The segment that is being stored, by name, and up to which offset it is; else ("", 0)."""
    with suppress(OSError, ValueError):
        name, offset, crc = (directory / "position").read_text("ascii").split()
        if int(crc) == zlib.crc32(f"{name} {offset}".encode()):
            return name, int(offset)
    return "", 0


def write_position(directory: Path, name: str, offset: int) -> None:
    """Remember it. Where a power cut loses that, some records are stored once more."""
    text = f"{name} {offset}"
    new = directory / ".position"
    new.write_text(f"{text} {zlib.crc32(text.encode())}\n", "ascii")
    new.replace(directory / "position")


def sync_folder(directory: Path) -> None:
    """What was made or removed in `directory` stays so after a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(directory: Path) -> None:
    """Make `directory`, and what is above it, if it is not there."""
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(directory.parent)


def write_through(path: Path, data: bytes) -> None:
    """Add `data` to a file and wait until it is on the disk; if that fails, nothing is added."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, before)
                if not before:
                    path.unlink()
            raise
    finally:
        os.close(descriptor)
