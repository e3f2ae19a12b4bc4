"""Asking an IoT Hub's REST API for rows: signed, paged, tried again, within one deadline.

Facts: the service's REST reference for version 2021-04-12 (headers `x-ms-max-item-count` and
`x-ms-continuation`) and "Control access to IoT Hub" (the rights of policies), learn.microsoft.com.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

import httpx

from metrics_pipeline.access.attempts import Attempts
from metrics_pipeline.access.azure_credentials import Credential
from metrics_pipeline.access.http import Reply, ask
from metrics_pipeline.access.http_client import HttpClient, parse_json
from metrics_pipeline.core.errors import CredentialRefused, SourceRefused, UnexpectedReply

API_VERSION = "2021-04-12"
MAX_PAGES = 100


@dataclass(frozen=True, slots=True)
class RowsRequest:
    """What is asked, and the `right` that a shared access policy must have for it."""

    method: Literal["GET", "POST"]
    path: str
    right: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, str] | None = None

    @property
    def target(self) -> str:
        """What errors call it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class IotHubSession:
    """One reading's way to a hub."""

    source: str
    base_url: str
    credential: Credential
    client: HttpClient
    attempts: Attempts
    page_size: int

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
            reply = self.attempts.answer(request.target, ask_once)
            yield self._parse(reply.body, request.target)
            continuation = reply.headers.get("x-ms-continuation")
            if not continuation:
                return
            paging = {**paging, "x-ms-continuation": continuation}
        raise UnexpectedReply(
            self.source, request.target, f"more than {MAX_PAGES} pages", reply.body
        )

    def _ask(
        self, request: RowsRequest, paging: Mapping[str, str], timeout_seconds: float
    ) -> Reply:
        authorization = self.credential.authorization(self.source, request.target)
        parameters = httpx.QueryParams({**request.parameters, "api-version": API_VERSION})
        reply = ask(
            self.client,
            self.source,
            request.target,
            timeout_seconds,
            method=request.method,
            url=f"{self.base_url}{request.path}?{parameters}",
            headers={**paging, "authorization": authorization},
            json=request.json,
        )
        self._check_status(reply, request)
        return reply

    def _parse(self, body: bytes, target: str) -> list[Any]:
        rows = parse_json(body, self.source, target)
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
