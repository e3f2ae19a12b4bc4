"""The user-based security of SNMPv3: keys, and messages that are signed and encrypted with them.

Sources: RFC 3412 section 6 (message), RFC 3414 (MD5, SHA-1, DES, keys, reports), RFC 7860
(SHA-2), RFC 3826 (AES-128), draft-blumenthal-aes-usm-04 (AES-256; what net-snmp calls AES256) and
draft-reeder-snmpv3-usm-3desede-00 (how Cisco lengthens keys for it; net-snmp's AES256C).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from metrics_pipeline.access.snmp_ber import (
    OCTETS,
    SEQUENCE,
    BerError,
    encode,
    encode_integer,
    read_header,
    read_integer,
)
from metrics_pipeline.access.snmp_messages import ID_BYTES, VERSION_3

AUTHENTICATION: dict[str, tuple[str, int]] = {
    "md5": ("md5", 12),
    "sha1": ("sha1", 12),
    "sha224": ("sha224", 16),
    "sha256": ("sha256", 24),
    "sha384": ("sha384", 32),
    "sha512": ("sha512", 48),
}
"""By name: the hash, and how many bytes of its HMAC a message carries."""

PRIVACY_KEY_BYTES = {"des": 16, "aes128": 16, "aes256": 32, "aes256c": 32}
"""By name: the bytes of key it takes; for DES half of them is its initial vector."""

PASSWORD_STREAM_BYTES = 1_048_576
MIN_PASSWORD_CHARACTERS = 8
MAX_MESSAGE_BYTES = 65_507
AUTHENTICATED, ENCRYPTED, REPORTABLE = 1, 2, 4
MODEL = 3
DES_BLOCK_BYTES = 8
SALT_BYTES = 8


class Undecipherable(Exception):
    """A message whose signature is not its own, or that is not protected as it must be."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The agent's side: who it is, how often it started, its clock in seconds since then."""

    engine_id: bytes = b""
    boots: int = 0
    time_seconds: int = 0


@dataclass(frozen=True)
class User:
    """A user and what it proves itself with. No privacy without authentication."""

    name: str
    authentication: str | None = None
    authentication_password: str = field(default="", repr=False)
    privacy: str | None = None
    privacy_password: str = field(default="", repr=False)

    @property
    def flags(self) -> int:
        """The security level, as in msgFlags."""
        return AUTHENTICATED * (self.authentication is not None) | ENCRYPTED * (
            self.privacy is not None
        )

    @cached_property
    def _authentication_master(self) -> bytes:
        return self._master(self.authentication_password)

    @cached_property
    def _privacy_master(self) -> bytes:
        return self._master(self.privacy_password)

    def keys_for(self, engine_id: bytes) -> Keys:
        """Its keys at one agent. The slow half, from password to master key, is done once."""
        if self.authentication is None:
            return Keys("", 0, b"", None, b"")
        hash_name, mac_bytes = AUTHENTICATION[self.authentication]
        signing = _localized(self._authentication_master, engine_id, hash_name)
        encrypting = b""
        if self.privacy is not None:
            encrypting = _localized(self._privacy_master, engine_id, hash_name)
            encrypting = _lengthened(encrypting, self.privacy, engine_id, hash_name)
        return Keys(hash_name, mac_bytes, signing, self.privacy, encrypting)

    def _master(self, password: str) -> bytes:
        assert self.authentication is not None
        return _master_key(password.encode(), AUTHENTICATION[self.authentication][0])


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of one user at one agent."""

    hash_name: str
    mac_bytes: int
    signing: bytes = field(repr=False)
    privacy: str | None
    encrypting: bytes = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, in which its place holds zeros."""
        return hmac.digest(self.signing, message, self.hash_name)[: self.mac_bytes]

    def encrypt(self, engine: Engine, plain: bytes) -> tuple[bytes, bytes]:
        """`plain` encrypted, and the salt that goes with it."""
        salt = secrets.token_bytes(SALT_BYTES)
        if self.privacy == "des":
            salt = engine.boots.to_bytes(4, "big") + salt[4:]
            plain += bytes(-len(plain) % DES_BLOCK_BYTES)
        sealing = self._cipher(engine, salt).encryptor()
        return sealing.update(plain) + sealing.finalize(), salt

    def decrypt(self, engine: Engine, salt: bytes, sealed: bytes) -> bytes:
        """What `sealed` was, with padding after it perhaps."""
        if len(salt) != SALT_BYTES or (self.privacy == "des" and len(sealed) % DES_BLOCK_BYTES):
            raise BerError("an encrypted part of an impossible length")
        opening = self._cipher(engine, salt).decryptor()
        return opening.update(sealed) + opening.finalize()

    def _cipher(self, engine: Engine, salt: bytes) -> Cipher[CFB | modes.CBC]:
        if self.privacy == "des":
            key, mask = self.encrypting[:8], self.encrypting[8:]
            vector = bytes(a ^ b for a, b in zip(mask, salt, strict=True))
            return Cipher(TripleDES(key * 3), modes.CBC(vector))
        clock = (engine.boots << 32 | engine.time_seconds).to_bytes(8, "big")
        return Cipher(algorithms.AES(self.encrypting), CFB(clock + salt))


NOBODY = User("")
"""Who asks an agent for its name."""


class SecuredReply(NamedTuple):
    """A message that was received: who sent it, how it was protected, and its scoped PDU.

    The contexts of the scoped PDU are skipped: its PDU is `data[start:stop]`.
    """

    engine: Engine
    flags: int
    data: bytes
    start: int
    stop: int


def encode_discovery(message_id: int, pdu: bytes) -> bytes:
    """A whole datagram that makes an agent report who it is (RFC 3414 section 4)."""
    return encode_message(message_id, NOBODY, NOBODY.keys_for(b""), Engine(), pdu)


