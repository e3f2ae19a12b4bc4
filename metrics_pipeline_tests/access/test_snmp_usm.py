"""SNMPv3's security: the keys of the RFCs' examples, and messages both ways and broken."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_pipeline.access.snmp_ber import SEQUENCE, BerError, encode
from metrics_pipeline.access.snmp_messages import Pdu, encode_request, read_version
from metrics_pipeline.access.snmp_usm import (
    AUTHENTICATION,
    PRIVACY_KEY_BYTES,
    Engine,
    Undecipherable,
    User,
    encode_message,
    read_message,
)

RFC_ENGINE_ID = bytes.fromhex("000000000000000000000002")
ENGINE = Engine(b"\x80\x00\x1f\x88\x04agent", boots=3, time_seconds=77)
PDU = encode_request(Pdu.GET, 0x0123_4567, ("1.3.6.1.2.1.1.3.0",), 0)
PASSWORD, OTHER = "maplesyrup", "another password"

ALL_LEVELS = [
    User("nobody"),
    *(User("u", name, PASSWORD) for name in AUTHENTICATION),
    *(User("u", a, PASSWORD, p, OTHER) for a in AUTHENTICATION for p in PRIVACY_KEY_BYTES),
]


@pytest.mark.parametrize(
    ("hash_name", "key"),
    [
        ("md5", "526f5eed9fcce26f8964c2930787d82b"),  # RFC 3414 A.3.1
        ("sha1", "6695febc9288e36282235fc7151f128497b38f3f"),  # RFC 3414 A.3.2
    ],
)
def test_keys_are_those_of_the_rfc(hash_name: str, key: str) -> None:
    assert User("u", hash_name, PASSWORD).keys_for(RFC_ENGINE_ID).signing.hex() == key


@pytest.mark.parametrize(
    "user", ALL_LEVELS, ids=lambda user: f"{user.authentication}-{user.privacy}"
)
def test_a_message_that_is_sealed_is_opened_with_the_same_keys_alone(user: User) -> None:
    keys = user.keys_for(ENGINE.engine_id)
    data = encode_message(0x0123_4567, user, keys, ENGINE, PDU)
    reply = read_message(data, read_version(data)[1], user, user.keys_for)
    assert (reply.engine, reply.flags & 3) == (ENGINE, user.flags)
    assert reply.data[reply.start : reply.stop] == PDU
    assert (PDU in data) == (user.privacy is None)


@pytest.mark.parametrize("user", ALL_LEVELS[1:], ids=str)
def test_a_message_signed_with_another_password_is_undecipherable(user: User) -> None:
    data = encode_message(0x0123_4567, user, user.keys_for(ENGINE.engine_id), ENGINE, PDU)
    other = replace(user, authentication_password="not the one")
    with pytest.raises(Undecipherable, match="signature is wrong"):
        read_message(data, read_version(data)[1], other, other.keys_for)


def test_no_password_or_key_is_shown() -> None:
    user = ALL_LEVELS[-1]
    shown = repr(user) + repr(user.keys_for(ENGINE.engine_id))
    assert PASSWORD not in shown
    assert OTHER not in shown
    assert "signing" not in shown


@settings(max_examples=300)
@given(
    place=st.floats(0, 1, exclude_max=True),
    change=st.binary(min_size=1, max_size=3),
    is_longer=st.booleans(),
    user=st.sampled_from([ALL_LEVELS[0], ALL_LEVELS[2], ALL_LEVELS[-1], ALL_LEVELS[-4]]),
)
def test_a_message_that_was_changed_is_refused_or_unsigned(
    place: float, change: bytes, is_longer: bool, user: User
) -> None:
    whole = encode_message(0x0123_4567, user, user.keys_for(ENGINE.engine_id), ENGINE, PDU)
    at = int(place * len(whole))
    data = whole[:at] + change + whole[at + (0 if is_longer else len(change)) :]
    with contextlib.suppress(BerError, Undecipherable):
        reply = read_message(data, read_version(data)[1], user, user.keys_for)
        assert data == whole or not reply.flags & 1


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_or_unsigned(content: bytes) -> None:
    user = ALL_LEVELS[-1]
    data = encode(SEQUENCE, b"\x02\x01\x03" + content)
    with contextlib.suppress(BerError, Undecipherable):
        assert not read_message(data, 5, user, user.keys_for).flags & 1
