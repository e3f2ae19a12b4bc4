"""Uplinks of LoRaWAN devices: how far behind, how many, how well heard, what could not be read.

And robots: how many are connected, what became of their messages, how they are.
"""

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
    increase,
    latest,
    percent,
    rate,
    recorded,
    recorded_mean,
    rise,
)

_UPLINKS = 'asset="telemetry/lorawan_uplinks"'
_RSSI_DBM = at_least(-110, -120)
"""A receiver of LoRa at spreading factor 7 hears down to about -123 dBm (SX1276 data sheet)."""
_SNR_DB = at_least(-5, -10)
"""At spreading factor 7 it takes -7.5 dB to demodulate, at 12 it takes -20 dB (the same)."""
_LOST_PERCENT = at_most(1, 5)
_SHOWN = 20
_CHARGE_PERCENT = at_least(30, 15)


def build() -> Dashboard:
    """What the runbook of telemetry looks at."""
    return lay_out(
        links.TELEMETRY,
        "Telemetry",
        "LoRaWAN uplinks and robots' messages on their way into the store.",
        (
            Section("Lag and throughput", (*_figures(), *_lag())),
            Section("Radio quality", _radio()),
            Section("Dead letters and losses", _dead_letters()),
            Section("Robots", (*_gateway(), _robots())),
        ),
    )


def _figures() -> Sequence[Panel]:
    return (
        figure(
            "Lag",
            "How long the oldest event that is not stored yet has been waiting.",
            units.SECONDS,
            latest("metrics_pipeline_eventhub_lag_seconds"),
            norms.LAG_SECONDS,
        ),
        figure(
            "Age",
            "Since the hub last said how far it is. Where it does not answer, this grows and the "
            "lag does not.",
            units.SECONDS,
            age("metrics_pipeline_last_update_timestamp_seconds", where=_UPLINKS),
            norms.AGE_OF_TELEMETRY_SECONDS,
        ),
        figure("Uplinks", "Frames that come, each counted once.", units.PER_SECOND, _RECEIVED),
        figure(
            "Devices heard in an hour",
            "Devices whose last uplink is less than an hour old.",
            units.COUNT,
            recorded("job:lorawan_device_heard:count1h"),
        ),
        figure(
            "Frames lost",
            "Share of the frames of the last hour that are missing in the frame counters.",
            units.PERCENT,
            _LOST_SHARE,
            _LOST_PERCENT,
        ),
        figure(
            "Dead letters in an hour",
            "Events of which something could not be decoded or stored.",
            units.COUNT,
            increase("metrics_pipeline_dead_letters_total"),
            norms.NONE_AT_ALL,
        ),
    )


_SILENT_SECONDS = f"({age('lorawan_device_last_uplink_timestamp_seconds', 'device_eui')})"
_RECEIVED = recorded_mean("job:lorawan_device_frames_received:rate5m")
_LOST = recorded_mean("job:lorawan_device_frames_lost:rate5m")
_LOST_IN_1H = recorded_mean("job:lorawan_device_frames_lost:rate5m", "1h")
_RECEIVED_IN_1H = recorded_mean("job:lorawan_device_frames_received:rate5m", "1h")
_LOST_SHARE = percent(_LOST_IN_1H, f"({_LOST_IN_1H} + {_RECEIVED_IN_1H})")


def _lag() -> Sequence[Panel]:
    return (
        trend(
            "Lag in seconds",
            "By partition, how long the oldest event that is not stored has been waiting.",
            units.SECONDS,
            Series(latest("metrics_pipeline_eventhub_lag_seconds", "partition"), "{{partition}}"),
            norm=norms.LAG_SECONDS,
        ),
        trend(
            "Lag in events",
            "By partition, events that the hub has accepted and that are not stored.",
            units.COUNT,
            Series(latest("metrics_pipeline_eventhub_lag_events", "partition"), "{{partition}}"),
        ),
        trend(
            "Uplinks and losses",
            "Frames a second that came, and that are missing in the frame counters.",
            units.PER_SECOND,
            Series(_RECEIVED, "received"),
            Series(_LOST, "lost"),
        ),
        trend(
            "Points stored",
            "Points of uplinks and of their devices that the store has acknowledged.",
            units.PER_SECOND,
            Series(
                rate(
                    "metrics_pipeline_points_written_total",
                    "measurement",
                    where='measurement=~"lorawan_.+"',
                ),
                "{{measurement}}",
            ),
        ),
    )


def _spread(title: str, help_text: str, unit: str, name: str, norm: norms.Norm) -> Panel:
    return trend(
        title,
        f"{help_text} Of all devices, the last uplink of each: the best, the middle, the worst "
        "tenth, the worst.",
        unit,
        Series(recorded(f"job:{name}:max"), "best"),
        Series(recorded(f"job:{name}:median"), "median"),
        Series(recorded(f"job:{name}:worst_tenth"), "worst tenth"),
        Series(recorded(f"job:{name}:min"), "worst"),
        norm=norm,
    )


