"""Azure IoT Hub: devices by kind and connection, and failed edge deployments, over its REST API.

Every count is a whole number from 0. Facts: REST reference of the IoT Hub service, version
2021-04-12 (`Query - Get Twins`, `Configuration - Get Configurations`), "IoT Hub query language"
and "IoT Hub quotas and throttling", all at learn.microsoft.com. An S1 hub answers 100 queries a
minute and unit, so the counts are asked one after the other, never in a burst.

The failures of a reading are SourceUnreachable (no answer, 5xx), SourceThrottled (429), both after
`tries` tries or at the deadline; SourceRefused (403, 404, or settings that cannot be used),
CredentialRefused (401), and UnexpectedReply (anything that is not one count). `target` is the
metric's field.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from metrics_pipeline.access.attempts import Attempts
from metrics_pipeline.access.azure_credentials import (
    SAS_LIFETIME_SECONDS,
    Credential,
    EntraId,
    EntraIdSettings,
    make_token_credential,
    parse_connection_string,
)
from metrics_pipeline.access.hosts import is_loopback
from metrics_pipeline.access.http_client import HttpClient, HttpSettings, open_client
from metrics_pipeline.access.iot_hub_session import IotHubSession, RowsRequest
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.system_timing import SYSTEM_TIMING
from metrics_pipeline.core.backoff import Timing
from metrics_pipeline.core.catalog import (
    CONCENTRATOR_COUNT,
    CONNECTED_CONCENTRATOR_COUNT,
    CONNECTED_DEVICE_COUNT,
    CONNECTED_EDGE_DEVICE_COUNT,
    DEVICE_COUNT,
    EDGE_DEVICE_COUNT,
    FAILED_DEPLOYMENT_COUNT,
    Metric,
)
from metrics_pipeline.core.errors import ConfigurationError, UnexpectedReply
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sources.counting import read_counts
from metrics_pipeline.sources.spec import SourceSpec

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

NAME = "azure_iot_hub"

# --- facts: what is asked for each metric ---------------------------------------------------

_CONNECTED = "connectionState = 'Connected'"
_EDGE = "capabilities.iotEdge = true"
_CONCENTRATOR = "tags.deviceType = 'LoRa Concentrator'"
# A comparison with a tag that is not there is neither true nor false, hence IS_DEFINED.
_STANDARD = (
    "capabilities.iotEdge = false AND "
    "(NOT IS_DEFINED(tags.deviceType) OR tags.deviceType != 'LoRa Concentrator')"
)

QUERIES: Mapping[Metric, str] = {
    metric: f"SELECT COUNT() AS totalNumber FROM devices WHERE {condition}"  # noqa: S608  (constants)
    for metric, condition in {
        DEVICE_COUNT: _STANDARD,
        CONNECTED_DEVICE_COUNT: f"{_STANDARD} AND {_CONNECTED}",
        EDGE_DEVICE_COUNT: _EDGE,
        CONNECTED_EDGE_DEVICE_COUNT: f"{_EDGE} AND {_CONNECTED}",
        CONCENTRATOR_COUNT: _CONCENTRATOR,
        CONNECTED_CONCENTRATOR_COUNT: f"{_CONCENTRATOR} AND {_CONNECTED}",
    }.items()
}

# More than a hub can have (100); the service lowers it to its own limit. It does not page.
CONFIGURATIONS = RowsRequest("GET", "/configurations", "RegistryRead", {"top": "1000"})

ANSWERS = (*QUERIES, FAILED_DEPLOYMENT_COUNT)
"""In the order they are asked: a policy that may query but not read configurations loses only the
last one, for after a 401 nothing else is asked."""


class AzureIotHubSettings(HttpSettings, frozen=True, extra="forbid"):
    """An IoT Hub, and who we are to it: give exactly one of `connection_string` and `entra_id`."""

    connection_string: SecretReference | None = Field(
        default=None,
        description="Where the connection string of a shared access policy is. The policy needs "
        "the rights ServiceConnect and RegistryRead.",
    )
    entra_id: EntraIdSettings | None = Field(
        default=None, description="Microsoft Entra ID instead of a connection string."
    )
    scheme: Literal["https", "http"] = Field(
        default="https", description="http only for a simulator on this machine."
    )
    page_size: int = Field(
        default=100, ge=1, le=1000, description="Rows the hub may put on one page of an answer."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> AzureIotHubSettings:
        if (self.connection_string is None) == (self.entra_id is None):
            raise ValueError("give exactly one of connection_string and entra_id")
        return self


# --- what the hub answers -------------------------------------------------------------------


def parse_count(rows: Sequence[Any], target: str) -> int:
    """`totalNumber` of the one row there must be, a whole number from 0, or UnexpectedReply."""
    if len(rows) != 1:
        raise _unexpected(rows, target, f"{len(rows)} rows, expected exactly 1")
    row = rows[0]
    if not isinstance(row, dict) or "totalNumber" not in row:
        raise _unexpected(rows, target, "the row has no totalNumber")
    count = row["totalNumber"]
    if not _is_integer(count) or count < 0:
        raise _unexpected(rows, target, "totalNumber is not a whole number from 0")
    return int(count)


def parse_failed_deployments(configurations: Sequence[Any], target: str) -> int:
    """Failed pairs of device and deployment over the configurations that deploy edge modules.

    A `reportedFailedCount` that is missing or negative (the hub has not counted yet) is 0.
    """
    return sum(_failed_count(configuration, target) for configuration in configurations)


def _failed_count(configuration: Any, target: str) -> int:
    if not _dig(configuration, target, "content", "modulesContent"):
        return 0
    count = _dig(configuration, target, "systemMetrics", "results", "reportedFailedCount")
    if count is None:
        return 0
    if not _is_integer(count):
        raise _unexpected([count], target, "reportedFailedCount is not a whole number")
    return max(0, int(count))


def _dig(document: Any, target: str, *path: str) -> Any:
    """The value at `path`, None where something on the way is missing or null."""
    for name in path:
        if not isinstance(document, dict):
            raise _unexpected([document], target, f"expected an object that may hold {name}")
        document = document.get(name)
        if document is None:
            return None
    return document


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unexpected(rows: Sequence[Any], target: str, problem: str) -> UnexpectedReply:
    return UnexpectedReply(NAME, target, problem, json.dumps(rows).encode())


# --- asking ---------------------------------------------------------------------------------


class AzureIotHub:
    """Snapshot source over an IoT Hub's registry."""

    name = NAME

    def __init__(
        self,
        settings: AzureIotHubSettings,
        timing: Timing = SYSTEM_TIMING,
        epoch_seconds: Callable[[], float] = time.time,
        token_credential: TokenCredential | None = None,
    ) -> None:
        """`token_credential` replaces the one azure-identity would make for `entra_id`."""
        self._settings = settings
        self._timing = timing
        self._epoch_seconds = epoch_seconds
        self._given_token_credential = token_credential

    def read(self, metrics: Sequence[Metric], time_ns: int) -> Reading:
        """One point with one integer field for each of `metrics`, asked one after the other.

        After a refused credential nothing more is asked: the remaining metrics fail as well.
        """
        opened = functools.cache(self._session)
        return read_counts(NAME, ANSWERS, lambda each: _count(opened(), each), metrics, time_ns)

    def close(self) -> None:
        """Close the connections, so far as there are any; not those of a given credential."""
        opened = self.__dict__
        if "_client" in opened:
            opened["_client"].close()
        if "_own_token_credential" in opened:
            opened["_own_token_credential"].close()

    def _session(self) -> IotHubSession:
        settings = self._settings
        credential = self._credential()
        return IotHubSession(
            source=NAME,
            base_url=_base_url(settings.scheme, credential.host),
            credential=credential,
            client=self._client,
            attempts=Attempts(NAME, settings, self._timing),
            page_size=settings.page_size,
        )

    def _credential(self) -> Credential:
        if self._settings.entra_id is not None:
            token_credential = self._given_token_credential or self._own_token_credential
            return EntraId(self._settings.entra_id.host, token_credential)
        reference = self._settings.connection_string
        assert reference is not None
        expiry = int(self._epoch_seconds()) + SAS_LIFETIME_SECONDS
        return parse_connection_string(reference.read(), str(reference), expiry)

    @functools.cached_property
    def _own_token_credential(self) -> TokenCredential:
        assert self._settings.entra_id is not None
        return make_token_credential(
            self._settings.entra_id, self._settings.request_timeout_seconds
        )

    @functools.cached_property
    def _client(self) -> HttpClient:
        return open_client(self._settings.ca_file, f"{NAME}.ca_file")


def _count(session: IotHubSession, metric: Metric) -> int:
    if metric is FAILED_DEPLOYMENT_COUNT:
        return parse_failed_deployments(session.rows(CONFIGURATIONS), CONFIGURATIONS.target)
    query = {"query": QUERIES[metric]}
    request = RowsRequest("POST", "/devices/query", "ServiceConnect", json=query)
    return parse_count(session.rows(request), request.target)


def _base_url(scheme: str, host: str) -> str:
    if scheme == "http" and not is_loopback(host.partition(":")[0]):
        raise ConfigurationError(
            f"{NAME}.scheme",
            f"http would send the credential to {host} in the clear",
            "Leave scheme out; http is for a simulator on this machine.",
        )
    return f"{scheme}://{host}"


SPEC = SourceSpec(
    name=NAME,
    title="Azure IoT Hub",
    kinds=frozenset({"azure"}),
    reads="azure_iot_hub/registry",
    answers=ANSWERS,
    settings_type=AzureIotHubSettings,
    build=AzureIotHub,
)
