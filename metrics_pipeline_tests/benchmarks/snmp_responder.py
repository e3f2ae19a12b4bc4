"""SNMP agents that are not the bottleneck: every address of 127.0.0.0/8 is a device.

    python -m metrics_pipeline_tests.benchmarks.snmp_responder PORT DEAD_EVERY GENERATION_FILE

They speak version 2c and version 3 (RFC 3414: discovery, time window, signatures, encryption), each
device with an engine of its own. A reply is worked out once for each request that differs in more
than its identifier, and kept; then it is that reply with the identifier, and what changes with
device and generation, written into it. Several processes share the port. One device in DEAD_EVERY
(0: none) is silent.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from pathlib import Path
from typing import NamedTuple

from metrics_pipeline.access.snmp_ber import (
    OBJECT_ID,
    OCTETS,
    SEQUENCE,
    BerError,
    decode_oid,
    encode,
    encode_integer,
    encode_oid,
    read_header,
)
from metrics_pipeline.access.snmp_messages import (
    VERSION_2C,
    VERSION_3,
    Pdu,
    encode_community_message,
    read_version,
)
from metrics_pipeline.access.snmp_usm import Engine, Keys, Undecipherable, User, read_message
from metrics_pipeline_tests.benchmarks.snmp_fleet import (
    FIRST_DEVICE,
    PEER_USER,
    USER,
    Generation,
    cells,
    engine_id_of,
    is_dead,
    numbers_of,
)
from metrics_pipeline_tests.hostile_snmp_agent import Mib, read_question

RECEIVE_BYTES = 4 * 1024 * 1024
BOOTS = 3
ENGINES_STARTED = 1_700_000_000
"""Seconds since the epoch: the clocks of all engines, in all processes, count from then."""
TIME_WINDOW_SECONDS = 150
USM_STATISTICS = "1.3.6.1.6.3.15.1.1."
NOT_IN_TIME_WINDOW, UNKNOWN_ENGINE, WRONG_DIGEST = "2", "4", "5"
SIGNED_AND_ENCRYPTED = 3
_SO_RCVBUFFORCE, _IP_PKTINFO = 33, 8  # asm-generic/socket.h, linux/in.h


class Place(NamedTuple):
    """Where in a reply something is to be written, and which of the device's numbers that is."""

    start: int
    stop: int
    number: int


class Kept(NamedTuple):
    """A reply of version 2c, and where the identifier and the numbers go."""

    reply: bytes
    identifier_at: int
    places: tuple[Place, ...]


class Agents:
    """Answers for all devices."""

    def __init__(self, generation: Generation) -> None:
        values, self._changing = cells()
        self._mib = Mib(values)
        self._generation = generation
        self._kept: dict[bytes, Kept] = {}
        self._keys: dict[tuple[str, int], Keys] = {}

    def answer(self, device: int, data: bytes) -> bytes | bytearray:
        """The reply of `device` to a datagram that is well formed."""
        if read_version(data)[0] == VERSION_3:
            return self._answer_user(device, data)
        return self._answer_community(device, data)

    def _answer_community(self, device: int, data: bytes) -> bytearray:
        at = _identifier_at(data)
        end = at + data[at - 1]
        key = data[: at - 1] + data[end:]
        known = self._kept.get(key)
        if known is None:
            known = self._kept[key] = self._keep(data)
        reply = bytearray(known.reply)
        reply[known.identifier_at : known.identifier_at + 4] = data[at:end].rjust(4, b"\0")
        numbers = numbers_of(device, self._generation.now()).in_a_row
        for start, stop, number in known.places:
            reply[start:stop] = numbers[number].to_bytes(stop - start, "big")
        return reply

    def _keep(self, data: bytes) -> Kept:
        self._mib.questions.clear()
        reply = self._mib(read_question(data))
        at, places = _first_variable(reply), []
        while at < len(reply):
            name, at = read_header(reply, at, SEQUENCE, len(reply))
            name, value = read_header(reply, name, OBJECT_ID, at)
            number = self._changing.get(decode_oid(reply[name:value]))
            start, stop = read_header(reply, value, reply[value], at)
            if number is not None and start < stop:  # not the end of what there is
                # Of a counter it is the low half.
                places.append(Place(max(start, stop - 4), stop, number))
        return Kept(reply, _identifier_at(reply), tuple(places))

    # --- version 3 ---

    def _answer_user(self, device: int, data: bytes) -> bytes:
        _, at = read_version(data)
        start, _ = read_header(data, at, SEQUENCE, len(data))
        message_id = data[start : start + 2 + data[start + 1]]
        now = Engine(engine_id_of(device), BOOTS, int(time.time()) - ENGINES_STARTED)
        user = next((known for known in (USER, PEER_USER) if known.name.encode() in data), None)
        if user is None:
            return _report(message_id, now, UNKNOWN_ENGINE)
        keys = self._keys_of(user, device)
        try:
            asked = read_message(data, at, user, lambda _: keys)
        except Undecipherable:
            return _report(message_id, now, WRONG_DIGEST)
        if asked.engine.engine_id != now.engine_id:
            return _report(message_id, now, UNKNOWN_ENGINE)
        late = abs(asked.engine.time_seconds - now.time_seconds) > TIME_WINDOW_SECONDS
        if late or asked.engine.boots != BOOTS:
            return _report(message_id, now, NOT_IN_TIME_WINDOW)
        pdu = asked.data[asked.start : asked.stop]
        question = encode_community_message(VERSION_2C, b"", pdu)
        reply = bytes(self._answer_community(device, question))
        return _sealed(message_id, now, reply[_pdu_at(reply) :], user, keys)

    def _keys_of(self, user: User, device: int) -> Keys:
        keys = self._keys.get((user.name, device))
        if keys is None:
            keys = self._keys[user.name, device] = user.keys_for(engine_id_of(device))
        return keys


