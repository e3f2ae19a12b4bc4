"""Which PostgreSQL servers are believed without a look at their certificate.

libpq encrypts where the server can (`sslmode=prefer`), and verifies who it is with `verify-full`
alone: PostgreSQL's manual, section "SSL Support".
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import sqlalchemy as sa
from pydantic import BaseModel

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.environment import postgres_url
from metrics_pipeline.access.hosts import is_loopback
from metrics_pipeline.access.settings_parts import parts_of
from metrics_pipeline.core.errors import ConfigurationError

VERIFIED = "verify-full"
PROBLEM = "nothing proves who the server is, and whoever is on the way may read the password"
FIX = (
    f"Add ?sslmode={VERIFIED}&sslrootcert=FILE to the URL, where FILE is the certificate of the "
    "authority that signed the server's."
)


def find_unverified(settings: BaseModel, environment: Mapping[str, str]) -> list[str]:
    """What names each of them: a key of the settings, or `Dagster's`, and its `sslmode`."""
    parts = parts_of(settings)
    urls = {key: part.url for key, part in parts if isinstance(part, DatabaseSettings)}
    with suppress(ConfigurationError):  # who opens the instance says so
        if dagster_url := postgres_url(environment):
            urls["Dagster's"] = dagster_url
    modes = {name: _weaker_mode(url, environment) for name, url in urls.items()}
    return [f"{name} (sslmode={mode})" for name, mode in modes.items() if mode]


def _weaker_mode(url: str, environment: Mapping[str, str]) -> str | None:
    """None where a certificate is verified, and where no other machine is between."""
    try:
        parsed = sa.engine.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # who connects says so
        return None
    mode = _last(parsed, "sslmode") or environment.get("PGSSLMODE") or "prefer"
    if parsed.get_backend_name() != "postgresql" or mode == VERIFIED:
        return None
    named = _last(parsed, "hostaddr") or parsed.host or _last(parsed, "host")
    hosts = (named or environment.get("PGHOST", "")).split(",")
    return None if all(map(_is_here, hosts)) else mode


def _last(url: sa.URL, name: str) -> str:
    """What libpq takes where it is said several times; several hosts in a row."""
    given = url.query.get(name, "")
    if isinstance(given, str):
        return given
    return ",".join(given) if name == "host" else given[-1]


def _is_here(host: str) -> bool:
    """A socket of this machine, which is the default, or loopback."""
    return not host or host.startswith(("/", "@")) or is_loopback(host)
