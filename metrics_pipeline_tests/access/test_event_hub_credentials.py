"""Who we are to an event hub: what tokens are asked for and made, and what is never shown."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.event_hub_credentials import (
    ENTRA_SCOPE,
    HubEntraId,
    HubPolicy,
    parse_hub_connection_string,
)
from metrics_pipeline.core.errors import ConfigurationError, CredentialRefused, SourceUnreachable
from metrics_pipeline.simulators.event_hub.access_tokens import AccessPolicy

NOW = 1_700_000_000.0
ADDRESS = "sb://hub.example.net/telemetry"


class Directory:
    """A credential of azure-identity, as far as it is used."""

    def __init__(self, answer: AccessToken | Exception) -> None:
        self._answer = answer
        self.asked: list[str] = []

    def get_token(self, *scopes: str, **_options: Any) -> AccessToken:
        self.asked += scopes
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def test_a_policy_signs_as_the_hub_checks() -> None:
    policy = AccessPolicy("listen", "secret-key")
    token, expiry = HubPolicy("listen", "secret-key").token(ADDRESS, NOW)
    assert policy.is_signed(token, NOW)
    assert not policy.is_signed(token, expiry)
    assert not AccessPolicy("listen", "another").is_signed(token, NOW)


def test_an_identity_asks_for_the_right_to_event_hubs() -> None:
    directory = Directory(AccessToken("token", 123))
    identity = HubEntraId("event_hub", "hub.example.net/telemetry", directory)
    assert identity.token(ADDRESS, NOW) == ("token", 123)
    assert directory.asked == [ENTRA_SCOPE]
    assert identity.token_type == "jwt"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ClientAuthenticationError("no"), CredentialRefused, "role 'Azure Event Hubs Data Rec"),
        (ServiceRequestError("down"), SourceUnreachable, r"login\.microsoftonline\.com"),
    ],
)
def test_a_directory_that_gives_no_token_is_told_apart(
    error: Exception, kind: type[Exception], words: str
) -> None:
    identity = HubEntraId("event_hub", "hub.example.net/telemetry", Directory(error))
    with pytest.raises(kind, match=words):
        identity.token(ADDRESS, NOW)


def test_a_connection_string_is_read_in_any_order_and_case() -> None:
    text = "entitypath=telemetry; SharedAccessKey=k=; sharedaccesskeyname=n; ENDPOINT=sb://h.x/"
    found = parse_hub_connection_string(text, "there")
    assert (found.host, found.hub, found.is_emulator) == ("h.x", "telemetry", False)
    assert (found.credential.policy, found.credential.key) == ("n", "k=")


def test_neither_a_repr_nor_an_error_shows_the_key() -> None:
    text = "Endpoint=sb://h.x/;SharedAccessKeyName=n;SharedAccessKey=hunter2"
    assert "hunter2" not in repr(parse_hub_connection_string(text, "there"))
    with pytest.raises(ConfigurationError) as raised:
        parse_hub_connection_string(text.replace("sb://", "no://"), "there")
    assert "hunter2" not in str(raised.value)


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    try:
        found = parse_hub_connection_string(text, "there")
    except ConfigurationError:
        return
    assert found.host
