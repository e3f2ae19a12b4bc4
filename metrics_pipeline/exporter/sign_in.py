"""Who may read: whoever shows the password or the token of the settings, where there is one."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass, field

from starlette.responses import PlainTextResponse, Response

from metrics_pipeline.access.bearer_token import bearer, checked_digest, digest_of
from metrics_pipeline.settings import ExporterSettings

BASIC = 'Basic realm="metrics", charset="UTF-8"'
BEARER = 'Bearer realm="metrics"'
INVALID_TOKEN = f'{BEARER}, error="invalid_token"'


@dataclass(frozen=True, slots=True)
class SignIn:
    """Digests of `user:password` and of a token; None is a way that is not offered."""

    login: bytes | None = field(default=None, repr=False)
    token: bytes | None = field(default=None, repr=False)

    @property
    def is_asked_for(self) -> bool:
        """Whether not everybody may read."""
        return self.login is not None or self.token is not None

    def refuse(self, authorization: str) -> Response | None:
        """None for who may read; to others, what to show."""
        if not self.is_asked_for or self._knows(authorization):
            return None
        ways = {"user and password": self.login, "token": self.token}
        expected = " or ".join(name for name, digest in ways.items() if digest is not None)
        refusal = PlainTextResponse(f"{expected} expected\n", 401)
        # A header for each, as many clients read but the first challenge of one.
        if self.login is not None:
            refusal.headers.append("WWW-Authenticate", BASIC)
        if self.token is not None:
            challenge = INVALID_TOKEN if bearer(authorization) else BEARER
            refusal.headers.append("WWW-Authenticate", challenge)
        return refusal

    def _knows(self, authorization: str) -> bool:
        shown = ((self.login, _login(authorization)), (self.token, bearer(authorization)))
        return any(
            digest is not None and hmac.compare_digest(digest, digest_of(text))
            for digest, text in shown
        )


def read_sign_in(settings: ExporterSettings) -> SignIn:
    """What the settings ask for; ConfigurationError for a secret that is missing or too short."""
    auth, token = settings.basic_auth, settings.bearer_token
    return SignIn(
        digest_of(f"{auth.username}:{auth.password.read()}") if auth else None,
        checked_digest(token.read(), "exporter.bearer_token") if token else None,
    )


def _login(authorization: str) -> str:
    """`user:password` of a header `Authorization: Basic …`; empty if it is none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except ValueError:  # not ASCII, not base64, or not UTF-8
        return ""
