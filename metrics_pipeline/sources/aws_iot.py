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

botocore finds the credentials, signs and knows the host names; the requests are sent by
`access.http`. botocore's own client reads a reply that is half a JSON as an empty one, which would
be a zero caused by failure, and bounds the time between two bytes but not that of a reply.

Failures: SourceUnreachable (no answer, 5xx, deadline), SourceThrottled, SourceRefused (credential,
IAM right, fleet indexing) and UnexpectedReply.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import ssl
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from pydantic import BaseModel, Field, field_validator, model_validator

from metrics_pipeline.access.http import Reply, ask, retry_after_seconds
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.access.system_timing import SYSTEM_TIMING
from metrics_pipeline.core.backoff import Backoff, Timing, call_with_retries
from metrics_pipeline.core.catalog import (
    CONNECTED_DEVICE_COUNT,
    CONNECTED_EDGE_DEVICE_COUNT,
    DEVICE_COUNT,
    EDGE_DEVICE_COUNT,
    FAILED_DEPLOYMENT_COUNT,
    FLEET_COUNTS,
    Metric,
)
from metrics_pipeline.core.errors import (
    ConfigurationError,
    SourceError,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
    excerpt,
)
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sources.spec import SourceSpec

NAME = "aws_iot"
BASE_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 20.0


class AwsIotSettings(BaseModel, frozen=True, extra="forbid"):
    """One account's fleet in one region of AWS.

    Without `profile` and `access_key_id` the credentials are those of AWS's standard chain:
    environment, shared configuration files, the role of the container or instance.
    """

    region: str = Field(
        pattern=r"^[a-z]{2,}(-[a-z]+)+-\d+$",
        description="Region of the fleet, such as eu-west-1. Required.",
    )
    iot_endpoint_url: str | None = Field(
        default=None,
        description="Where AWS IoT answers (a VPC or FIPS endpoint); the region's own if not set. "
        "http:// only on loopback.",
    )
    greengrass_endpoint_url: str | None = Field(
        default=None,
        description="Where Greengrass v2 answers; the region's own if not set. "
        "http:// only on loopback.",
    )
    profile: str | None = Field(
        default=None,
        min_length=1,
        description="Profile of the shared AWS configuration files; AWS's standard chain if not "
        "set. Not together with access_key_id.",
    )
    access_key_id: str | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description="Access key of an IAM user; needs secret_access_key.",
    )
    secret_access_key: SecretReference | None = Field(
        default=None, description="Where the secret of access_key_id is; needs access_key_id."
    )
    request_timeout_seconds: float = Field(
        default=10.0, gt=0, le=60, description="Longest time for one request, in seconds."
    )
    deadline_seconds: float = Field(
        default=120.0, gt=0, le=3600, description="Longest time for a whole reading, in seconds."
    )
    tries: int = Field(
        default=4, ge=1, le=10, description="Tries for each page while trying again may help."
    )
    ca_file: StatePath | None = Field(
        default=None,
        description="PEM file of the authorities to trust for TLS; the public ones if not set.",
    )

    @field_validator("iot_endpoint_url", "greengrass_endpoint_url")
    @classmethod
    def _check_url(cls, given: str | None) -> str | None:
        return None if given is None else _checked_url(given)

    @model_validator(mode="after")
    def _one_credential(self) -> AwsIotSettings:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give both access_key_id and secret_access_key, or neither")
        if self.access_key_id is not None and self.profile is not None:
            raise ValueError("give profile or access_key_id, not both")
        return self


def _checked_url(given: str) -> str:
    try:
        url = httpx.URL(given)
    except httpx.InvalidURL:
        raise ValueError("expected https://host:port") from None
    if url.scheme not in ("https", "http") or not url.host or url.path != "/" or url.query:
        raise ValueError("expected https://host:port, without path and query")
    if url.userinfo:
        raise ValueError("take user and password out of the url: requests are signed")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise ValueError("http:// is only accepted on loopback: use https://")
    return given.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- what is asked ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """One operation. `action` is the IAM right it needs, and begins with the signing name."""

    action: str
    method: str
    path: str

    @property
    def service(self) -> str:
        """`iot` or `greengrass`."""
        return self.action.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Listing:
    """A call that answers in pages: where the rows are, and the name and status of each row."""

    call: Call
    parameters: Mapping[str, str | int]
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
    Call("iot:SearchIndex", "POST", "/indices/search"),
    {"indexName": "AWS_Things", "queryString": "connectivity.connected:true", "maxResults": 100},
    rows="things",
    name="thingName",
)
INDEXING = Call("iot:GetIndexingConfiguration", "GET", "/indexing/config")

