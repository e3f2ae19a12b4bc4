"""A simulated AWS IoT and Greengrass v2 control plane on loopback. It is not AWS.

Answers the five operations that fleet counts need, in the shape of the API references of AWS IoT
(2015-05-28) and IoT Greengrass v2 (2020-11-30), with real paging and with signatures (AWS
signature version 4) checked from the bytes on the wire, without botocore. It exists because
moto's server ignores `maxResults` of SearchIndex and has no Greengrass. Replies can be replaced
by faults, one request after the other.

What it does not do: any query but `connectivity.connected:true`, delays of the index, quotas.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from metrics_pipeline.simulators.loopback_server import (
    Answer,
    LoopbackServer,
    NoAnswer,
    Request,
)

CONNECTED_QUERY = "connectivity.connected:true"
LARGEST_SKEW = timedelta(minutes=5)

Row = Mapping[str, Any]
Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A revision of a Greengrass deployment; `status` as in `deploymentStatus`."""

    deployment_id: str
    status: str
    is_latest: bool = True


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the account holds: `things` has the core devices too, `cores` is name → status."""

    things: Sequence[str] = ()
    cores: Mapping[str, str] = field(default_factory=dict)
    connected: Sequence[str] = ()
    deployments: Sequence[Deployment] = ()
    is_indexed: bool = True
    is_connectivity_indexed: bool = True


class AwsError(Exception):
    """An error reply: HTTP status, code (in `x-amzn-ErrorType`) and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message

    def answer(self, headers: Mapping[str, str] | None = None) -> Answer:
        """The error as AWS writes it: the code in a header, with a link behind it."""
        kind = {"x-amzn-ErrorType": f"{self.code}:http://internal.amazon.com/coral/"}
        return json_answer({"message": self.message}, self.status, {**kind, **(headers or {})})


