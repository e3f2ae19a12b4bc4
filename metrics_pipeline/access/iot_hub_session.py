"""Asking an IoT Hub's REST API for rows: signed, paged, tried again, within one deadline.

Facts: the service's REST reference for version 2021-04-12 (headers `x-ms-max-item-count` and
`x-ms-continuation`) and "Control access to IoT Hub" (the rights of policies), learn.microsoft.com.
"""

from __future__ import annotations

import functools
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import httpx

from metrics_pipeline.access.azure_credentials import Credential, CredentialRefused
from metrics_pipeline.access.http import Reply, ask
from metrics_pipeline.core.backoff import Backoff, Timing, call_with_retries
from metrics_pipeline.core.errors import (
    ConfigurationError,
    SourceRefused,
    SourceUnreachable,
    UnexpectedReply,
)

API_VERSION = "2021-04-12"
MAX_PAGES = 100
# None: straight there, whatever proxy the environment names.
DIRECT: Mapping[str, None] = {"all://127.0.0.1": None, "all://localhost": None}


@dataclass(frozen=True, slots=True)
class RowsRequest:
    """What is asked. `right` is what a shared access policy must have; `target` is for errors."""

    target: str
    method: Literal["GET", "POST"]
    path: str
    right: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class IotHubSession:
    """One reading's way to a hub. `deadline` is on the `monotonic` clock of `timing`."""

    source: str
    base_url: str
    credential: Credential
    client: httpx.Client
    timing: Timing
    backoff: Backoff
    request_timeout_seconds: float
    page_size: int
    deadline: float

    def rows(self, request: RowsRequest) -> list[Any]:
        """The rows of all pages.

        Raises SourceUnreachable, SourceThrottled, SourceRefused (403, 404), CredentialRefused (401,
        or no token) and UnexpectedReply (another status, not a JSON list, too many pages).
        """
        return [row for page in self._pages(request) for row in page]

    def _pages(self, request: RowsRequest) -> Iterator[list[Any]]:
        paging = {"x-ms-max-item-count": str(self.page_size)}
        for _ in range(MAX_PAGES):
            ask_once = functools.partial(self._ask, request, paging)
            reply = call_with_retries(ask_once, self.backoff, self.timing, self.deadline)
            yield self._parse(reply.body, request.target)
            continuation = reply.headers.get("x-ms-continuation")
            if not continuation:
                return
            paging = {**paging, "x-ms-continuation": continuation}
        raise UnexpectedReply(
            self.source, request.target, f"more than {MAX_PAGES} pages", reply.body
        )

    def _ask(self, request: RowsRequest, paging: Mapping[str, str]) -> Reply:
        authorization = self.credential.authorization(self.source, request.target)
        parameters = httpx.QueryParams({**request.parameters, "api-version": API_VERSION})
        reply = ask(
            self.client,
            self.source,
            request.target,
            self._seconds_left(request.target),
            method=request.method,
            url=f"{self.base_url}{request.path}?{parameters}",
            headers={**paging, "authorization": authorization},
            json=request.json,
        )
        self._check_status(reply, request)
        return reply

    def _seconds_left(self, target: str) -> float:
        left = self.deadline - self.timing.monotonic()
        if left <= 0:
            raise SourceUnreachable(
                self.source,
                target,
                "not asked, for the time for the whole reading is over",
                "Check why the hub is slow, or raise deadline_seconds.",
            )
        return min(left, self.request_timeout_seconds)

    def _parse(self, body: bytes, target: str) -> list[Any]:
        try:
            rows = json.loads(body)
        except (ValueError, RecursionError):
            raise UnexpectedReply(self.source, target, "the reply is not JSON", body) from None
        if not isinstance(rows, list):
            raise UnexpectedReply(self.source, target, "the reply is JSON, but no list", body)
        return rows

    def _check_status(self, reply: Reply, request: RowsRequest) -> None:
        if reply.status == HTTPStatus.OK:
            return
        problem = f"HTTP {reply.status}"
        fix = self.credential.fix(request.right)
        match reply.status:
            case HTTPStatus.UNAUTHORIZED:
                raise CredentialRefused(self.source, request.target, problem, fix)
            case HTTPStatus.FORBIDDEN:
                fix += " The hub's IP filter or its daily quota may be the cause, too."
                raise SourceRefused(self.source, request.target, problem, fix)
            case HTTPStatus.NOT_FOUND:
                fix = f"Check that {self.credential.host} is the hub. {fix}"
                raise SourceRefused(self.source, request.target, problem, fix)
        raise UnexpectedReply(self.source, request.target, problem, reply.body)


def open_client(ca_file: Path | None, where: str) -> httpx.Client:
    """A client that trusts the authorities in `ca_file`, or the usual ones; connects at first use.

    Raises ConfigurationError, which says `where` the file is named, if it is no such file.
    """
    if ca_file is None:
        return httpx.Client(mounts=DIRECT)
    try:
        trusted = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigurationError(
            where,
            f"{ca_file} cannot be used ({error.__class__.__name__})",
            "Give a readable PEM file of certificates.",
        ) from error
    return httpx.Client(mounts=DIRECT, verify=trusted)
