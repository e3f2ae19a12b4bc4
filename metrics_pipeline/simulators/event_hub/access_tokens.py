"""Shared access signatures, as a client puts them to $cbs.

Fact: "Authenticate access to Event Hubs using shared access signatures", learn.microsoft.com.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

_KIND: Final = "SharedAccessSignature "


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """A name and the key that signs tokens in that name."""

    name: str = "RootManageSharedAccessKey"
    key: str = field(default_factory=_new_key, repr=False)

    def is_signed(self, token: str, epoch_seconds: float) -> bool:
        """Whether `token` names this policy, has not expired, and has the right sum."""
        raw = _raw_parts(token)
        parts = {name: unquote(value) for name, value in raw.items()}
        expiry = parts.get("se", "")
        expected = self._sum(raw.get("sr", ""), expiry)
        return (
            token.startswith(_KIND)
            and _is_later(expiry, epoch_seconds)
            and parts.get("skn") == self.name
            and hmac.compare_digest(parts.get("sig", "").encode(), expected.encode())
        )

    def _sum(self, resource: str, expiry: str) -> str:
        digest = hmac.digest(self.key.encode(), f"{resource}\n{expiry}".encode(), hashlib.sha256)
        return base64.b64encode(digest).decode()


def _is_later(expiry: str, epoch_seconds: float) -> bool:
    is_number = expiry.isascii() and expiry.isdigit() and len(expiry) <= len(str(2**63))
    return is_number and int(expiry) > epoch_seconds


def expiry_of(token: str) -> int:
    """When a good `token` expires, in seconds since the epoch."""
    return int(unquote(_raw_parts(token)["se"]))


def hub_of(token: str) -> str:
    """The name of the hub `token` is for; empty where it is for the whole namespace."""
    return urlsplit(unquote(_raw_parts(token).get("sr", ""))).path.strip("/").partition("/")[0]


def _raw_parts(token: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in token.removeprefix(_KIND).split("&"))
