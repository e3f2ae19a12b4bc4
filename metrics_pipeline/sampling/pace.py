"""How long what of the sampling takes at the most."""

from __future__ import annotations

from dataclasses import dataclass

from metrics_pipeline.core.validation import NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Pace:
    """Times in seconds. Other than these are for tests, which have no time."""

    hold_seconds: float = 20.0
    """So long sampling goes on after it was last held: four ticks of Dagster's sensors. Time in
    which the operational database is away does not count, as Dagster may have the same one."""

    lease_seconds: float = 10.0
    renew_seconds: float = 4.0
    look_seconds: float = 0.5
    end_seconds: float = 2.0
    """So long the end waits for sources that are being asked, and for the store."""

    try_again_seconds: float = 2.0
    """Between two tries of a store that is ill."""

    most_waiting: int = 1000
    """So many slots wait in memory to be stored, of all sources together; the oldest is given up
    for one more. Those of the services and of the sets that ship come to 42 a minute, so a store or
    the operational database may be away for 20 minutes."""

    @property
    def lease_ns(self) -> int:
        """In nanoseconds."""
        return int(self.lease_seconds * NS_PER_SECOND)


USUAL = Pace()
