"""Loopback ports: finding one, and asking whether one is taken."""

from __future__ import annotations

import random
import socket
from contextlib import closing
from itertools import chain

from metrics_pipeline.core.errors import ConfigurationError

LOOPBACK = "127.0.0.1"

# Below what Linux (32768) and IANA (49152) give to outgoing connections, any of which could take
# the port between our finding it and a server's listening on it.
_PORTS = range(10_000, 32_768)


def find_free_port(before: int | None = None) -> int:
    """A free loopback port, which is found by nobody else while this process lives.

    That of `before`, if it is free.

    Only a search like this one is kept away: for a program that does not ask, the port is free.
    Where the system has no abstract socket addresses (other than Linux) nobody is kept away.
    """
    preferred = [] if before is None else [before]
    at = random.randrange(len(_PORTS))  # noqa: S311 (so that two seldom look at the same one)
    for port in chain(preferred, _PORTS[at:], _PORTS[:at]):
        if _is_free(port) and _claim(port):
            return port
    raise ConfigurationError(
        "ports", f"none of {_PORTS.start} to {_PORTS.stop - 1} is free", "End what listens there."
    )


def is_listening(port: int) -> bool:
    """Whether something accepts connections on the loopback port."""
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def require_free_port(port: int, option: str) -> None:
    """ConfigurationError if something listens on the loopback port already."""
    if not _is_free(port):
        raise ConfigurationError(
            option,
            f"port {port} is taken by another program",
            f'Give another: make run ARGS="{option} {find_free_port()}".',
        )


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _claim(port: int) -> bool:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0metrics_pipeline/port/{port}")
    except FileNotFoundError:  # no abstract addresses: it was taken for a path
        claim.close()
        return True
    except OSError:
        claim.close()
        return False
    claim.detach()  # held until the process ends
    return True
