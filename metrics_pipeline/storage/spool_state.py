"""How full the spool is, for people and alerts; looked at from outside, without a lock."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from metrics_pipeline.storage.spool import (
    DAMAGED,
    SpoolSettings,
    read_position,
    segments,
    size_of,
)
from metrics_pipeline.storage.spool_records import FORMAT, heads

NEARLY_FULL = 0.8
"""As the alert SpoolNearlyFull."""


@dataclass(frozen=True, slots=True)
class SpoolState:
    """Of the whole folder. `oldest_ns` is when the oldest of what waits was kept, if anything is.

    `size_bytes` has what is set aside as damaged, too, in `damaged` pieces.
    """

    size_bytes: int
    limit_bytes: int
    points: int
    oldest_ns: int | None
    damaged: int

    @property
    def taken_share(self) -> float:
        """Of what it may take; 1 and more is full."""
        return self.size_bytes / self.limit_bytes

    @property
    def is_nearly_full(self) -> bool:
        """Whether somebody should do something."""
        return self.taken_share >= NEARLY_FULL


@dataclass(frozen=True, slots=True)
class _Counted:
    """Of a segment from `begin` up to `end`."""

    begin: int
    end: int
    points: int
    oldest_ns: int | None


class SpoolWatch:
    """Looks at it again and again; of a segment it reads only what was added since."""

    def __init__(self, settings: SpoolSettings) -> None:
        self._settings = settings
        self._counted: dict[str, _Counted] = {}

    def look(self) -> SpoolState:
        """The state now; all zero where there is no such folder. Raises OSError."""
        directory = self._settings.directory
        stored_in, stored = read_position(directory)
        counted: dict[str, _Counted] = {}
        for segment in segments(directory):
            begin = stored if segment.name == stored_in else len(FORMAT)
            with suppress(FileNotFoundError):  # replayed and gone meanwhile
                counted[segment.name] = self._count(segment, begin)
        self._counted = counted
        oldest = (each.oldest_ns for each in counted.values() if each.oldest_ns is not None)
        return SpoolState(
            size_of(directory),
            self._settings.max_bytes,
            sum(each.points for each in counted.values()),
            min(oldest, default=None),
            _count_damaged(directory),
        )

    def _count(self, segment: Path, begin: int) -> _Counted:
        before = self._counted.get(segment.name)
        if before is None or before.begin != begin:
            before = _Counted(begin, begin, 0, None)
        if segment.stat().st_size == before.end:
            return before
        with segment.open("rb") as file:
            file.seek(before.end)
            added = file.read()
        points, end, oldest_ns = before.points, 0, before.oldest_ns
        for head in heads(added, 0):
            points += head.points
            oldest_ns = head.kept_at_ns if oldest_ns is None else oldest_ns
            end = head.end
        return replace(before, end=before.end + end, points=points, oldest_ns=oldest_ns)


def _count_damaged(directory: Path) -> int:
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        return sum(entry.name.endswith(DAMAGED) for entry in entries)
    return 0
