"""The address of a Redis that hands polls to workers: read where the settings say, never shown."""

from __future__ import annotations

from urllib.parse import urlsplit

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import ConfigurationError

SCHEMES = ("redis", "rediss")


def read_redis_url(where: SecretReference) -> str:
    """The address as it is now; ConfigurationError, which does not show it, if it is none."""
    url = where.read()
    if not _is_address(url):
        raise ConfigurationError(
            str(where),
            "it is no address of Redis: expected redis://:password@host:6379/0 or rediss://…; it "
            "is not shown here, as it may hold a password",
            "Correct it and try again.",
        )
    return url


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
