"""A small disk of its own, to be filled to the last byte."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILLING = "filling"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """One of `size` at `folder` (a tmpfs), where that may be mounted; says whether it is."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size},mode=0755", "tests", str(folder)]
    mounted = subprocess.run(["mount", *options], check=False, capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no byte on the disk."""
    descriptor = os.open(folder / FILLING, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for size in (1 << 20, 4096, 1):
            while _has_written(descriptor, size):
                pass
    finally:
        os.close(descriptor)


def empty(folder: Path) -> None:
    """Make room again."""
    (folder / FILLING).unlink()


def _has_written(descriptor: int, size: int) -> bool:
    try:
        return os.write(descriptor, bytes(size)) > 0
    except OSError:
        return False
