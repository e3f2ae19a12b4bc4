"""The assets that polls of devices give: their keys, which snapshots are found by."""

from __future__ import annotations

GROUP = "devices"

STATUS = f"{GROUP}/device_status"
SNMP = f"{GROUP}/snmp_metrics"
SSH = f"{GROUP}/ssh_metrics"
WINRM = f"{GROUP}/winrm_metrics"

DEVICE_ASSETS = (STATUS, SNMP, SSH, WINRM)
"""Those whose snapshots the exporter shows device by device."""

STATUS_JOB = "device_status"
METRICS_JOB = "device_metrics"
POLLED_EVERY_MINUTES = 5
"""Both jobs are due this often; a run of the status job sweeps many times in between."""
