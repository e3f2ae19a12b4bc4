"""The scraping pipeline: how well it does, what it brought, and what it runs on."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import Dashboard

from metrics_pipeline.dashboards import links, norms, units
from metrics_pipeline.dashboards.layout import Section, lay_out
from metrics_pipeline.dashboards.norms import at_least, at_most
from metrics_pipeline.dashboards.panels import (
    THIRD,
    Panel,
    Series,
    bars,
    figure,
    linked,
    trend,
)
from metrics_pipeline.dashboards.product import panels_of_processes
from metrics_pipeline.dashboards.queries import increase, latest, percent

SUCCESS_PERCENT = at_least(99.9, 95)
"""The objective of the runs."""

SUCCESS_AGE_SECONDS = at_most(3600, 86_400)
"""From when to when `freshness` falls from 100 to 0, unless health.* says otherwise."""

QUALITY_PERCENT = at_least(95, 80)
REVIEW_PERCENT = at_most(5, 20)
_HOSTS_SHOWN = 5


def build() -> Dashboard:
    """The links at the top of the panels lead to the parts in detail."""
    return lay_out(
        links.PIPELINE,
        "Pipeline overview",
        "Runs, artifacts and prices of the scraping pipeline, its database and its hosts.",
        (
            Section("Health", _health()),
            Section("Runs", _runs()),
            Section("Artifacts", _artifacts()),
            Section("Prices", _prices()),
            Section("Database", _database()),
            Section("System resources", (*panels_of_processes(), *_hosts())),
        ),
        since="now-24h",
    )


def _health() -> Sequence[Panel]:
    return (
        figure(
            "Health score",
            "0 to 100, from the components beside it and their weights (docs/sql-metrics.md).",
            units.COUNT,
            latest("pipeline_health_score"),
            norms.SCORE,
            width=THIRD,
        ),
        figure(
            "Runs that succeeded in 24 h",
            "Share of the runs that ended in the last 24 hours whose status is success.",
            units.PERCENT,
            latest("scrape_run_success_percent_24h"),
            SUCCESS_PERCENT,
            width=THIRD,
        ),
        figure(
            "Age of the last success",
            "Since a run of status success ended last.",
            units.SECONDS,
            latest("scrape_run_last_success_age_seconds"),
            SUCCESS_AGE_SECONDS,
            width=THIRD,
        ),
        trend(
            "Components of the score",
            "0 to 100 each. One without data is left out of the score.",
            units.COUNT,
            Series(latest("pipeline_health_component", "component"), "{{component}}"),
            Series(latest("pipeline_health_score"), "score"),
            norm=norms.SCORE,
            width=24,
        ),
    )


def _runs() -> Sequence[Panel]:
    ended = latest("scrape_run_last_finished_timestamp_seconds", "status")
    return (
        trend(
            "Runs",
            "Rows of the table of runs, by status.",
            units.COUNT,
            Series(latest("scrape_runs", "status"), "{{status}}"),
            width=THIRD,
        ),
        trend(
            "Duration of a run",
            "Mean of the runs that ended in the last 24 hours, by status.",
            units.SECONDS,
            Series(latest("scrape_run_duration_seconds", "status"), "{{status}}"),
            width=THIRD,
        ),
        trend(
            "Since a run of this status ended",
            "A status that only grows has not been seen again.",
            units.SECONDS,
            Series(f"time() - {ended}", "{{status}}"),
            width=THIRD,
        ),
    )


def _artifacts() -> Sequence[Panel]:
    return (
        trend(
            "Artifact quality",
            "Share of artifacts with HTTP status 2xx and a body, or 304; and of those that a "
            "person has to look at.",
            units.PERCENT,
            Series(latest("scrape_artifact_quality_percent"), "good"),
            Series(latest("review_rate_percent"), "to review"),
            norm=QUALITY_PERCENT,
            width=THIRD,
        ),
        trend(
            "Artifacts by HTTP status",
            "`none` is without. An estimate above 200,000.",
            units.COUNT,
            Series(latest("scrape_artifacts", "http_status"), "{{http_status}}"),
            stacked=True,
            width=THIRD,
        ),
        trend(
            "Size of a body",
            "Mean size of the bodies of artifacts. A fall is often an error page.",
            units.BYTES,
            Series(latest("scrape_artifact_body_bytes"), "mean"),
            width=THIRD,
        ),
    )


def _prices() -> Sequence[Panel]:
    return (
        linked(
            trend(
                "Price updates in 24 h",
                "Variants of which a price was taken, and prices other than the one before.",
                units.COUNT,
                Series(latest("variants_updated_24h"), "variants updated"),
                Series(latest("price_changes_24h"), "prices changed"),
            ),
            links.to_dashboard("Price monitoring", links.PRICES),
        ),
        linked(
            bars(
                "Runs that failed, by roaster",
                "Runs of any status but success that are in the table of runs.",
                units.COUNT,
                Series(
                    "sum by (roaster_id) ("
                    + latest("roaster_scrape_runs", "roaster_id", "status", where=_NOT_SUCCESS)
                    + ")",
                    "{{roaster_id}}",
                ),
            ),
            links.to_dashboard("Roaster detail", links.ROASTER),
        ),
    )


_NOT_SUCCESS = 'status!="success"'


def _database() -> Sequence[Panel]:
    connections = percent(latest("postgres_connections"), latest("postgres_max_connections"))
    failed = increase("database_queries_total", "query_type", where='success="false"')
    return (
        linked(
            figure(
                "Database",
                "1 when PostgreSQL answered.",
                units.COUNT,
                latest("postgres_healthy"),
                norms.UP,
            ),
            links.to_dashboard("Database health", links.DATABASE),
        ),
        figure(
            "Connections",
            "Share of the connections that PostgreSQL lets in.",
            units.PERCENT,
            connections,
            norms.CONNECTIONS_PERCENT,
        ),
        figure(
            "Cache hits",
            "Share of blocks found in the cache since the statistics were reset.",
            units.SHARE,
            latest("postgres_cache_hit_ratio"),
            at_least(0.99, 0.9),
        ),
        trend(
            "Failed queries in an hour",
            "Queries to the databases that are read which gave no answer, by what they are for.",
            units.COUNT,
            Series(failed, "{{query_type}}"),
            norm=norms.NONE_AT_ALL,
        ),
    )


def _hosts() -> Sequence[Panel]:
    used = {
        "Processors": "device_cpu_utilization_percent",
        "Memory": "device_memory_utilization_percent",
        "Disks": "device_disk_usage_percent",
    }
    return tuple(
        linked(
            bars(
                title,
                f"The {_HOSTS_SHOWN} polled hosts that use the most of it now. Hosts of the "
                "pipeline belong into the inventory of devices.",
                units.PERCENT,
                Series(
                    f"topk({_HOSTS_SHOWN}, {latest(name, 'device_id', 'hostname')})",
                    "{{device_id}} {{hostname}}",
                ),
                norms.USE_PERCENT,
                width=THIRD,
            ),
            links.to_dashboard("Devices", links.DEVICES),
        )
        for title, name in used.items()
    )
