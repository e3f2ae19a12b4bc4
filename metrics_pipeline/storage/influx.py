"""The InfluxDB store: points in InfluxDB 2 or 3, or in what speaks the write API of InfluxDB 2.

One `write` is one try, in batches of line protocol. A batch that is too large, or that the server
refuses because of a point in it, is halved until the points at fault stand alone, so the others
are kept. A server that refuses all of a write without a reason that lies in points says nothing of
them: a proxy, or a port that expects TLS, answers so to whatever comes. When a later batch fails
with StoreUnavailable, the earlier ones are already stored; writing them again overwrites them with
the same values.
"""

from __future__ import annotations

import functools
import json
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx
from pydantic import BaseModel, Field, field_validator, model_validator

from metrics_pipeline.access.hosts import is_loopback
from metrics_pipeline.access.http import NoReply, Reply, exchange, retry_after_seconds
from metrics_pipeline.access.http_client import HttpClient
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.core.catalog import Catalog
from metrics_pipeline.core.errors import (
    ConfigurationError,
    InvalidPoint,
    PartialWrite,
    RefusedPoint,
    StoreError,
    StoreUnavailable,
)
from metrics_pipeline.core.line_protocol import render
from metrics_pipeline.core.points import Point
from metrics_pipeline.storage.influx_replies import (
    REFUSALS,
    PartlyRefused,
    in_conflict,
    is_about_points,
    is_for_the_moment,
    is_in_its_form,
    is_redirection,
    is_success,
    partly_refused,
    reason_in,
    refusal_reason,
    said,
    without_secret,
)
from metrics_pipeline.storage.influx_v2 import V2Api
from metrics_pipeline.storage.influx_v3 import V3Api

NOT_THERE = "is not there, or not shown to this token"
NO_CONNECTION = "Check its url, the network and TLS (ca_file)."

MAX_SPLITS = 128
"""Halvings of one batch: enough for nine bad points in 5000, or for parts of 1 % of its size.
What is refused beyond it is counted as refused, and not named: it was never tried alone."""


CLEAR_PROBLEM = (
    "the token goes to another machine in the clear, and whoever is on the way may read it"
)
CLEAR_FIX = (
    "Have the server speak TLS, and name it with https:// in store.url; store.ca_file is for an "
    "authority of your own."
)


