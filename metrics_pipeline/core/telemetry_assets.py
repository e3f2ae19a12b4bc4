"""What telemetry is called: its asset, job and sensor, and what they leave for the exporter."""

from __future__ import annotations

GROUP = "telemetry"

UPLINKS = f"{GROUP}/lorawan_uplinks"
"""The asset; also the name of the snapshot in which the sensor leaves the lag of each partition."""

DEVICES = f"{GROUP}/lorawan_devices"
"""The snapshot with the latest values of every LoRaWAN device."""

SEEN_UP_TO = "lorawan_devices_seen_up_to"
"""The name of the points in that snapshot which say, by partition, up to which event it goes. They
have no time; neither a time-series store nor the page gets them."""

JOB = "telemetry"
SENSOR = "telemetry_backlog"

LAG = "eventhub_lag"
"""The name of the points in the sensor's snapshot, which no time-series store gets."""