INDEXING_FIX = (
    "Only connected_device_count needs fleet indexing. Turn it on with aws iot "
    "update-indexing-configuration: thingConnectivityIndexingMode=STATUS, and thingIndexingMode as "
    "it is, or REGISTRY where it is OFF. The index is ready after a minute or more."
)
"""Names no whole command: it replaces the configuration, and could end the indexing of shadows."""


# --- what comes back --------------------------------------------------------------------------


class CredentialRefused(SourceRefused):
    """AWS does not know who asks, so that asking for anything else is of no use either."""


CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
THROTTLING_CODES = frozenset(
    {
        "LimitExceededException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
INDEX_CODES = frozenset(
    {"IndexNotReadyException", "InvalidQueryException", "ResourceNotFoundException"}
)
PLAIN_CODES = ("AccessDenied", "Unauthorized", *sorted(INDEX_CODES))
"""Codes whose message is shown. To a wrong signature AWS replies with the whole signed request,
session token included."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: name → status (empty where rows have none), and where it goes on."""

    statuses: Mapping[str, str]
    next_token: str | None


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
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise UnexpectedReply(NAME, action, "the reply is not JSON", body) from None
    if not isinstance(document, dict):
        raise UnexpectedReply(NAME, action, "the reply is not a JSON object", body)
    return document


@dataclass(frozen=True, slots=True)
class AwsError:
    """What AWS says is wrong; `code` and `message` are empty where it does not say."""

    status: int
    code: str
    message: str

    @property
    def problem(self) -> str:
        """Status and code, and the message unless it may repeat what we signed."""
        problem = f"HTTP {self.status} {self.code}".rstrip()
        if not self.message or not self.code.startswith(PLAIN_CODES):
            return problem
        return f"{problem}: {excerpt(self.message.encode())}"


def parse_error(reply: Reply) -> AwsError:
    """The error in `reply`.

    Its code is in the header `x-amzn-errortype`, or in the body as `__type` or `code`, with a
    namespace before it or a link behind it.
    """
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    document = found if isinstance(found, dict) else {}
    given = reply.headers.get("x-amzn-errortype") or document.get("__type") or document.get("code")
    code = str(given or "").split(":")[0].rpartition("#")[2]
    message = str(document.get("message") or document.get("Message") or "")
    return AwsError(reply.status, code, message)


def error_of(call: Call, reply: Reply, credential: str) -> SourceError:
    """What a reply that is no success means; `credential` is how people call ours."""
    error = parse_error(reply)
    if error.code in CREDENTIAL_CODES:
        fix = f"Check {credential}, that it is not expired, and this machine's clock."
        return CredentialRefused(NAME, call.action, error.problem, fix)
    if error.code in THROTTLING_CODES:
        fix = f"Lengthen the interval, or have AWS raise the quota of {call.action}."
        asked = retry_after_seconds(reply.headers, datetime.now(UTC))
        return SourceThrottled(NAME, call.action, error.problem, fix, asked)
    fix = _fix_of_refusal(call, error, credential)
    if fix:
        return SourceRefused(NAME, call.action, error.problem, fix)
    return UnexpectedReply(NAME, call.action, error.problem, reply.body)


def _fix_of_refusal(call: Call, error: AwsError, credential: str) -> str:
    if call is CONNECTED_THINGS.call and error.code in INDEX_CODES:
        return INDEXING_FIX
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"Allow {call.action} in the IAM policy of {credential}."
    if error.status == HTTPStatus.NOT_FOUND:
        return f"Check region and {call.service}_endpoint_url, and that the region offers it."
    return ""


# --- who asks ---------------------------------------------------------------------------------


class Identity:
    """Finds credentials and host names; botocore is loaded at first use, not at import."""

    def __init__(self, settings: AwsIotSettings) -> None:
        self._settings = settings
        self._region_urls: dict[str, str] = {}
        self.name = _credential_name(settings)

    def credentials(self) -> Any:
        """botocore credentials, refreshed if they were about to expire.

        Raises CredentialRefused, SourceUnreachable when the service that gives them is down, and
        ConfigurationError when the secret is not where the settings say.
        """
        found = self._translated(self._find)
        if found is None:
            raise self._refused(f"no credentials in {self.name}")
        return found

    def base_url(self, service: str) -> str:
        """Where `service` answers: the setting, or else the region's host name."""
        settings = self._settings
        given = {"iot": settings.iot_endpoint_url, "greengrass": settings.greengrass_endpoint_url}
        return given[service] or self._region_url(service)

    def _region_url(self, service: str) -> str:
        if service not in self._region_urls:
            self._region_urls[service] = self._translated(lambda: self._ask_botocore(service))
        return self._region_urls[service]

    def _ask_botocore(self, service: str) -> str:
        from botocore.config import Config  # noqa: PLC0415

        # The only public way to the host name is a client, whose keys are not used.
        client = self._session.create_client(
            {"iot": "iot", "greengrass": "greengrassv2"}[service],
            region_name=self._settings.region,
            aws_access_key_id="unused",
            aws_secret_access_key="unused",  # noqa: S106
            config=Config(ignore_configured_endpoint_urls=True),  # type: ignore[call-arg]
        )
        return str(client.meta.endpoint_url)

    def _find(self) -> Any:
        from botocore.credentials import Credentials  # noqa: PLC0415

        settings = self._settings
        if settings.access_key_id is not None and settings.secret_access_key is not None:
            return Credentials(settings.access_key_id, settings.secret_access_key.read())
        found = self._session.get_credentials()
        return None if found is None else found.get_frozen_credentials()

    def _translated(self, question: Callable[[], Any]) -> Any:
        from botocore import exceptions  # noqa: PLC0415

        # botocore's messages are not repeated: they may quote what a credential process printed.
        try:
            return question()
        except (
            exceptions.HTTPClientError,
            exceptions.MetadataRetrievalError,
            exceptions.CredentialRetrievalError,
        ) as error:
            problem = f"{error.__class__.__name__} from {self.name}"
            fix = "Check the service or program that gives the credentials."
            raise SourceUnreachable(NAME, "credentials", problem, fix) from None
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise self._refused(f"{error.__class__.__name__} from {self.name}") from None

    def _refused(self, problem: str) -> CredentialRefused:
        fix = "Set the credentials, or name others in the settings."
        return CredentialRefused(NAME, "credentials", problem, fix)

    @cached_property
    def _session(self) -> Any:
        import botocore.session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        session = botocore.session.Session(profile=self._settings.profile)
        timeout = self._settings.request_timeout_seconds
        # For the services that give credentials: tries are ours, so that the deadline holds.
        session.set_default_client_config(
            Config(
                connect_timeout=timeout,
                read_timeout=timeout,
                retries={"total_max_attempts": 1},
            )
        )
        return session


def _credential_name(settings: AwsIotSettings) -> str:
    if settings.secret_access_key is not None:
        return f"{NAME}.access_key_id with the secret of {settings.secret_access_key}"
    if settings.profile is not None:
        return f"AWS profile {settings.profile!r}"
    return "AWS's standard credential chain"


class _Signature(httpx.Auth):
    """Signs requests to one service with AWS signature version 4."""

    requires_request_body = True

    def __init__(self, service: str, region: str, credentials: Callable[[], Any]) -> None:
        self._service = service
        self._region = region
        self._credentials = credentials

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the signature's headers; asked once, the answer is not looked at."""
        from botocore.auth import SigV4Auth  # noqa: PLC0415
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        # At level DEBUG botocore logs what it signs, the session token included.
        logging.getLogger("botocore.auth").setLevel(logging.INFO)
        signed = AWSRequest(request.method, str(request.url), data=request.content)
        SigV4Auth(self._credentials(), self._service, self._region).add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        yield request


# --- one reading ------------------------------------------------------------------------------


class _Fleet:
    """What one reading knows: each listing is asked for once, and its failure is remembered."""

    def __init__(self, send: Callable[[Call, Mapping[str, str | int]], bytes]) -> None:
        self._send = send
        self._known: dict[str, Mapping[str, str] | SourceError] = {}
        self._bad_credential: CredentialRefused | None = None

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
        if not found and not parse_is_connectivity_indexed(self._send(INDEXING, {})):
            action = CONNECTED_THINGS.call.action
            raise SourceRefused(NAME, action, "connectivity is not indexed", INDEXING_FIX)
        return found

    def _try(self, listing: Listing) -> Mapping[str, str] | SourceError:
        if self._bad_credential is not None:
            return self._bad_credential
        try:
            return self._read_pages(listing)
        except CredentialRefused as error:
            self._bad_credential = error
            return error
        except SourceError as error:
            return error

    def _read_pages(self, listing: Listing) -> Mapping[str, str]:
        statuses: dict[str, str] = {}
        tokens: set[str] = set()
        parameters = dict(listing.parameters)
        while True:
            body = self._send(listing.call, parameters)
            page = parse_page(listing, body)
            statuses.update(page.statuses)
            if page.next_token is None:
                return statuses
            if page.next_token in tokens:
                problem = f"a page token repeats after {len(tokens) + 1} pages"
                raise UnexpectedReply(NAME, listing.call.action, problem, body)
            tokens.add(page.next_token)
            parameters["nextToken"] = page.next_token


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
        self._backoff = Backoff(settings.tries, BASE_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
        self._identity = Identity(settings)

    def read(self, metrics: Sequence[Metric], time_ns: int) -> Reading:
        """One point with one integer field for each of `metrics`.

        No request begins after `deadline_seconds`, and none may take longer than is left then. A
        listing that fails is the failure of every metric that needs it; the others are kept. A
        metric this source cannot give is a SourceRefused.
        """
        deadline = self._timing.monotonic() + self._settings.deadline_seconds
        fleet = _Fleet(lambda call, parameters: self._send(call, parameters, deadline))
        total = Reading(())
        for metric in metrics:
            total += _read_one(fleet, metric, time_ns)
        return total

    def close(self) -> None:
        """Close the connections."""
        if "_clients" in vars(self):
            for client in self._clients.values():
                client.close()

    @cached_property
    def _clients(self) -> Mapping[str, httpx.Client]:
        tls = _tls_context(self._settings)
        region, credentials = self._settings.region, self._identity.credentials
        return {
            service: httpx.Client(auth=_Signature(service, region, credentials), verify=tls)
            for service in ("iot", "greengrass")
        }

    def _send(self, call: Call, parameters: Mapping[str, str | int], deadline: float) -> bytes:
        return call_with_retries(
            lambda: self._send_once(call, parameters, deadline),
            self._backoff,
            self._timing,
            deadline,
        )

    def _send_once(self, call: Call, parameters: Mapping[str, str | int], deadline: float) -> bytes:
        left = deadline - self._timing.monotonic()
        if left <= 0:
            problem = f"the reading's {self._settings.deadline_seconds:g} s are over"
            fix = f"Raise {NAME}.deadline_seconds, or ask for the counts less often."
            raise SourceUnreachable(NAME, call.action, problem, fix)
        is_get = call.method == "GET"
        query = "?" + urlencode(parameters, quote_via=quote, safe="") if is_get else ""
        reply = ask(
            self._clients[call.service],
            NAME,
            call.action,
            min(left, self._settings.request_timeout_seconds),
            method=call.method,
            url=f"{self._identity.base_url(call.service)}{call.path}{query}",
            headers={"accept": "application/json"},
            json=None if is_get else dict(parameters),
        )
        if reply.status != HTTPStatus.OK:
            raise error_of(call, reply, self._identity.name)
        return reply.body


def _tls_context(settings: AwsIotSettings) -> ssl.SSLContext:
    if settings.ca_file is None:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"{NAME}.ca_file",
            f"{settings.ca_file} cannot be read ({error.__class__.__name__})",
            "Name a readable PEM file of certificates.",
        ) from error


def _read_one(fleet: _Fleet, metric: Metric, time_ns: int) -> Reading:
    count = COUNTS.get(metric)
    if count is None:
        answered = ", ".join(known.field for known in COUNTS)
        fix = f"Ask another source. It answers: {answered}."
        return Reading((), (SourceRefused(NAME, metric.field, "AWS cannot count this", fix),))
    try:
        value = count(fleet)
    except SourceError as error:
        return Reading((), (_seen_from(metric, error),))
    except ConfigurationError as error:
        problem = f"{error.where}: {error.problem}"
        return Reading((), (SourceRefused(NAME, metric.field, problem, error.fix),))
    point = Point(FLEET_COUNTS.name, {"provider": NAME}, {metric.field: value}, time_ns)
    return Reading((point,))


def _seen_from(metric: Metric, error: SourceError) -> SourceError:
    """`error` of a call as the failure of `metric`: one call may fail several metrics."""
    problem = f"{error.target}: {error.problem}"
    twin = error.__class__.__new__(error.__class__)
    vars(twin).update(vars(error))
    SourceError.__init__(twin, error.source, metric.field, problem, error.fix)
    twin.__cause__ = error
    return twin


SPEC = SourceSpec(
    name=NAME,
    title="AWS IoT",
    kinds=frozenset({"aws"}),
    reads="aws_iot/registry",
    answers=tuple(COUNTS),
    settings_type=AwsIotSettings,
    build=AwsIot,
)
