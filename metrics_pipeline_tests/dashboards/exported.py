"""The dashboards as Grafana reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from metrics_pipeline.dashboards.export import render
from metrics_pipeline.dashboards.listing import build_dashboards

Json = Mapping[str, Any]

DASHBOARDS: Mapping[str, Json] = {
    name: json.loads(render(dashboard)) for name, dashboard in build_dashboards().items()
}
PANELS: Mapping[str, Json] = {
    f"{name}: {panel['title']} ({panel['id']})": panel
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
}
"""All but the headings."""

JOB = "metrics_pipeline"
VARIABLES = {
    "job": JOB,
    "device": "device_id 1",
    "roaster": "roaster_id 0",
    "__rate_interval": "1m",
}
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel."""

    panel: str
    expression: str
    legend: str
    is_instant: bool

    @property
    def filled_in(self) -> str:
        """With a value for each variable."""
        text = self.expression
        for name, value in VARIABLES.items():
            text = text.replace(f"${name}", value)
        return text


def queries() -> Iterator[Query]:
    """Every query of every panel."""
    for name, panel in PANELS.items():
        for target in panel["targets"]:
            yield Query(name, target["expr"], target["legendFormat"], target.get("instant", False))


def variables() -> Iterator[Json]:
    """Every variable of every dashboard."""
    for dashboard in DASHBOARDS.values():
        yield from dashboard["templating"]["list"]
