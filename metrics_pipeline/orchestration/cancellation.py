"""How the code server tells a run, which is a process of its own, that it is to end."""

from multiprocessing import synchronize


class Cancellation(synchronize.Event):
    """What a run waits for to be canceled, which waits for nobody.

    Python's own waits, when it is set, until who waits for it has woken (python/cpython#75158). Of
    a run that has died, or is stopped, nobody does; and the code server sets it within the lock
    that each of its threads needs.
    """

    _flag: synchronize.Semaphore

    def is_set(self) -> bool:
        """Whether the run is to end."""
        return self._flag.get_value() > 0

    def set(self) -> None:
        """Ask the run to end."""
        self._flag.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it was set before `timeout` seconds had passed."""
        is_set = self._flag.acquire(timeout=timeout)
        if is_set:
            self._flag.release()
        return is_set
