"""Services of the platform by what their health pages say, and its tables."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import Dashboard

from metrics_pipeline.dashboards import links, norms, units
from metrics_pipeline.dashboards.layout import Section, lay_out
from metrics_pipeline.dashboards.norms import at_most
from metrics_pipeline.dashboards.panels import WHOLE, Panel, Series, figure, states, trend
from metrics_pipeline.dashboards.queries import latest, rate, recorded

_BY_SERVICE = "{{service}}"
_WAITING = at_most(100, 1000)


def build() -> Dashboard:
    """Services are sampled every 5 s."""
    return lay_out(
        links.SERVICES,
        "Platform services",
        "Ingest, evaluator, dispatcher, delivery and whatever else the settings name.",
        (
            Section("Health", _health()),
            Section("Queues", _queues()),
            Section("Messages", _messages()),
            Section("Rules, alerts and deliveries", _work()),
            Section("How they are sampled", _sampling()),
        ),
        since="now-3h",
    )


def _health() -> Sequence[Panel]:
    tables = {
        "Devices online": ("platform_devices_online", None),
        "Devices stale": ("platform_devices_stale", norms.NONE_AT_ALL),
        "Alerts open": ("platform_alerts_open", norms.NONE_AT_ALL),
        "Deliveries pending": ("platform_deliveries_pending", _WAITING),
    }
    healthy = latest("service_healthy", "service")
    return (
        figure(
            "Services down",
            "Services whose health page does not come in time with status 200 and JSON on it.",
            units.COUNT,
            f"count({healthy} == 0) or 0 * count({healthy})",
            norms.NONE_AT_ALL,
            width=8,
        ),
        *(
            figure(
                title,
                f"{title}, as the tables of the platform have it.",
                units.COUNT,
                latest(name),
                norm,
            )
            for title, (name, norm) in tables.items()
        ),
        states(
            "Healthy",
            "Up while the health page comes in time with status 200 and JSON on it.",
            units.COUNT,
            Series(healthy, _BY_SERVICE),
            norms.UP,
        ),
    )


def _queues() -> Sequence[Panel]:
    return (
        trend(
            "Queue depth",
            "Messages that wait to be stored.",
            units.COUNT,
            Series(latest("service_queue_depth", "service"), _BY_SERVICE),
            norm=_WAITING,
        ),
        trend(
            "Deliveries pending",
            "Deliveries that are still to be made.",
            units.COUNT,
            Series(latest("service_jobs_pending", "service"), _BY_SERVICE),
            norm=_WAITING,
        ),
    )


def _messages() -> Sequence[Panel]:
    return (
        trend(
            "Received and written",
            "Messages a second that came in, and that were stored.",
            units.PER_SECOND,
            Series(rate("service_messages_received_total", "service"), "{{service}} received"),
            Series(rate("service_messages_written_total", "service"), "{{service}} written"),
        ),
        trend(
            "Rejected",
            "Messages a second that were refused.",
            units.PER_SECOND,
            Series(rate("service_messages_rejected_total", "service"), _BY_SERVICE),
            norm=norms.ANY_RATE,
        ),
    )


def _work() -> Sequence[Panel]:
    return (
        trend(
            "Rules and routes",
            "Rules a second that were evaluated, and routes that alerts were sent on.",
            units.PER_SECOND,
            Series(rate("service_rules_evaluated_total", "service"), "{{service}} rules"),
            Series(rate("service_routes_matched_total", "service"), "{{service}} routes"),
        ),
        trend(
            "Alerts",
            "Alerts a second that were raised, and that were looked at.",
            units.PER_SECOND,
            Series(rate("service_alerts_created_total", "service"), "{{service}} created"),
            Series(rate("service_alerts_processed_total", "service"), "{{service}} processed"),
        ),
        trend(
            "Deliveries",
            "Deliveries a second that succeeded, and that were given up.",
            units.PER_SECOND,
            Series(rate("service_jobs_succeeded_total", "service"), "{{service}} succeeded"),
            Series(rate("service_jobs_failed_total", "service"), "{{service}} failed"),
            width=WHOLE,
        ),
    )


def _sampling() -> Sequence[Panel]:
    return (
        trend(
            "Time to read a source",
            "What nine of ten readings stay below, by source; a service has 5 s to answer.",
            units.SECONDS,
            Series(recorded("job_source:fetch_latency_seconds:p90_15m", "source"), "{{source}}"),
            norm=at_most(2, 5),
        ),
        trend(
            "Slots without a sample",
            "Slots of the sampling grid a second that brought nothing, by source and why.",
            units.PER_SECOND,
            Series(
                rate(
                    "metrics_pipeline_sample_slots_total",
                    "source",
                    "outcome",
                    where='outcome!="sampled"',
                ),
                "{{source}} {{outcome}}",
            ),
            norm=norms.ANY_RATE,
        ),
    )
