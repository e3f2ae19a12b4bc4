"""Who we are to Azure IoT Hub: a shared access policy's key, or Microsoft Entra ID.

Both give the value of one request's `Authorization` header. Facts: "Control access to IoT Hub with
shared access signatures" (the token is an HMAC-SHA256 with the policy's key over the URL-encoded
host, a line feed and the expiry in seconds since the epoch) and "Control access to IoT Hub by
using Microsoft Entra ID" (the scope), both at learn.microsoft.com.

Raises ConfigurationError for a connection string that is none, CredentialRefused when Entra ID
gives no token, SourceUnreachable when it does not answer. No key and no token is in any of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlencode

from pydantic import BaseModel, Field, field_validator, model_validator

from metrics_pipeline.access.azure_connection_strings import ConnectionKind, ConnectionParts
from metrics_pipeline.access.hosts import is_host
from metrics_pipeline.access.one_line import one_line
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import CredentialRefused, SourceUnreachable
from metrics_pipeline.core.redaction import SIGNATURES

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

ENTRA_SCOPE = "https://iothubs.azure.net/.default"
ENTRA_ROLE = "IoT Hub Data Reader"
IOT_HUB_STRING = ConnectionKind(
    "an IoT Hub's shared access policy",
    "the hub's page 'Shared access policies'",
    "HostName=…;SharedAccessKeyName=…;SharedAccessKey=…",
)
SAS_LIFETIME_SECONDS = 3600


class EntraIdSettings(BaseModel, frozen=True, extra="forbid"):
    """Microsoft Entra ID instead of a shared access policy.

    Without `client_secret`, azure-identity's DefaultAzureCredential looks for a managed identity,
    a workload identity or a signed-in tool.
    """

    host: str = Field(description="The hub's host name, `NAME.azure-devices.net`.")
    tenant_id: str | None = Field(
        default=None, description="The directory's id; needed together with `client_secret`."
    )
    client_id: str | None = Field(
        default=None,
        description="The application's or managed identity's client id; needed together with "
        "`client_secret`.",
    )
    client_secret: SecretReference | None = Field(
        default=None, description="Where the application's client secret is."
    )

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        if not is_host(host):
            raise ValueError(
                "expected a host name such as NAME.azure-devices.net, without https://"
            )
        return host

    @model_validator(mode="after")
    def _check_secret(self) -> EntraIdSettings:
        if self.client_secret and not (self.tenant_id and self.client_id):
            raise ValueError("client_secret needs tenant_id and client_id too")
        return self


class Credential(Protocol):
    """What a request to IoT Hub is signed with."""

    @property
    def host(self) -> str:
        """The hub's host name, with a port where it is not the scheme's own."""
        ...

    def authorization(self, source: str, target: str) -> str:
        """The value of the `Authorization` header; `source` and `target` are for errors."""
        ...

    def fix(self, right: str) -> str:
        """What a person can do when this credential is refused; `right` is the policy's."""
        ...


@dataclass(frozen=True, slots=True)
class SharedAccessPolicy:
    """A shared access policy's name and key, and when a token made now expires."""

    host: str
    policy: str
    key: bytes = field(repr=False)
    expiry: int
    """Seconds since the epoch."""

    def authorization(self, source: str, target: str) -> str:  # noqa: ARG002
        """A shared access signature; never fails."""
        return sign(self.host, self.policy, self.key, self.expiry)

    def fix(self, right: str) -> str:
        """Names the policy and the right it must have."""
        return (
            f"Check the key of the shared access policy {self.policy!r} of {self.host}, that the "
            f"policy has the right {right}, and this machine's clock."
        )


@dataclass(frozen=True, slots=True)
class EntraId:
    """An identity of Microsoft Entra ID; `token_credential` keeps its token until it expires."""

    host: str
    token_credential: TokenCredential = field(repr=False)

    def authorization(self, source: str, target: str) -> str:
        """A bearer token; CredentialRefused without one, SourceUnreachable without an answer."""
        given = ask_entra_id(self.token_credential, ENTRA_SCOPE, source, target, self.fix(""))
        return f"Bearer {given.token}"

    def fix(self, right: str) -> str:  # noqa: ARG002
        """Names the role; the rights of policies do not concern an Entra identity."""
        return entra_id_fix(ENTRA_ROLE, self.host)


def ask_entra_id(
    credential: TokenCredential, scope: str, source: str, target: str, fix: str
) -> AccessToken:
    """A token for `scope`: CredentialRefused without one, SourceUnreachable without an answer.

    `source` and `target` are for errors, `fix` for the first of them.
    """
    from azure.core.exceptions import (  # noqa: PLC0415  (heavy, and seldom needed)
        AzureError,
        ClientAuthenticationError,
    )

    try:
        given = credential.get_token(scope)
    except ClientAuthenticationError as error:
        problem = f"Entra ID gives no token ({one_line(error)})"
        raise CredentialRefused(source, target, problem, fix) from error
    except AzureError as error:
        problem = f"Entra ID does not answer ({one_line(error)})"
        network = "Check the network to login.microsoftonline.com."
        raise SourceUnreachable(source, target, problem, network) from error
    SIGNATURES.remember(given.token)
    return given


def entra_id_fix(role: str, target: str) -> str:
    """What a person can do when an identity of Entra ID is refused that needs `role`."""
    return (
        "Check tenant_id, client_id and client_secret, and that the identity has the role "
        f"{role!r} on {target}."
    )


def sign(host: str, policy: str, key: bytes, expiry: int) -> str:
    """A shared access signature for all of `host`, good until `expiry` (seconds, epoch)."""
    resource = quote(host, safe="")
    digest = hmac.digest(key, f"{resource}\n{expiry}".encode(), hashlib.sha256)
    signature = quote(base64.b64encode(digest), safe="")
    SIGNATURES.remember(signature)
    return (
        f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"
        f"&{urlencode({'skn': policy}, quote_via=quote)}"
    )


def parse_connection_string(text: str, where: str, expiry: int) -> SharedAccessPolicy:
    """The policy of `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`.

    `where` says in a ConfigurationError where `text` is from; `text` itself is never shown.
    """
    parts = ConnectionParts(text, IOT_HUB_STRING, where)
    host, policy = parts.get("HostName"), parts.get("SharedAccessKeyName")
    key = parts.get("SharedAccessKey")
    if not is_host(host):
        raise parts.malformed("its HostName is not a host name")
    try:
        return SharedAccessPolicy(host, policy, base64.b64decode(key, validate=True), expiry)
    except (binascii.Error, ValueError):
        # The cause is left out: it must not carry the key into a traceback.
        raise parts.malformed("its SharedAccessKey is not base64") from None


def make_token_credential(settings: EntraIdSettings, timeout_seconds: float) -> TokenCredential:
    """azure-identity's credential for `settings`; asks nobody yet."""
    from azure.identity import (  # noqa: PLC0415  (heavy, and seldom needed)
        ClientSecretCredential,
        DefaultAzureCredential,
    )

    # One retry of its own; the others are ours, within the deadline of the whole reading.
    limits = {
        "connection_timeout": timeout_seconds,
        "read_timeout": timeout_seconds,
        "retry_total": 1,
    }
    if settings.client_secret is None:
        known = {
            "managed_identity_client_id": settings.client_id,
            "workload_identity_tenant_id": settings.tenant_id,
        }
        named = {key: value for key, value in known.items() if value}
        return DefaultAzureCredential(**named, **limits)
    assert settings.tenant_id is not None
    assert settings.client_id is not None
    secret = settings.client_secret.read()
    return ClientSecretCredential(settings.tenant_id, settings.client_id, secret, **limits)
