"""One connection to a Redis or Valkey server that sends commands and reads their answers (RESP 2).

To add events nothing else is needed, and each run's process pays for what it imports: redis-py,
with its asynchronous, cluster and sentinel clients, takes 74 ms of CPU, and hiredis, the parser by
the same people, 1 ms.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any, cast

import hiredis

from metrics_pipeline.access.redis_address import Address

CHUNK_BYTES = 65_536
CLIENT_NAME = "metrics_pipeline"

Command = Sequence[str]


class RedisWire:
    """A connection that is open. Fails with OSError, UnicodeError and hiredis.HiredisError."""

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        self._reader = hiredis.Reader()
        self._socket = _open(address, timeout_seconds)
        try:
            self._greet(address)
        except BaseException:
            self.close()
            raise

    def ask(self, *command: str) -> object:
        """What the server answers to one command."""
        return _good(self._exchange([command])[0])

    def transact(self, commands: Sequence[Command]) -> None:
        """Do all of them, or none."""
        *queued, done = self._exchange([("MULTI",), *commands, ("EXEC",)])
        for answer in (*queued, *(done if isinstance(done, list) else [done])):
            _good(answer)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _greet(self, address: Address) -> None:
        if address.password:
            self.ask("AUTH", *filter(None, (address.user, address.password)))
        if address.database:
            self.ask("SELECT", str(address.database))
        self._exchange([("CLIENT", "SETNAME", CLIENT_NAME)])  # who may not, has no name

    def _exchange(self, commands: Sequence[Command]) -> list[object]:
        # Its annotation is of a tuple with one part.
        packed = (hiredis.pack_command(cast("Any", tuple(each))) for each in commands)
        self._socket.sendall(b"".join(packed))
        return [self._read() for _ in commands]

    def _read(self) -> object:
        # False is no answer in RESP 2: there is not enough yet.
        while (answer := self._reader.gets()) is False:
            some = self._socket.recv(CHUNK_BYTES)
            if not some:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(some)
        return answer


def _open(address: Address, timeout_seconds: float) -> socket.socket:
    if address.path:
        opened = socket.socket(socket.AF_UNIX)
        opened.settimeout(timeout_seconds)
        try:
            opened.connect(address.path)
        except OSError:
            opened.close()
            raise
        return opened
    opened = socket.create_connection((address.host, address.port), timeout_seconds)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not address.is_tls:
        return opened
    return ssl.create_default_context().wrap_socket(opened, server_hostname=address.host)


def _good(answer: object) -> object:
    if isinstance(answer, hiredis.ReplyError):
        raise answer
    return answer
