"""Where services have their health pages, and which counters of theirs are read."""

from __future__ import annotations

import re
from typing import Annotated

import httpx
from pydantic import AfterValidator, BaseModel, Field, model_validator

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.service_counters import HEALTHY, KNOWN_COUNTERS

EXPECTED_URL = "expected http://host:port/path or https://host:port/path"
LARGEST_PORT = 65535

_SERVICE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_COUNTER_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_KNOWN_FIELDS = {field for counters in KNOWN_COUNTERS.values() for field in counters}


def check_url(url: str) -> str:
    """`url` if it is one of a page; else ValueError, in which it is not shown."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError(EXPECTED_URL) from None
    if parsed.userinfo:
        raise ValueError("take user and password out of it: health pages are read without")
    is_port = parsed.port is None or 0 < parsed.port <= LARGEST_PORT
    if parsed.scheme not in ("http", "https") or not parsed.host or not is_port:
        raise ValueError(EXPECTED_URL)
    return url


def _check_service_name(name: str) -> str:
    if not _SERVICE_NAME.fullmatch(name):
        raise ValueError("expected a name of letters, digits, `_` and `-`")
    return name


def _check_counter_name(name: str) -> str:
    if not _COUNTER_NAME.fullmatch(name) or name == HEALTHY:
        raise ValueError(f"expected a name of small letters, digits and `_`, and not {HEALTHY!r}")
    return name


ServiceName = Annotated[str, AfterValidator(_check_service_name)]
CounterName = Annotated[str, AfterValidator(_check_counter_name)]


class ServiceSettings(BaseModel, frozen=True, extra="forbid"):
    """One service with a health page."""

    url: Annotated[str, AfterValidator(check_url)] | None = Field(
        default=None, description="Its health page, `http://host:port/health`."
    )
    url_from: SecretReference | None = Field(
        default=None,
        description="Where that address stands instead, `{file: PATH}` or `{env: NAME}`: one that "
        "changes, or has a token in it. It is read at each use, and not shown.",
    )
    timeout_seconds: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="Seconds in which its page must be here in all. It is given up 0.2 s before "
        "the next sample, however long this is: after 4.8 s where one is taken every 5 s.",
    )
    counters: tuple[CounterName, ...] | None = Field(
        default=None,
        description="The names of its counters. Absent for "
        f"{', '.join(KNOWN_COUNTERS)}, whose counters are known.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> ServiceSettings:
        if (self.url is None) == (self.url_from is None):
            raise ValueError("give exactly one of url and url_from")
        return self


def counters_of(name: str, service: ServiceSettings) -> tuple[str, ...]:
    """The counters that are read of the service called `name`."""
    return tuple(KNOWN_COUNTERS.get(name, service.counters or ()))


def check_counters(services: dict[str, ServiceSettings]) -> dict[str, ServiceSettings]:
    """`services`, or ValueError where counters are named that cannot be shown side by side."""
    for name, service in services.items():
        if name in KNOWN_COUNTERS and service.counters is not None:
            raise ValueError(f"{name}.counters: expected none, for those of {name} are known")
    named = {field for name, service in services.items() for field in counters_of(name, service)}
    for field in sorted(named | _KNOWN_FIELDS):
        if f"{field}_total" in named:
            raise ValueError(f"counters: expected {field} or {field}_total, got both")
    return services
