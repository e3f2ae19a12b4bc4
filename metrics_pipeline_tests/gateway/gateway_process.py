"""The gateway as its own process, and robots that speak to it over the real wire."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close
from websockets.sync.client import ClientConnection, connect

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.points import Point
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline_tests.forked_command import ForkedCommand, fresh_command, serving
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import PLAIN_HTTP, STOP_SECONDS

TOKEN = "of-all-robots-0123456789"
FOREVER_NS = 2**62
CLOSE, PING = 8, 9
"""Opcodes (RFC 6455, section 11.8)."""


@dataclass(slots=True)
class GatewayProcess:
    """`url` is `ws://127.0.0.1:port`."""

    process: ForkedCommand | subprocess.Popen[bytes]
    url: str
    state: Path

    @property
    def http_url(self) -> str:
        return self.url.replace("ws", "http", 1)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    def connect(
        self, robot_id: str = "robot-1", token: str | None = TOKEN, **headers: str
    ) -> ClientConnection:
        """A robot that is let in; InvalidStatus if it is not."""
        shown = {} if token is None else {"Authorization": f"Bearer {token}"}
        return connect(
            f"{self.url}/ws/telemetry/{robot_id}",
            additional_headers={**shown, **headers},
            compression=None,
            proxy=None,
            ping_interval=None,
            close_timeout=2,
            open_timeout=PATIENCE_SECONDS,
        )

    def refusal(self, robot_id: str = "robot-1", token: str | None = TOKEN, **headers: str) -> int:
        """The status with which a robot is not let in."""
        try:
            with self.connect(robot_id, token, **headers):
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    def get(self, robot_id: str, token: str | None = TOKEN) -> httpx.Response:
        """What REST answers of a robot."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = f"{self.http_url}/api/telemetry/robots/{robot_id}/metrics"
        return PLAIN_HTTP.get(url, headers=headers)

    def raw(self, robot_id: str = "robot-1") -> socket.socket:
        """The socket of a robot that is let in, and that says and reads nothing by itself."""
        opened = socket.create_connection(self.address, timeout=10)
        opened.sendall(
            f"GET /ws/telemetry/{robot_id} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Sec-WebSocket-Version: 13\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += opened.recv(1)
        assert b" 101 " in head, head
        return opened

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def message(number: int, time: float | None = None, **fields: Any) -> str:
    """What a robot sends."""
    times = {} if time is None else {"time": time}
    return json.dumps({"id": number, **times, **(fields or {"cpu_usage": 12.5})})


def frame(payload: bytes, opcode: int = 1, *, masked: bool = True) -> bytes:
    """A frame as it is on the wire, below 64 KB; masked with zeros."""
    bit = 0x80 if masked else 0
    size = len(payload)
    head = bytes([bit | size]) if size < 126 else bytes([bit | 126]) + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + head + (bytes(4) if masked else b"") + payload


def ask(robot: ClientConnection, text: str | bytes) -> dict[str, Any]:
    """Send a message; the answer."""
    robot.send(text)
    answer: dict[str, Any] = json.loads(robot.recv(timeout=PATIENCE_SECONDS))
    return answer


def await_close(robot: ClientConnection) -> Close:
    """The close frame that comes; answers before it are passed over."""
    found = None
    while found is None:
        try:
            robot.recv(timeout=PATIENCE_SECONDS)
        except ConnectionClosed as closed:
            found = closed.rcvd or pytest.fail(f"no close frame came: {closed}")
    return found


def frames(received: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of each frame of the gateway that is there whole, all below 64 KB."""
    at = 0
    while at + 2 <= len(received):
        start = at + (4 if received[at + 1] == 126 else 2)
        size = int.from_bytes(received[at + 2 : start]) if start - at == 4 else received[at + 1]
        if start + size <= len(received):
            yield received[at] & 0x0F, received[start : start + size]
        at = start + size


def close_code(opened: socket.socket) -> int | None:
    """The code of the close frame that a raw socket gets; None if it is just closed."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while some := opened.recv(65536):
            received += some
    codes = [int.from_bytes(payload[:2]) for opcode, payload in frames(received) if opcode == CLOSE]
    return codes[0] if codes else None


def stored(state: Path) -> tuple[Point, ...]:
    """All points of robots that the store has."""
    with contextlib.closing(EmbeddedStore(EmbeddedStoreSettings(path=state / "s.sqlite"))) as store:
        return store.read("robot_metrics", 0, FOREVER_NS)


def write_settings(state: Path, gateway: Mapping[str, Any], **sections: Any) -> None:
    """Settings with a gateway alone; `TOKEN` is for all robots."""
    state.mkdir(parents=True, exist_ok=True)
    (state / "token").write_text(TOKEN)
    tokens = {"all": {"token": {"file": "token"}}, **gateway.get("tokens", {})}
    document = {
        "version": 1,
        "sources": {},
        "store": {"kind": "embedded", "path": "s.sqlite", "busy_timeout_seconds": 0.2},
        "gateway": {"port": 0, "publish_seconds": 0.2, **gateway, "tokens": tokens},
        **sections,
    }
    (state / "settings.yaml").write_text(yaml.safe_dump(document))


def read_settings(state: Path) -> Settings:
    """As the process reads them."""
    document = yaml.safe_load((state / "settings.yaml").read_text())
    return Settings.model_validate(document, context={STATE_DIR_KEY: state})


@contextlib.contextmanager
def gateway_process(state: Path) -> Iterator[GatewayProcess]:
    """`metrics-pipeline gateway` over the settings in `state`, once it listens; killed at last."""
    log = state / "gateway.log"
    process = ForkedCommand(["gateway"], environment_of(state), log)
    with serving(process, log) as url:
        yield GatewayProcess(process, url, state)


@contextlib.contextmanager
def fresh_gateway_process(
    state: Path, arguments: Sequence[str] = ("-m", "metrics_pipeline", "gateway")
) -> Iterator[GatewayProcess]:
    """The same with an interpreter of its own, which `arguments` may start in another way."""
    log = state / "gateway.log"
    process = fresh_command(arguments, environment_of(state), log)
    with serving(process, log) as url:
        yield GatewayProcess(process, url, state)


def environment_of(state: Path) -> dict[str, str]:
    """Of a gateway that finds the settings in `state`."""
    names = {STATE_DIR_VARIABLE: str(state), SETTINGS_VARIABLE: str(state / "settings.yaml")}
    return {**os.environ, **names}
