"""Who we are to Azure Event Hubs: a shared access policy's key, or Microsoft Entra ID.

Both give tokens that are put to the hub's node `$cbs`. Facts: "Authenticate access to Event Hubs
using shared access signatures" (an HMAC-SHA256 with the policy's key, as text, over the URL-encoded
address and the expiry) and "Authorize access to Event Hubs resources using Microsoft Entra ID" (the
scope and the role), both at learn.microsoft.com.

Raises ConfigurationError for a connection string that is none, CredentialRefused when Entra ID
gives no token, SourceUnreachable when it does not answer. No key and no token is in any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from metrics_pipeline.access.azure_connection_strings import ConnectionKind, ConnectionParts
from metrics_pipeline.access.azure_credentials import (
    SAS_LIFETIME_SECONDS,
    ask_entra_id,
    entra_id_fix,
    sign,
)
from metrics_pipeline.access.hosts import is_host

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

ENTRA_SCOPE = "https://eventhubs.azure.net/.default"
ENTRA_ROLE = "Azure Event Hubs Data Receiver"
SAS_TOKEN = "servicebus.windows.net:sastoken"  # noqa: S105  (a kind of token)
EVENT_HUB_STRING = ConnectionKind(
    "an event hub",
    "the page 'Shared access policies' of the hub or of its namespace",
    "Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…",
)

Token = tuple[str, int]
"""A token, and when it expires in seconds since the epoch."""


class HubCredential(Protocol):
    """What opens a hub."""

    @property
    def token_type(self) -> str:
        """What the hub calls this kind of token."""
        ...

    def token(self, address: str, now: float) -> Token:
        """A token for `address` (`sb://…`); `now` is in seconds since the epoch."""
        ...

    def fix(self) -> str:
        """What a person can do when it is refused."""
        ...


@dataclass(frozen=True, slots=True)
class HubPolicy:
    """A shared access policy's name and key."""

    policy: str
    key: str = field(repr=False)
    token_type: str = SAS_TOKEN

    def token(self, address: str, now: float) -> Token:
        """A shared access signature; never fails."""
        expiry = int(now) + SAS_LIFETIME_SECONDS
        return sign(address, self.policy, self.key.encode(), expiry), expiry

    def fix(self) -> str:
        """Names the policy and the right it must have."""
        return (
            f"Check the key of the shared access policy {self.policy!r}, that the policy has the "
            "right Listen, and this machine's clock."
        )


@dataclass(frozen=True, slots=True)
class HubEntraId:
    """An identity of Microsoft Entra ID; `token_credential` keeps its token until it expires.

    `source` and `target` are for errors.
    """

    source: str
    target: str
    token_credential: TokenCredential = field(repr=False)
    token_type: str = "jwt"  # noqa: S105  (a kind of token)

    def token(self, address: str, now: float) -> Token:  # noqa: ARG002
        """A bearer token; CredentialRefused without one, SourceUnreachable without an answer."""
        where = (self.source, self.target)
        given = ask_entra_id(self.token_credential, ENTRA_SCOPE, *where, self.fix())
        return given.token, given.expires_on

    def fix(self) -> str:
        """Names the role."""
        return entra_id_fix(ENTRA_ROLE, self.target)


@dataclass(frozen=True, slots=True)
class HubConnectionString:
    """What a connection string says; `hub` is empty where it is for the whole namespace."""

    host: str
    hub: str
    credential: HubPolicy
    is_emulator: bool


def parse_hub_connection_string(text: str, where: str) -> HubConnectionString:
    """What is in `Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…`.

    `where` says in a ConfigurationError where `text` is from; `text` itself is never shown.
    """
    parts = ConnectionParts(text, EVENT_HUB_STRING, where)
    endpoint = urlsplit(parts.get("Endpoint"))
    if endpoint.scheme != "sb" or not is_host(endpoint.netloc):
        raise parts.malformed("its Endpoint is not sb:// and a host name")
    policy = HubPolicy(parts.get("SharedAccessKeyName"), parts.get("SharedAccessKey"))
    is_emulator = parts.find("UseDevelopmentEmulator").lower() == "true"
    return HubConnectionString(endpoint.netloc, parts.find("EntityPath"), policy, is_emulator)
