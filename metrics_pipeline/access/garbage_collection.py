"""Python's garbage collector, held back while much is made that stays, or has no cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

COLLECTED_AFTER = 500_000
"""New objects after which the garbage collector looks for cycles, rather than Python's 700."""


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Look for cycles less often, and among new objects alone.

    A sweep makes many objects that stay, an ingestion many that go, and neither makes cycles:
    looking for them took an eighth of a sweep. It is the whole process's: where two such overlap,
    the last to end may leave the collector as another had set it. What somebody else has frozen
    stays so: in a run that was forked, all that was imported, which is one copy for all runs.
    """
    first, *others = gc.get_threshold()
    if first:  # else somebody has switched it off
        gc.set_threshold(max(first, COLLECTED_AFTER), *others)
    is_ours = gc.get_freeze_count() == 0
    if is_ours:
        gc.freeze()
    try:
        yield
    finally:
        if is_ours:
            gc.unfreeze()
        gc.set_threshold(first, *others)


@contextmanager
def importing() -> Iterator[None]:
    """Look for no cycles while a process imports what it is for: what is imported stays.

    Dagster and this package make 200,000 objects, and to look through them again and again was a
    tenth of a start and more, 0.3 s of CPU.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def keep_what_is_there() -> None:
    """Look no more through what is there: for a process that has started, and now serves.

    Where Dagster is, that is a quarter of a million objects, 0.14 s in which no thread runs. Python
    puts off looking through all until a quarter as much is new, so that garbage piled up for hours.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # what a quarter is taken of: what this one finds, next to nothing
