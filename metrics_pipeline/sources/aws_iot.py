"""AWS IoT Core and Greengrass v2: how many things, core devices and failed deployments there are.

Asks the control plane's REST API (signature version 4), a page after the other, one listing a
reading however many metrics need it. Facts: the API references of AWS IoT (2015-05-28) and IoT
Greengrass v2 (2020-11-30), and botocore's models of both.

- An edge device is a Greengrass v2 core device. It is connected when its status is HEALTHY; AWS
  learns of a core that went silent only at its next expected report (24 h by default).
- A device is a thing that is no core device. It is connected when fleet indexing says so, which
  needs connectivity indexing, and clients that connect under the thing's name.
- A failed deployment is the latest revision of a deployment with status FAILED: deployments are
  counted, not the devices of their groups.
- AWS has no convention for concentrators, so none are counted.

SearchIndex and not GetStatistics counts the connected: only names let core devices be taken out.
It costs a call for each 100 connected things, one after the other, so that a fleet of 100,000
needs a longer deadline and perhaps a higher quota.

Failures: SourceUnreachable (no answer, 5xx, deadline), SourceThrottled, SourceRefused (IAM right,
fleet indexing, settings), CredentialRefused and UnexpectedReply. `target` is the metric's field.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metrics_pipeline.access.attempts import Attempts
from metrics_pipeline.access.aws_credentials import AwsAccountSettings, Identity
from metrics_pipeline.access.aws_replies import Call
from metrics_pipeline.access.aws_session import AwsSession, Page, Parameters
from metrics_pipeline.access.http_client import HttpClient, HttpSettings, open_client, parse_json
from metrics_pipeline.access.system_timing import SYSTEM_TIMING
from metrics_pipeline.core.backoff import Timing
from metrics_pipeline.core.catalog import (
    CONNECTED_DEVICE_COUNT,
    CONNECTED_EDGE_DEVICE_COUNT,
    DEVICE_COUNT,
    EDGE_DEVICE_COUNT,
    FAILED_DEPLOYMENT_COUNT,
    Metric,
)
from metrics_pipeline.core.errors import SourceError, SourceRefused, UnexpectedReply
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sources.counting import read_counts
from metrics_pipeline.sources.spec import SourceSpec

NAME = "aws_iot"


class AwsIotSettings(HttpSettings, AwsAccountSettings, frozen=True, extra="forbid"):
    """One account's fleet in one region of AWS."""


# --- facts: what is asked -------------------------------------------------------------------

INDEX_CODES = ("IndexNotReadyException", "InvalidQueryException", "ResourceNotFoundException")
INDEXING_FIX = (
    "Only connected_device_count needs fleet indexing. Turn it on with aws iot "
    "update-indexing-configuration: thingConnectivityIndexingMode=STATUS, and thingIndexingMode as "
    "it is, or REGISTRY where it is OFF. The index is ready after a minute or more."
)
"""Names no whole command: it replaces the configuration, and could end the indexing of shadows."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A call that answers in pages: where the rows are, and the name and status of each row."""

    call: Call
    parameters: Parameters
    rows: str
    name: str
    status: str | None = None


CORE_DEVICES = Listing(
    Call("greengrass:ListCoreDevices", "GET", "/greengrass/v2/coreDevices"),
    {"maxResults": 100},
    rows="coreDevices",
    name="coreDeviceThingName",
    status="status",
)
DEPLOYMENTS = Listing(
    Call("greengrass:ListDeployments", "GET", "/greengrass/v2/deployments"),
    {"maxResults": 100, "historyFilter": "LATEST_ONLY"},
    rows="deployments",
    name="deploymentId",
    status="deploymentStatus",
)
THINGS = Listing(
    Call("iot:ListThings", "GET", "/things"), {"maxResults": 250}, rows="things", name="thingName"
)
CONNECTED_THINGS = Listing(
    Call("iot:SearchIndex", "POST", "/indices/search", dict.fromkeys(INDEX_CODES, INDEXING_FIX)),
    {"indexName": "AWS_Things", "queryString": "connectivity.connected:true", "maxResults": 100},
    rows="things",
    name="thingName",
)
INDEXING = Call("iot:GetIndexingConfiguration", "GET", "/indexing/config")


# --- what AWS answers -----------------------------------------------------------------------


def parse_page(listing: Listing, body: bytes) -> Page:
    """The page in `body`; UnexpectedReply when it has no rows, or a row no name or status.

    `null` for the rows is an empty page; rows that are not there at all are no answer.
    """
    action = listing.call.action
    document = parse_object(action, body)
    rows, token = document.get(listing.rows, ""), document.get("nextToken")
    if not isinstance(rows, list | None):
        raise UnexpectedReply(NAME, action, f"no list {listing.rows!r} in the reply", body)
    if not isinstance(token, str | None):
        raise UnexpectedReply(NAME, action, "nextToken is not a string", body)
    statuses = dict(_parse_row(listing, row, body) for row in rows or ())
    return Page(statuses, token or None)


