"""Addresses of Redis or Valkey servers: read where the settings say, never shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import ConfigurationError

SCHEMES = ("redis", "rediss", "unix")
PORT = 6379


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and as whom to speak to it; `path` is of a socket of this machine."""

    host: str
    port: int
    path: str
    database: int
    is_tls: bool
    user: str
    password: str = field(repr=False)

    def __str__(self) -> str:
        """Without a secret."""
        return self.path or f"{self.host}:{self.port}"


def parse_address(url: str) -> Address | None:
    """What `url` says; None where it has options, behind a `?`. Raises ValueError if it is none."""
    parts = urlsplit(url)
    is_path = parts.scheme == "unix"
    if parts.scheme not in SCHEMES or (is_path and not parts.path):
        raise ValueError("no address of Redis")
    if parts.query:
        return None
    host, path = unquote(parts.hostname or "localhost"), unquote(parts.path) if is_path else ""
    if not f"{host}{path}".isprintable():
        raise ValueError("no address of anything")
    return Address(
        host=host,
        port=parts.port or PORT,
        path=path,
        database=0 if is_path else int(parts.path.strip("/") or 0),
        is_tls=parts.scheme == "rediss",
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


def read_redis_url(where: SecretReference) -> str:
    """Of what hands polls to workers, as it is now; ConfigurationError, which does not show it."""
    url = where.read()
    if not _is_server(url):
        raise ConfigurationError(
            str(where),
            "it is no address of Redis: expected redis://:password@host:6379/0 or rediss://…; it "
            "is not shown here, as it may hold a password",
            "Correct it and try again.",
        )
    return url


def _is_server(url: str) -> bool:
    """Whether it names a host, and so is for other machines as well: a socket is not."""
    try:
        parse_address(url)
        parts = urlsplit(url)
        return parts.scheme != "unix" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
