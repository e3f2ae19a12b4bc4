"""The readings of probes that only ask whether a device answers: up, down, or not asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from metrics_pipeline.core.devices import (
    OUR_OWN,
    PING_METRICS,
    PING_RTT,
    PING_STATUS,
    Device,
    DeviceReading,
    Miss,
)


def read_up(device: Device, metrics: Collection[str], rtt_ms: float) -> DeviceReading:
    """It answered after `rtt_ms`."""
    return _read(device, metrics, {PING_STATUS: 1.0, PING_RTT: rtt_ms}, None, "")


def read_down(device: Device, metrics: Collection[str], reason: Miss, detail: str) -> DeviceReading:
    """It was asked and did not answer: its status is 0, its round-trip time is missing.

    Where the reason is our own it was not asked, and has no status.
    """
    known = {} if reason in OUR_OWN else {PING_STATUS: 0.0}
    return _read(device, metrics, known, reason, detail)


def read_not_asked(device: Device, metrics: Collection[str], problem: str) -> DeviceReading:
    """Its name has no address: nothing is known of it, not even that it is down."""
    detail = f"{device.address!r} has no address: {problem}"
    return _read(device, metrics, {}, Miss.RESOLVE, detail)


def _read(
    device: Device,
    metrics: Collection[str],
    known: Mapping[str, float],
    reason: Miss | None,
    detail: str,
) -> DeviceReading:
    """What is known of what was asked for; the rest is missing for `reason`, or not ours."""
    why = reason or Miss.UNSUPPORTED
    return DeviceReading(
        device_id=device.id,
        is_up=reason is None,
        values={name: known[name] for name in metrics if name in known},
        misses={
            name: why if name in PING_METRICS else Miss.UNSUPPORTED
            for name in metrics
            if name not in known
        },
        reason=reason,
        detail=detail,
    )
