"""Target: ICMP and ICMPv6 messages. The first byte chooses the version and the kind of socket."""

from __future__ import annotations

import ipaddress
import socket

from metrics_pipeline_tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from metrics_pipeline.access.icmp_socket import (
        PAYLOAD_BYTES,
        VERSIONS,
        Rejection,
        Reply,
        build_request,
        parse,
    )

IDENTIFIER = 0x1234
V4, V6 = VERSIONS[socket.AF_INET], VERSIONS[socket.AF_INET6]


def check(data: bytes) -> None:
    """Nothing is raised; a reply has what came, and a rejection names an address."""
    if not data:
        return
    version = V6 if data[0] & 1 else V4
    identifier = None if data[0] & 2 else IDENTIFIER
    found = parse(version, identifier, data[1:], "192.0.2.1", 7)
    if isinstance(found, Reply):
        assert found.payload == data[9:]
    elif isinstance(found, Rejection):
        ipaddress.ip_address(found.target)
        assert 0 <= found.sequence < 2**16


def seeds() -> list[bytes]:
    """Replies, and errors that quote a request."""
    found = []
    for version in (V4, V6):
        request = build_request(version, IDENTIFIER, 5, bytes(PAYLOAD_BYTES))
        quoted = b"\x45" + bytes(8) + b"\x01" + bytes(10) if version is V4 else bytes(40)
        if version is V6:
            quoted = quoted[:6] + b"\x3a" + quoted[7:]
        error = bytes((version.unreachable, 1)) + bytes(6) + quoted + request
        found += [bytes((version is V6,)) + bytes((version.reply,)) + request[1:]]
        found += [bytes((version is V6,)) + error]
    return found


if __name__ == "__main__":
    fuzz(check, seeds())