def json_answer(
    document: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Answer:
    """`document` as JSON."""
    kind = {"Content-Type": "application/json"}
    return Answer(status, json.dumps(document).encode(), {**kind, **(headers or {})})


# --- the operations ---------------------------------------------------------------------------


def _things(fleet: Fleet, _parameters: Parameters) -> Sequence[Row]:
    return [{"thingName": name, "attributes": {}, "version": 1} for name in fleet.things]


def _core_devices(fleet: Fleet, parameters: Parameters) -> Sequence[Row]:
    wanted = parameters.get("status")
    return [
        {"coreDeviceThingName": name, "status": status, "lastStatusUpdateTimestamp": 1.7e9}
        for name, status in fleet.cores.items()
        if wanted in (None, status)
    ]


def _deployments(fleet: Fleet, parameters: Parameters) -> Sequence[Row]:
    every = parameters.get("historyFilter", "LATEST_ONLY") == "ALL"
    return [
        {
            "deploymentId": deployment.deployment_id,
            "deploymentStatus": deployment.status,
            "isLatestForTarget": deployment.is_latest,
        }
        for deployment in fleet.deployments
        if every or deployment.is_latest
    ]


def _connected_things(fleet: Fleet, parameters: Parameters) -> Sequence[Row]:
    if not fleet.is_indexed:
        raise AwsError(
            404,
            "ResourceNotFoundException",
            "Index AWS_Things does not exist. Please enable index by calling "
            "UpdateIndexingConfiguration",
        )
    if parameters.get("queryString") != CONNECTED_QUERY:
        raise AwsError(400, "InvalidQueryException", f"only {CONNECTED_QUERY} is simulated")
    found = fleet.connected if fleet.is_connectivity_indexed else ()
    return [{"thingName": name, "connectivity": {"connected": True}} for name in found]


@dataclass(frozen=True, slots=True)
class Operation:
    """One paged operation, and the service whose name a request to it is signed with."""

    name: str
    service: str
    rows_key: str
    largest_page: int
    rows: Callable[[Fleet, Parameters], Sequence[Row]]

    def answer(self, fleet: Fleet, parameters: Parameters) -> dict[str, Any]:
        """The page that `parameters` ask for, with a token if there are more."""
        size = self._page_size(parameters)
        start = self._start(parameters.get("nextToken"))
        rows = self.rows(fleet, parameters)
        more = start + size < len(rows)
        token = self._token(start + size) if more else None
        return {self.rows_key: list(rows[start : start + size]), "nextToken": token}

    def _page_size(self, parameters: Parameters) -> int:
        try:
            size = int(parameters.get("maxResults", self.largest_page))
        except ValueError:
            size = 0
        if not 1 <= size <= self.largest_page:
            raise AwsError(400, "InvalidRequestException", f"maxResults: 1 to {self.largest_page}")
        return size

    def _token(self, start: int) -> str:
        # Tokens of AWS are base64 too: `+`, `/` and `=` must survive the query string.
        return base64.b64encode(b"\xfb\xff\xfe~" + f"{self.name} {start}".encode()).decode()

    def _start(self, token: str | None) -> int:
        if token is None:
            return 0
        try:
            name, _, start = base64.b64decode(token, validate=True)[4:].decode().partition(" ")
            if name == self.name:
                return int(start)
        except (binascii.Error, ValueError):
            pass
        raise AwsError(400, "InvalidRequestException", "Invalid nextToken")


@dataclass(frozen=True, slots=True)
class IndexingConfiguration:
    """GetIndexingConfiguration, which has no pages."""

    name: str = "GetIndexingConfiguration"
    service: str = "iot"

    def answer(self, fleet: Fleet, _parameters: Parameters) -> dict[str, Any]:
        """What is indexed."""
        is_connected = fleet.is_indexed and fleet.is_connectivity_indexed
        modes = {
            "thingIndexingMode": "REGISTRY" if fleet.is_indexed else "OFF",
            "thingConnectivityIndexingMode": "STATUS" if is_connected else "OFF",
        }
        return {"thingIndexingConfiguration": modes}


@dataclass(frozen=True, slots=True)
class UnknownOperation:
    """What every other path leads to."""

    name: str = "Unknown"
    service: str = "iot"

    def answer(self, _fleet: Fleet, _parameters: Parameters) -> dict[str, Any]:
        """404."""
        raise AwsError(404, "ResourceNotFoundException", "no such operation")


ROUTES: Mapping[tuple[str, str], Operation | IndexingConfiguration] = {
    ("GET", "/things"): Operation("ListThings", "iot", "things", 250, _things),
    ("POST", "/indices/search"): Operation("SearchIndex", "iot", "things", 100, _connected_things),
    ("GET", "/indexing/config"): IndexingConfiguration(),
    ("GET", "/greengrass/v2/coreDevices"): Operation(
        "ListCoreDevices", "greengrass", "coreDevices", 100, _core_devices
    ),
    ("GET", "/greengrass/v2/deployments"): Operation(
        "ListDeployments", "greengrass", "deployments", 100, _deployments
    ),
}


# --- who may ask ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """Whose requests are accepted, and for which region they must be signed."""

    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    def check(self, request: Request, service: str, now: datetime) -> None:
        """AwsError unless `request` carries a fresh and right signature version 4."""
        given = _parse_authorization(request.headers.get("authorization", ""))
        self._check_key(given, request)
        self._check_scope(given, request, service, now)
        signature = self._signature(given, request)
        if not hmac.compare_digest(signature, given["Signature"]):
            # AWS gives the canonical request back, session token included.
            raise _bad_signature(
                "The request signature we calculated does not match the signature you provided. "
                f"The Canonical String for this request should have been\n"
                f"'{_canonical_request(given, request)}'"
            )

    def _check_key(self, given: Mapping[str, str], request: Request) -> None:
        key = given["Credential"].split("/")[0]
        if key != self.access_key_id or (
            request.headers.get("x-amz-security-token") != self.session_token
        ):
            message = "The security token included in the request is invalid."
            raise AwsError(403, "UnrecognizedClientException", message)

    def _check_scope(
        self, given: Mapping[str, str], request: Request, service: str, now: datetime
    ) -> None:
        date = request.headers.get("x-amz-date", "")
        scope = given["Credential"].split("/")[1:]
        if scope != [date[:8], self.region, service, "aws4_request"]:
            raise _bad_signature("Credential should be scoped to a valid region and service.")
        must = {name for name in request.headers if name == "host" or name.startswith("x-amz-")}
        if not must <= set(given["SignedHeaders"].split(";")):
            raise _bad_signature("'host' and all 'x-amz-' headers must be signed.")
        try:
            signed_at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise _bad_signature("Date must be in ISO-8601 'basic format'.") from None
        if abs(now - signed_at) > LARGEST_SKEW:
            raise _bad_signature(f"Signature expired: {date} is too far from {now:%Y%m%dT%H%M%SZ}")

    def _signature(self, given: Mapping[str, str], request: Request) -> str:
        scope = given["Credential"].split("/")[1:]
        digest = hashlib.sha256(_canonical_request(given, request).encode()).hexdigest()
        text = "\n".join(
            ("AWS4-HMAC-SHA256", request.headers["x-amz-date"], "/".join(scope), digest)
        )
        key = f"AWS4{self.secret_access_key}".encode()
        for part in (*scope, text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key.hex()


def _bad_signature(message: str) -> AwsError:
    return AwsError(403, "InvalidSignatureException", message)


def _parse_authorization(header: str) -> Mapping[str, str]:
    if not header:
        raise AwsError(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    algorithm, _, rest = header.partition(" ")
    pairs = (part.strip().partition("=") for part in rest.split(","))
    given = {name: value for name, _, value in pairs}
    if algorithm != "AWS4-HMAC-SHA256" or not {"Credential", "SignedHeaders", "Signature"} <= set(
        given
    ):
        raise AwsError(403, "IncompleteSignatureException", "Authorization header is incomplete")
    return given


def _canonical_request(given: Mapping[str, str], request: Request) -> str:
    parameters = request.parameters.items()
    encoded = sorted((_encode(name), _encode(value)) for name, value in parameters)
    names = given["SignedHeaders"].split(";")
    headers = "".join(f"{n}:{' '.join(request.headers.get(n, '').split())}\n" for n in names)
    return "\n".join(
        (
            request.method,
            quote(request.path, safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in encoded),
            headers,
            given["SignedHeaders"],
            hashlib.sha256(request.body).hexdigest(),
        )
    )


def _encode(text: str) -> str:
    return quote(text, safe="-_.~")


# --- what can go wrong ------------------------------------------------------------------------

Twist = Callable[[Answer], Answer]
"""A fault that is made of the true answer."""

Fault = Answer | NoAnswer | Twist | None
"""What one request gets; None is the true answer."""


def half_json(truth: Answer) -> Answer:
    """The first half of the truth, as if it were whole."""
    return Answer(truth.status, truth.body[: len(truth.body) // 2], truth.headers)


def same_token(truth: Answer) -> Answer:
    """The true page, and a token that is always the same."""
    return json_answer({**json.loads(truth.body), "nextToken": "again and again"})


def dribble(truth: Answer) -> Answer:
    """The truth, one byte every 50 ms."""
    return Answer(truth.status, truth.body, truth.headers, seconds_per_byte=0.05)


THROTTLED = AwsError(400, "ThrottlingException", "Rate exceeded").answer()
TOO_MANY_REQUESTS = AwsError(429, "ThrottlingException", "Rate exceeded").answer()
ACCESS_DENIED = AwsError(
    403,
    "AccessDeniedException",
    "User: arn:aws:iam::123456789012:user/simulated is not authorized to perform this",
).answer()
EXPIRED_TOKEN = AwsError(403, "ExpiredTokenException", "The security token is expired").answer()
SERVER_ERROR = AwsError(500, "InternalFailureException", "An internal failure occurred").answer()
INDEX_NOT_READY = AwsError(
    400, "IndexNotReadyException", "The index AWS_Things is not ready"
).answer()


# --- the server -------------------------------------------------------------------------------


class AwsIotSimulator(LoopbackServer):
    """The simulated control plane, both services under one `url`; use as a context manager.

    `fleet` may be replaced while it runs. `account` has the keys to sign with; they are made up
    anew for each simulator.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        region: str = "eu-west-1",
        session_token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls=tls)
        self._scheme = "http" if tls is None else "https"
        self.fleet = fleet
        self.account = Account(
            region, f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30), session_token
        )
        self._scripts: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._standing: dict[str, Fault] = {}

    @property
    def url(self) -> str:
        """Where it answers, for `iot_endpoint_url` and `greengrass_endpoint_url`."""
        return f"{self._scheme}://{self.host}"

    @property
    def asked(self) -> list[str]:
        """The names of the operations asked for, in order."""
        return [_operation(request).name for request in self.requests]

    def script(self, operation: str, faults: Iterable[Fault]) -> None:
        """Answer the next requests for `operation` with `faults`, one each."""
        self._scripts[operation].extend(faults)

    def always(self, operation: str, fault: Fault) -> None:
        """Answer every request for `operation` with `fault`, after what is scripted."""
        self._standing[operation] = fault

    def answer(self, request: Request) -> Answer | NoAnswer:
        """The next fault of the request's operation, or the true answer."""
        self.requests.append(request)
        operation = _operation(request).name
        scripted = self._scripts[operation]
        fault = scripted.popleft() if scripted else self._standing.get(operation)
        if isinstance(fault, Answer | NoAnswer):
            return fault
        truth = self.respond(request)
        return truth if fault is None else fault(truth)

    def respond(self, request: Request) -> Answer:
        """What AWS would answer to `request`, errors included."""
        operation = _operation(request)
        try:
            self.account.check(request, operation.service, datetime.now(UTC))
            return json_answer(operation.answer(self.fleet, _parameters(request)))
        except AwsError as error:
            return error.answer()


def _operation(request: Request) -> Operation | IndexingConfiguration | UnknownOperation:
    return ROUTES.get((request.method, request.path), UnknownOperation())


def _parameters(request: Request) -> Parameters:
    if request.method == "GET":
        return request.parameters
    try:
        document = json.loads(request.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise AwsError(400, "InvalidRequestException", "the body is not a JSON object")
    return document