def _parse_row(listing: Listing, row: object, body: bytes) -> tuple[str, str]:
    found = row if isinstance(row, dict) else {}
    name = found.get(listing.name)
    status = found.get(listing.status) if listing.status else ""
    if not isinstance(name, str) or not name or not isinstance(status, str):
        wanted = " and ".join(filter(None, (listing.name, listing.status)))
        problem = f"a row of {listing.rows!r} without {wanted}"
        raise UnexpectedReply(NAME, listing.call.action, problem, body)
    return name, status


def parse_is_connectivity_indexed(body: bytes) -> bool:
    """Whether the indexing configuration in `body` says that connectivity is indexed."""
    things = parse_object(INDEXING.action, body).get("thingIndexingConfiguration")
    if not isinstance(things, dict):
        raise UnexpectedReply(NAME, INDEXING.action, "no thingIndexingConfiguration", body)
    is_on = things.get("thingIndexingMode") in ("REGISTRY", "REGISTRY_AND_SHADOW")
    return is_on and things.get("thingConnectivityIndexingMode") == "STATUS"


def parse_object(action: str, body: bytes) -> Mapping[str, Any]:
    """The JSON object in `body`, or UnexpectedReply."""
    document = parse_json(body, NAME, action)
    if not isinstance(document, dict):
        raise UnexpectedReply(NAME, action, "the reply is not a JSON object", body)
    return document


# --- counting -------------------------------------------------------------------------------


class _Fleet:
    """What one reading knows: each listing is asked for once, and its failure is remembered."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session
        self._known: dict[str, Mapping[str, str] | SourceError] = {}

    def statuses(self, listing: Listing) -> Mapping[str, str]:
        """Name → status of all rows on all pages; raises SourceError."""
        action = listing.call.action
        if action not in self._known:
            self._known[action] = self._try(listing)
        known = self._known[action]
        if isinstance(known, SourceError):
            raise known
        return known

    def connected(self) -> Mapping[str, str]:
        """The connected things. None at all is believed only where connectivity is indexed.

        The API reference does not say that the query fails where only the registry is indexed;
        no rows for that reason must not become a zero.
        """
        found = self.statuses(CONNECTED_THINGS)
        if not found and not parse_is_connectivity_indexed(self._session.send(INDEXING, {})):
            action = CONNECTED_THINGS.call.action
            raise SourceRefused(NAME, action, "connectivity is not indexed", INDEXING_FIX)
        return found

    def _try(self, listing: Listing) -> Mapping[str, str] | SourceError:
        parse = functools.partial(parse_page, listing)
        pages = self._session.pages(listing.call, listing.parameters, parse)
        try:
            return {name: status for page in pages for name, status in page.statuses.items()}
        except SourceError as error:
            return error


def _count_not_core(names: Callable[[_Fleet], Mapping[str, str]]) -> Callable[[_Fleet], int]:
    def count(fleet: _Fleet) -> int:
        cores = fleet.statuses(CORE_DEVICES)
        return len(names(fleet).keys() - cores.keys())

    return count


def _count_status(listing: Listing, status: str) -> Callable[[_Fleet], int]:
    return lambda fleet: list(fleet.statuses(listing).values()).count(status)


COUNTS: Mapping[Metric, Callable[[_Fleet], int]] = {
    DEVICE_COUNT: _count_not_core(lambda fleet: fleet.statuses(THINGS)),
    CONNECTED_DEVICE_COUNT: _count_not_core(_Fleet.connected),
    EDGE_DEVICE_COUNT: lambda fleet: len(fleet.statuses(CORE_DEVICES)),
    CONNECTED_EDGE_DEVICE_COUNT: _count_status(CORE_DEVICES, "HEALTHY"),
    FAILED_DEPLOYMENT_COUNT: _count_status(DEPLOYMENTS, "FAILED"),
}


class AwsIot:
    """Snapshot source over AWS IoT's registry, its fleet index and Greengrass v2."""

    name = NAME

    def __init__(self, settings: AwsIotSettings, timing: Timing = SYSTEM_TIMING) -> None:
        self._settings = settings
        self._timing = timing
        self._identity = Identity(NAME, settings, settings.request_timeout_seconds)

    def read(self, metrics: Sequence[Metric], time_ns: int) -> Reading:
        """One point with one integer field for each of `metrics`.

        A listing that fails is the failure of every metric that needs it; the others are kept.
        """
        opened = functools.cache(lambda: _Fleet(self._session()))
        return read_counts(NAME, COUNTS, lambda each: COUNTS[each](opened()), metrics, time_ns)

    def close(self) -> None:
        """Close the connections, so far as there are any."""
        if "_client" in vars(self):
            self._client.close()

    def _session(self) -> AwsSession:
        attempts = Attempts(NAME, self._settings, self._timing)
        return AwsSession(NAME, self._identity, self._client, attempts)

    @functools.cached_property
    def _client(self) -> HttpClient:
        return open_client(self._settings.ca_file, f"{NAME}.ca_file")


SPEC = SourceSpec(
    name=NAME,
    title="AWS IoT",
    kinds=frozenset({"aws"}),
    reads="aws_iot/registry",
    answers=tuple(COUNTS),
    settings_type=AwsIotSettings,
    build=AwsIot,
)
