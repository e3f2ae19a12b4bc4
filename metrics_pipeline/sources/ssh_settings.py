"""What an operator gives for hosts that are asked over SSH. Without the client, to be read fast."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, model_validator

from metrics_pipeline.access.hosts import MAX_PORT, SSH_PORT
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import StatePath

AGENT_VARIABLE = "SSH_AUTH_SOCK"


class SshSettings(BaseModel, frozen=True, extra="forbid"):
    """How hosts are asked over SSH."""

    connect_timeout_seconds: float = Field(
        default=3.0,
        gt=0,
        le=60,
        description="How long the host may take to accept the connection, in seconds; the kernel "
        "asks a second time after one second.",
    )
    answer_timeout_seconds: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="How long the log-in may take, and then the script, in seconds each.",
    )
    max_in_flight: int = Field(
        default=300,
        ge=1,
        le=5000,
        description="Devices that are asked at the same time, connecting and waiting for the "
        "log-in included; each takes a file descriptor (ulimit -n). More of them make dead hosts "
        "cheaper, as each waits out its time-out; but those that live wait for their log-in "
        "within their `polling.device_budget_seconds`, and a poll is 5 ms of CPU.",
    )
    max_logins: int = Field(
        default=100,
        ge=1,
        le=5000,
        description="Hosts that have taken the connection and are logged in to and run the script "
        "at the same time. A log-in is some milliseconds of CPU on both sides, so more of them "
        "only wait for each other.",
    )
    cpu_window_seconds: float = Field(
        default=0.5,
        ge=0.1,
        le=5,
        description="What lies between the two samples of the CPU on a first poll, in seconds. "
        "Most kernels count hundredths, so that half a second on one processor is good to 2 %.",
    )
    known_hosts: StatePath = Field(
        default=Path("known_hosts"),
        validate_default=True,
        description="Host keys in OpenSSH's format; relative to the state directory. A host is "
        "looked for by its address and by its host name.",
    )
    trust_on_first_use: bool = Field(
        default=False,
        description="Whether the key of a host that is not in `known_hosts` is believed and "
        "written there. A key that has changed is never believed.",
    )
    max_output_bytes: int = Field(
        default=262_144,
        ge=4096,
        le=10_000_000,
        description="What a host may say at most, in bytes; more is cut off.",
    )


class SshLogin(BaseModel, frozen=True, extra="forbid"):
    """Who we are to a host: a key, an agent's keys, a password, or several of them in that order.

    Nothing is taken from `~/.ssh`.
    """

    user: str = Field(min_length=1, description="The account; it needs no privilege.")
    key_file: StatePath | None = Field(
        default=None, description="A private key; relative to the state directory."
    )
    passphrase: SecretReference | None = Field(
        default=None, description="What `key_file` is encrypted with, if it is."
    )
    agent: bool = Field(
        default=False, description=f"Whether the keys of the agent at ${AGENT_VARIABLE} are used."
    )
    password: SecretReference | None = Field(default=None, description="The account's password.")
    jump: SshJump | None = Field(
        default=None, description="A host to go through, one connection for all that lie behind."
    )

    @model_validator(mode="after")
    def _some_way_in(self) -> SshLogin:
        if not (self.key_file or self.agent or self.password):
            raise ValueError("give at least one of key_file, agent and password")
        return self


class SshJump(BaseModel, frozen=True, extra="forbid"):
    """A host through which others are reached."""

    host: str = Field(min_length=1, description="Its address or name.")
    port: int = Field(default=SSH_PORT, ge=1, le=MAX_PORT, description="Its port.")
    login: SshLogin | None = Field(
        default=None,
        description="Who we are to it, with the same keys as for those behind, another `jump` "
        "included; without it, as who we go to those.",
    )


SshLogin.model_rebuild()
