"""All dashboards there are."""

from __future__ import annotations

from collections.abc import Mapping

from grafana_foundation_sdk.models.dashboard import Dashboard

from metrics_pipeline.dashboards import (
    database_health,
    devices,
    fleet_overview,
    pipeline_overview,
    platform_services,
    price_monitoring,
    product,
    roaster_detail,
    telemetry,
)

_MODULES = (
    fleet_overview,
    devices,
    telemetry,
    platform_services,
    pipeline_overview,
    roaster_detail,
    price_monitoring,
    database_health,
    product,
)


def build_dashboards() -> Mapping[str, Dashboard]:
    """Each dashboard by the name of its module, which is that of its file."""
    return {module.__name__.rpartition(".")[2]: module.build() for module in _MODULES}
