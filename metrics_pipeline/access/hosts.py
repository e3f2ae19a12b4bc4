"""Host names and addresses, as far as one can judge them without asking anybody."""

from __future__ import annotations

import ipaddress
import re

MAX_PORT = 65535
SSH_PORT = 22

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:(?P<port>[0-9]{1,5}))?")


def is_host(text: str) -> bool:
    """Whether `text` is a host name or IPv4 address, with or without a port, and no more."""
    match = _HOST.fullmatch(text)
    return match is not None and int(match["port"] or 0) <= MAX_PORT


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address without a port, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
