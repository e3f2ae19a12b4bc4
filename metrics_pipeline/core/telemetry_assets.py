"""What telemetry is called: its asset, job and sensor, and what they leave for the exporter."""

from __future__ import annotations

GROUP = "telemetry"

UPLINKS = f"{GROUP}/lorawan_uplinks"
"""The asset; also the name of the snapshot in which the sensor leaves the lag of each partition."""

DEVICES = f"{GROUP}/lorawan_devices"
"""The snapshot with the latest values of every LoRaWAN device."""

JOB = "telemetry"
SENSOR = "telemetry_backlog"

LAG = "eventhub_lag"
"""The name of the points in the sensor's snapshot, which no time-series store gets."""
