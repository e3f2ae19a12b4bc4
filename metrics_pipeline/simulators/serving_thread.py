"""A server of the standard library in a thread that sleeps until somebody connects.

Its own `serve_forever` looks again and again whether it is to end; a dozen servers of a simulation
that do so fifty times a second take more than what they serve.
"""

from __future__ import annotations

import selectors
import socket
import threading
from socketserver import TCPServer

GONE_SECONDS = 1.0
"""So long somebody is waited for who has connected, and was gone before that could be answered."""


class ServingThread:
    """Accepts what comes to `server`, which has its own threads for the answers."""

    def __init__(self, server: TCPServer) -> None:
        server.timeout = GONE_SECONDS
        self._server = server
        self._is_told, self._tell = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="simulated server")

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def end(self) -> None:
        """Accept nobody any more, and close what it listened on."""
        self._tell.close()
        self._thread.join()
        self._is_told.close()
        self._server.server_close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as ready:
            for each in (self._server, self._is_told):
                ready.register(each, selectors.EVENT_READ)
            while self._is_told not in [key.fileobj for key, _ in ready.select()]:
                self._server.handle_request()
