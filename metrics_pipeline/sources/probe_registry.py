"""Every way there is to poll a device. Adding one is one file here and one entry below.

Settings, and so every process, import this. The clients of some probes take tenths of a second and
10 to 20 MB to import, so a probe is imported when one is built, and its settings are apart from it
(`ssh_settings.py`) unless it is light itself.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from metrics_pipeline.core.devices import DETAILS, HOST_METRICS, PING_METRICS, UPTIME
from metrics_pipeline.core.ports import DeviceProbe
from metrics_pipeline.sources.ping import PingSettings
from metrics_pipeline.sources.snmp_settings import SnmpCommunity, SnmpSettings, SnmpUser
from metrics_pipeline.sources.ssh_settings import SshLogin, SshSettings
from metrics_pipeline.sources.tcp_connect import TcpConnectSettings
from metrics_pipeline.sources.winrm_settings import WindowsLogin, WinRmSettings


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """Everything that settings, command line and docs derive from.

    `name` is the settings section and the `protocol` of the inventory, `credential_types` what one
    of its credentials may be, `metrics` the names of what it can read.
    """

    name: str
    title: str
    settings_type: type[BaseModel]
    credential_types: tuple[type[BaseModel], ...]
    metrics: tuple[str, ...]
    cheapest: tuple[str, ...]
    """What is asked to find out no more than whether a device is up."""
    probe: str
    """Where it is in this package: `module:class`."""
    details: tuple[str, ...] = ()
    """The tables of detail that it can read as well."""

    @property
    def module(self) -> str:
        """The one to import."""
        return f"{__package__}.{self.probe.partition(':')[0]}"

    def build(self, settings: Any, credentials: Mapping[str, Any]) -> DeviceProbe:
        """The probe with its settings, and its credentials by name if it has any; opens nothing."""
        make: Any = pkgutil.resolve_name(f"{__package__}.{self.probe}")
        probe: DeviceProbe = make(settings, *([credentials] if self.credential_types else []))
        return probe


PROBES: Mapping[str, ProbeSpec] = {
    spec.name: spec
    for spec in (
        ProbeSpec("ping", "ICMP echo", PingSettings, (), PING_METRICS, PING_METRICS, "ping:Ping"),
        ProbeSpec(
            "tcp",
            "TCP connect",
            TcpConnectSettings,
            (),
            PING_METRICS,
            PING_METRICS,
            "tcp_connect:TcpConnect",
        ),
        ProbeSpec(
            "snmp",
            "SNMP",
            SnmpSettings,
            (SnmpCommunity, SnmpUser),
            HOST_METRICS,
            (UPTIME,),
            "snmp:Snmp",
            DETAILS,
        ),
        ProbeSpec("ssh", "SSH", SshSettings, (SshLogin,), HOST_METRICS, (), "ssh:Ssh", DETAILS),
        ProbeSpec(
            "winrm",
            "Windows (WinRM)",
            WinRmSettings,
            (WindowsLogin,),
            HOST_METRICS,
            (),
            "winrm:WinRm",
            DETAILS,
        ),
    )
}

METRICS_PROTOCOLS = tuple(name for name, spec in PROBES.items() if spec.metrics == HOST_METRICS)
"""Those that tell how a device is doing, not only whether it is up."""
