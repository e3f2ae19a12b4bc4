"""What is known of a device before it is polled, and what a poll of it gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from metrics_pipeline.core.redaction import KNOWN

CPU_UTILIZATION = "cpu_utilization_percent"
MEMORY_UTILIZATION = "memory_utilization_percent"
TEMPERATURE = "temperature_celsius"
NETWORK_RECEIVE = "network_receive_bytes_total"
NETWORK_TRANSMIT = "network_transmit_bytes_total"
DISK_USAGE = "disk_usage_percent"
UPTIME = "uptime_seconds"
PING_STATUS = "ping_status"
PING_RTT = "ping_rtt_ms"

HOST_METRICS = (
    CPU_UTILIZATION,
    MEMORY_UTILIZATION,
    TEMPERATURE,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    DISK_USAGE,
    UPTIME,
)
"""What SNMP, SSH and WinRM ask of a device; the unit ends each name."""

PING_METRICS = (PING_STATUS, PING_RTT)

INTERFACES = "device_interfaces"
DISKS = "device_disks"
DETAILS = (INTERFACES, DISKS)
"""Tables of detail: their measurements, and what one adds to the metrics to ask a probe for them.

A row is a physical interface that is up, or a real file system: those the metrics sum up.
"""


class Miss(StrEnum):
    """Why a value, or a whole device, gave nothing. Few and fixed: it is a label."""

    TIMEOUT = "timeout"
    """No answer in time."""
    AUTH = "auth"
    """It does not accept who we are: credential, community, host key."""
    REFUSED = "refused"
    """It says no to the connection or the request."""
    PARSE = "parse"
    """It answered what cannot be right."""
    RESOLVE = "resolve"
    """The host name has no address."""
    UNSUPPORTED = "unsupported"
    """It has no such value."""
    CREDENTIAL = "credential"
    """We have no usable credential for it: a choice on our side."""
    DEFECT = "defect"
    """The probe failed in a way that it should not: a mistake of ours."""


OUR_OWN = frozenset({Miss.RESOLVE, Miss.CREDENTIAL, Miss.DEFECT})
"""Reasons on our side: nobody asked the device, so nobody knows more of it than before."""


@dataclass(frozen=True, slots=True)
class Device:
    """One row of the inventory. `address` is an IP address or a host name, `port` 0 the usual."""

    id: str
    hostname: str
    address: str
    device_type: str
    protocol: str
    port: int = 0
    credential: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


Rows = Mapping[str, Mapping[str, float]]
"""One table of detail: by the row's name, by metric name, in the unit that one ends with."""

Details = Mapping[str, Rows]
"""By table, one of DETAILS."""


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """What one poll of one device gave.

    `values` are by metric name, in the unit its name ends with; `misses` say of each metric that
    was asked for and is not there why. `is_up` is whether it answered at all; if it did not,
    `reason` says why, and `detail` what came back, in words, without a secret.
    """

    device_id: str
    is_up: bool
    values: Mapping[str, float] = field(default_factory=dict)
    misses: Mapping[str, Miss] = field(default_factory=dict)
    reason: Miss | None = None
    detail: str = ""
    took_seconds: float = 0.0
    """From the question to the last answer; 0 where nobody measured it."""
    details: Details = field(default_factory=dict)
    """The tables of DETAILS that were asked for and are there; one that is not is in `misses`."""

    def __post_init__(self) -> None:
        """Stars for what the device, or a library, repeats of a secret."""
        if self.detail:
            object.__setattr__(self, "detail", KNOWN.hide(self.detail))
