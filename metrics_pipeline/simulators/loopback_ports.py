"""Sockets on many loopback addresses with one port, and addresses that fall silent."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

START_TRIES = 20

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A `struct sock_filter` (linux/filter.h): return 0, keep nothing of the packet."""


def bind_all(addresses: Sequence[str], port: int, kind: socket.SocketKind) -> list[socket.socket]:
    """A socket on each of `addresses`, on the same port; 0 is any that is free on all of them.

    They do not block. Raises OSError.
    """
    for _ in range(START_TRIES):
        found: list[socket.socket] = []
        try:
            for address in addresses:
                found.append(_bind(address, port or _port_of(found), kind))
        except OSError:
            for each in found:
                each.close()
            # If not even the first could be had, no other port would do.
            if port or not found:
                raise
        else:
            return found
    raise OSError(f"no port is free on all of {len(addresses)} addresses")


def silence(listener: socket.socket) -> None:
    """Let the kernel drop whatever arrives, as if no such machine were there. Linux only.

    Connections that are open already go on. Twice is once.
    """
    program = ctypes.create_string_buffer(_DROP_ALL, len(_DROP_ALL))
    pointer = struct.pack("HP", 1, ctypes.addressof(program))  # struct sock_fprog
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


def unsilence(listener: socket.socket) -> None:
    """Take in what arrives again, if `silence` was called."""
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except FileNotFoundError:
        return  # there was no filter


def _port_of(found: Sequence[socket.socket]) -> int:
    port: int = found[0].getsockname()[1] if found else 0
    return port


def _bind(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind)
    bound.setblocking(False)
    try:
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound
