"""A server that says on a real socket whatever bytes a test wants, as slowly as it wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

STEP_SECONDS = 0.02
ENDLESS_STEPS = 2000
"""Far more of STEP_SECONDS than any timeout of a test: who is not left goes on until its end."""


class Talk:
    """The server's side of one connection, until the other side has gone or the test is over."""

    def __init__(self, connection: socket.socket, stopped: threading.Event) -> None:
        self._connection = connection
        self._stopped = stopped

    def answer(self, reply: bytes) -> None:
        """Wait for a request, and reply."""
        self._connection.recv(65_536)
        self._connection.sendall(reply)

    def say_nothing(self) -> None:
        """Until the test is over."""
        self._stopped.wait()

    def repeat(self, piece: bytes) -> None:
        """Send `piece` again and again."""
        for _ in range(ENDLESS_STEPS):
            self._connection.sendall(piece)
            if self._stopped.wait(STEP_SECONDS):
                return


class RawServer:
    """Bytes on a real socket. `was_left` is set once a client went away in mid-sentence."""

    def __init__(self, say: Callable[[Talk], None]) -> None:
        self._say = say
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self.was_left = threading.Event()
        self._threads[0].start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/"

    @property
    def connections(self) -> int:
        """How many there were."""
        return len(self._connections)

    def close(self) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for connection, thread in zip(self._connections, self._threads[1:], strict=True):
            with suppress(OSError):  # it was closed already
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._talk, args=(connection,)))
            self._threads[-1].start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._say(Talk(connection, self._stopped))
            except OSError:
                self.was_left.set()


@contextmanager
def raw_server(say: Callable[[Talk], None]) -> Iterator[RawServer]:
    server = RawServer(say)
    try:
        yield server
    finally:
        server.close()
