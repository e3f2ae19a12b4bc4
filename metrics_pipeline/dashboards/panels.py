"""The five kinds of panels. Each has a title, a description, a unit, and a norm where there is one.

Widths are in columns of 24, heights in Grafana's rows of 30 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from metrics_pipeline.dashboards.norms import Norm
from metrics_pipeline.dashboards.variables import DATASOURCE

THIRD, HALF, WHOLE = 8, 12, 24
FIGURE_WIDTH, FIGURE_HEIGHT = 4, 4
TREND_HEIGHT, TABLE_HEIGHT = 8, 10
MOST_POINTS = 400
"""Of a line. Prometheus reads every series once for each point, whatever the range."""

Panel = timeseries.Panel | stat.Panel | table.Panel | bargauge.Panel | statetimeline.Panel
AnyPanel = TypeVar(
    "AnyPanel", timeseries.Panel, stat.Panel, table.Panel, bargauge.Panel, statetimeline.Panel
)


@dataclass(frozen=True, slots=True)
class Series:
    """A query, and what its lines are called: `{{label}}` stands for the label's value."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A query of a table: its value stands in the column `title`, rows join by their labels."""

    title: str
    expression: str
    unit: str
    norm: Norm | None = None


def trend(
    title: str,
    description: str,
    unit: str,
    *series: Series,
    norm: Norm | None = None,
    width: int = HALF,
    stacked: bool = False,
) -> timeseries.Panel:
    """Lines over time, with the norm as dashes."""
    panel = _described(timeseries.Panel(), title, description, unit, norm)
    for index, each in enumerate(series):
        panel.with_target(_query(each, index).range())
    panel.span(width).height(TREND_HEIGHT).max_data_points(MOST_POINTS).axis_soft_min(0)
    panel.fill_opacity(10).show_points(shapes.VisibilityMode.NEVER)
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI))
    if norm is not None:
        style = common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    return panel


def figure(
    title: str,
    description: str,
    unit: str,
    expression: str,
    norm: Norm | None = None,
    *,
    width: int = FIGURE_WIDTH,
) -> stat.Panel:
    """The last value, large, in the colour of the norm, over a small line."""
    panel = _described(stat.Panel(), title, description, unit, norm)
    panel.with_target(_query(Series(expression), 0).range()).max_data_points(MOST_POINTS)
    mode = shapes.BigValueColorMode.NONE if norm is None else shapes.BigValueColorMode.VALUE
    return (
        panel.span(width)
        .height(FIGURE_HEIGHT)
        .color_mode(mode)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


def bars(
    title: str,
    description: str,
    unit: str,
    series: Series,
    norm: Norm | None = None,
    *,
    width: int = HALF,
) -> bargauge.Panel:
    """A bar for each value of now. Where it has no norm, Grafana would be red from 80 on."""
    panel = _described(bargauge.Panel(), title, description, unit, norm)
    if norm is None:
        one_each = models.FieldColorModeId.PALETTE_CLASSIC
        panel.color_scheme(dashboard.FieldColor().mode(one_each))
    panel.with_target(_query(series, 0).instant())
    return (
        panel.span(width)
        .height(TREND_HEIGHT)
        .min(0)
        .orientation(shapes.VizOrientation.HORIZONTAL)
        .display_mode(shapes.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


def states(
    title: str, description: str, unit: str, series: Series, norm: Norm, *, width: int = WHOLE
) -> statetimeline.Panel:
    """A band of colour for each line of 1 and 0: up and down."""
    panel = _described(statetimeline.Panel(), title, description, unit, norm)
    panel.with_target(_query(series, 0).range()).max_data_points(MOST_POINTS)
    words = models.ValueMap(
        options={
            "0": models.ValueMappingResult(text="down", index=0),
            "1": models.ValueMappingResult(text="up", index=1),
        }
    )
    # Unless told otherwise, Grafana colours the lowest state green and the highest red.
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    # Grafana 12 asks for each of these.
    panel.legend(common.VizLegendOptions().show_legend(False)).row_height(0.9)
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.SINGLE))
    panel.show_value(shapes.VisibilityMode.AUTO)
    return panel.span(width).height(TREND_HEIGHT).mappings([words])


def rows(
    title: str,
    description: str,
    *columns: Column,
    sorted_by: str,
    descending: bool = True,
    width: int = WHOLE,
    link: tuple[str, dict[str, object]] | None = None,
) -> table.Panel:
    """A table of now, a row for each set of labels; `link` is that of the cells of one column."""
    panel = _described(table.Panel(), title, description, columns[0].unit, None)
    for index, column in enumerate(columns):
        query = _query(Series(column.expression), index)
        panel.with_target(query.format(PromQueryFormat.TABLE).instant())
        panel.override_by_name(column.title, _look(column))
    if link is not None:
        panel.override_by_name(link[0], [models.DynamicConfigValue("links", [link[1]])])
    order = common.TableSortByFieldState().display_name(sorted_by).desc(descending)
    for transformation in _joined(columns):
        panel.with_transformation(transformation)
    return panel.span(width).height(TABLE_HEIGHT).sort_by([order])


def _described(
    panel: AnyPanel, title: str, description: str, unit: str, norm: Norm | None
) -> AnyPanel:
    panel.title(title).description(description).unit(unit).datasource(DATASOURCE)
    if norm is not None:
        panel.thresholds(norm.build())
    return panel


def _query(series: Series, index: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(DATASOURCE)
        .ref_id(chr(ord("A") + index))
        .expr(series.expression)
        .legend_format(series.legend)
    )


def _look(column: Column) -> list[models.DynamicConfigValue]:
    look = [models.DynamicConfigValue("unit", column.unit)]
    if column.norm is not None:
        look += [
            models.DynamicConfigValue("thresholds", column.norm.build().build()),
            models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
        ]
    return look


def _joined(columns: tuple[Column, ...]) -> list[models.DataTransformerConfig]:
    """Grafana calls the value of a lone query `Value`, those of several `Value #A` and so on."""
    values = {f"Value #{chr(ord('A') + i)}": column.title for i, column in enumerate(columns)}
    names = {"Value": columns[0].title} if len(columns) == 1 else values
    organized = {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": names}
    return [
        models.DataTransformerConfig(id_val="merge", options={}),
        models.DataTransformerConfig(id_val="organize", options=organized),
    ]


def linked(panel: AnyPanel, *links: dashboard.DashboardLink) -> AnyPanel:
    """`panel` with links in its corner."""
    panel.links(list(links))
    return panel
