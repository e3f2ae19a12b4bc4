"""An HTTP server on loopback that can be made to misbehave, request by request.

What the simulators of services share: real sockets, threads, TLS where asked for, a record of the
last requests, and a script of faults.
"""

from __future__ import annotations

import ssl
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from metrics_pipeline.simulators.serving_thread import ServingThread

HOST = "127.0.0.1"
MAX_BODY_BYTES = 1_000_000
REMEMBERED_REQUESTS = 1000
IDLE_CONNECTION_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Request:
    """A whole HTTP request. Header names are in lower case."""

    method: str
    path: str
    parameters: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. With `seconds_per_byte`, the body comes one byte at a time."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds_per_byte: float = 0.0


class NoAnswer:
    """A fault: the request is read, and nothing ever comes back."""


Fault = Answer | NoAnswer | None
"""What one request gets instead of its answer; None is the true answer."""


class LoopbackServer(ABC):
    """Listens as soon as it exists, answers as a context manager. `port` 0 takes a free one."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.faults: deque[Fault] = deque()
        """The next requests get these, one each."""
        self.requests: deque[Request] = deque(maxlen=REMEMBERED_REQUESTS)
        self.stopped = threading.Event()
        self._server = _Server(port, self, tls)
        self._serving = ServingThread(self._server)

    @abstractmethod
    def respond(self, request: Request) -> Answer:
        """The true answer; called from several threads at once."""

    def answer(self, request: Request) -> Answer | NoAnswer:
        """The next fault, or the true answer."""
        self.requests.append(request)
        fault = self.faults.popleft() if self.faults else None
        return self.respond(request) if fault is None else fault

    @property
    def host(self) -> str:
        """Address and port."""
        return f"{HOST}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._serving.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopped.set()
        self._serving.end()


class _Server(ThreadingHTTPServer):
    """Connections of clients that never leave do not keep it from closing."""

    daemon_threads = True

    def __init__(self, port: int, owner: LoopbackServer, tls: ssl.SSLContext | None) -> None:
        super().__init__((HOST, port), _Handler)
        self.owner = owner
        if tls is not None:
            # The handshake is left to the connection's own thread: it may never come.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def server_bind(self) -> None:
        """As HTTPServer does, but without asking DNS for this machine's name, which may hang."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away or trust another certificate."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1; one instance for each connection."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_CONNECTION_SECONDS
    wbufsize = -1  # one packet for head and body

    def do_GET(self) -> None:
        self._answer(b"")

    def do_DELETE(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("content-length", "0"))))

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= MAX_BODY_BYTES):
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
            return
        self._answer(self.rfile.read(int(length)))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are in `LoopbackServer.requests`; the terminal stays quiet."""

    def _answer(self, body: bytes) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        parameters = dict(parse_qsl(url.query))
        request = Request(self.command, url.path, parameters, headers, body)
        answer = self.server.owner.answer(request)
        if isinstance(answer, Answer):
            self._send(answer)
        else:
            self.close_connection = True
            self.server.owner.stopped.wait(IDLE_CONNECTION_SECONDS)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if answer.seconds_per_byte:
            self._dribble(answer)
        else:
            self.wfile.write(answer.body)

    def _dribble(self, answer: Answer) -> None:
        for byte in answer.body:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.server.owner.stopped.wait(answer.seconds_per_byte):
                return
