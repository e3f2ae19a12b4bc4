"""The fleet as its cloud counts it: how many devices there are, and how many are connected."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import Dashboard

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
from metrics_pipeline.dashboards import links, norms, units
from metrics_pipeline.dashboards.layout import Section, lay_out
from metrics_pipeline.dashboards.panels import HALF, Panel, Series, figure, linked, trend
from metrics_pipeline.dashboards.queries import age_in_intervals, latest, percent, recorded


def build() -> Dashboard:
    """The first page to look at."""
    return lay_out(
        links.FLEET,
        "Fleet overview",
        "Devices, edge devices and concentrators as the cloud counts them, every five minutes.",
        (
            Section("Now", _now()),
            Section("Over time", _over_time()),
            Section("What is polled", _polled()),
        ),
        since="now-24h",
    )


def _count(metric: Metric) -> str:
    return latest(metric.family.name)


def _now() -> Sequence[Panel]:
    shown = {
        "Devices": DEVICE_COUNT,
        "Edge devices": EDGE_DEVICE_COUNT,
        "Concentrators": CONCENTRATOR_COUNT,
    }
    connected = percent(_count(CONNECTED_DEVICE_COUNT), _count(DEVICE_COUNT))
    counts = (figure(title, m.help, units.COUNT, _count(m)) for title, m in shown.items())
    return (
        *counts,
        figure(
            "Connected",
            "Share of the standard devices that are connected.",
            units.PERCENT,
            connected,
            norms.CONNECTED_PERCENT,
        ),
        figure(
            "Failed deployments",
            FAILED_DEPLOYMENT_COUNT.help,
            units.COUNT,
            _count(FAILED_DEPLOYMENT_COUNT),
            norms.WORTH_A_LOOK,
        ),
        figure(
            "Age of the oldest count",
            "In intervals between two counts, of the asset that was counted in full the longest "
            "ago. A count that fails keeps its last value: only its age tells.",
            units.COUNT,
            f"max({age_in_intervals(where=_FLEET)})",
            norms.AGE_IN_INTERVALS,
        ),
    )


_FLEET = 'asset=~"fleet/.+"'


def _over_time() -> Sequence[Panel]:
    return (
        _pair("Devices", DEVICE_COUNT, CONNECTED_DEVICE_COUNT),
        _pair("Edge devices", EDGE_DEVICE_COUNT, CONNECTED_EDGE_DEVICE_COUNT),
        _pair("Concentrators", CONCENTRATOR_COUNT, CONNECTED_CONCENTRATOR_COUNT),
        trend(
            "Failed deployments",
            FAILED_DEPLOYMENT_COUNT.help,
            units.COUNT,
            Series(_count(FAILED_DEPLOYMENT_COUNT), "failed"),
            norm=norms.WORTH_A_LOOK,
        ),
        trend(
            "Connectivity",
            "Share of each kind that is connected. A step down of all of them is the network or "
            "the hub, not the devices.",
            units.PERCENT,
            Series(percent(_count(CONNECTED_DEVICE_COUNT), _count(DEVICE_COUNT)), "devices"),
            Series(
                percent(_count(CONNECTED_EDGE_DEVICE_COUNT), _count(EDGE_DEVICE_COUNT)),
                "edge devices",
            ),
            Series(
                percent(_count(CONNECTED_CONCENTRATOR_COUNT), _count(CONCENTRATOR_COUNT)),
                "concentrators",
            ),
            norm=norms.CONNECTED_PERCENT,
            width=HALF * 2,
        ),
    )


def _pair(title: str, registered: Metric, connected: Metric) -> Panel:
    return trend(
        title,
        f"{registered.help} Below it, those of them that are connected.",
        units.COUNT,
        Series(_count(registered), "registered"),
        Series(_count(connected), "connected"),
    )


def _polled() -> Sequence[Panel]:
    return (
        linked(
            trend(
                "Polled devices that are up",
                "Switches, routers and hosts that are asked over the network, whatever the cloud "
                "knows of them.",
                units.COUNT,
                Series(recorded("job:device_up:count"), "polled"),
                Series(recorded("job:device_up:sum"), "up"),
            ),
            links.to_dashboard("Devices", links.DEVICES),
        ),
        linked(
            trend(
                "Lag of telemetry",
                "How long the oldest event that is not stored yet has been waiting.",
                units.SECONDS,
                Series(f"max({latest('metrics_pipeline_eventhub_lag_seconds')})", "oldest"),
                norm=norms.LAG_SECONDS,
            ),
            links.to_dashboard("Telemetry", links.TELEMETRY),
        ),
    )
