"""Target: datagrams of SNMP version 1 and 2c, and object identifiers and values of BER."""

from __future__ import annotations

from metrics_pipeline_tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from metrics_pipeline.access.snmp_ber import (
        COUNTER_64,
        OBJECT_ID,
        OPAQUE,
        SEQUENCE,
        BerError,
        decode_oid,
        decode_value,
        encode,
        encode_integer,
        encode_oid,
        read_header,
    )
    from metrics_pipeline.access.snmp_messages import (
        VERSION_1,
        VERSION_2C,
        Pdu,
        Reply,
        decode_reply,
        encode_community_message,
        read_community_reply,
        read_version,
    )

NAME = "1.3.6.1.2.1.1.3.0"
VALUES = (
    encode_integer(-7),
    encode(0x04, b"octets"),
    encode(0x05, b""),
    encode_oid("1.3.6.1.4.1.4294967295"),
    encode(0x40, bytes((127, 0, 0, 1))),
    encode(0x43, b"\x01\x00"),
    encode(OPAQUE, b"\x9f\x78\x04\x41\x20\x00\x00"),
    encode(COUNTER_64, b"\x00" + b"\xff" * 8),
    encode(0x80, b""),
    encode(0x82, b""),
)


def reply(version: int, *values: bytes) -> bytes:
    """A sound reply with `values`."""
    variables = b"".join(encode(SEQUENCE, encode_oid(NAME) + value) for value in values)
    head = encode(0x02, b"\x01\x00\x00\x01") + encode_integer(0) + encode_integer(0)
    pdu = encode(Pdu.RESPONSE, head + encode(SEQUENCE, variables))
    return encode_community_message(version, b"public", pdu)


def check(data: bytes) -> None:
    """Nothing but BerError is raised; a reply that is read is no longer than its datagram."""
    try:
        read = read_reply(data)
    except BerError:
        read = None
    if read is not None:
        assert len(read.names) == len(read.values) <= len(data)
        for name in read.names:
            check_name(name)
    check_variable(data)


def read_reply(data: bytes) -> Reply | None:
    """As `snmp_sockets` and the engine read it."""
    version, at = read_version(data)
    if version not in {VERSION_1, VERSION_2C}:
        return None
    return decode_reply(data, read_community_reply(data, at))


def check_name(name: str) -> None:
    """A name that was read can be asked for, and is then the same name."""
    again = encode_oid(name)
    start, stop = read_header(again, 0, OBJECT_ID, len(again))
    assert decode_oid(again[start:stop]) == name


def check_variable(data: bytes) -> None:
    """Any tag with any content is a value or a BerError."""
    if not data:
        return
    try:
        value = decode_value(data[0], data[1:])
    except BerError:
        return
    assert value is None or isinstance(value, int | float | bytes | str)
    if data[0] == OBJECT_ID:
        assert isinstance(value, str)
        check_name(value)


if __name__ == "__main__":
    fuzz(check, [reply(version, *VALUES) for version in (VERSION_1, VERSION_2C)])
