"""How fast: a bucket that fills with time, of which each message or connection takes a part."""

from __future__ import annotations

import time
from collections.abc import Callable


class Rate:
    """`per_second` on average, `burst` at once."""

    def __init__(
        self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._looked_at = clock()

    def take(self) -> float:
        """Take one; how many seconds whoever took it has to wait, 0 if there was one."""
        self._fill()
        self._left -= 1
        return max(0.0, -self._left / self._per_second)

    def take_if_there(self) -> bool:
        """Take one, if there is one at once."""
        self._fill()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._looked_at) * self._per_second)
        self._looked_at = now
