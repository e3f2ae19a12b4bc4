"""From readings of devices to points, and to what is up and what is not. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import mode

from metrics_pipeline.core.catalog import DEVICE_METRICS, DEVICE_STATUS, OFFLINE, ONLINE
from metrics_pipeline.core.devices import OUR_OWN, DeviceReading, Miss
from metrics_pipeline.core.points import Point


def metric_points(reading: DeviceReading, time_ns: int) -> list[Point]:
    """A point for each value that was read, and for each of every row of detail."""
    device = reading.device_id
    points = [
        Point(
            DEVICE_METRICS.name,
            {"device_id": device, "metric_name": name},
            {"value": float(value)},
            time_ns,
        )
        for name, value in reading.values.items()
    ]
    for table, rows in reading.details.items():
        points += [
            Point(
                table,
                {"device_id": device, "metric_name": metric, "name": name},
                {"value": float(value)},
                time_ns,
            )
            for name, values in rows.items()
            for metric, value in values.items()
        ]
    return points


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
    """Who is online. A device that was goes offline with its `misses_allowed`-th missed answer.

    One that never was is offline from its first sweep on: there is no status to keep meanwhile.

    `missed` has, of each device that is online and did not answer last, the times of the answers it
    missed in a row.
    """

    misses_allowed: int
    online: dict[str, bool]
    missed: dict[str, list[int]] = field(default_factory=dict)

    def copy(self) -> StatusBoard:
        """The same, to go back to."""
        missed = {device: list(times) for device, times in self.missed.items()}
        return StatusBoard(self.misses_allowed, dict(self.online), missed)

    def judge(self, reading: DeviceReading, time_ns: int) -> list[Point]:
        """The device's status at `time_ns`, after one more reading.

        Where nobody could ask it, it is as it was, and offline if it is new: a row of the
        inventory that nobody can ask is to be seen too. One that goes offline has been so since
        the first answer it missed: the points that called it online until now are given once
        more, to be overwritten.
        """
        device = reading.device_id
        if reading.is_up:
            self.missed.pop(device, None)
            self.online[device] = True
            return [status_point(device, True, time_ns)]
        was_online = self.online.setdefault(device, False)
        if reading.reason in OUR_OWN or not was_online:
            return [status_point(device, was_online, time_ns)]
        times = [*self.missed.pop(device, ()), time_ns]
        if len(times) < self.misses_allowed:
            self.missed[device] = times
            return [status_point(device, True, time_ns)]
        self.online[device] = False
        return [status_point(device, False, missed_ns) for missed_ns in times]


def outcome_of(reading: DeviceReading) -> str:
    """`complete`, `partial`, or the reason why nothing came."""
    lost = [miss for miss in reading.misses.values() if miss is not Miss.UNSUPPORTED]
    if not reading.values and (reading.reason is not None or lost):
        return str(reading.reason or mode(lost))
    return "partial" if lost else "complete"
