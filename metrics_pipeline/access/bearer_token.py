"""Tokens of `Authorization: Bearer …` (RFC 6750). Kept and compared are their digests."""

from __future__ import annotations

import hashlib

from metrics_pipeline.core.errors import ConfigurationError

SHORTEST = 16
"""Characters of a token: shorter ones can be guessed."""


def bearer(authorization: str) -> str:
    """The token of a header `Authorization: Bearer …`; empty if it is none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def digest_of(token: str) -> bytes:
    """What is kept of a token, and compared."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def checked_digest(token: str, where: str) -> bytes:
    """Its digest; ConfigurationError about `where` if it can be guessed, or not be sent."""
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            where,
            f"a token has at least {SHORTEST} ASCII characters, and no white space",
            "Make a new one: openssl rand -hex 32.",
        )
    return digest_of(token)
