"""What looks like a secret is not on a page, and what does not, stays."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.redaction import HIDDEN, KnownSecrets, without_secrets

SECRET = "hunter2/Zm9v+YmFyYmF6=="

QUOTING = (
    "cannot connect to postgresql://dagster:{}@db:5432/dagster",
    "HostName=a.example.net;SharedAccessKeyName=service;SharedAccessKey={};EntityPath=x",
    "GET https://blobs.example.net/c?sv=2026&sig={}&se=2027 gave 403",
    "the header was Authorization: Bearer {}",
    "the header was Authorization: Basic {}",
    '{{"password": "{}"}}',
    "{{'api_key': '{}'}}",
    "connecting with password={} failed",
    "INFLUX_TOKEN: {}",
    "authorization: bearer {}",
    "sent 'authorization': 'Token {}' and got 403",
    "AUTHORIZATION: {}",
    "refused: basic {}",
    "password: my {} phrase",
    "Passphrase: several words, {}; and more",
    "password = my {} phrase",
    'password: "my \\" {}"',
    "password='{}",
    "SNMP community '{}' was refused",
    'with community string "{}"',
    "community={}",
    "from https://a.example.net/redirect/redis://me:{}@h",
    "amqps://me:p@{}@h",
)


@pytest.mark.parametrize("text", QUOTING)
def test_a_secret_in_an_error_is_stars(text: str) -> None:
    shown = without_secrets(text.format(SECRET))
    assert "hunter2" not in shown
    assert "Zm9v" not in shown
    assert HIDDEN in shown


def test_what_an_address_has_for_a_user_may_be_a_token() -> None:
    assert without_secrets("cannot reach redis://hunter2@h:6379/0") == (
        "cannot reach redis://***@h:6379/0"
    )


def test_what_is_beside_a_secret_stays() -> None:
    shown = without_secrets(QUOTING[1].format(SECRET))
    assert shown == (
        "HostName=a.example.net;SharedAccessKeyName=service;SharedAccessKey=***;EntityPath=x"
    )


@pytest.mark.parametrize(
    "text",
    [
        "azure_iot_hub: reading https://hub.example.net:8443/devices: 503. Try again later.",
        "operational database sqlite:////var/lib/o.sqlite: disk is full (trying again may help)",
        "the rights of ServiceConnect are missing; compare the keys in the portal",
        "Basic authentication was refused; password authentication failed for user 'dagster'",
        "unexpected token '<'; secret 'db-credentials' was not found",
        "mail to me@example.net, or see https://example.net/@me: there is more",
    ],
)
def test_an_error_without_a_secret_is_as_it_was(text: str) -> None:
    assert without_secrets(text) == text


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=12))
def test_a_password_in_an_address_is_never_shown(password: str) -> None:
    assert without_secrets(f"from http://me:{password}@hub/") == "from http://me:***@hub/"


@given(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), min_size=1).map(str.strip))
def test_of_a_password_in_words_nothing_is_left(password: str) -> None:
    if password and password[0] not in "'\"":
        assert without_secrets(f"my password: {password}\nits end") == "my password: ***\nits end"


@given(st.text(max_size=20), st.sampled_from(["'", '"']))
def test_of_a_password_in_quotes_nothing_is_left(password: str, quote: str) -> None:
    quoted = password.replace("\\", "\\\\").replace(quote, f"\\{quote}")
    for name in ("password", "password=", '"password": ', "community: "):
        if "://" not in password:
            shown = without_secrets(f"{name} {quote}{quoted}{quote} is it")
            assert shown == f"{name} *** is it"


@given(st.text(st.sampled_from("password=:' \"@/\\bearer\n")))
def test_what_is_shown_once_is_shown_again_as_it_is(text: str) -> None:
    once = without_secrets(text)
    assert without_secrets(once) == once


def test_a_text_of_one_long_word_takes_no_longer_than_one_of_many() -> None:
    """Seconds, where a pattern were tried to its end from each of the letters."""
    long = ("x", "http", "a.-+", "a://:", "://a", "//:", "bearer ", "password ", "community\t")
    for text in (each * (200_000 // len(each)) for each in long):
        assert without_secrets(text) == text
    # Of these something is hidden, or much has to be looked at before nothing is.
    for begin, each in (
        ("", "a://:@"),
        ("", "pwd='"),
        ('password="', "\\"),
        ("password", " "),
        ("password:", " "),
        ("password =", "\t"),
        ("authorization: bearer", " "),
        ("", "authorization: "),
        ("", "password: \n"),
    ):
        assert without_secrets(begin + each * (200_000 // len(each))).startswith(begin[:8])


KEYED = "pässwörd with 'quotes\", / and %"


@pytest.mark.parametrize(
    "said",
    [
        KEYED,
        quote(KEYED),
        quote(KEYED, safe=""),
        json.dumps(KEYED),
        json.dumps(KEYED, ensure_ascii=False),
        repr(KEYED),
        ascii(KEYED),
        " ".join(KEYED.split()),
    ],
)
def test_what_is_known_as_a_secret_is_stars_however_it_is_written(said: str) -> None:
    known = KnownSecrets(100)
    known.remember(KEYED)
    shown = known.hide(f"nobody has {said} here")
    assert re.fullmatch(r"nobody has [\"']?\*\*\*[\"']? here", shown)


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("HostName=h.example.net;SharedAccessKeyName=n;SharedAccessKey=a2V5a2V5", "a2V5a2V5"),
        ("redis://me:p%40ssw%C3%B6rd@h:6379/0", "p@sswörd"),
        ("https://h.example.net/health?k=0123456789", "k=0123456789"),
        ("https://h.example.net/hooks/0123456789abcdef", "0123456789abcdef"),
    ],
)
def test_a_part_that_is_secret_is_hidden_alone(secret: str, said: str) -> None:
    known = KnownSecrets(100)
    known.remember(secret)
    assert known.hide(f"h.example.net has no {said}") == "h.example.net has no ***"


LETTERS = st.text(st.sampled_from("ab"), min_size=8, max_size=14)


@given(st.lists(LETTERS, max_size=6), st.text(st.sampled_from("ab "), max_size=60))
def test_no_letter_of_any_secret_is_left_wherever_they_are_and_overlap(
    secrets: list[str], text: str
) -> None:
    known = KnownSecrets(100)
    for secret in secrets:
        known.remember(secret)
    text = f"{text}{''.join(secrets)}"
    told = [True] * len(text)
    for secret in secrets:
        for found in re.finditer(f"(?={secret})", text):
            told[found.start() : found.start() + len(secret)] = [False] * len(secret)
    left = "".join(letter for letter, is_told in zip(text, told, strict=True) if is_told)
    assert known.hide(text).replace(HIDDEN, "") == left


def test_a_short_secret_is_not_looked_for() -> None:
    known = KnownSecrets(100)
    known.remember("public")
    assert known.hide("public.device_state") == "public.device_state"


def test_no_more_are_remembered_than_there_is_room_for_and_the_newest_stay() -> None:
    known = KnownSecrets(2)
    for secret in ("first-secret", "second-secret", "first-secret", "third-secret"):
        known.remember(secret)
    shown = known.hide("first-secret second-secret third-secret")
    assert shown == "*** second-secret ***"


def test_after_many_were_forgotten_the_newest_are_still_hidden_and_the_oldest_not() -> None:
    known = KnownSecrets(16)
    secrets = [f"secret-number-{each:03}" for each in range(200)]
    for secret in secrets:
        known.remember(secret)
    assert known.hide(" ".join(secrets[-10:])) == " ".join([HIDDEN] * 10)
    assert known.hide(" ".join(secrets[:-16])) == " ".join(secrets[:-16])


def test_no_address_is_too_strange_to_be_remembered() -> None:
    known = KnownSecrets(100)
    known.remember("https://[no-address/secret")
    assert known.hide("https://[no-address/secret") == "***"
