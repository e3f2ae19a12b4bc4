"""How one gets from a dashboard to another: the time range and the variables come along."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

TAG = "metrics_pipeline"
"""Every dashboard has it, so each lists all others."""

FLEET = "metrics-pipeline-fleet"
DEVICES = "metrics-pipeline-devices"
TELEMETRY = "metrics-pipeline-telemetry"
SERVICES = "metrics-pipeline-services"
PIPELINE = "metrics-pipeline-pipeline"
ROASTER = "metrics-pipeline-roaster"
PRICES = "metrics-pipeline-prices"
DATABASE = "metrics-pipeline-database"
PRODUCT = "metrics-pipeline-product"

_KEPT = "${__url_time_range}&${datasource:queryparam}&${job:queryparam}"


def to_all() -> builders.DashboardLink:
    """The list of all dashboards of this product, at the top."""
    return (
        builders.DashboardLink("metrics_pipeline")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def to_dashboard(title: str, uid: str) -> builders.DashboardLink:
    """From a panel to the dashboard `uid`."""
    return (
        builders.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/{uid}?{_KEPT}")
        .target_blank(False)
    )


def to_row(title: str, uid: str, variable: str, column: str) -> dict[str, object]:
    """From a cell to the dashboard `uid`, with `variable` set to what the row has in `column`."""
    value = f"${{__data.fields.{column}:percentencode}}"
    return {"title": title, "url": f"/d/{uid}?var-{variable}={value}&{_KEPT}"}
