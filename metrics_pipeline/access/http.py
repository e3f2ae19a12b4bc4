"""One HTTP request, bounded in time and size; the failures all sources share are told apart."""

from __future__ import annotations

import asyncio
import email.utils
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, NotRequired, TypedDict, Unpack

import httpx

from metrics_pipeline.access.http_client import HttpClient
from metrics_pipeline.core.errors import (
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)

MAX_REPLY_BYTES = 10_000_000
CONNECTED = "connection.connect_tcp.complete"
"""One of the events of https://www.encode.io/httpcore/extensions/#trace."""


class Sent(TypedDict):
    """A request. `auth` must not block: what it needs is fetched before."""

    method: str
    url: str
    headers: Mapping[str, str]
    json: NotRequired[Any]
    content: NotRequired[bytes]
    auth: NotRequired[httpx.Auth]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer of at most `MAX_REPLY_BYTES`."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoReply(Exception):
    """An exchange without a whole answer; `problem` says what came instead, `fix` what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}. {fix}")
        self.problem = problem
        self.fix = fix


class Unsendable(NoReply):
    """A header cannot be sent."""


class ReplyTooLarge(NoReply):
    """More than `max_bytes`; `start` are the first bytes."""

    def __init__(self, start: bytes, max_bytes: int) -> None:
        super().__init__(f"more than {max_bytes} bytes", "Check the address.")
        self.start = start


def ask(
    client: HttpClient,
    source: str,
    target: str,
    timeout_seconds: float,
    **request: Unpack[Sent],
) -> Reply:
    """Send one request and read the whole answer within `timeout_seconds`.

    Raises SourceUnreachable (no connection, too slow, 5xx), SourceThrottled (429), SourceRefused (a
    header that cannot be sent) and UnexpectedReply (too large). Any other status is the caller's to
    judge.
    """
    outcome: Reply | NoReply
    try:
        outcome = exchange(client, timeout_seconds, **request)
    except NoReply as error:
        outcome = error
    return check_outcome(outcome, source, target)


def check_outcome(outcome: Reply | NoReply, source: str, target: str) -> Reply:
    """The answer, unless there was none, or it says that the far side is ill: as of `ask`."""
    match outcome:
        case Unsendable():
            raise SourceRefused(source, target, outcome.problem, outcome.fix)
        case ReplyTooLarge():
            raise UnexpectedReply(source, target, outcome.problem, outcome.start)
        case NoReply():
            raise SourceUnreachable(source, target, outcome.problem, outcome.fix) from outcome
    _raise_for_trouble(outcome, source, target)
    return outcome


def exchange(client: HttpClient, timeout_seconds: float, **request: Unpack[Sent]) -> Reply:
    """The answer to `request`, whatever its status.

    Within `timeout_seconds` are the look-up of the host, all its addresses, TLS, the request, the
    head and the body. Raises NoReply. Redirections are not followed, so that a credential never
    travels to another host. RuntimeError inside of a running event loop.
    """
    with _translating(timeout_seconds):
        return client.run(lambda opened: _bounded(opened, timeout_seconds, request))


@dataclass(frozen=True, slots=True)
class Page:
    """What to get together with others, and how long it may take and be.

    It is taken as it is sent, so that a small page cannot become a large one.
    """

    url: str
    timeout_seconds: float
    max_bytes: int


def get_together(client: HttpClient, pages: Sequence[Page]) -> list[Reply | NoReply]:
    """The answer to each of `pages`, whatever its status, or why there is none.

    All are asked for at the same moment, none waits for another, and each is bounded as in
    `exchange`. A connection that was kept may be closed by the far side just when it is used again
    (many servers keep one for 5 s, and are asked every 5 s): then the page is asked for once more,
    as RFC 9112 9.3.1 has it. RuntimeError inside of a running event loop.
    """

    async def gathered(opened: httpx.AsyncClient) -> list[Reply | NoReply]:
        return await asyncio.gather(*(_get(opened, page) for page in pages))

    return client.run(gathered)


async def _get(client: httpx.AsyncClient, page: Page) -> Reply | NoReply:
    try:
        with _translating(page.timeout_seconds):
            async with asyncio.timeout(page.timeout_seconds):
                return await _exchange_page(client, page)
    except NoReply as error:
        return error


async def _exchange_page(client: httpx.AsyncClient, page: Page) -> Reply:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    request = Sent(method="GET", url=page.url, headers=headers)
    connected: list[Any] = []
    try:
        return await _exchange(client, request, connected, page.max_bytes)
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        if connected:
            raise
        return await _exchange(client, request, connected, page.max_bytes)


@contextmanager
def _translating(timeout_seconds: float) -> Iterator[None]:
    """What goes wrong in an exchange becomes NoReply."""
    try:
        yield
    except (httpx.LocalProtocolError, UnicodeEncodeError):
        # Both show the header that cannot be sent, and that may be the credential.
        raise _unsendable() from None
    except TimeoutError as error:
        raise too_slow(timeout_seconds) from error
    except (httpx.HTTPError, OSError) as error:  # httpx lets errors of TLS through when it reads
        raise no_answer(_why(error)) from error


def too_slow(timeout_seconds: float) -> NoReply:
    """That the time was over."""
    return NoReply(
        f"not answered within {timeout_seconds:g} s",
        "Check the far side, or raise its timeout_seconds.",
    )


def no_answer(why: str) -> NoReply:
    """That there was no connection, or that it broke."""
    return NoReply(f"no answer ({why})", "Check the address, the network and TLS.")


async def _bounded(client: httpx.AsyncClient, timeout_seconds: float, request: Sent) -> Reply:
    async with asyncio.timeout(timeout_seconds):
        return await _exchange(client, request, [])


async def _exchange(
    client: httpx.AsyncClient,
    request: Sent,
    connected: list[Any],
    max_page_bytes: int | None = None,
) -> Reply:
    """The whole answer; connections that are opened for it are added to `connected`.

    With `max_page_bytes` the body is not unpacked.
    """
    async with AsyncExitStack() as unfinished:

        async def remember(event: str, details: Mapping[str, Any]) -> None:
            if event == CONNECTED:
                connected.append(details["return_value"])
                unfinished.push_async_callback(details["return_value"].aclose)

        # httpx itself would leave a connection open whose TLS handshake is cancelled.
        watched = {"trace": remember}
        async with client.stream(**request, extensions=watched) as response:
            if max_page_bytes is None:
                body = await _read(response.aiter_bytes(), MAX_REPLY_BYTES)
            else:
                body = await _read(response.aiter_raw(), max_page_bytes)
        unfinished.pop_all()
    return Reply(response.status_code, response.headers, body)


async def _read(chunks: AsyncIterator[bytes], max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise ReplyTooLarge(bytes(body[:1000]), max_bytes)
    return bytes(body)


def _unsendable() -> Unsendable:
    return Unsendable(
        "the request cannot be sent: a header holds what no header may",
        "Look for line breaks and characters other than ASCII in the credential.",
    )


def _why(error: httpx.HTTPError | OSError) -> str:
    # The message of a transport error names hosts and causes, never headers.
    causes = "; ".join(dict.fromkeys(_words(cause) for cause in _system_errors(error)))
    return causes or str(error) or type(error).__name__


def _system_errors(error: BaseException | None) -> Iterator[OSError]:
    """What the system said below `error`: more than one if several addresses were tried."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _system_errors(part)
    elif isinstance(error, OSError) and error.errno is not None:
        yield error
    elif error is not None:
        yield from _system_errors(error.__cause__ or error.__context__)


def _words(error: OSError) -> str:
    if error.errno is None or isinstance(error, socket.gaierror | ssl.SSLError):
        return str(error)
    # For a failed connect asyncio has words of its own, which do not say why.
    return str(OSError(error.errno, os.strerror(error.errno)))


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
