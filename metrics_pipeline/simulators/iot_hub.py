"""An Azure IoT Hub on this machine: a real HTTP server that answers as the service does.

`POST /devices/query` (counting queries, paged) and `GET /configurations`, version 2021-04-12, for
a `Fleet`. It verifies shared access signatures in full, and answers what is wrong with the status
and the JSON of the service. `make run`, the tests and the docs use this same server.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import sqlalchemy as sa

from metrics_pipeline.access.whole_file import write_private
from metrics_pipeline.simulators.fleet import Fleet, FleetSize, make_fleet
from metrics_pipeline.simulators.fleet_inventory import mirror_concentrators
from metrics_pipeline.simulators.iot_hub_query import QueryError, parse_query
from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, Request

API_VERSION = "2021-04-12"
MAX_PAGE_SIZE = 1000
MAX_CONFIGURATIONS = 100
ALL_RIGHTS = frozenset({"RegistryRead", "ServiceConnect"})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """A shared access policy: who has the key may do what the rights say."""

    name: str = "metrics"
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    rights: frozenset[str] = ALL_RIGHTS


class _Refusal(Exception):
    """The request cannot be answered; carries the service's status and error code."""

    def __init__(self, status: HTTPStatus, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.answer = error_answer(status, code, detail)


def json_answer(document: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """200 with `document`."""
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Answer(HTTPStatus.OK, json.dumps(document).encode(), {**kind, **(headers or {})})


def error_answer(
    status: HTTPStatus, code: str, detail: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    """An error as the service writes it: `Message`, `ExceptionMessage`, `iothub-errorcode`."""
    document = {
        "Message": f"ErrorCode:{code};{detail or status.phrase}",
        "ExceptionMessage": f"Tracking ID:{secrets.token_hex(16)}-G:0",
    }
    answer = json_answer(document, {"iothub-errorcode": code, **(headers or {})})
    return Answer(status, answer.body, answer.headers)


def throttled(retry_after_seconds: int) -> Answer:
    """429, as when a unit's 100 queries a minute are used up."""
    wait = {"Retry-After": str(retry_after_seconds)}
    return error_answer(HTTPStatus.TOO_MANY_REQUESTS, "ThrottlingException", headers=wait)


class IotHubSimulator(LoopbackServer):
    """The hub of `fleet`; one shared access policy, and one Entra identity if there is a token.

    `pages_before_rows` empty pages precede the rows of a query, as the service may send them.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        port: int = 0,
        policy: Policy | None = None,
        bearer_token: str | None = None,
        pages_before_rows: int = 0,
        tls: ssl.SSLContext | None = None,
        epoch_seconds: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(port, tls)
        self.fleet = fleet
        self.policy = policy or Policy()
        self._bearer_token = bearer_token
        self._pages_before_rows = pages_before_rows
        self._epoch_seconds = epoch_seconds

    @property
    def connection_string(self) -> str:
        """The policy's connection string; it holds the key."""
        key = base64.b64encode(self.policy.key).decode()
        return f"HostName={self.host};SharedAccessKeyName={self.policy.name};SharedAccessKey={key}"

    def respond(self, request: Request) -> Answer:
        """What the service says."""
        try:
            return self._respond(request)
        except _Refusal as refusal:
            return refusal.answer

    def _respond(self, request: Request) -> Answer:
        rights = self._rights(request.headers.get("authorization", ""))
        if request.parameters.get("api-version") != API_VERSION:
            raise _Refusal(HTTPStatus.BAD_REQUEST, "InvalidProtocolVersion")
        match request.method, request.path:
            case "POST", "/devices/query":
                _require(rights, "ServiceConnect")
                return self._query(_query_text(request.body), request.headers)
            case "GET", "/configurations":
                _require(rights, "RegistryRead")
                return self._configurations(request.parameters)
        raise _Refusal(HTTPStatus.NOT_FOUND, "NotFound")

    def _query(self, text: str, headers: Mapping[str, str]) -> Answer:
        size = _whole_number(headers.get("x-ms-max-item-count", "100"))
        if size > MAX_PAGE_SIZE:
            raise _Refusal(HTTPStatus.BAD_REQUEST, "ArgumentInvalid", "x-ms-max-item-count")
        page = _page_of(headers.get("x-ms-continuation", ""), text)
        more: Mapping[str, str] = {"x-ms-continuation": _continuation(page + 1, text)}
        rows = []
        # A counting query has one row, so it is always on the last page.
        if page == self._pages_before_rows:
            more, rows = {}, [self._row(text)]
        return json_answer(rows, {"x-ms-item-type": "Raw", **more})

    def _row(self, text: str) -> Mapping[str, int]:
        try:
            query = parse_query(text)
        except QueryError as error:
            raise _Refusal(HTTPStatus.BAD_REQUEST, "ArgumentInvalid", str(error)) from error
        return {query.alias: query.count(self.fleet.snapshot().twins())}

    def _configurations(self, parameters: Mapping[str, str]) -> Answer:
        top = _whole_number(parameters.get("top", str(MAX_CONFIGURATIONS)))
        limit = min(top, MAX_CONFIGURATIONS)
        return json_answer(self.fleet.snapshot().configurations()[:limit])

    def _rights(self, authorization: str) -> frozenset[str]:
        kind, _, rest = authorization.partition(" ")
        if kind == "SharedAccessSignature" and self._is_signed(rest):
            return self.policy.rights
        if kind == "Bearer" and self._bearer_token and _same(rest, self._bearer_token):
            return ALL_RIGHTS
        raise _unauthorized()

    def _is_signed(self, token: str) -> bool:
        """Whether `token` names this hub and policy, has not expired, and has the right sum."""
        raw = dict(part.partition("=")[::2] for part in token.split("&"))
        parts = {name: unquote(value) for name, value in raw.items()}
        expiry = parts.get("se", "")
        if not (_is_digits(expiry) and int(expiry) > self._epoch_seconds()):
            return False
        signed = f"{raw.get('sr', '')}\n{expiry}".encode()
        digest = hmac.digest(self.policy.key, signed, hashlib.sha256)
        return (
            parts.get("sr", "").lower() == self.host
            and parts.get("skn") == self.policy.name
            and _same(parts.get("sig", ""), base64.b64encode(digest).decode())
        )


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(2**63))


def _unauthorized() -> _Refusal:
    return _Refusal(HTTPStatus.UNAUTHORIZED, "IotHubUnauthorizedAccess")


def _require(rights: frozenset[str], right: str) -> None:
    # The service says 401 here too, though the key is right.
    if right not in rights:
        raise _unauthorized()


def _query_text(body: bytes) -> str:
    try:
        query = json.loads(body)["query"]
    except (ValueError, RecursionError, LookupError, TypeError):
        query = None
    if not isinstance(query, str):
        raise _Refusal(HTTPStatus.BAD_REQUEST, "ArgumentNull")
    return query


def _whole_number(text: str) -> int:
    if not _is_digits(text) or int(text) < 1:
        raise _Refusal(HTTPStatus.BAD_REQUEST, "ArgumentInvalid", "expected a number from 1")
    return int(text)


def _continuation(page: int, query: str) -> str:
    """A token that holds the page and the query it belongs to: it is good for no other."""
    digest = hashlib.sha256(query.encode()).hexdigest()[:16]
    return base64.b64encode(f"{page} {digest}".encode()).decode()


def _page_of(token: str, query: str) -> int:
    if not token:
        return 0
    try:
        digits = base64.b64decode(token, validate=True).partition(b" ")[0].decode("ascii")
    except (binascii.Error, ValueError):
        digits = ""
    page = int(digits) if _is_digits(digits) else -1
    if not _same(token, _continuation(page, query)):
        raise _Refusal(HTTPStatus.BAD_REQUEST, "ArgumentInvalid", "x-ms-continuation")
    return page


def serve_fleet(
    *,
    port: int,
    connection_string_file: Path,
    inventory: sa.Engine,
    step_seconds: float,
    seed: int,
    stop: threading.Event,
) -> None:
    """Run a hub whose fleet changes every `step_seconds`, until `stop` is set.

    Once it listens, its connection string is in `connection_string_file` (for the owner alone to
    read), and its concentrators are in the inventory, where they stay afterwards. Raises OSError
    when the port is taken or the file cannot be written.
    """
    random = Random(seed)  # noqa: S311  (dice of a simulation, not a key)
    fleet = make_fleet(FleetSize(), random)
    with IotHubSimulator(fleet, port=port) as simulator:
        _mirror(fleet, inventory)
        write_private(connection_string_file, simulator.connection_string + "\n")
        while not stop.wait(step_seconds):
            fleet.step(random)
            _mirror(fleet, inventory)


def _mirror(fleet: Fleet, inventory: sa.Engine) -> None:
    """A database that is locked or down for a while does not end the simulation."""
    try:
        mirror_concentrators(inventory, fleet.snapshot().concentrators)
    except sa.exc.OperationalError as error:
        logger.warning("The simulated concentrators are not in the inventory: %s", error.orig)
