"""ICMP as it is on the wire: what is sent is right, and what comes in is believed no further."""

from __future__ import annotations

import socket
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.icmp_socket import (
    PAYLOAD_BYTES,
    VERSIONS,
    IcmpSocket,
    IcmpVersion,
    Rejection,
    Reply,
    build_request,
    parse,
)
from metrics_pipeline_tests.private_network import run_in_private_network

PAYLOAD = bytes(range(PAYLOAD_BYTES))
IPV4, IPV6 = VERSIONS[socket.AF_INET], VERSIONS[socket.AF_INET6]
BOTH = pytest.mark.parametrize("version", [IPV4, IPV6], ids=["ipv4", "ipv6"])


def reply_to(request: bytes, kind: int) -> bytes:
    return bytes([kind]) + request[1:]


def ipv4_error(kind: int, code: int, request: bytes, target: str = "127.0.0.9") -> bytes:
    """An ICMP error that quotes `request` as RFC 792 asks: IP header and 8 bytes."""
    header = struct.pack("!BBHHHBBH4x", 0x45, 0, 84, 0, 0, 64, 1, 0) + socket.inet_aton(target)
    return struct.pack("!BBHI", kind, code, 0, 0) + header + request[:8]


def ipv6_error(kind: int, code: int, request: bytes, target: str = "::9") -> bytes:
    header = struct.pack("!IHBB16x", 6 << 28, 64, socket.IPPROTO_ICMPV6, 64)
    quoted = header + socket.inet_pton(socket.AF_INET6, target) + request
    return struct.pack("!BBHI", kind, code, 0, 0) + quoted


@given(
    identifier=st.integers(0, 0xFFFF),
    sequence=st.integers(0, 0xFFFF),
    payload=st.binary(min_size=PAYLOAD_BYTES, max_size=PAYLOAD_BYTES),
)
def test_the_checksum_of_a_request_makes_all_words_add_up_to_ones(
    identifier: int, sequence: int, payload: bytes
) -> None:
    request = build_request(IPV4, identifier, sequence, payload)
    total = sum(struct.unpack("!32H", request))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


@BOTH
def test_a_reply_gives_back_the_payload_of_its_request(version: IcmpVersion) -> None:
    reply = reply_to(build_request(version, 7, 8, PAYLOAD), version.reply)
    assert parse(version, 7, reply, "far", 1) == Reply("far", PAYLOAD, 1)
    assert parse(version, None, reply, "far", 1) == Reply("far", PAYLOAD, 1)
    assert parse(version, 6, reply, "far", 1) is None


@pytest.mark.parametrize("code", range(16))
def test_an_ipv4_error_is_about_the_request_it_quotes(code: int) -> None:
    error = ipv4_error(3, code, build_request(IPV4, 7, 8, PAYLOAD))
    found = parse(IPV4, 7, error, "router", 1)
    assert isinstance(found, Rejection)
    assert (found.target, found.sequence, found.reporter) == ("127.0.0.9", 8, "router")
    assert found.is_refusal == (code in {2, 3, 9, 10, 13})
    assert parse(IPV4, 6, error, "router", 1) is None


@pytest.mark.parametrize("code", range(8))
def test_an_ipv6_error_is_about_the_request_it_quotes(code: int) -> None:
    error = ipv6_error(1, code, build_request(IPV6, 7, 8, PAYLOAD))
    found = parse(IPV6, 7, error, "router", 1)
    assert isinstance(found, Rejection)
    assert (found.target, found.sequence, found.reporter) == ("::9", 8, "router")
    assert found.is_refusal == (code in {1, 4, 5, 6})


def test_an_error_that_is_cut_off_says_nothing() -> None:
    request = build_request(IPV4, 7, 8, PAYLOAD)
    for version, whole, needed in (
        (IPV4, ipv4_error(3, 1, request), 8 + 20 + 8),
        (IPV6, ipv6_error(1, 3, build_request(IPV6, 7, 8, PAYLOAD)), 8 + 40 + 8),
    ):
        for length in range(needed):
            assert parse(version, 7, whole[:length], "router", 1) is None
        assert parse(version, 7, whole[:needed], "router", 1) is not None


def test_an_error_about_something_else_than_a_ping_says_nothing() -> None:
    request = build_request(IPV4, 7, 8, PAYLOAD)
    error = bytearray(ipv4_error(3, 3, request))
    error[8 + 9] = socket.IPPROTO_UDP
    assert parse(IPV4, 7, bytes(error), "router", 1) is None
    assert parse(IPV4, 7, ipv4_error(3, 3, reply_to(request, 0)), "router", 1) is None


@given(
    version=st.sampled_from([IPV4, IPV6]),
    identifier=st.none() | st.integers(0, 0xFFFF),
    kind=st.sampled_from([None, 0, 1, 3, 8, 11, 128, 129]),
    rest=st.binary(max_size=200),
)
def test_no_message_makes_the_parser_fail(
    version: IcmpVersion, identifier: int | None, kind: int | None, rest: bytes
) -> None:
    message = rest if kind is None else bytes([kind]) + rest
    found = parse(version, identifier, message, "far", 1)
    assert found is None or isinstance(found, Reply | Rejection)


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0, 0, 0))],
    ids=["ipv4", "ipv6"],
)
def test_of_two_sockets_each_is_given_the_replies_to_its_own_requests_alone(
    family: socket.AddressFamily, address: tuple[object, ...]
) -> None:
    async def scenario() -> None:
        ours, others = IcmpSocket(family), IcmpSocket(family)
        try:
            for number in range(5):
                others.send(address, number, PAYLOAD)
            ours.send(address, 9, PAYLOAD[::-1])
            answers = ours.receive(100)
            assert [answer.payload for answer in answers if isinstance(answer, Reply)] == [
                PAYLOAD[::-1]
            ]
            # The kernel itself keeps the rest away: nothing was read and thrown away.
            with pytest.raises(BlockingIOError):
                ours._socket.recv(100)
            assert len(others.receive(3)) == 3
            assert len(others.receive(100)) == 2
        finally:
            ours.close()
            others.close()

    run_in_private_network(scenario)


def test_the_kernel_stamps_a_reply_when_it_comes_and_not_when_it_is_read() -> None:
    async def scenario() -> None:
        ours = IcmpSocket(socket.AF_INET)
        try:
            time.sleep(0.05)
            sent_ns = time.time_ns()
            ours.send(("127.0.0.1", 0), 1, PAYLOAD)
            time.sleep(0.05)
            before_reading_ns = time.time_ns()
            (reply,) = ours.receive(10)
            assert isinstance(reply, Reply)
            assert sent_ns <= reply.received_ns < before_reading_ns
        finally:
            ours.close()

    run_in_private_network(scenario)


def test_a_privileged_socket_has_room_for_thousands_of_replies() -> None:
    async def scenario() -> tuple[bool, int, int]:
        ours = IcmpSocket(socket.AF_INET)
        try:
            for number in range(3000):
                ours.send(("127.0.0.1", 0), number, PAYLOAD)
            return ours.is_raw, len(ours.receive(10_000)), ours.dropped
        finally:
            ours.close()

    assert run_in_private_network(scenario) == (True, 3000, 0)


def test_without_rights_there_is_no_socket_where_the_kernel_does_not_allow_it() -> None:
    async def scenario() -> None:
        IcmpSocket(socket.AF_INET)

    with pytest.raises(PermissionError):
        run_in_private_network(scenario, is_privileged=False)
