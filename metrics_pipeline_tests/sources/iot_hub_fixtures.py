"""What the tests of the IoT Hub source and its simulator share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.backoff import Timing
from metrics_pipeline.core.catalog import FLEET_COUNTS
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.simulators.fleet import Concentrator, Deployment, Device, Fleet, FleetState
from metrics_pipeline.simulators.iot_hub import IotHubSimulator
from metrics_pipeline.sources.azure_iot_hub import AzureIotHub, AzureIotHubSettings

TIME_NS = 1_700_000_000_000_000_000


class Clock:
    """Real time, but a sleep takes none: the clock is put forward instead."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return time.monotonic() + sum(self.waits)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    @property
    def timing(self) -> Timing:
        return Timing(self.monotonic, self.sleep, lambda: 1.0)


def standard_devices(count: int, connected: int = 0) -> tuple[Device, ...]:
    return tuple(Device(f"device-{n}", is_connected=n < connected) for n in range(count))


def sample_state() -> FleetState:
    """5 standard devices (2 connected), 3 edge (1), 4 concentrators (3), 3 failed pairs."""
    return FleetState(
        devices=(
            Device("untagged"),
            Device("untagged-connected", is_connected=True),
            Device("tagged", device_type="LoRa Device"),
            Device("tagged-connected", device_type="LoRa Device", is_connected=True),
            Device("oddly-tagged", device_type="lora concentrator"),
            Device("edge-0", is_edge=True, is_connected=True),
            Device("edge-1", is_edge=True),
            Device("edge-2", is_edge=True),
        ),
        concentrators=tuple(
            Concentrator(f"station-{n}", f"Station {n}", f"{n:016X}", is_connected=n != 0)
            for n in range(4)
        ),
        deployments=(
            Deployment("base", failed_on=frozenset({"edge-0", "edge-1"})),
            Deployment("layer", is_layered=True, failed_on=frozenset({"edge-1"})),
        ),
    )


@contextmanager
def reader(
    simulator: IotHubSimulator, directory: Path, clock: Clock | None = None, **settings: Any
) -> Iterator[AzureIotHub]:
    """A source that reads `simulator` with the policy's key, closed at the end."""
    secret = directory / "connection_string"
    secret.write_text(simulator.connection_string)
    section = AzureIotHubSettings(
        **{"connection_string": SecretReference(file=secret), "scheme": "http", **settings}
    )
    source = AzureIotHub(section, (clock or Clock()).timing)
    try:
        yield source
    finally:
        source.close()


def fleet_of(*devices: Device) -> Fleet:
    return Fleet(FleetState(devices=devices))


def values(reading: Reading) -> dict[str, Any]:
    """The fields of all points, which must be fleet counts of the hub at `TIME_NS`."""
    found: dict[str, Any] = {}
    for point in reading.points:
        assert point.measurement == FLEET_COUNTS.name
        assert point.tags == {"provider": "azure_iot_hub"}
        assert point.time_ns == TIME_NS
        assert found.keys().isdisjoint(point.fields)
        found.update(point.fields)
    return found


def failed(reading: Reading) -> list[str]:
    """What the failures of a reading are about."""
    return [failure.target for failure in reading.failures]