class InfluxStoreSettings(BaseModel, frozen=True, extra="forbid"):
    """Points in InfluxDB 2 or 3, or in a server that speaks the write API of InfluxDB 2."""

    kind: Literal["influxdb"] = Field(description="Chooses the InfluxDB store.")
    url: str = Field(description="The server, `http://host:8086`; without user and password.")
    api: Literal["v2", "v3"] = Field(
        description="The write API: v2 (`/api/v2/write`) or v3 (`/api/v3/write_lp`)."
    )
    org: str | None = Field(
        default=None, min_length=1, description="The organization; needed with v2, absent with v3."
    )
    token: SecretReference | None = Field(
        default=None, description="The API token; none if the server asks for none."
    )
    timeout_seconds: float = Field(
        default=10, gt=0, le=300, description="How long one request may take, in seconds."
    )
    batch_points: int = Field(
        default=5000, ge=1, le=100_000, description="Points in one request, at the most."
    )
    gzip: bool = Field(default=True, description="Whether requests are compressed.")
    ca_file: StatePath | None = Field(
        default=None,
        description="Certificates to trust for https, as PEM; the system's own if absent.",
    )
    databases: Mapping[str, str] = Field(
        default_factory=dict,
        description="Buckets (v2) or databases (v3) that are called other than in the catalogue: "
        "`{network_metrics: my_bucket}`.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise ValueError("expected http://host:port or https://host:port") from None
        if parsed.userinfo:
            raise ValueError("take user and password out of the url and name a `token`")
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query:
            raise ValueError("expected http://host:port or https://host:port")
        return url.rstrip("/")

    @property
    def shows_token(self) -> bool:
        """Whether others than this machine may see the token on its way."""
        url = httpx.URL(self.url)
        return self.token is not None and url.scheme == "http" and not is_loopback(url.host)

    @model_validator(mode="after")
    def _check_org(self) -> InfluxStoreSettings:
        if (self.org is not None) != (self.api == "v2"):
            raise ValueError("give `org` with api v2, and only there")
        return self


class WriteApi(Protocol):
    """What differs between InfluxDB's write APIs."""

    authorization_scheme: str
    health_path: str

    @property
    def listing(self) -> tuple[str, dict[str, str]]:
        """Path and query that list the databases the token may see."""
        ...

    def listing_of(self, database: str) -> tuple[str, dict[str, str]] | None:
        """The same for one alone; None where `listing` has all there are."""
        ...

    def names_in(self, listing: Any) -> set[str]:
        """The databases in a JSON reply to `listing`; KeyError or TypeError if it is no listing."""
        ...

    def send(self, database: str, lines: bytes, authorization: str | None) -> Reply:
        """Write `lines`; any answer is a Reply. Raises NoReply where there is none in time."""
        ...

    def how_to_create(self, database: str) -> str:
        """What to do when the server says that `database` is not there."""
        ...

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        ...


@dataclass(slots=True)
class _Tally:
    """What became of the points of one write so far."""

    accepted: int = 0
    kept: list[Point] = field(default_factory=list)
    """Those of the accepted that are known."""
    rejected: Counter[str] = field(default_factory=Counter)
    refused: list[RefusedPoint] = field(default_factory=list)
    """Those of the rejected that are known."""
    problem: str = ""
    splits: int = 0
    """Halvings of the present batch."""

    has_looked: bool = False
    """Whether any reply shows that the server has looked at the points."""

    unexplained: Reply | None = None
    """The first that refused all it was given, for no reason that lies in points."""

    def keep(self, points: Sequence[Point]) -> None:
        self.has_looked = True
        self.accepted += len(points)
        self.kept += points

    def refuse(self, reason: str, count: int, problem: str) -> None:
        self.rejected[reason] += count
        self.problem = self.problem or problem

    def refuse_all(self, batch: Sequence[Point], reason: str, problem: str) -> None:
        self.refuse(reason, len(batch), problem)
        self.refused += [RefusedPoint(point, reason, problem) for point in batch]

    def is_split_left(self) -> bool:
        """Counts this one, too."""
        self.splits += 1
        return self.splits <= MAX_SPLITS


class InfluxStore:
    """`PointStore` over InfluxDB's HTTP API; connects at first use."""

    def __init__(self, settings: InfluxStoreSettings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        ca_file = settings.ca_file
        self._tls = _usual_authorities() if ca_file is None else _authorities(ca_file)
        self._api = _open_api(settings, self._tls)
        self._check_databases()

    @property
    def name(self) -> str:
        """Where it is."""
        return f"InfluxDB at {self._settings.url}"

    def write(self, points: Sequence[Point]) -> None:
        """Send all `points`, in batches.

        Raises PartialWrite for the points the server refuses (`field_type_conflict`,
        `store_rejected`, `too_large`), StoreUnavailable (no answer in time, 429, 5xx) and
        StoreError (the token, the bucket, a server that refuses whatever it is sent).
        """
        tally = _Tally()
        for database, group in self._by_database(points, tally).items():
            for start in range(0, len(group), self._settings.batch_points):
                self._write_batch(
                    database, group[start : start + self._settings.batch_points], tally
                )
        self._check_is_about_points(tally, len(points))
        if tally.rejected:
            raise PartialWrite(
                *(self.name, tally.accepted, tally.rejected, tally.problem),
                kept=tally.kept,
                refused=tally.refused,
            )

    def check(self) -> str:
        """That it is healthy and lets us in, and which of our databases it shows to this token."""
        health = self._get(self._api.health_path, {})
        if not is_success(health.status):
            raise self._error_for(health, "its databases")
        visible = self._visible_databases()
        if visible is None:
            return f"{self.name} is healthy; it does not list its databases"
        ours = ", ".join(f"{name} {_where(name, visible)}" for name in sorted(self._databases()))
        return f"{self.name} is healthy; {ours}"

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        self._api.close()

    # --- writing ------------------------------------------------------------------------------

    def _write_batch(self, database: str, batch: Sequence[Point], tally: _Tally) -> None:
        tally.splits = 0
        pending = [batch]
        while pending:
            points, lines = _rendered(pending.pop(), tally)
            if not points:
                continue
            reply = self._send(database, lines)
            if is_success(reply.status):
                tally.keep(points)
            elif reply.status in REFUSALS:
                pending += _left_to_try(reply, points, tally)
            else:
                raise self._error_for(reply, database)

    def _check_is_about_points(self, tally: _Tally, count: int) -> None:
        """StoreError where the refusals of a write of `count` points do not tell of points."""
        reply = tally.unexplained
        if reply is None or tally.has_looked or (count == 1 and is_in_its_form(reply)):
            return
        raise StoreError(
            self.name,
            f"it refused all of a write of {count} points and named nothing that is wrong with "
            f"them: HTTP {reply.status}: {said(reply)}",
            "Check the url (http or https), the api (v2 or v3) and what stands in between.",
        )

    def _send(self, database: str, lines: bytes) -> Reply:
        return self._answer(lambda authorization: self._api.send(database, lines, authorization))

    def _by_database(self, points: Iterable[Point], tally: _Tally) -> dict[str, list[Point]]:
        groups: dict[str, list[Point]] = {}
        for point in points:
            measurement = self._catalog.measurements.get(point.measurement)
            if measurement is None:
                problem = f"{point.measurement!r} is not in the catalogue, which names the database"
                tally.refuse_all([point], "unknown_measurement", problem)
            else:
                groups.setdefault(self._database(measurement.database), []).append(point)
        return groups

    def _database(self, name: str) -> str:
        return self._settings.databases.get(name, name)

    def _databases(self) -> set[str]:
        return {self._database(m.database) for m in self._catalog.measurements.values()}

    def _check_databases(self) -> None:
        known = {m.database for m in self._catalog.measurements.values()}
        for name in self._settings.databases.keys() - known:
            raise ConfigurationError(
                f"store.databases.{name}",
                "the catalogue has no such database",
                f"It has {', '.join(sorted(known))}.",
            )

    # --- asking -------------------------------------------------------------------------------

    def _visible_databases(self) -> set[str] | None:
        """None where the server lists none, or (403) not to a token that may only write."""
        reply = self._get(*self._api.listing)
        if reply.status == HTTPStatus.UNAUTHORIZED:
            raise self._error_for(reply, "its databases")
        visible = self._named_in(reply)
        if visible is not None:
            visible |= {name for name in self._databases() - visible if self._is_listed(name)}
        return visible

    def _is_listed(self, database: str) -> bool:
        """Asked for by its name; a token that may not ask (401, 403) is not shown it."""
        listing = self._api.listing_of(database)
        return listing is not None and database in (self._named_in(self._get(*listing)) or ())

    def _named_in(self, reply: Reply) -> set[str] | None:
        if is_for_the_moment(reply.status):
            raise self._error_for(reply, "its databases")
        try:
            return self._api.names_in(json.loads(reply.body))
        except (ValueError, KeyError, TypeError):
            return None

    def _get(self, path: str, query: dict[str, str]) -> Reply:
        url = str(httpx.URL(f"{self._settings.url}{path}", params=query))

        def get(authorization: str | None) -> Reply:
            headers = {} if authorization is None else {"Authorization": authorization}
            with closing(HttpClient(self._tls)) as client:
                return exchange(
                    client, self._settings.timeout_seconds, method="GET", url=url, headers=headers
                )

        return self._answer(get)

    def _answer(self, question: Callable[[str | None], Reply]) -> Reply:
        """What `question` returns when it is given the value of the `Authorization` header."""
        token = self._read_token()
        try:
            reply = question(self._authorization(token))
        except NoReply as error:
            raise StoreUnavailable(self.name, error.problem, NO_CONNECTION) from error
        return without_secret(reply, token)

    def _read_token(self) -> str | None:
        reference = self._settings.token
        if reference is None:
            return None
        try:
            token = reference.read()
        except ConfigurationError as error:
            problem = f"no token: {error.where}: {error.problem}"
            raise StoreError(self.name, problem, f"{error.fix} See store.token.") from error
        if not (token.isascii() and token.isprintable()):
            # Both HTTP clients would show the header, and so the token, in their error.
            problem = f"the token in {reference} holds characters that no HTTP header may"
            raise StoreError(self.name, problem, "Copy it again, without line breaks.")
        return token

    def _authorization(self, token: str | None) -> str | None:
        return None if token is None else f"{self._api.authorization_scheme} {token}"

    # --- what a reply means -------------------------------------------------------------------

    def _error_for(self, reply: Reply, database: str) -> StoreError:
        problem = f"HTTP {reply.status}: {said(reply)}"
        match reply.status:
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
                return StoreError(self.name, problem, self._how_to_be_let_in(database))
            case HTTPStatus.NOT_FOUND:
                return StoreError(self.name, problem, f"{self._api.how_to_create(database)}.")
            case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return self._unavailable(reply, problem, "It is ill; its own log says why.")
            case status if is_for_the_moment(status):
                return self._unavailable(reply, problem, "Write less often, or raise its limits.")
            case status if is_redirection(status):
                where = reply.headers.get("location", "somewhere else")
                return StoreError(self.name, problem, f"Set the url it points to: {where}.")
        return StoreError(self.name, problem, "Check the url and the api (v2 or v3).")

    def _how_to_be_let_in(self, database: str) -> str:
        if self._settings.token is None:
            return "Name a token under store.token."
        return f"Check the token in {self._settings.token}: it needs write access to {database}."

    def _unavailable(self, reply: Reply, problem: str, fix: str) -> StoreUnavailable:
        wait = retry_after_seconds(reply.headers, datetime.now(UTC))
        return StoreUnavailable(self.name, problem, fix, wait)


def _open_api(settings: InfluxStoreSettings, tls: ssl.SSLContext) -> WriteApi:
    url, timeout_seconds, gzip = settings.url, settings.timeout_seconds, settings.gzip
    if settings.org is None:
        return V3Api(url=url, timeout_seconds=timeout_seconds, gzip=gzip, tls=tls)
    return V2Api(url=url, org=settings.org, timeout_seconds=timeout_seconds, gzip=gzip, tls=tls)


def _rendered(batch: Sequence[Point], tally: _Tally) -> tuple[Sequence[Point], bytes]:
    """The points that line protocol can say, and their lines; the others are counted."""
    try:
        return batch, render(batch)
    except InvalidPoint:
        writable = [point for point in batch if _is_writable(point, tally)]
        return writable, render(writable)


def _is_writable(point: Point, tally: _Tally) -> bool:
    try:
        render([point])
    except InvalidPoint as error:
        tally.refuse_all([point], error.reason, error.detail)
        return False
    return True


def _left_to_try(reply: Reply, batch: Sequence[Point], tally: _Tally) -> list[Sequence[Point]]:
    """Counts what `reply` decides about `batch`, and gives back the parts to send again."""
    partly = partly_refused(reply)
    if partly is not None:
        tally.has_looked = True
        tally.accepted += max(0, len(batch) - sum(partly.rejected.values()))
        _tell_apart(batch, _refused_lines(reply, partly, batch), tally)
        for reason, count in partly.rejected.items():
            tally.refuse(reason, count, said(reply))
        return []
    if is_about_points(reply):
        tally.has_looked = True
    elif reply.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        tally.unexplained = tally.unexplained or reply
    if len(batch) == 1:
        tally.refuse_all(batch, refusal_reason(reply), said(reply))
        return []
    if not tally.is_split_left():
        tally.refuse(refusal_reason(reply), len(batch), said(reply))
        return []
    middle = len(batch) // 2
    return [batch[middle:], batch[:middle]]


def _refused_lines(
    reply: Reply, partly: PartlyRefused, batch: Sequence[Point]
) -> Mapping[int, str] | None:
    """Which of `batch`, from 1, were refused and why; None if the server leaves that open."""
    if partly.lines is not None:
        return partly.lines
    if sum(partly.rejected.values()) >= len(batch):
        lines: Iterable[int] | None = range(1, len(batch) + 1)
    else:
        lines = in_conflict(reply, batch)
    return None if lines is None else dict.fromkeys(lines, said(reply))


def _tell_apart(batch: Sequence[Point], lines: Mapping[int, str] | None, tally: _Tally) -> None:
    if lines is None:
        return
    for number, point in enumerate(batch, start=1):
        if number in lines:
            told = lines[number]
            tally.refused.append(RefusedPoint(point, reason_in(told), told))
        else:
            tally.kept.append(point)


def _where(database: str, visible: set[str]) -> str:
    return "is there" if database in visible else NOT_THERE


@functools.cache
def _usual_authorities() -> ssl.SSLContext:
    # Once a process, for reading them takes longer than most requests.
    return ssl.create_default_context()


def _authorities(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one, too
        raise ConfigurationError(
            "store.ca_file",
            f"{ca_file} cannot be read ({error.strerror or error})",
            "Name a file of certificates in PEM form.",
        ) from error
