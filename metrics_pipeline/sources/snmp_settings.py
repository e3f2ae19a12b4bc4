"""What an operator gives for agents of SNMP. Without the engines, to be read fast."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from metrics_pipeline.access.secrets import SecretReference


class SnmpSettings(BaseModel, frozen=True, extra="forbid"):
    """How devices are asked over SNMP."""

    timeout_seconds: float = Field(
        default=2.0, gt=0, le=60, description="How long to wait for each try's reply, in seconds."
    )
    tries: int = Field(
        default=2,
        ge=1,
        le=10,
        description="How often a request is sent before the device counts as silent.",
    )
    max_in_flight: int = Field(
        default=1000,
        ge=1,
        le=20_000,
        description="Devices that are asked at the same time. Many of them make dead devices "
        "cheap, as each waits out its time; with too many, those that are new, which take 3 to "
        "4.5 ms of CPU each, run out of polling.device_budget_seconds.",
    )
    max_varbinds: int = Field(
        default=60,
        ge=1,
        le=1000,
        description="Variables in one request, or in the reply to one GETBULK, at most. With 60, "
        "a reply is about 1,400 bytes, which no network has to cut.",
    )
    max_repetitions: int = Field(
        default=25, ge=1, le=1000, description="Rows of a table asked for with one GETBULK."
    )
    engine: Literal["fast", "reference"] = Field(
        default="fast",
        description="`fast` is for sweeps. `reference` is pysnmp, which takes fifty times the CPU "
        "time: for comparing, and for an agent that the other one does not get on with.",
    )
    resolve_timeout_seconds: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="How long to wait for the address of a host name, in seconds.",
    )


class SnmpCommunity(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """Who we are to agents of version 1 and 2c."""

    version: Literal["1", "2c"] = Field(
        default="2c", description="1 for agents that know no 2c: they have no 64-bit counters."
    )
    community: SecretReference = Field(description="The community, one with read access.")


class SnmpUser(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """Who we are to agents of version 3."""

    user: str = Field(min_length=1, max_length=32, description="The user name.")
    auth: Literal["md5", "sha1", "sha224", "sha256", "sha384", "sha512"] | None = Field(
        default=None,
        description="The authentication protocol; md5 and sha1 are for gear that has no other.",
    )
    auth_password: SecretReference | None = Field(
        default=None, description="The authentication password, of 8 characters at least."
    )
    privacy: Literal["des", "aes128", "aes256", "aes256c"] | None = Field(
        default=None,
        description="The privacy protocol. aes256c is aes256 with keys lengthened as Cisco does: "
        "the two differ where `auth` is md5, sha1 or sha224. des is for gear that has no other.",
    )
    privacy_password: SecretReference | None = Field(
        default=None, description="The privacy password, of 8 characters at least."
    )

    @model_validator(mode="after")
    def _passwords_belong_to_protocols(self) -> SnmpUser:
        if (self.auth is None) != (self.auth_password is None):
            raise ValueError("auth and auth_password belong together")
        if (self.privacy is None) != (self.privacy_password is None):
            raise ValueError("privacy and privacy_password belong together")
        if self.privacy is not None and self.auth is None:
            raise ValueError("there is no privacy without auth")
        return self


SnmpCredential = SnmpCommunity | SnmpUser
