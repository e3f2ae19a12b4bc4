"""How often Python's threads take turns, where several of them work through a backlog."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

SWITCHED_AFTER_SECONDS = 0.05
"""So long a thread computes before another's turn, rather than Python's 5 ms."""


@contextmanager
def switching_seldom() -> Iterator[None]:
    """Let threads that compute go on for longer; those that wait are late by as much.

    It is the whole process's: where two such overlap, the last to end may leave it as another had
    set it.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(max(before, SWITCHED_AFTER_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
