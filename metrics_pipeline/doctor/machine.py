"""What this machine says: room on the disks where state lives, and which daemons run here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from metrics_pipeline.core.findings import Finding, warning, well, wrong


@dataclass(frozen=True, slots=True)
class Room:
    """So many bytes, and such a share of the disk; what is less than both is too little."""

    free_bytes: int
    share: float


LITTLE = Room(2_000_000_000, 0.10)
HARDLY = Room(300_000_000, 0.03)
"""SQLite, the spool and PostgreSQL stop at the last byte."""

BYTES_PER_MB = 1_000_000
DAEMONS = (b"metrics-pipeline daemon", b"metrics_pipeline daemon", b"dagster-daemon run")
"""What a command line of a daemon has in it."""
HOME = b"DAGSTER_HOME"
PROCESSES = Path("/proc")


def examine_disks(
    folders: Iterable[Path], little: Room = LITTLE, hardly: Room = HARDLY
) -> Iterator[Finding]:
    """One finding for each disk: a warning below `little`, wrong below `hardly`."""
    for folder in _one_a_disk(folders):
        usage = shutil.disk_usage(folder)
        share = usage.free / usage.total if usage.total else 0.0
        said = f"{usage.free / BYTES_PER_MB:.0f} MB are free, {share:.0%}"
        fix = "Make room, or shorten `retention`: where it is full, what comes is lost."
        if usage.free < hardly.free_bytes and share < hardly.share:
            yield wrong("disk", str(folder), said, fix, "docs/retention.md")
        elif usage.free < little.free_bytes and share < little.share:
            yield warning("disk", str(folder), said, fix, "docs/retention.md")
        else:
            yield well("disk", str(folder), said)


def _one_a_disk(folders: Iterable[Path]) -> list[Path]:
    """Of what is there already: a folder that is made later is on the disk of the one above."""
    by_disk: dict[int, Path] = {}
    for folder in folders:
        there = folder.absolute()
        while not _is_there(there):
            there = there.parent
        by_disk.setdefault(there.stat().st_dev, there)
    return list(by_disk.values())


def _is_there(folder: Path) -> bool:
    """As far as this user may look."""
    try:
        return folder.exists()
    except PermissionError:
        return False


def where_daemons_are(home: Path, processes: Path = PROCESSES) -> str:
    """A sentence on the daemons of other folders that run on this machine; "" for none.

    Of processes of other users nothing is known. Of an environment only DAGSTER_HOME is looked at.
    """
    found = []
    for entry in processes.iterdir():
        folder = _home_of_daemon(entry) if entry.name.isdigit() else None
        if folder is not None and folder != home:
            found.append(f"process {entry.name} with DAGSTER_HOME={folder}")
    if not found:
        return ""
    return f"On this machine runs a daemon of another folder: {', '.join(sorted(found))}."


def _home_of_daemon(process: Path) -> Path | None:
    """None for what is no daemon, has ended, or is another user's."""
    try:
        command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
        if not any(each in command for each in DAEMONS):
            return None
        environment = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    named = (each.partition(b"=") for each in environment)
    return next((Path(os.fsdecode(value)) for name, _, value in named if name == HOME), None)
