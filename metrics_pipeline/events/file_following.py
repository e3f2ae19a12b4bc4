"""Reads a file of events as it grows, through every rotation, from the oldest file that is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from metrics_pipeline.core.events import Event, NotAnEvent, read_event
from metrics_pipeline.events.json_lines import NEWLINE, older
from metrics_pipeline.events.settings import JsonLinesSettings
from metrics_pipeline.events.transport import TransportUnavailable

CHUNK_BYTES = 1_000_000
LOOK_EVERY_SECONDS = 0.25


Identity = tuple[int, int]
"""Device and inode: they tell a file from the one that has its name after a rotation."""


class FirstEnd(NamedTuple):
    """How far the events went when they were looked at first: the newest file, and its bytes."""

    identity: Identity | None
    size: int


class FileFollower:
    """Events that were there at first are left out where they are older than `since`."""

    def __init__(
        self,
        settings: JsonLinesSettings,
        since: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = settings.path
        self._kept_files = settings.kept_files
        self._since = since
        self._sleep = sleep
        self._file: BinaryIO | None = None
        self._rest = b""
        self._first_end: FirstEnd | None = None
        self.name = f"events file {settings.path}"
        self.is_caught_up = False
        """Whether all that was there at first was read."""

    def read(self) -> Sequence[Event | NotAnEvent]:
        """What the next lines hold, or nothing for the moment; raises TransportUnavailable."""
        while not self.is_caught_up:
            if self._first_end is None:
                self._first_end = self._end()
            found = self._next_events()
            self.is_caught_up = not found or self._is_past(self._first_end)
            # Also what is no event: whoever reads should know.
            new = [e for e in found if isinstance(e, NotAnEvent) or e.timestamp >= self._since]
            if new:
                return new
        return self._next_events()

    def pause(self) -> None:
        """Wait for more."""
        self._sleep(LOOK_EVERY_SECONDS)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next_events(self) -> Sequence[Event | NotAnEvent]:
        with self._readable():
            lines = self._next_lines()
        return [read_event(line) for line in lines]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said = error.strerror or type(error).__name__
            fix = "Make it readable for this user."
            raise TransportUnavailable(self.name, f"cannot be read ({said})", fix) from error

    def _end(self) -> FirstEnd:
        with self._readable():
            status = _status_at(self._path)
        return FirstEnd(_identity_of(status), status.st_size) if status else FirstEnd(None, 0)

    def _is_past(self, end: FirstEnd) -> bool:
        """Whether all before `end` was read, or is not kept any more, however much came since."""
        if self._file is None:
            return False
        read = _identity(self._file)
        if read == end.identity:
            return self._file.tell() >= end.size
        with self._readable():
            return end.identity not in [each for _, each in _after(self._files(), read)]

    def _next_lines(self) -> Sequence[bytes]:
        """Of the file that is read, or else of the next that has any."""
        while True:
            # Asked first: once it is renamed, nobody writes to it any more.
            is_renamed = self._file is None or _identity_at(self._path) != _identity(self._file)
            lines = self._read_lines()
            if lines or not is_renamed or not self._open_next():
                return lines

    def _read_lines(self) -> Sequence[bytes]:
        if self._file is None:
            return ()
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # somebody emptied it
            self._rest = b""
        while chunk := self._file.read(CHUNK_BYTES):
            *lines, self._rest = (self._rest + chunk).split(NEWLINE)
            if lines:
                return [line for line in lines if line]
        return ()

    def _open_next(self) -> bool:
        """Open the file after the one that was read; whether there is one."""
        read = _identity(self._file) if self._file is not None else None
        for path, identity in _after(self._files(), read):
            file = path.open("rb")
            if _identity(file) == identity:
                self.close()
                self._file, self._rest = file, b""  # what is left was torn, and never gets its end
                return True
            file.close()  # renamed in this moment: the next look finds it
            break
        return False

    def _files(self) -> Iterator[tuple[Path, Identity]]:
        """Those that are there, the oldest first."""
        ages = range(self._kept_files, 0, -1)
        for path in (*(older(self._path, age) for age in ages), self._path):
            identity = _identity_at(path)
            if identity is not None:
                yield path, identity


def _after(
    files: Iterator[tuple[Path, Identity]], read: Identity | None
) -> Sequence[tuple[Path, Identity]]:
    """Those after the one that was read; all where it is not among them any more."""
    found = list(files)
    places = [place for place, (_, identity) in enumerate(found) if identity == read]
    return found[places[0] + 1 :] if places else found


def _identity(file: BinaryIO) -> Identity:
    return _identity_of(os.fstat(file.fileno()))


def _identity_at(path: Path) -> Identity | None:
    status = _status_at(path)
    return None if status is None else _identity_of(status)


def _identity_of(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _status_at(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
