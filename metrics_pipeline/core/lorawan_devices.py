"""The latest values of every LoRaWAN device that sent, and how many of its frames were lost. Pure.

Fed with the uplinks that are stored; `rows` are what the exporter shows, and what a later run goes
on from. A row has the time of the device's last uplink.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from metrics_pipeline.core.catalog import LORAWAN_DEVICES, LORAWAN_UPLINK
from metrics_pipeline.core.frame_counts import NS_PER_SECOND, FrameCounts
from metrics_pipeline.core.points import FieldValue, Point

SIGNAL = ("rssi_dbm", "snr_db")
DEVICES_KEPT_DAYS = 30
"""So long a device is known after its last uplink. Battery devices send a sign of life once a day,
few as seldom as once a week."""


class LorawanDevices:
    """What is known of each device, by EUI; begun with the `rows` of an earlier run."""

    def __init__(self, rows: Iterable[Point] = ()) -> None:
        self._frames: dict[str, FrameCounts] = {}
        self._times_ns: dict[str, int] = {}
        self._signals: dict[str, dict[str, FieldValue]] = {}
        self._gateways: dict[str, str] = {}
        self._unsure: set[str] = set()
        """Devices of which frames came that are not in the rows."""
        for row in rows:
            self._restore(row)

    def take(self, points: Iterable[Point]) -> None:
        """Uplinks, in the order they were accepted by the hub; other points are passed over."""
        for point in points:
            if point.measurement == LORAWAN_UPLINK.name:
                self._take(point)

    def forget_gaps(self) -> None:
        """Uplinks came and went without us: what is missing before each device's next is not lost.

        After a run that died between storing them and showing the rows.
        """
        self._unsure = set(self._frames)

    def forget_before(self, time_ns: int) -> None:
        """Forget devices whose last uplink is from before `time_ns`: one that returns is new."""
        for eui in [eui for eui, last_ns in self._times_ns.items() if last_ns < time_ns]:
            del self._times_ns[eui], self._signals[eui]
            self._frames.pop(eui, None)
            self._gateways.pop(eui, None)
            self._unsure.discard(eui)

    def rows(self) -> Iterator[Point]:
        """A point of `lorawan_devices` for each device."""
        for eui, time_ns in self._times_ns.items():
            frames = self._frames.get(eui)
            fields: dict[str, FieldValue] = {
                "last_uplink_timestamp_seconds": time_ns / NS_PER_SECOND,
                **self._signals[eui],
                **(frames.fields() if frames else {}),
            }
            yield Point(LORAWAN_DEVICES.name, self._tags(eui), fields, time_ns)

    def _tags(self, eui: str) -> dict[str, str]:
        """The device, and who heard its last uplink where that is known."""
        gateway = self._gateways.get(eui)
        return {"device_eui": eui, **({} if gateway is None else {"gateway_id": gateway})}

    def _restore(self, row: Point) -> None:
        eui = row.tags["device_eui"]
        self._remember(eui, row)
        if "frame_counter" in row.fields:
            self._frames[eui] = FrameCounts.from_fields(row.fields, row.time_ns)

    def _remember(self, eui: str, point: Point) -> None:
        self._times_ns[eui] = point.time_ns
        self._signals[eui] = _signal(point)
        gateway = point.tags.get("gateway_id")
        if gateway is None:
            self._gateways.pop(eui, None)
        else:
            self._gateways[eui] = gateway

    def _take(self, uplink: Point) -> None:
        eui = uplink.tags["device_eui"]
        if uplink.time_ns >= self._times_ns.get(eui, 0):
            self._remember(eui, uplink)
        counter = uplink.fields.get("frame_counter")
        if isinstance(counter, int):
            self._count(eui, counter, uplink)

    def _count(self, eui: str, counter: int, uplink: Point) -> None:
        frames = self._frames.get(eui)
        if frames is None:
            self._frames[eui] = FrameCounts(counter, uplink.time_ns)
        elif eui in self._unsure:
            self._unsure.discard(eui)
            frames.resume(counter, uplink.time_ns)
        else:
            is_copy = uplink.fields.get("extra_dupmsg") is True
            frames.count(counter, uplink.time_ns, is_copy)


def _signal(point: Point) -> dict[str, FieldValue]:
    return {name: point.fields[name] for name in SIGNAL if name in point.fields}
