"""The settings of an event hub that is read: an Azure Event Hub, or an IoT Hub's endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from metrics_pipeline.access.azure_credentials import EntraIdSettings
from metrics_pipeline.access.hosts import is_host
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import StatePath


class EventHubEntraIdSettings(EntraIdSettings, frozen=True, extra="forbid"):
    """Microsoft Entra ID instead of a connection string.

    Without `client_secret`, azure-identity's DefaultAzureCredential looks for a managed identity,
    a workload identity or a signed-in tool.
    """

    host: str = Field(description="The namespace's host name, `NAME.servicebus.windows.net`.")

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        if not is_host(host):
            raise ValueError(
                "expected a host name such as NAME.servicebus.windows.net, without sb://"
            )
        return host


class EventHubSettings(BaseModel, frozen=True, extra="forbid"):
    """An Azure Event Hub, and who we are to it: exactly one of `connection_string`, `entra_id`."""

    kind: Literal["event_hub"] = Field(
        default="event_hub", description="Chooses Azure Event Hubs, or an IoT Hub's endpoint."
    )
    connection_string: SecretReference | None = Field(
        default=None,
        description="Where the connection string of a shared access policy with the right Listen "
        "is; of an IoT Hub the one on its page 'Built-in endpoints'.",
    )
    entra_id: EventHubEntraIdSettings | None = Field(
        default=None, description="Microsoft Entra ID instead of a connection string."
    )
    hub: str | None = Field(
        default=None,
        min_length=1,
        max_length=260,
        description="The hub's name; by default the EntityPath of the connection string.",
    )
    consumer_group: str = Field(
        default="$Default",
        min_length=1,
        max_length=50,
        description="Nobody else should read in its name.",
    )
    timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        le=60,
        description="What connecting may take in all, and one question about all partitions.",
    )
    prefetch: int = Field(
        default=1000,
        ge=1,
        le=5000,
        description="So many events of a partition the hub may send before they are asked for.",
    )
    ca_file: StatePath | None = Field(
        default=None,
        description="A PEM file of the certificate authorities to trust, instead of the usual.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> EventHubSettings:
        if (self.connection_string is None) == (self.entra_id is None):
            raise ValueError("give exactly one of connection_string and entra_id")
        if self.entra_id is not None and self.hub is None:
            raise ValueError("entra_id needs hub too")
        return self
