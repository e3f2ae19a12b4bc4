"""Polled devices: which are worst, and one of them in detail."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.models.dashboard import Dashboard

from metrics_pipeline.core.catalog import DEVICE_LABELS
from metrics_pipeline.dashboards import links, norms, units
from metrics_pipeline.dashboards.layout import Section, lay_out
from metrics_pipeline.dashboards.norms import at_most
from metrics_pipeline.dashboards.panels import (
    WHOLE,
    Column,
    Panel,
    Series,
    figure,
    rows,
    states,
    trend,
)
from metrics_pipeline.dashboards.queries import latest, percent, rate, recorded
from metrics_pipeline.dashboards.variables import of_label

_UP = latest("device_up", "device_id")
_ONE = 'device_id="$device"'
_RTT_MS = at_most(100, 500)
_TEMPERATURE = at_most(65, 80)
_TRAFFIC_INTERVAL = "10m"
"""Two readings: a shorter window would see none, and then all of five minutes at once."""
_WORST_SHOWN = 20


def build() -> Dashboard:
    """The variable `device` names the one that is shown in detail."""
    return lay_out(
        links.DEVICES,
        "Devices",
        "Switches, routers and hosts of the inventory: who is up every 30 s, how they do every 5 "
        "minutes.",
        (
            Section("All", _all()),
            Section("The worst", (_worst(),)),
            Section("$device", (*_one_now(), *_one_over_time())),
        ),
        (of_label("device", "Device", "device_up", "device_id"),),
    )


def _all() -> Sequence[Panel]:
    polled, up = recorded("job:device_up:count"), recorded("job:device_up:sum")
    return (
        figure("Devices", "Devices that are polled.", units.COUNT, polled),
        figure(
            "Down",
            "Devices that have missed their answers, or never gave one.",
            units.COUNT,
            f"{polled} - {up}",
            norms.NONE_AT_ALL,
        ),
        figure(
            "Up",
            "Share of the polled devices that answer.",
            units.PERCENT,
            percent(up, polled),
            norms.CONNECTED_PERCENT,
        ),
        figure(
            "Answer to ping",
            "Share of the devices that are pinged whose last ping was answered.",
            units.PERCENT,
            f"100 * {recorded('job:device_ping_status:avg')}",
            norms.CONNECTED_PERCENT,
        ),
        figure(
            "Failed readings",
            "Devices a second that a sweep asked in vain. The metadata of the run says which, "
            "and why.",
            units.PER_SECOND,
            f"sum({rate('artifacts_total', where=_FAILED_OF_DEVICES)})",
            norms.at_most(0.1, 1),
            width=8,
        ),
        trend(
            "Down, by type",
            "Devices that do not answer, by the type that the inventory gives them.",
            units.COUNT,
            Series(recorded("job_type:device_down:count", "device_type"), "{{device_type}}"),
            stacked=True,
            width=WHOLE,
        ),
    )


_FAILED_OF_DEVICES = 'source=~"devices/.+", status="failed"'


def _rank() -> str:
    """How bad a device is: its highest use in percent, and 101 while it is down."""
    parts = {
        "cpu": latest("device_cpu_utilization_percent", "device_id"),
        "memory": latest("device_memory_utilization_percent", "device_id"),
        "disk": latest("device_disk_usage_percent", "device_id"),
        "down": f"101 * ({_UP} == bool 0)",
    }
    # `or` would drop the second of two series with the same labels.
    told_apart = (f'label_replace({part}, "of", "{of}", "", "")' for of, part in parts.items())
    worst = f"max by (device_id) ({' or '.join(told_apart)})"
    return f"topk({_WORST_SHOWN}, {worst})"


def _worst() -> Panel:
    rank = _rank()

    def of_the_worst(name: str, *labels: str) -> str:
        return f"{latest(name, *(labels or ('device_id',)))} and on (device_id) {rank}"

    return rows(
        f"The {_WORST_SHOWN} worst devices",
        "Those that are down, then those whose processor, memory or fullest disk is used most. "
        "The name leads to the device in detail.",
        Column("Up", of_the_worst("device_up", *DEVICE_LABELS), units.COUNT, norms.UP),
        Column("Worst", rank, units.COUNT, norms.USE_PERCENT),
        _use_column("CPU", of_the_worst("device_cpu_utilization_percent")),
        _use_column("Memory", of_the_worst("device_memory_utilization_percent")),
        _use_column("Disk", of_the_worst("device_disk_usage_percent")),
        Column(
            "Temperature",
            of_the_worst("device_temperature_celsius"),
            units.CELSIUS,
            _TEMPERATURE,
        ),
        Column("Ping", of_the_worst("device_ping_rtt_ms"), units.MILLISECONDS, _RTT_MS),
        sorted_by="Worst",
        link=("device_id", links.to_row("In detail", links.DEVICES, "device", "device_id")),
    )


def _use_column(title: str, expression: str) -> Column:
    return Column(title, expression, units.PERCENT, norms.USE_PERCENT)


def _of_one(name: str) -> str:
    return latest(name, where=_ONE)


def _one_now() -> Sequence[Panel]:
    return (
        states(
            "Up and down",
            "Whether the device answers. It is down once it has missed its answers.",
            units.COUNT,
            Series(latest("device_up", "hostname", where=_ONE), "{{hostname}}"),
            norms.UP,
            width=16,
        ),
        figure(
            "Uptime",
            "Since the device started, as it says itself.",
            units.SECONDS,
            _of_one("device_uptime_seconds"),
            norms.at_least(3600, 600),
        ),
        figure(
            "Temperature",
            "The device's hottest sensor.",
            units.CELSIUS,
            _of_one("device_temperature_celsius"),
            _TEMPERATURE,
        ),
    )


def _one_over_time() -> Sequence[Panel]:
    received = rate("device_network_receive_bytes_total", where=_ONE)
    sent = rate("device_network_transmit_bytes_total", where=_ONE)
    return (
        trend(
            "Use",
            "Of all processors, of the memory without buffers and cache, and of the fullest disk.",
            units.PERCENT,
            Series(_of_one("device_cpu_utilization_percent"), "CPU"),
            Series(_of_one("device_memory_utilization_percent"), "memory"),
            Series(_of_one("device_disk_usage_percent"), "disk"),
            norm=norms.USE_PERCENT,
        ),
        trend(
            "Traffic",
            "Over all physical interfaces that are up; what was sent is below the line. Mean of "
            "10 minutes at the least, because it is read every 5.",
            units.BITS_PER_SECOND,
            Series(f"8 * {received}", "received"),
            Series(f"-8 * {sent}", "sent"),
        ).interval(_TRAFFIC_INTERVAL),
        trend(
            "Round trip of ping",
            "Milliseconds until the device's answer to ping came.",
            units.MILLISECONDS,
            Series(_of_one("device_ping_rtt_ms"), "round trip"),
            norm=_RTT_MS,
        ),
        trend(
            "Temperature",
            "The device's hottest sensor.",
            units.CELSIUS,
            Series(_of_one("device_temperature_celsius"), "hottest"),
            norm=_TEMPERATURE,
        ),
    )
