"""A lock that a file stands for, held by one thread of one process at a time; the kernel frees it.

`flock(2)`: over NFS version 4 it holds between machines, too. Who holds it and dies, lets it go.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_SECONDS = 0.005


@contextmanager
def hold(path: Path, patience_seconds: float) -> Iterator[bool]:
    """Whether it was got within `patience_seconds`; if so, it is held for the length of the `with`.

    Makes the file, which only its owner may read, and leaves it there. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _got(descriptor, time.monotonic() + patience_seconds)
    finally:
        os.close(descriptor)


@contextmanager
def hold_in_turn(path: Path) -> Iterator[None]:
    """Wait for it for as long as it takes, and hold it for the length of the `with`.

    Makes the file, whose folder is made if need be, and leaves it there. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _got(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_SECONDS)
        else:
            return True
