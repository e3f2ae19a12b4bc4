"""Prices and stock over all roasters: how many were taken, how many changed, whose."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import Dashboard

from metrics_pipeline.dashboards import links, units
from metrics_pipeline.dashboards.layout import Section, lay_out
from metrics_pipeline.dashboards.norms import at_least
from metrics_pipeline.dashboards.panels import Column, Panel, Series, figure, rows, trend
from metrics_pipeline.dashboards.pipeline_overview import REVIEW_PERCENT
from metrics_pipeline.dashboards.queries import latest, percent

_STOCK = f"({latest('variants_in_stock')} + {latest('variants_out_of_stock')})"
_COVERED_PERCENT = at_least(95, 80)


def build() -> Dashboard:
    """The table leads to each roaster in detail."""
    return lay_out(
        links.PRICES,
        "Price monitoring",
        "Prices of the last 24 hours, and the stock.",
        (
            Section("Now", _now()),
            Section("Over time", _over_time()),
            Section("By roaster", (_by_roaster(),)),
        ),
        since="now-7d",
    )


def _now() -> Sequence[Panel]:
    return (
        figure(
            "Variants",
            "Variants that are known, in stock or not.",
            units.COUNT,
            _STOCK,
        ),
        figure(
            "Updated in 24 h",
            "Share of the variants of which a price was taken.",
            units.PERCENT,
            percent(latest("variants_updated_24h"), _STOCK),
            _COVERED_PERCENT,
        ),
        figure(
            "Changed in 24 h",
            "Prices of the last 24 hours other than the variant's one before.",
            units.COUNT,
            latest("price_changes_24h"),
        ),
        figure(
            "Mean price",
            "Mean of the prices of the last 24 hours, in the currency of the shops.",
            units.COUNT,
            latest("price_average_24h"),
        ),
        figure(
            "In stock",
            "Share of the variants that are in stock.",
            units.PERCENT,
            percent(latest("variants_in_stock"), _STOCK),
        ),
        figure(
            "To review",
            "Share of the artifacts that a person has to look at.",
            units.PERCENT,
            latest("review_rate_percent"),
            REVIEW_PERCENT,
        ),
    )


def _over_time() -> Sequence[Panel]:
    return (
        trend(
            "Updates and changes in 24 h",
            "Variants of which a price was taken, and prices other than the one before.",
            units.COUNT,
            Series(latest("variants_updated_24h"), "updated"),
            Series(latest("price_changes_24h"), "changed"),
        ),
        trend(
            "Mean price",
            "Mean of the prices of the last 24 hours. A step is often a parser that reads another "
            "number.",
            units.COUNT,
            Series(latest("price_average_24h"), "mean"),
        ),
        trend(
            "Stock",
            "Variants by whether they are in stock.",
            units.COUNT,
            Series(latest("variants_in_stock"), "in stock"),
            Series(latest("variants_out_of_stock"), "out of stock"),
            stacked=True,
        ),
        trend(
            "Changes by roaster",
            "The ten roasters with the most changed prices at each moment.",
            units.COUNT,
            Series(f"topk(10, {latest('roaster_price_changes_24h', 'roaster_id')})", _ROASTER),
        ),
    )


_ROASTER = "{{roaster_id}}"


def _by_roaster() -> Panel:
    names = {
        "Updated in 24 h": "roaster_variants_updated_24h",
        "Changed in 24 h": "roaster_price_changes_24h",
        "Mean price": "roaster_price_average_24h",
        "In stock": "roaster_variants_in_stock",
        "Out of stock": "roaster_variants_out_of_stock",
    }
    columns = (
        Column(title, latest(name, "roaster_id"), units.COUNT) for title, name in names.items()
    )
    review = latest("roaster_review_rate_percent", "roaster_id")
    return rows(
        "Roasters",
        "The name leads to the roaster in detail.",
        *columns,
        Column("To review", review, units.PERCENT, REVIEW_PERCENT),
        sorted_by="Changed in 24 h",
        link=("roaster_id", links.to_row("In detail", links.ROASTER, "roaster", "roaster_id")),
    )
