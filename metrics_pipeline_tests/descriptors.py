"""What a process has open, to tell what a test has left open."""

from __future__ import annotations

import gc
import os
from contextlib import suppress


def open_descriptors() -> frozenset[tuple[str, str]]:
    """Each descriptor of this process with what it is of; what nothing refers to is closed first.

    To be compared as sets: how many there are also changes by what ends meanwhile of tests before.
    """
    gc.collect()
    return listed_descriptors()


def listed_descriptors() -> frozenset[tuple[str, str]]:
    """The same with what nothing refers to, and cheap enough to be asked again and again."""
    found = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 (it is closed before they are read)
        with suppress(FileNotFoundError):
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))  # noqa: PTH115
    return frozenset(found)
