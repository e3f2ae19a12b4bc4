"""A TCP proxy on loopback that stops in the middle of an answer, and keeps the connection open."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

CHUNK_BYTES = 1024


@dataclass(slots=True)
class StallingProxy:
    """Passes on all that either side says; of answers no more than `left_bytes`, unless None."""

    target: tuple[str, int]
    listener: socket.socket
    left_bytes: int | None = None
    accepted: list[socket.socket] = field(default_factory=list)
    has_stalled: threading.Event = field(default_factory=threading.Event)
    was_left: threading.Event = field(default_factory=threading.Event)
    """The client has closed a connection."""

    @property
    def port(self) -> int:
        """To connect to."""
        number: int = self.listener.getsockname()[1]
        return number

    def serve(self, sockets: ExitStack) -> None:
        """Accept until the listener is shut down."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.accepted.append(sockets.enter_context(closing(client)))
            server = sockets.enter_context(closing(socket.create_connection(self.target)))
            for job, pair in ((self._ask, (client, server)), (self._answer, (server, client))):
                threading.Thread(target=job, args=pair, daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        while _pass_on(_receive(client), server):
            pass
        self.was_left.set()
        _shut(server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        while data := _receive(server):
            if self.left_bytes is not None:
                data = data[: self.left_bytes]
                self.left_bytes -= len(data)
            if not data:
                self.has_stalled.set()
                return  # and the client waits
            _pass_on(data, client)
        _shut(client)


@contextmanager
def stalling_proxy(host: str, port: int) -> Iterator[StallingProxy]:
    """One in front of `host` and `port`."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        proxy = StallingProxy((host, port), listener)
        accepting = threading.Thread(target=proxy.serve, args=(sockets,))
        accepting.start()
        try:
            yield proxy
        finally:
            _shut(listener)
            accepting.join()


def _receive(peer: socket.socket) -> bytes:
    try:
        return peer.recv(CHUNK_BYTES)
    except OSError:
        return b""


def _pass_on(data: bytes, peer: socket.socket) -> bool:
    try:
        peer.sendall(data)
    except OSError:
        return False
    return bool(data)


def _shut(peer: socket.socket) -> None:
    try:
        peer.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was left already
