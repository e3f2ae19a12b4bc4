"""What goes on beside a test, in another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(act: Callable[[], object], every_seconds: float) -> Iterator[None]:
    """Do it again and again in another thread."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(every_seconds):
            act()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
