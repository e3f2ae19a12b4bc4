"""What an operator gives for Windows hosts. Without the client, to be read fast."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import StatePath


class WinRmSettings(BaseModel, frozen=True, extra="forbid"):
    """How Windows hosts are asked over WinRM."""

    timeout_seconds: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="Seconds to wait for the connection, and for each answer. More than for SNMP: "
        "the first look at a performance class starts its provider.",
    )
    max_in_flight: int = Field(
        default=100,
        ge=1,
        le=5000,
        description="Hosts that are asked at the same time, connecting and waiting for a thread "
        "included; each takes up to two file descriptors (ulimit -n). More of them make dead "
        "hosts cheaper, as each waits out its time-out; but those that live wait for a thread "
        "within their `polling.device_budget_seconds`, and a poll is 15 ms of CPU.",
    )
    max_at_once: int = Field(
        default=32,
        ge=1,
        le=512,
        description="Hosts that have taken the connection and are logged in to and asked at the "
        "same time; each takes a thread.",
    )


class WindowsLogin(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """Who we are to a Windows host, and how we know that it is the right one."""

    user: str = Field(
        min_length=1, description=r"`DOMAIN\user`, `user@REALM`, or `user` of the host itself."
    )
    password: SecretReference = Field(description="Its password.")
    auth: Literal["ntlm", "kerberos", "negotiate"] = Field(
        default="negotiate",
        description="negotiate takes Kerberos where it can and NTLM where it cannot. Kerberos "
        "needs the extra `kerberos` and a host name instead of an address.",
    )
    transport: Literal["https", "http"] = Field(
        default="https",
        description="https on port 5986, the certificate checked; http on port 5985, where each "
        "message is encrypted by the log-in, but nothing proves with NTLM who the host is.",
    )
    ca_file: StatePath | None = Field(
        default=None,
        description="PEM of who vouches for the hosts' certificates; without it, this system's.",
    )
    server_name: Literal["hostname", "address"] = Field(
        default="hostname",
        description="Which of the device's two the certificate and the Kerberos principal name.",
    )
