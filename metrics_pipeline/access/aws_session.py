"""Asking AWS's REST APIs: signed, paged, tried again, within one deadline.

The requests are sent by `access.http`. botocore's own client reads a reply that is half a JSON as
an empty one, which would be a zero caused by failure, and bounds the time between two bytes but not
that of a reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlencode

from metrics_pipeline.access.attempts import Attempts
from metrics_pipeline.access.aws_credentials import Identity
from metrics_pipeline.access.aws_replies import Call, error_of
from metrics_pipeline.access.http import ask
from metrics_pipeline.access.http_client import HttpClient
from metrics_pipeline.core.errors import UnexpectedReply

Parameters = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: name → status (empty where rows have none), and where it goes on."""

    statuses: Mapping[str, str]
    next_token: str | None


@dataclass(frozen=True, slots=True)
class AwsSession:
    """One reading's way to an account."""

    source: str
    identity: Identity
    client: HttpClient
    attempts: Attempts

    def pages(
        self, call: Call, parameters: Parameters, parse: Callable[[bytes], Page]
    ) -> Iterator[Page]:
        """All pages, one after the other; raises what `send` and `parse` raise.

        UnexpectedReply where a page leads back to one before it.
        """
        tokens: set[str] = set()
        while True:
            body = self.send(call, parameters)
            page = parse(body)
            yield page
            if page.next_token is None:
                return
            if page.next_token in tokens:
                problem = f"a page token repeats after {len(tokens) + 1} pages"
                raise UnexpectedReply(self.source, call.action, problem, body)
            tokens.add(page.next_token)
            parameters = {**parameters, "nextToken": page.next_token}

    def send(self, call: Call, parameters: Parameters) -> bytes:
        """The body of the reply.

        Raises SourceUnreachable, SourceThrottled, SourceRefused, CredentialRefused and
        UnexpectedReply.
        """
        return self.attempts.answer(
            call.action, lambda timeout_seconds: self._ask(call, parameters, timeout_seconds)
        )

    def _ask(self, call: Call, parameters: Parameters, timeout_seconds: float) -> bytes:
        is_get = call.method == "GET"
        query = "?" + urlencode(parameters, quote_via=quote, safe="") if is_get else ""
        reply = ask(
            self.client,
            self.source,
            call.action,
            timeout_seconds,
            method=call.method,
            url=f"{self.identity.base_url(call.service)}{call.path}{query}",
            headers={"accept": "application/json"},
            json=None if is_get else dict(parameters),
            auth=self.identity.signature(call.service),
        )
        if reply.status != HTTPStatus.OK:
            raise error_of(self.source, call, reply, self.identity.name)
        return reply.body
