"""The product itself: runs, ages, queue, daemon, sampling, stores, spool, exporter."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import Dashboard

from metrics_pipeline.dashboards import links, norms, units
from metrics_pipeline.dashboards.layout import Section, lay_out
from metrics_pipeline.dashboards.norms import at_least, at_most
from metrics_pipeline.dashboards.panels import (
    HALF,
    THIRD,
    Column,
    Panel,
    Series,
    bars,
    figure,
    rows,
    trend,
)
from metrics_pipeline.dashboards.queries import (
    age,
    age_in_intervals,
    increase,
    latest,
    percent,
    rate,
    recorded,
)

_QUEUED = at_most(10, 25)
_COLLECTED = 'asset!~"telemetry/.+"'
"""Telemetry has a dashboard of its own, and is old while it is merely behind."""
_AGES = age_in_intervals(where=_COLLECTED)
_HEARTBEATS = age("metrics_pipeline_daemon_heartbeat_timestamp_seconds", "daemon")
_REFRESH = age("metrics_pipeline_exporter_last_refresh_timestamp_seconds")
_SUCCEEDED_PERCENT = at_least(99.9, 99)
_JUDGED = 'status=~"success|failure"'
"""Of a run that a person canceled nothing is known; the alerts leave it out, too."""


def build() -> Dashboard:
    """The questions of README.md, Operate."""
    return lay_out(
        links.PRODUCT,
        "The pipeline itself",
        "Whether metrics_pipeline runs, what it stores, what it drops.",
        (
            Section("Now", _now()),
            Section("Ages and runs", (*_ages(), *_runs())),
            Section("Sources", _sources()),
            Section("What is stored", _stored()),
            Section("Spool", _spool()),
            Section("Exporter", _exporter()),
            Section("System resources", (*panels_of_processes(), *_room())),
        ),
    )


def _now() -> Sequence[Panel]:
    return (
        figure(
            "Oldest asset",
            "Since it was read and stored in full, in intervals of its own: the worst of all.",
            units.COUNT,
            f"max({_AGES})",
            norms.AGE_IN_INTERVALS,
        ),
        figure(
            "Daemon",
            "Since the daemon of Dagster that said the longest ago that it is alive.",
            units.SECONDS,
            f"max({_HEARTBEATS})",
            norms.AGE_OF_HEARTBEAT_SECONDS,
        ),
        figure(
            "Runs queued",
            "Runs that wait in Dagster's queue.",
            units.COUNT,
            latest("metrics_pipeline_run_queue_length"),
            _QUEUED,
        ),
        figure(
            "Runs that succeeded in 24 h",
            "Of the runs that succeeded or failed. The objective is 99.9 %.",
            units.PERCENT,
            percent(
                increase("metrics_pipeline_runs_total", where='status="success"', window="24h"),
                increase("metrics_pipeline_runs_total", where=_JUDGED, window="24h"),
            ),
            _SUCCEEDED_PERCENT,
        ),
        figure(
            "Points stored",
            "Points that the time-series store has acknowledged.",
            units.PER_SECOND,
            rate("metrics_pipeline_points_written_total"),
        ),
        figure(
            "Exporter",
            "Since the exporter last read the instance and the latest values.",
            units.SECONDS,
            _REFRESH,
            norms.AGE_OF_PAGE_SECONDS,
        ),
    )


def _ages() -> Sequence[Panel]:
    return (
        bars(
            "Age of each asset",
            "Since it was last read and stored in full, in intervals as the settings have them; "
            "one that is shorter counts as 100 s.",
            units.COUNT,
            Series(_AGES, "{{asset}}"),
            norms.AGE_IN_INTERVALS,
        ),
        trend(
            "Age of the daemon's heartbeats",
            "By the daemon of Dagster.",
            units.SECONDS,
            Series(_HEARTBEATS, "{{daemon}}"),
            norm=norms.AGE_OF_HEARTBEAT_SECONDS,
        ),
    )


def _runs() -> Sequence[Panel]:
    return (
        trend(
            "Runs",
            "Finished in an hour, by job and status.",
            units.COUNT,
            Series(
                increase("metrics_pipeline_runs_total", "job", "status"),
                "{{exported_job}} {{status}}",
            ),
        ),
        trend(
            "Runs that did not succeed",
            "In an hour, by job and status.",
            units.COUNT,
            Series(
                increase("metrics_pipeline_runs_total", "job", "status", where=_NOT_SUCCESS),
                "{{exported_job}} {{status}}",
            ),
            norm=norms.NONE_AT_ALL,
        ),
        trend(
            "Duration of a run",
            "Of the last finished run of each job, from start to end.",
            units.SECONDS,
            Series(latest("metrics_pipeline_run_duration_seconds", "job"), "{{exported_job}}"),
        ),
        trend(
            "Run queue",
            "Runs that wait in Dagster's queue.",
            units.COUNT,
            Series(latest("metrics_pipeline_run_queue_length"), "queued"),
            norm=_QUEUED,
        ),
    )


_NOT_SUCCESS = 'status!="success"'


def _sources() -> Sequence[Panel]:
    failed = 'status="failed"'
    return (
        trend(
            "Time to read a source",
            "What nine of ten readings stay below, by source.",
            units.SECONDS,
            Series(recorded("job_source:fetch_latency_seconds:p90_15m", "source"), "{{source}}"),
        ),
        trend(
            "What did not come",
            "Counts, services, queries and devices a second that were asked in vain, by source.",
            units.PER_SECOND,
            Series(rate("artifacts_total", "source", where=failed), "{{source}}"),
            norm=norms.ANY_RATE,
        ),
        trend(
            "Queries to databases",
            "A second, by what they are for and whether they gave an answer.",
            units.PER_SECOND,
            Series(
                rate("database_queries_total", "query_type", "success"),
                "{{query_type}} {{success}}",
            ),
        ),
        trend(
            "Since the lease of sampling ended",
            "Below 0 while a code server samples: it renews the lease every few seconds.",
            units.SECONDS,
            Series(age("metrics_pipeline_sampling_lease_end_timestamp_seconds"), "sampling"),
            norm=norms.AGE_OF_LEASE_SECONDS,
        ),
        trend(
            "Slots of the sampling grid",
            "In an hour, by what became of them.",
            units.COUNT,
            Series(increase("metrics_pipeline_sample_slots_total", "outcome"), "{{outcome}}"),
        ),
    )


def _stored() -> Sequence[Panel]:
    return (
        trend(
            "Points stored",
            "Points a second that the time-series store has acknowledged, by measurement.",
            units.PER_SECOND,
            Series(rate("metrics_pipeline_points_written_total", "measurement"), "{{measurement}}"),
            stacked=True,
            width=HALF,
        ),
        trend(
            "Points rejected",
            "Points a second that were dropped because they were wrong, by reason.",
            units.PER_SECOND,
            Series(rate("metrics_pipeline_points_rejected_total", "reason"), "{{reason}}"),
            norm=norms.ANY_RATE,
            width=HALF,
        ),
        trend(
            "Events published",
            "Lifecycle events a second that their transport has taken; none where it is none.",
            units.PER_SECOND,
            Series(rate("metrics_pipeline_events_published_total"), "published"),
            width=HALF,
        ),
        trend(
            "Events lost",
            "A second, by reason: the queue was full, or the transport away as a process ended.",
            units.PER_SECOND,
            Series(rate("metrics_pipeline_events_dropped_total", "reason"), "{{reason}}"),
            norm=norms.ANY_RATE,
            width=HALF,
        ),
    )


def panels_of_processes() -> Sequence[Panel]:
    """What the product's own processes take of the machine, or of the exporter's container."""
    return (
        trend(
            "Processors, by process",
            "Share of one processor that the product's processes take. Only those on the "
            "exporter's machine; in containers cAdvisor tells of the others.",
            units.PERCENT,
            Series(
                f"100 * {rate('metrics_pipeline_process_cpu_seconds_total', 'process')}",
                "{{process}}",
            ),
            stacked=True,
        ),
        trend(
            "Memory, by process",
            "Resident memory of the product's processes on the exporter's machine.",
            units.BYTES,
            Series(
                latest("metrics_pipeline_process_resident_memory_bytes", "process"), "{{process}}"
            ),
            stacked=True,
        ),
    )


def _room() -> Sequence[Panel]:
    free = percent(
        latest("metrics_pipeline_state_disk_free_bytes"),
        latest("metrics_pipeline_state_disk_size_bytes"),
    )
    return (
        trend(
            "Open files",
            "File descriptors of the product's processes on the exporter's machine.",
            units.COUNT,
            Series(latest("metrics_pipeline_process_open_fds", "process"), "{{process}}"),
            width=THIRD,
        ),
        trend(
            "Size of databases",
            "Those that are files, with their logs. PostgreSQL tells its own size.",
            units.BYTES,
            Series(latest("metrics_pipeline_database_size_bytes", "database"), "{{database}}"),
            width=THIRD,
        ),
        trend(
            "Room on the disk",
            "Share of the file system of the state directory that is free.",
            units.PERCENT,
            Series(free, "free"),
            norm=at_least(20, 10),
            width=THIRD,
        ),
    )


def _spool() -> Sequence[Panel]:
    return (
        trend(
            "Spool",
            "What is taken of spool.max_bytes while points wait for the time-series store, with "
            "what was damaged.",
            units.PERCENT,
            Series(
                percent(
                    latest("metrics_pipeline_spool_bytes"),
                    latest("metrics_pipeline_spool_limit_bytes"),
                ),
                "taken",
            ),
            norm=norms.SPOOL_PERCENT,
        ),
        trend(
            "Points that wait",
            "In the spool, for the time-series store.",
            units.COUNT,
            Series(latest("metrics_pipeline_spool_points"), "points"),
            norm=norms.NONE_AT_ALL,
        ),
        trend(
            "Waiting for",
            "Since the oldest point in the spool was kept; nothing while none waits.",
            units.SECONDS,
            Series(age("metrics_pipeline_spool_oldest_timestamp_seconds"), "oldest"),
            norm=norms.AGE_OF_SPOOL_SECONDS,
        ),
        trend(
            "Points spooled",
            "Points a second that the time-series store did not take, by measurement.",
            units.PER_SECOND,
            Series(rate("metrics_pipeline_points_spooled_total", "measurement"), "{{measurement}}"),
            stacked=True,
            width=HALF,
        ),
        figure(
            "Damaged pieces",
            "Of the spool, set aside as files *.damaged.",
            units.COUNT,
            latest("metrics_pipeline_spool_damaged_records"),
            norms.NONE_AT_ALL,
        ),
    )


def _exporter() -> Sequence[Panel]:
    return (
        trend(
            "Since the exporter's last refresh",
            "It reads the instance and the latest values every few seconds.",
            units.SECONDS,
            Series(_REFRESH, "age"),
            norm=norms.AGE_OF_PAGE_SECONDS,
        ),
        trend(
            "Refreshes that failed",
            "A second; the page keeps its last values.",
            units.PER_SECOND,
            Series(rate("metrics_pipeline_exporter_refresh_failures_total"), "failed"),
            norm=norms.ANY_RATE,
        ),
        bars(
            "Series left out",
            "Of families that reached exporter.max_series_per_metric; none where this is empty.",
            units.COUNT,
            Series(latest("metrics_pipeline_exporter_series_dropped", "metric"), "{{metric}}"),
            norms.NONE_AT_ALL,
        ),
        rows(
            "Versions",
            "Of the exporters that are scraped.",
            Column("Is", latest("metrics_pipeline_build_info", "version"), units.COUNT),
            sorted_by="version",
            width=HALF,
        ),
    )
