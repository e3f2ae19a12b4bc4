"""The assets that polls of devices give: their keys, which snapshots are found by."""

from __future__ import annotations

GROUP = "devices"

STATUS = f"{GROUP}/device_status"
SNMP = f"{GROUP}/snmp_metrics"
SSH = f"{GROUP}/ssh_metrics"
WINRM = f"{GROUP}/winrm_metrics"

DEVICE_ASSETS = (STATUS, SNMP, SSH, WINRM)
"""Those whose snapshots the exporter shows device by device."""
