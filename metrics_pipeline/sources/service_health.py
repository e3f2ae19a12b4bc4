"""Service health: the `/health` pages of all services, asked for at the same moment.

A page is a JSON object with an object `counters` (CONTRACTS section 4). A service is healthy, 1,
if its page came within its time-out, with status 200 and such an object on it, and otherwise 0:
then its point has no counters, since nothing is known of them. A counter that is missing is 0. One
that is no whole number from 0 to 2^63 - 1 is left out and told as a failure, and does not make the
service unhealthy: it has answered.

The failures of a reading are SourceUnreachable (no answer, too slow, 5xx), SourceThrottled (429),
SourceRefused (401, 403, 404, or settings that cannot be used) and UnexpectedReply (anything else).
`target` is the service, or `service.counter`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeGuard

import httpx

from metrics_pipeline.access.http import NoReply, Page, Reply, check_outcome, get_together
from metrics_pipeline.access.http_client import HttpClient, open_client
from metrics_pipeline.core.catalog import SERVICE_METRICS
from metrics_pipeline.core.errors import (
    ConfigurationError,
    SourceError,
    SourceRefused,
    UnexpectedReply,
)
from metrics_pipeline.core.fetches import Fetch
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.core.service_counters import HEALTHY
from metrics_pipeline.core.validation import INT64_MAX
from metrics_pipeline.sources.service_health_settings import (
    ServiceSettings,
    check_url,
    counters_of,
)

NAME = "service_health"

KEPT_SECONDS = 0.2
"""Of the time between two readings: for judging the answers and storing them. A service that hangs
is given up before, whatever its time-out, so that it costs the others no reading."""

MAX_PAGE_BYTES = 1_000_000
LONGEST_INTEGER = 20
"""Characters of the longest whole number of 64 bits, with its sign."""

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=120)
"""No service waits for the connection of another, and connections last from slot to slot."""

Outcome = Reply | NoReply | ConfigurationError
"""What came, what kept it from coming, or what kept it from being asked for."""

KINDS: Mapping[type, str] = {
    str: "text",
    dict: "an object",
    list: "a list",
    bool: "true or false",
    type(None): "null",
}

REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)


class ServiceHealth:
    """Snapshot source over the health pages of services; for one thread at a time."""

    name = NAME

    def __init__(
        self,
        services: Mapping[str, ServiceSettings],
        ca_file: Path | None = None,
        every_seconds: float = math.inf,
    ) -> None:
        """Connects at the first reading; trusts the authorities in `ca_file`, or the usual ones.

        It is read every `every_seconds`, at least 1: no reading takes up the next one's time.
        """
        self._services = dict(services)
        self._most_seconds = every_seconds - KEPT_SECONDS
        self._ca_file = ca_file
        self._client: HttpClient | None = None
        self._is_closed = False

    def read(self, time_ns: int) -> Reading:
        """One point for each service, stamped `time_ns`; what is wrong is a failure, with why.

        Takes no longer than the longest time-out, and than the time between two. RuntimeError
        after `close`, and inside of a running event loop.
        """
        if self._is_closed:
            raise RuntimeError("this source was closed: make another one")
        began = time.monotonic()
        asked = {name: self._page(service) for name, service in self._services.items()}
        came = self._get([page for page in asked.values() if isinstance(page, Page)])
        readings = [
            _read_one(name, service, came[page] if isinstance(page, Page) else page, time_ns)
            for (name, service), page in zip(self._services.items(), asked.values(), strict=True)
        ]
        failed = sum(bool(reading.failures) for reading in readings)
        fetch = Fetch(NAME, time.monotonic() - began, len(readings) - failed, failed)
        return sum(readings, Reading((), fetches=(fetch,) if readings else ()))

    def close(self) -> None:
        """Close the connections; once more does nothing."""
        self._is_closed = True
        if self._client is not None:
            self._client.close()

    def _page(self, service: ServiceSettings) -> Page | ConfigurationError:
        try:
            url = _url_of(service)
        except ConfigurationError as error:
            return error
        return Page(url, min(service.timeout_seconds, self._most_seconds), MAX_PAGE_BYTES)

    def _get(self, pages: Sequence[Page]) -> Mapping[Page, Outcome]:
        """What came of each of `pages`, of which the same are asked for once."""
        try:
            if self._client is None:
                self._client = open_client(self._ca_file, "platform.ca_file", LIMITS)
        except ConfigurationError as error:
            return dict.fromkeys(pages, error)
        different = list(dict.fromkeys(pages))
        return dict(zip(different, get_together(self._client, different), strict=True))


def _url_of(service: ServiceSettings) -> str:
    if service.url_from is None:
        assert service.url is not None
        return service.url
    url = service.url_from.read()
    try:
        return check_url(url)
    except ValueError as error:
        fix = "Put the address of a health page there."
        raise ConfigurationError(str(service.url_from), str(error), fix) from None


def _read_one(name: str, service: ServiceSettings, outcome: Outcome, time_ns: int) -> Reading:
    fields: dict[str, int] = {HEALTHY: 0}
    failures: list[SourceError] = []
    try:
        body = _body_of(outcome, _shown(service))
        page = _parse(body, _shown(service))
    except SourceError as error:
        failures.append(error.about(name))
    else:
        fields[HEALTHY] = 1
        numbers, failures = _count(page.get("counters", {}), name, counters_of(name, service), body)
        fields |= numbers
    point = Point(SERVICE_METRICS.name, {"service": name}, fields, time_ns)
    return Reading((point,), tuple(failures))


def _shown(service: ServiceSettings) -> str:
    """What is asked for, without what may be a secret: a query, or an address that is not shown."""
    if service.url is None:
        return f"the address in {service.url_from}"
    url = httpx.URL(service.url)
    return f"GET {url.scheme}://{url.netloc.decode()}{url.path}"


def _body_of(outcome: Outcome, asked: str) -> bytes:
    """The page, or SourceError: also of a service that could not be asked."""
    if isinstance(outcome, ConfigurationError):
        problem = f"{outcome.where}: {outcome.problem}"
        raise SourceRefused(NAME, asked, problem, outcome.fix) from outcome
    reply = check_outcome(outcome, NAME, asked)
    if reply.status in REFUSALS:
        fix = "Check the address; the page must be readable without a credential."
        raise SourceRefused(NAME, asked, f"HTTP {reply.status}", fix)
    if reply.status != HTTPStatus.OK:
        # Not what it says: of another page that often is the address, with all that is in it.
        raise UnexpectedReply(NAME, asked, f"HTTP {reply.status}, 200 expected", b"")
    return reply.body


def _parse(body: bytes, asked: str) -> dict[str, Any]:
    try:
        page = json.loads(body, parse_int=_parse_integer)
    except (ValueError, RecursionError):
        raise UnexpectedReply(NAME, asked, "the page is not JSON", body) from None
    if not isinstance(page, dict):
        raise UnexpectedReply(NAME, asked, "the page is not a JSON object", body)
    return page


def _parse_integer(digits: str) -> float:
    """What is longer than any 64 bits is only known to be large: Python would refuse the page."""
    return int(digits) if len(digits) <= LONGEST_INTEGER else math.inf


def _count(
    counters: object, service: str, names: Iterable[str], body: bytes
) -> tuple[dict[str, int], list[SourceError]]:
    """The counters called `names` that are numbers, and what is wrong with the others."""
    if not isinstance(counters, dict):
        problem = f"expected an object, got {_words(counters)}"
        return {}, [UnexpectedReply(NAME, f"{service}.counters", problem, body)]
    numbers: dict[str, int] = {}
    failures: list[SourceError] = []
    for name in names:
        value = counters.get(name, 0)
        if _is_count(value):
            numbers[name] = int(value)
        else:
            problem = f"expected a whole number from 0 to 2^63 - 1, got {_words(value)}"
            failures.append(UnexpectedReply(NAME, f"{service}.{name}", problem, body))
    return numbers, failures


def _is_count(value: object) -> TypeGuard[int | float]:
    if isinstance(value, float) and not value.is_integer():
        return False
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= INT64_MAX
        and int(value) <= INT64_MAX
    )


def _words(value: object) -> str:
    """A number as it is, and of anything else what it is: it may be of any size."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return KINDS[type(value)]
    return "more than 64 bits hold" if math.isinf(value) else repr(value)