def encode_message(message_id: int, user: User, keys: Keys, engine: Engine, pdu: bytes) -> bytes:
    """A whole datagram that asks, and wants to be told in a report what is wrong with it."""
    flags = user.flags
    scoped = encode(SEQUENCE, encode(OCTETS, engine.engine_id) + encode(OCTETS, b"") + pdu)
    salt = b""
    if flags & ENCRYPTED:
        sealed, salt = keys.encrypt(engine, scoped)
        scoped = encode(OCTETS, sealed)
    after_mac = encode(OCTETS, salt)
    mac_bytes = keys.mac_bytes if flags & AUTHENTICATED else 0
    security = encode(
        SEQUENCE,
        encode(OCTETS, engine.engine_id)
        + encode_integer(engine.boots)
        + encode_integer(engine.time_seconds)
        + encode(OCTETS, user.name.encode())
        + encode(OCTETS, bytes(mac_bytes))
        + after_mac,
    )
    tail = after_mac + scoped
    message = encode(
        SEQUENCE,
        encode_integer(VERSION_3)
        + _header(message_id, flags | REPORTABLE)
        + encode(OCTETS, security)
        + scoped,
    )
    if not mac_bytes:
        return message
    place = len(message) - len(tail) - mac_bytes
    return message[:place] + keys.sign(message) + message[place + mac_bytes :]


def read_message(
    data: bytes, at: int, user: User, keys_of: Callable[[bytes], Keys]
) -> SecuredReply:
    """The reply whose header begins at `at`; its signature is checked, and it is decrypted.

    `keys_of` gives the user's keys at an engine. Raises BerError, or Undecipherable when it is
    not signed with them. What is not signed at all is for the caller to judge: see `flags`.
    """
    end = len(data)
    at, stop = read_header(data, at, SEQUENCE, end)
    flags = _read_flags(data, at, stop)
    at, stop_security = read_header(data, stop, OCTETS, end)
    at, stop = read_header(data, at, SEQUENCE, stop_security)
    engine_id, at = _read_octets(data, at, stop)
    boots, at = read_integer(data, at, stop)
    time_seconds, at = read_integer(data, at, stop)
    if not (0 <= boots < 2**31 and 0 <= time_seconds < 2**31):
        raise BerError("an engine's clock beyond 31 bits")
    _, at = _read_octets(data, at, stop)
    mac, mac_stop = _read_octets(data, at, stop)
    salt, _ = _read_octets(data, mac_stop, stop)
    engine = Engine(engine_id, boots, time_seconds)
    if flags & AUTHENTICATED:
        _verify(data, mac, mac_stop, user, keys_of(engine_id))
    body = data[stop_security:]
    if flags & ENCRYPTED:
        body = _open(body, user, keys_of(engine_id), engine, salt)
    start, last = _scoped_pdu(body)
    return SecuredReply(engine, flags, body, start, last)


def _header(message_id: int, flags: int) -> bytes:
    return encode(
        SEQUENCE,
        encode(0x02, message_id.to_bytes(ID_BYTES, "big"))
        + encode_integer(MAX_MESSAGE_BYTES)
        + encode(OCTETS, bytes((flags,)))
        + encode_integer(MODEL),
    )


def _read_flags(data: bytes, at: int, stop: int) -> int:
    _, at = read_integer(data, at, stop)
    _, at = read_integer(data, at, stop)
    flags, at = _read_octets(data, at, stop)
    model, at = read_integer(data, at, stop)
    if len(flags) != 1 or model != MODEL:
        raise BerError(f"security model {model} where {MODEL} is expected")
    return flags[0]


def _read_octets(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    start, stop = read_header(data, at, OCTETS, end)
    return data[start:stop], stop


def _verify(data: bytes, mac: bytes, mac_stop: int, user: User, keys: Keys) -> None:
    if user.authentication is None or len(mac) != keys.mac_bytes:
        raise Undecipherable("it is not signed as this user's messages are")
    blank = data[: mac_stop - len(mac)] + bytes(len(mac)) + data[mac_stop:]
    if not hmac.compare_digest(keys.sign(blank), mac):
        raise Undecipherable("its signature is wrong")


def _open(body: bytes, user: User, keys: Keys, engine: Engine, salt: bytes) -> bytes:
    if user.privacy is None:
        raise Undecipherable("it is encrypted, which this user's messages are not")
    sealed, _ = _read_octets(body, 0, len(body))
    return keys.decrypt(engine, salt, sealed)


def _scoped_pdu(body: bytes) -> tuple[int, int]:
    at, stop = read_header(body, 0, SEQUENCE, len(body))
    _, at = read_header(body, at, OCTETS, stop)
    _, at = read_header(body, at, OCTETS, stop)
    return at, stop


def _master_key(password: bytes, hash_name: str) -> bytes:
    """RFC 3414 A.2: the hash of a megabyte of the password over and over."""
    repeated = password * (PASSWORD_STREAM_BYTES // len(password) + 1)
    return hashlib.new(hash_name, repeated[:PASSWORD_STREAM_BYTES]).digest()


def _localized(master: bytes, engine_id: bytes, hash_name: str) -> bytes:
    return hashlib.new(hash_name, master + engine_id + master).digest()


def _lengthened(key: bytes, privacy: str, engine_id: bytes, hash_name: str) -> bytes:
    """`key` as long as `privacy` takes; only AES-256 with a hash below 256 bits needs more."""
    while len(key) < PRIVACY_KEY_BYTES[privacy]:
        if privacy == "aes256c":
            key += _localized(_master_key(key, hash_name), engine_id, hash_name)
        else:
            key += hashlib.new(hash_name, key).digest()
    return key[: PRIVACY_KEY_BYTES[privacy]]
