"""One HTTP request, bounded in time and size; the failures all sources share are told apart."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import httpx

from metrics_pipeline.access.network_deadline import network_deadline
from metrics_pipeline.core.errors import (
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)

MAX_REPLY_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer of at most `MAX_REPLY_BYTES`."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    client: httpx.Client,
    source: str,
    target: str,
    timeout_seconds: float,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    json: Any = None,
) -> Reply:
    """Send one request and read the whole answer within `timeout_seconds`.

    Raises SourceUnreachable (no connection, too slow, 5xx), SourceThrottled (429), SourceRefused (a
    header that cannot be sent) and UnexpectedReply (too large). Any other status is the caller's to
    judge; redirects are not followed, so that a credential never travels to another host.
    """
    try:
        with (
            network_deadline(client, timeout_seconds),
            client.stream(
                method, url, headers=dict(headers), json=json, timeout=timeout_seconds
            ) as response,
        ):
            body = _read_body(response, source, target)
            reply = Reply(response.status_code, response.headers, body)
    except (httpx.LocalProtocolError, UnicodeEncodeError):
        # Both show the header that cannot be sent, and that may be the credential.
        raise _unsendable(source, target) from None
    except httpx.HTTPError as error:
        raise _unreachable(source, target, error, timeout_seconds) from error
    _raise_for_trouble(reply, source, target)
    return reply


def _unsendable(source: str, target: str) -> SourceRefused:
    return SourceRefused(
        source,
        target,
        "the request cannot be sent: a header holds what no header may",
        "Look for line breaks and characters other than ASCII in the credential.",
    )


def _unreachable(
    source: str, target: str, error: httpx.HTTPError, timeout_seconds: float
) -> SourceUnreachable:
    if isinstance(error, httpx.TimeoutException):
        problem = f"not answered within {timeout_seconds:g} s"
        return SourceUnreachable(
            source, target, problem, "Check the far side, or raise its timeout_seconds."
        )
    # The message of any other transport error names hosts and causes, never headers.
    problem = f"no answer ({str(error) or type(error).__name__})"
    return SourceUnreachable(source, target, problem, "Check the address, the network and TLS.")


def _read_body(response: httpx.Response, source: str, target: str) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise UnexpectedReply(
                source, target, f"more than {MAX_REPLY_BYTES} bytes", bytes(body[:1000])
            )
    return bytes(body)


def _raise_for_trouble(reply: Reply, source: str, target: str) -> None:
    if reply.status == HTTPStatus.TOO_MANY_REQUESTS:
        raise SourceThrottled(
            source,
            target,
            "HTTP 429, asked too often",
            "Lengthen the interval, or raise the far side's quota.",
            retry_after_seconds(reply.headers, datetime.now(UTC)),
        )
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise SourceUnreachable(
            source, target, f"HTTP {reply.status}", "The far side is ill; its own logs say why."
        )


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """`Retry-After` in seconds (RFC 9110 10.2.3: number or HTTP date); None if absent."""
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    try:
        moment = email.utils.parsedate_to_datetime(given)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())
