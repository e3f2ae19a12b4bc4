"""A dashboard from its sections: what all of them have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import Dashboard, DashboardCursorSync

from metrics_pipeline.dashboards.links import TAG, to_all
from metrics_pipeline.dashboards.panels import Panel
from metrics_pipeline.dashboards.variables import datasource, job


@dataclass(frozen=True, slots=True)
class Section:
    """Panels below a heading, from left to right and from top to bottom."""

    title: str
    panels: Sequence[Panel]


def lay_out(
    uid: str,
    title: str,
    description: str,
    sections: Sequence[Section],
    variables: Sequence[builders.QueryVariable] = (),
    *,
    since: str = "now-6h",
) -> Dashboard:
    """The dashboard, each panel with an id that stays while its place does."""
    board = builders.Dashboard(title).uid(uid).description(description).tags([TAG]).readonly()
    board.time(since, "now").refresh("30s").timezone("browser").link(to_all())
    board.tooltip(DashboardCursorSync.CROSSHAIR)
    for variable in (datasource(), job(), *variables):
        board.with_variable(variable)
    ids = iter(range(1, 1000))
    for section in sections:
        board.with_row(builders.Row(section.title).id(next(ids)))
        for panel in section.panels:
            board.with_panel(panel.id(next(ids)))
    return board.build()
