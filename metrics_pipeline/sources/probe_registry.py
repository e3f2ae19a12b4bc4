"""Every way there is to poll a device. Adding one is one file here and one line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from metrics_pipeline.core.devices import DETAILS, HOST_METRICS, PING_METRICS, UPTIME
from metrics_pipeline.core.ports import DeviceProbe
from metrics_pipeline.sources.ping import Ping, PingSettings
from metrics_pipeline.sources.snmp import Snmp, SnmpCommunity, SnmpSettings, SnmpUser
from metrics_pipeline.sources.ssh import Ssh, SshLogin, SshSettings
from metrics_pipeline.sources.tcp_connect import TcpConnect, TcpConnectSettings
from metrics_pipeline.sources.winrm import WindowsLogin, WinRm, WinRmSettings


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
    build: Callable[[Any, Mapping[str, Any]], DeviceProbe]
    """Makes the probe from its settings and its credentials by name; opens nothing yet."""
    details: tuple[str, ...] = ()
    """The tables of detail that it can read as well."""


PROBES: Mapping[str, ProbeSpec] = {
    spec.name: spec
    for spec in (
        ProbeSpec(
            "ping",
            "ICMP echo",
            PingSettings,
            (),
            PING_METRICS,
            PING_METRICS,
            lambda settings, _credentials: Ping(settings),
        ),
        ProbeSpec(
            "tcp",
            "TCP connect",
            TcpConnectSettings,
            (),
            PING_METRICS,
            PING_METRICS,
            lambda settings, _credentials: TcpConnect(settings),
        ),
        ProbeSpec(
            "snmp",
            "SNMP",
            SnmpSettings,
            (SnmpCommunity, SnmpUser),
            HOST_METRICS,
            (UPTIME,),
            Snmp,
            DETAILS,
        ),
        ProbeSpec("ssh", "SSH", SshSettings, (SshLogin,), HOST_METRICS, (), Ssh, DETAILS),
        ProbeSpec(
            "winrm",
            "Windows (WinRM)",
            WinRmSettings,
            (WindowsLogin,),
            HOST_METRICS,
            (),
            WinRm,
            DETAILS,
        ),
    )
}