def _radio() -> Sequence[Panel]:
    return (
        _spread(
            "Signal strength",
            "RSSI at the gateway.",
            units.DECIBEL_MILLIWATT,
            "lorawan_device_rssi_dbm",
            _RSSI_DBM,
        ),
        _spread(
            "Signal-to-noise ratio",
            "SNR at the gateway.",
            units.DECIBEL,
            "lorawan_device_snr_db",
            _SNR_DB,
        ),
        _worst_heard(),
        _most_silent(),
    )


def _worst_heard() -> Panel:
    strength = latest("lorawan_device_rssi_dbm", "device_eui", "gateway_id")
    weakest = f"bottomk({_SHOWN}, {strength})"
    ratio = latest("lorawan_device_snr_db", "device_eui", "gateway_id")
    return rows(
        f"The {_SHOWN} weakest devices",
        "By the signal strength of their last uplink, with the gateway that heard it.",
        Column("RSSI", weakest, units.DECIBEL_MILLIWATT, _RSSI_DBM),
        Column(
            "SNR",
            f"{ratio} and on (device_eui, gateway_id) {weakest}",
            units.DECIBEL,
            _SNR_DB,
        ),
        sorted_by="RSSI",
        descending=False,
        width=HALF,
    )


def _most_silent() -> Panel:
    silent = f"topk({_SHOWN}, {_SILENT_SECONDS})"
    lost = rise("lorawan_device_frames_lost_total", "device_eui", window="24h")
    return rows(
        f"The {_SHOWN} most silent devices",
        "Since their last uplink, with the frames they lost in 24 hours. 30 days after its last "
        "uplink a device is not shown any more.",
        Column("Silent for", silent, units.SECONDS, at_most(3600, 86_400)),
        Column("Lost in 24 h", f"{lost} and on (device_eui) {silent}", units.COUNT),
        sorted_by="Silent for",
        width=HALF,
    )


def _dead_letters() -> Sequence[Panel]:
    return (
        bars(
            "Dead letters in 24 hours",
            "By reason. `metrics-pipeline telemetry dead-letters` lists them with their bodies.",
            units.COUNT,
            Series(
                increase("metrics_pipeline_dead_letters_total", "reason", window="24h"),
                "{{reason}}",
            ),
            norms.NONE_AT_ALL,
        ),
        trend(
            "Dead letters",
            "Events a second of which something could not be decoded or stored, by reason.",
            units.PER_SECOND,
            Series(rate("metrics_pipeline_dead_letters_total", "reason"), "{{reason}}"),
            norm=norms.ANY_RATE,
        ),
        trend(
            "Dead letters that were dropped",
            "Because their table was full, by reason: these bodies are gone.",
            units.PER_SECOND,
            Series(rate("metrics_pipeline_dead_letters_dropped_total", "reason"), "{{reason}}"),
            norm=norms.ANY_RATE,
        ),
        trend(
            "Events that were lost",
            "Older than the hub's retention before they were read, by partition.",
            units.PER_SECOND,
            Series(
                rate("metrics_pipeline_eventhub_lost_events_total", "partition"), "{{partition}}"
            ),
            norm=norms.ANY_RATE,
        ),
    )


def _gateway() -> Sequence[Panel]:
    return (
        trend(
            "Robots connected",
            "To the gateway, as it said within the last seconds; a gap where it said nothing.",
            units.COUNT,
            Series(latest("metrics_pipeline_robots_connected"), "connected"),
            width=THIRD,
        ),
        trend(
            "Messages of robots",
            "A second, by what became of them: stored, or why they were refused.",
            units.PER_SECOND,
            Series(rate("metrics_pipeline_robot_messages_total", "outcome"), "{{outcome}}"),
            width=THIRD,
        ),
        trend(
            "Connections of robots",
            "In an hour: established, ended and why, refused and with which status of HTTP.",
            units.COUNT,
            Series(increase("metrics_pipeline_robot_connections_total", "outcome"), "{{outcome}}"),
            width=THIRD,
        ),
    )


def _robots() -> Panel:
    silent = f"topk({_SHOWN}, {age('robot_last_message_timestamp_seconds', 'robot_id')})"

    def of_those(name: str) -> str:
        return f"{latest(name, 'robot_id')} and on (robot_id) {silent}"

    return rows(
        f"The {_SHOWN} most silent robots",
        "Since the time of their latest message, with what it said.",
        Column("Silent for", silent, units.SECONDS, at_most(60, 300)),
        Column("Charge", of_those("robot_battery_percentage"), units.PERCENT, _CHARGE_PERCENT),
        Column("Processors", of_those("robot_cpu_usage"), units.PERCENT, norms.USE_PERCENT),
        Column("Memory", of_those("robot_memory_usage"), units.PERCENT, norms.USE_PERCENT),
        Column("Network", of_those("robot_network_latency_ms"), units.MILLISECONDS),
        sorted_by="Silent for",
    )
