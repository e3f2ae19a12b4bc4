"""From readings of devices to points, and to what is up and what is not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import mode

from metrics_pipeline.core.catalog import DEVICE_METRICS, DEVICE_STATUS, OFFLINE, ONLINE
from metrics_pipeline.core.devices import DeviceReading, Miss
from metrics_pipeline.core.points import Point


def metric_points(reading: DeviceReading, time_ns: int) -> list[Point]:
    """A point for each value that was read."""
    return [
        Point(
            DEVICE_METRICS.name,
            {"device_id": reading.device_id, "metric_name": name},
            {"value": float(value)},
            time_ns,
        )
        for name, value in reading.values.items()
    ]


def status_point(device_id: str, is_online: bool, time_ns: int) -> Point:
    """The point that says whether a device is up."""
    status = ONLINE if is_online else OFFLINE
    return Point(DEVICE_STATUS.name, {"device_id": device_id}, {"status": status}, time_ns)


def statuses_in(points: Iterable[Point]) -> dict[str, bool]:
    """Which devices are online, by id, as earlier status points say."""
    return {
        point.tags["device_id"]: point.fields["status"] == ONLINE
        for point in points
        if point.measurement == DEVICE_STATUS.name
    }


@dataclass(slots=True)
class StatusBoard:
    """Who is online. A device that was goes offline with its `misses_allowed`-th missed answer."""

    misses_allowed: int
    online: dict[str, bool]
    missed: dict[str, int] = field(default_factory=dict)

    def judge(self, reading: DeviceReading) -> bool:
        """Whether the device is online, after one more reading."""
        device = reading.device_id
        self.missed[device] = 0 if reading.is_up else self.missed.get(device, 0) + 1
        was_online = self.online.get(device, False)
        is_online = reading.is_up or (was_online and self.missed[device] < self.misses_allowed)
        self.online[device] = is_online
        return is_online


def count_outcomes(readings: Iterable[DeviceReading]) -> Mapping[str, int]:
    """Devices by outcome: `complete`, `partial`, or the reason why nothing came."""
    counts: dict[str, int] = {}
    for reading in readings:
        outcome = outcome_of(reading)
        counts[outcome] = counts.get(outcome, 0) + 1
    return counts


def outcome_of(reading: DeviceReading) -> str:
    """`complete`, `partial`, or the reason why nothing came."""
    lost = [miss for miss in reading.misses.values() if miss is not Miss.UNSUPPORTED]
    if not reading.values and (reading.reason is not None or lost):
        return str(reading.reason or mode(lost))
    return "partial" if lost else "complete"
