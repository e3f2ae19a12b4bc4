"""Target: messages of SNMPv3 whose security parameters, signature or encrypted part are hostile.

The first byte chooses the user. An even second byte leaves the message as it is; with an odd one,
the rest are parts of a message that is signed and encrypted as it must be, so that what comes after
the signature is reached, too.
"""

from __future__ import annotations

import atheris

from metrics_pipeline_tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from metrics_pipeline.access.snmp_ber import OCTETS, SEQUENCE, BerError, encode, encode_integer
    from metrics_pipeline.access.snmp_messages import (
        VERSION_3,
        Pdu,
        decode_reply,
        encode_request,
        read_pdu,
        read_version,
    )
    from metrics_pipeline.access.snmp_usm import (
        Engine,
        Keys,
        Undecipherable,
        User,
        encode_message,
        read_message,
    )

PASSWORDS = {"authentication_password": "a long password", "privacy_password": "another password"}
USERS = (
    User("nobody"),
    User("signed", "md5", **PASSWORDS),
    User("des", "sha1", privacy="des", **PASSWORDS),
    User("aes128", "sha256", privacy="aes128", **PASSWORDS),
    User("aes256c", "sha224", privacy="aes256c", **PASSWORDS),
)
ENGINE = Engine(b"\x80\x00\x1f\x88\x04fuzz", 3, 4711)
KEYS = {user: user.keys_for(ENGINE.engine_id) for user in USERS}
"""Keys take a while to make, so that those of one engine are used for all."""


def check(data: bytes) -> None:
    """Nothing but BerError and Undecipherable is raised."""
    provider = atheris.FuzzedDataProvider(data)
    user = USERS[provider.ConsumeIntInRange(0, len(USERS) - 1)]
    is_made = provider.ConsumeBool()
    message = make_message(provider, user) if is_made else data[:-2]

    def keys_of(_engine_id: bytes) -> Keys:
        return KEYS[user]

    try:
        version, at = read_version(message)
        if version != VERSION_3:
            return
        reply = read_message(message, at, user, keys_of)
        pdu = read_pdu(reply.data, reply.start, reply.stop)
        decode_reply(reply.data, pdu)
    except (BerError, Undecipherable):
        return
    assert 0 <= reply.engine.boots < 2**31
    assert 0 <= reply.engine.time_seconds < 2**31


def make_message(provider: atheris.FuzzedDataProvider, user: User) -> bytes:
    """A message of `user` that is signed as it must be; all in it is the fuzzer's."""
    keys, flags = KEYS[user], user.flags
    boots, time_seconds = provider.ConsumeInt(8), provider.ConsumeInt(8)
    salt = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 12))
    engine_id = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 40))
    body = provider.ConsumeBytes(16_384)
    if provider.ConsumeBool():
        body = encode(OCTETS if user.privacy else SEQUENCE, body)
    parameters = (
        encode(OCTETS, engine_id)
        + encode_integer(boots)
        + encode_integer(time_seconds)
        + encode(OCTETS, user.name.encode())
        + encode(OCTETS, bytes(keys.mac_bytes))
    )
    after = encode(OCTETS, salt)
    head = encode_integer(7) + encode_integer(65_507) + encode(OCTETS, bytes((flags,)))
    message = encode(
        SEQUENCE,
        encode_integer(VERSION_3)
        + encode(SEQUENCE, head + encode_integer(3))
        + encode(OCTETS, encode(SEQUENCE, parameters + after))
        + body,
    )
    if not keys.mac_bytes:
        return message
    place = len(message) - len(after) - len(body) - keys.mac_bytes
    return message[:place] + keys.sign(message) + message[place + keys.mac_bytes :]


def seeds() -> list[bytes]:
    """A sound message of each user, and parts to make one of."""
    pdu = b"\xa2" + encode_request(Pdu.GET, 7, ("1.3.6.1.2.1.1.3.0",), 0)[1:]
    found = [encode_message(7, user, KEYS[user], ENGINE, pdu) for user in USERS]
    # The fuzzer's numbers are taken from the end: the flag, then the user.
    sound = [message + bytes((0, at)) for at, message in enumerate(found)]
    return sound + [bytes(40) + pdu + bytes((1, at)) for at in range(len(USERS))]


if __name__ == "__main__":
    fuzz(check, seeds())
