"""Where an event hub is, and connections to it that are verified and end.

On the AMQP 1.0 engine inside of azure-eventhub 5.15 (`azure.eventhub._pyamqp`). It is private, so
pyproject.toml admits the versions that were looked at, and others are refused with a sentence.
Facts: `_client_base.py` and `_transport/_pyamqp_transport.py` of azure-eventhub 5.15.1.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

import azure.eventhub
from azure.core.credentials import AccessToken
from azure.eventhub._pyamqp._connection import Connection
from azure.eventhub._pyamqp.authentication import JWTTokenAuth

from metrics_pipeline.access.event_hub_credentials import HubCredential
from metrics_pipeline.core.errors import ConfigurationError

KNOWN_VERSIONS = "5.15."
SOCKET_SECONDS = 0.1
"""How long one look for frames waits where there are none."""

IDLE_SECONDS = 30
"""A hub that has nothing to send has to say so often that it is there, with an empty frame.

Microsoft's own library refuses a connection that asks for less than 5 s, in older versions 60 s
(`MinIdleTimeout` in Microsoft.Azure.Amqp); Azure's clients in Go ask the service for 30 s.
"""

_CONNECTION: Any = Connection
_AUTH: Any = JWTTokenAuth


@dataclass(frozen=True, slots=True)
class Hub:
    """Where a hub is, and what opens it. `trusted` is None for plain AMQP, to loopback alone."""

    source: str
    host: str
    hub: str
    credential: HubCredential
    trusted: ssl.SSLContext | None
    timeout_seconds: float
    idle_seconds: int = IDLE_SECONDS

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.host}/{self.hub}"

    def auth(self, path: str) -> Any:
        """What the engine asks for tokens for `path`, when it connects and before one expires."""
        address = f"sb://{self.host}/{self.hub}{path}"

        def get_token() -> AccessToken:
            return AccessToken(*self.credential.token(address, time.time()))

        return _AUTH(address, address, get_token, token_type=self.credential.token_type)

    def connect(self, idle_seconds: int | None = None) -> Any:
        """A connection that is not open yet; its hub says every `idle_seconds` that it is there."""
        has_tls = self.trusted is not None
        options = {"context": _BoundedTls(self.trusted, self.timeout_seconds)} if has_tls else {}
        return _CONNECTION(
            f"{'amqps' if has_tls else 'amqp'}://{self.host}",
            sasl_credential=_AUTH(self.host, self.host, lambda: None).sasl,
            ssl_opts=options,
            use_tls=has_tls,
            custom_endpoint_address=f"amqps://{self.host}" if has_tls else None,
            connect_timeout=self.timeout_seconds,
            socket_timeout=SOCKET_SECONDS,
            idle_timeout=idle_seconds,
            properties={"product": "metrics-pipeline"},
        )


class _BoundedTls:
    """A TLS context whose handshake ends: the engine sets no limit, and nothing could cut it."""

    def __init__(self, trusted: ssl.SSLContext | None, timeout_seconds: float) -> None:
        self._trusted = trusted
        self._timeout_seconds = timeout_seconds

    def wrap_socket(self, sock: socket.socket, **options: Any) -> ssl.SSLSocket:
        assert self._trusted is not None
        sock.settimeout(self._timeout_seconds)
        return self._trusted.wrap_socket(sock, **options)


def check_version() -> None:
    """ConfigurationError if the SDK is of a version whose inside nobody has looked at."""
    version = azure.eventhub.__version__
    if not version.startswith(KNOWN_VERSIONS):
        raise ConfigurationError(
            "azure-eventhub",
            f"version {version} is installed, and only {KNOWN_VERSIONS}* has been tried",
            "Install the version that constraints.txt names.",
        )
