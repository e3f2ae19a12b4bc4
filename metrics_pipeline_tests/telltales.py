"""Peers on loopback that repeat in their refusals what they were shown: passwords, tokens, keys.

Servers do so: a proxy's error page quotes the request, a database the password it does not know.
"""

from __future__ import annotations

import base64
import binascii
import json
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import asyncssh

from metrics_pipeline.simulators.loop_thread import LoopThread
from metrics_pipeline.simulators.serving_thread import ServingThread

LOOPBACK = "127.0.0.1"
REDIRECT = "/redirect"
MAX_BYTES = 65_536
ASK_FOR_PASSWORD = b"R" + struct.pack("!II", 8, 3)
"""AuthenticationCleartextPassword (PostgreSQL's manual, "Message Formats")."""

CURSES_OF_REDIS = b"-WRONGPASS nobody is called "


@dataclass(slots=True)
class Telltales:
    """Where each listens, and what `http` was shown in headers."""

    http: int
    postgresql: int
    redis: int
    ssh: int
    ssh_key: str
    udp: int
    tcp: int
    shown: set[str] = field(default_factory=set)
    """Values of the header Authorization: what is derived from a secret is one."""


class _Threads(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _UdpThreads(socketserver.ThreadingMixIn, socketserver.UDPServer):
    daemon_threads = True


class _Http(BaseHTTPRequestHandler):
    """Refuses with all that it was told, first of all the header Authorization."""

    protocol_version = "HTTP/1.1"
    shown: set[str]

    def _answer(self) -> None:
        authorization = self.headers.get("Authorization", "")
        if authorization:
            self.shown.add(authorization.partition(" ")[2])
        told = " ".join((authorization, _decoded(authorization), self.path))
        body = json.dumps(dict.fromkeys(("message", "Message", "error", "code"), told)).encode()
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        is_redirect = self.path.startswith(REDIRECT)
        self.send_response(302 if is_redirect else 401, told[:200].strip() or "refused")
        self.send_header("Location", f"/elsewhere?again={self.path}")
        self.send_header("X-Told", told)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_HEAD = _answer  # noqa: N815 (names of the library)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """To nobody."""


def _decoded(authorization: str) -> str:
    try:
        return base64.b64decode(authorization.partition(" ")[2], validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


class _Postgresql(socketserver.BaseRequestHandler):
    """Asks for the password in clear text, and repeats it."""

    def handle(self) -> None:
        startup = self.request.recv(MAX_BYTES)
        if startup[4:8] == struct.pack("!I", 80877103):  # SSLRequest
            self.request.sendall(b"N")
            self.request.recv(MAX_BYTES)
        self.request.sendall(ASK_FOR_PASSWORD)
        password = self.request.recv(MAX_BYTES)[5:].rstrip(b"\0")
        said = b"SFATAL\0C28P01\0Mno role has the password " + password + b"\0\0"
        self.request.sendall(b"E" + struct.pack("!I", len(said) + 4) + said)


class _Redis(socketserver.BaseRequestHandler):
    """Refuses each command with its own words."""

    def handle(self) -> None:
        while told := self.request.recv(MAX_BYTES):
            words = b" ".join(told.splitlines())
            commands = told.count(b"*")
            self.request.sendall((CURSES_OF_REDIS + words + b"\r\n") * commands)


class _Tcp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while told := self.request.recv(MAX_BYTES):
            self.request.sendall(told)


class _Udp(socketserver.DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.read())


class _Login(asyncssh.SSHServer):
    """Knows no password, and says which."""

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, f"{username}: {password}?")


class _Ssh(LoopThread):
    """`port` and `key` are known once it is `ready`."""

    def __init__(self) -> None:
        super().__init__("SSH that repeats passwords")
        self._private = asyncssh.generate_private_key("ssh-ed25519")
        self.key = self._private.export_public_key().decode().strip()
        self.ready = threading.Event()
        self.port = 0

    async def _serve(self) -> None:
        options = {"server_host_keys": [self._private], "server_factory": _Login}
        async with asyncssh.listen(LOOPBACK, 0, **options) as listener:
            self.port = listener.get_port()
            self.ready.set()
            await self._stop.wait()


@contextmanager
def telltales() -> Iterator[Telltales]:
    """All of them."""
    shown: set[str] = set()
    http = type("ShownHttp", (_Http,), {"shown": shown})
    with ExitStack() as stack:
        ports = [
            stack.enter_context(_serving(kind((LOOPBACK, 0), handler)))
            for kind, handler in (
                (ThreadingHTTPServer, http),
                (_Threads, _Postgresql),
                (_Threads, _Redis),
                (_UdpThreads, _Udp),
                (_Threads, _Tcp),
            )
        ]
        ssh = stack.enter_context(_Ssh())
        ssh.ready.wait()
        web, postgresql, redis, udp, tcp = ports
        yield Telltales(web, postgresql, redis, ssh.port, ssh.key, udp, tcp, shown)


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    serving = ServingThread(server)
    serving.start()
    port: int = server.socket.getsockname()[1]
    try:
        yield port
    finally:
        serving.end()
