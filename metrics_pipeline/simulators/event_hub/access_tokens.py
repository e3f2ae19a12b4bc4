"""Shared access signatures, as a client puts them to $cbs.

Fact: "Authenticate access to Event Hubs using shared access signatures", learn.microsoft.com.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """A name and the key that signs tokens in that name."""

    name: str = "RootManageSharedAccessKey"
    key: str = field(default_factory=_new_key, repr=False)

    def is_signed(self, token: str, hub: str, epoch_seconds: Callable[[], float]) -> bool:
        """Whether `token` names this policy and `hub`, has not expired, and has the right sum."""
        kind, _, rest = token.partition(" ")
        raw = dict(part.partition("=")[::2] for part in rest.split("&"))
        parts = {name: unquote(value) for name, value in raw.items()}
        expiry = parts.get("se", "")
        if kind != "SharedAccessSignature" or not _is_later(expiry, epoch_seconds()):
            return False
        return (
            parts.get("skn") == self.name
            and _is_of(parts.get("sr", ""), hub)
            and hmac.compare_digest(
                parts.get("sig", "").encode(), self._sum(raw.get("sr", ""), expiry).encode()
            )
        )

    def _sum(self, resource: str, expiry: str) -> str:
        digest = hmac.digest(self.key.encode(), f"{resource}\n{expiry}".encode(), hashlib.sha256)
        return base64.b64encode(digest).decode()


def _is_later(expiry: str, epoch_seconds: float) -> bool:
    is_number = expiry.isascii() and expiry.isdigit() and len(expiry) <= len(str(2**63))
    return is_number and int(expiry) > epoch_seconds


def _is_of(resource: str, hub: str) -> bool:
    """Whether `resource` is the namespace, the hub or something in the hub."""
    path = urlsplit(unquote(resource)).path.strip("/")
    return path in ("", hub) or path.startswith(f"{hub}/")
