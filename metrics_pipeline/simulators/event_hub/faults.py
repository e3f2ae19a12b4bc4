"""What goes wrong on request, and for which partitions."""

from __future__ import annotations


class Faults:
    """Switches; the partition None means all of them."""

    def __init__(self) -> None:
        self._stalled: set[str | None] = set()
        self._throttled: set[str | None] = set()
        self._rates: dict[str | None, float] = {}
        self.is_frozen = False
        """Connections are accepted, and nothing is read or answered."""

    def stall(self, partition: str | None, is_on: bool) -> None:
        """Receivers attach and get no event."""
        _set(self._stalled, partition, is_on)

    def throttle(self, partition: str | None, is_on: bool) -> None:
        """Sends and new receivers are refused: the server is busy."""
        _set(self._throttled, partition, is_on)

    def slow(self, partition: str | None, events_per_second: float | None) -> None:
        """Each receiver gets at most so many events a second; None: as many as there are."""
        if events_per_second is None:
            self._rates.pop(partition, None)
        else:
            self._rates[partition] = events_per_second

    def is_stalled(self, partition: str) -> bool:
        """Whether receivers of `partition` get nothing."""
        return bool(self._stalled) and not self._stalled.isdisjoint((None, partition))

    def is_throttled(self, partition: str) -> bool:
        """Whether sends to `partition` are refused."""
        return not self._throttled.isdisjoint((None, partition))

    def events_per_second(self, partition: str) -> float | None:
        """How many events a receiver of `partition` gets a second at most; None: no limit."""
        return self._rates.get(partition, self._rates.get(None))


def _set(switches: set[str | None], partition: str | None, is_on: bool) -> None:
    if is_on:
        switches.add(partition)
        return
    switches.discard(partition)
    if partition is None:
        switches.clear()
