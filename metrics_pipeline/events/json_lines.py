"""Events in a file: one line of JSON each, appended by several processes, rotated by size.

A lock on a file beside it lets one process at a time append and rename. So a line is never torn by
another one, and none is written to a file that was renamed away. What a full disk or a killed
machine left half is ended with a newline before anything is added, and readers skip it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from metrics_pipeline.access.file_lock import hold_in_turn
from metrics_pipeline.access.whole_writes import write_all
from metrics_pipeline.events.settings import JsonLinesSettings
from metrics_pipeline.events.transport import TransportUnavailable

NEWLINE = b"\n"


def older(path: Path, age: int) -> Path:
    """The file that was renamed `age` rotations ago."""
    return path.with_name(f"{path.name}.{age}")


class JsonLines:
    """Opens the file for each batch: whoever renames or removes it meanwhile is no matter."""

    def __init__(self, settings: JsonLinesSettings) -> None:
        self._path = settings.path
        self._rotate_bytes = settings.rotate_bytes
        self._kept_files = settings.kept_files
        self.name = f"events file {settings.path}"

    def send(self, lines: Sequence[str]) -> None:
        """Append all or nothing, as far as the disk lets us; raises TransportUnavailable."""
        whole = "".join(f"{line}\n" for line in lines).encode()
        with self._translating(), hold_in_turn(_lock_of(self._path)):
            self._rotate(len(whole))
            self._append(whole)

    def check(self) -> str:
        """Open it for writing, and write nothing."""
        with self._translating(), hold_in_turn(_lock_of(self._path)), self._path.open("ab") as file:
            return f"{self._path} can be written, {file.tell()} bytes so far"

    def close(self) -> None:
        """Nothing stays open."""

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TransportUnavailable(
                self.name,
                f"cannot be written ({error.strerror or type(error).__name__})",
                "Make the folder writable, or free some of its disk.",
            ) from error

    def _rotate(self, more_bytes: int) -> None:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size == 0 or size + more_bytes <= self._rotate_bytes:
            return
        for age in range(self._kept_files, 1, -1):
            with suppress(FileNotFoundError):
                older(self._path, age - 1).replace(older(self._path, age))
        self._path.replace(older(self._path, 1))

    def _append(self, whole: bytes) -> None:
        with self._path.open("a+b", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            if before and os.pread(file.fileno(), 1, before - 1) != NEWLINE:
                whole = NEWLINE + whole
            try:
                write_all(file.fileno(), whole)
            except OSError:
                with suppress(OSError):  # a line that stays torn is ended by the next batch
                    file.truncate(before)
                raise


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")