def main(port: int, dead_every: int, generation: Generation) -> None:
    """Answer until killed."""
    udp, agents = _open(port), Agents(generation)
    while True:
        data, ancillary, _, asker = udp.recvmsg(65_535, 64)
        packet_info = ancillary[0][2]
        device = int.from_bytes(packet_info[8:12], "big") - FIRST_DEVICE
        if is_dead(device, dead_every):
            continue
        try:
            reply = agents.answer(device, data)
        except BerError:
            continue
        # From the address that was asked: ipi_ifindex 0, ipi_spec_dst (ip(7)).
        source = struct.pack("=I4s4s", 0, packet_info[8:12], bytes(4))
        udp.sendmsg([reply], [(socket.IPPROTO_IP, _IP_PKTINFO, source)], 0, asker)


def _open(port: int) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
    except PermissionError:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    udp.bind(("0.0.0.0", port))
    return udp


def _sealed(message_id: bytes, now: Engine, pdu: bytes, user: User, keys: Keys) -> bytes:
    """A reply that is signed and encrypted, and wants no report."""
    sealed, salt = keys.encrypt(now, _scoped(now, pdu))
    tail = encode(OCTETS, salt)
    security = encode(OCTETS, user.name.encode()) + encode(OCTETS, bytes(keys.mac_bytes)) + tail
    body = encode(OCTETS, sealed)
    message = _message(message_id, SIGNED_AND_ENCRYPTED, now, security, body)
    at = len(message) - len(body) - len(tail) - keys.mac_bytes
    return message[:at] + keys.sign(message) + message[at + keys.mac_bytes :]


def _report(message_id: bytes, now: Engine, statistic: str) -> bytes:
    """What is wrong with a request, in the clear."""
    counted = encode_oid(f"{USM_STATISTICS}{statistic}.0") + encode(0x41, b"\x01")
    variables = encode(SEQUENCE, encode(SEQUENCE, counted))
    pdu = encode(Pdu.REPORT, encode_integer(0) * 3 + variables)
    return _message(message_id, 0, now, encode(OCTETS, b"") * 3, _scoped(now, pdu))


def _scoped(now: Engine, pdu: bytes) -> bytes:
    return encode(SEQUENCE, encode(OCTETS, now.engine_id) + encode(OCTETS, b"") + pdu)


def _message(message_id: bytes, flags: int, now: Engine, security: bytes, body: bytes) -> bytes:
    """A message of version 3; all but `flags` is BER, `security` what follows the clock there."""
    header = message_id + encode_integer(65_507) + encode(OCTETS, bytes((flags,)))
    clock = encode_integer(now.boots) + encode_integer(now.time_seconds)
    parameters = encode(SEQUENCE, encode(OCTETS, now.engine_id) + clock + security)
    head = encode_integer(VERSION_3) + encode(SEQUENCE, header + encode_integer(3))
    return encode(SEQUENCE, head + encode(OCTETS, parameters) + body)


def _pdu_at(data: bytes) -> int:
    """Where the PDU of a message of version 2c begins: after its header, version and community."""
    at = _content(data, 0)
    at += 2 + data[at + 1]
    return at + 2 + data[at + 1]


def _identifier_at(data: bytes) -> int:
    """Where the content of its identifier begins."""
    return _content(data, _pdu_at(data)) + 2


def _first_variable(data: bytes) -> int:
    """Where the first of its variables begins: after the identifier and two more numbers."""
    at = _identifier_at(data)
    at += data[at - 1]
    for _ in range(2):
        at += 2 + data[at + 1]
    return _content(data, at)


def _content(data: bytes, at: int) -> int:
    return at + 2 + (data[at + 1] & 0x7F if data[at + 1] & 0x80 else 0)


if __name__ == "__main__":
    with Generation(Path(sys.argv[3])) as current:
        main(int(sys.argv[1]), int(sys.argv[2]), current)
