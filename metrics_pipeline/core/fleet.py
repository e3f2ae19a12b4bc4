"""What is counted of a fleet: the table the assets, the exporter and the docs are made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from metrics_pipeline.core.catalog import (
    CONCENTRATOR_COUNT,
    CONNECTED_CONCENTRATOR_COUNT,
    CONNECTED_DEVICE_COUNT,
    CONNECTED_EDGE_DEVICE_COUNT,
    DEVICE_COUNT,
    EDGE_DEVICE_COUNT,
    FAILED_DEPLOYMENT_COUNT,
    Metric,
)

GROUP = "fleet"
JOB = "fleet_counts"


@dataclass(frozen=True, slots=True)
class FleetAsset:
    """One asset: its name, what it says, and which source is asked for which of its metrics."""

    name: str
    description: str
    asked: Mapping[str, tuple[Metric, ...]]

    @property
    def key(self) -> str:
        """The asset key, its parts joined by `/`: `fleet/{name}`."""
        return f"{GROUP}/{self.name}"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All it gives."""
        return tuple(metric for metrics in self.asked.values() for metric in metrics)

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """Source and field of everything it asks."""
        return frozenset((source, m.field) for source, ms in self.asked.items() for m in ms)

    def without(self, fields: Collection[str]) -> FleetAsset:
        """The same less the metrics whose fields are named."""
        left = {
            source: tuple(metric for metric in metrics if metric.field not in fields)
            for source, metrics in self.asked.items()
        }
        asked = {source: metrics for source, metrics in left.items() if metrics}
        return FleetAsset(self.name, self.description, asked)


def device_counts(provider: str) -> FleetAsset:
    """Standard devices, from `provider`."""
    return FleetAsset(
        "device_counts",
        "Standard devices, and how many of them are connected.",
        {provider: (DEVICE_COUNT, CONNECTED_DEVICE_COUNT)},
    )


def edge_device_counts(provider: str) -> FleetAsset:
    """Edge devices and what failed on them, from `provider`."""
    return FleetAsset(
        "edge_device_counts",
        "Edge devices, how many of them are connected, and deployments that failed on them.",
        {provider: (EDGE_DEVICE_COUNT, CONNECTED_EDGE_DEVICE_COUNT, FAILED_DEPLOYMENT_COUNT)},
    )


def concentrator_counts(
    registered_from: str, provider: str, provider_answers: Collection[Metric]
) -> FleetAsset:
    """Concentrators; connected ones only where `provider` can tell."""
    asked = {registered_from: (CONCENTRATOR_COUNT,)}
    if CONNECTED_CONCENTRATOR_COUNT in provider_answers:
        asked[provider] = (*asked.get(provider, ()), CONNECTED_CONCENTRATOR_COUNT)
    return FleetAsset(
        "concentrator_counts", "LoRaWAN concentrators, and how many of them are connected.", asked
    )
