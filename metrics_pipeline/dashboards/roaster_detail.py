"""One roaster: its runs, its artifacts, its prices."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import Dashboard

from metrics_pipeline.dashboards import links, units
from metrics_pipeline.dashboards.layout import Section, lay_out
from metrics_pipeline.dashboards.panels import HALF, Panel, Series, figure, trend
from metrics_pipeline.dashboards.pipeline_overview import (
    REVIEW_PERCENT,
    SUCCESS_AGE_SECONDS,
    SUCCESS_PERCENT,
)
from metrics_pipeline.dashboards.queries import age, latest, percent
from metrics_pipeline.dashboards.variables import of_label

_ONE = 'roaster_id="$roaster"'


def build() -> Dashboard:
    """The variable `roaster` names it."""
    return lay_out(
        links.ROASTER,
        "Roaster detail",
        "What the scraping pipeline knows of one roaster.",
        (
            Section("$roaster now", _now()),
            Section("Runs", _runs()),
            Section("Artifacts", _artifacts()),
            Section("Prices", _prices()),
        ),
        (of_label("roaster", "Roaster", "roaster_scrape_runs", "roaster_id"),),
        since="now-7d",
    )


def _of_one(name: str, *labels: str, where: str = "") -> str:
    return latest(name, *labels, where=", ".join(part for part in (_ONE, where) if part))


def _now() -> Sequence[Panel]:
    runs = _of_one("roaster_scrape_runs", "status")
    succeeded = _of_one("roaster_scrape_runs", where='status="success"')
    since = age("roaster_scrape_run_last_finished_timestamp_seconds", where=_SUCCESS_OF_ONE)
    return (
        figure(
            "Runs that succeeded",
            "Share of all runs of this roaster that are in the table of runs.",
            units.PERCENT,
            percent(succeeded, f"sum({runs})"),
            SUCCESS_PERCENT,
        ),
        figure(
            "Age of the last success",
            "Since a run of status success ended last.",
            units.SECONDS,
            since,
            SUCCESS_AGE_SECONDS,
        ),
        figure(
            "To review",
            "Share of its artifacts that a person has to look at.",
            units.PERCENT,
            _of_one("roaster_review_rate_percent"),
            REVIEW_PERCENT,
        ),
        figure(
            "Variants updated in 24 h",
            "Variants of which a price was taken.",
            units.COUNT,
            _of_one("roaster_variants_updated_24h"),
        ),
        figure(
            "In stock",
            "Share of its variants that are in stock.",
            units.PERCENT,
            percent(
                _of_one("roaster_variants_in_stock"),
                f"({_of_one('roaster_variants_in_stock')} + "
                f"{_of_one('roaster_variants_out_of_stock')})",
            ),
        ),
        figure(
            "Mean price",
            "Mean of the prices of the last 24 hours, in the currency of the shop.",
            units.COUNT,
            _of_one("roaster_price_average_24h"),
        ),
    )


_SUCCESS_OF_ONE = f'{_ONE}, status="success"'


def _runs() -> Sequence[Panel]:
    return (
        trend(
            "Runs",
            "Rows of the table of runs, by status.",
            units.COUNT,
            Series(_of_one("roaster_scrape_runs", "status"), "{{status}}"),
        ),
        trend(
            "Duration of a run",
            "Mean of the runs that ended in the last 24 hours, by status.",
            units.SECONDS,
            Series(_of_one("roaster_scrape_run_duration_seconds", "status"), "{{status}}"),
        ),
    )


def _artifacts() -> Sequence[Panel]:
    return (
        trend(
            "Artifacts by HTTP status",
            "`none` is without. An estimate above 200,000.",
            units.COUNT,
            Series(_of_one("roaster_scrape_artifacts", "http_status"), "{{http_status}}"),
            stacked=True,
        ),
        trend(
            "Size of a body",
            "Mean size of the bodies of artifacts. A fall is often an error page.",
            units.BYTES,
            Series(_of_one("roaster_scrape_artifact_body_bytes"), "mean"),
        ),
    )


def _prices() -> Sequence[Panel]:
    return (
        trend(
            "Prices in 24 h",
            "Variants of which a price was taken, and prices other than the one before.",
            units.COUNT,
            Series(_of_one("roaster_variants_updated_24h"), "variants updated"),
            Series(_of_one("roaster_price_changes_24h"), "prices changed"),
        ),
        trend(
            "Stock",
            "Its variants, by whether they are in stock.",
            units.COUNT,
            Series(_of_one("roaster_variants_in_stock"), "in stock"),
            Series(_of_one("roaster_variants_out_of_stock"), "out of stock"),
            stacked=True,
            width=HALF,
        ),
    )
