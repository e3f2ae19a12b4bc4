"""The whole product as processes, for tests that look at it from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from metrics_pipeline.stack.ports import find_free_port
from metrics_pipeline.stack.webserver_client import TRUST
from metrics_pipeline_tests.graphql import ask
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

READY = "from now on the schedules count"
ENDS_WITHIN_SECONDS = 60.0
LOOK_EVERY_SECONDS = 0.5


@dataclass(slots=True)
class RunningStack:
    """A stack that was started by a command, and what can be seen of it."""

    process: subprocess.Popen[str]
    webserver_port: int
    exporter_port: int
    lines: list[str] = field(default_factory=list)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return "".join(self.lines)

    @property
    def webserver_url(self) -> str:
        """Dagster's UI."""
        return f"http://127.0.0.1:{self.webserver_port}"

    def page(self) -> str:
        """The exporter's page."""
        return httpx.get(f"http://127.0.0.1:{self.exporter_port}/metrics", verify=TRUST).text

    def status_page(self) -> str:
        """The exporter's page for people."""
        return httpx.get(f"http://127.0.0.1:{self.exporter_port}/", verify=TRUST).text

    def gauge(self, name: str) -> float | None:
        """The value of a series of the page, or None if it is not there."""
        rows = [line.rsplit(" ", 1) for line in self.page().splitlines()]
        return next((float(row[1]) for row in rows if row[0] == name), None)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The `data` of a GraphQL answer."""
        return ask(self.webserver_url, query, **variables)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Return once `condition` holds; fail with the output if it does not in time."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(f"waited in vain until {what}:\n{self.output}")
            time.sleep(LOOK_EVERY_SECONDS)

    def interrupt(self) -> int:
        """Ctrl-C: a SIGINT to the whole foreground process group. Returns the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(ENDS_WITHIN_SECONDS)


@contextmanager
def running_stack(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[RunningStack]:
    """Run `command` with free ports in ARGS style options; ended with SIGINT at the latest."""
    ports = find_free_port(), find_free_port()
    options = f"--webserver-port {ports[0]} --exporter-port {ports[1]} --gateway-port 0"
    process = subprocess.Popen(
        [part.replace("PORTS", options) for part in command],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    stack = RunningStack(process, *ports)
    reader = threading.Thread(target=lambda: stack.lines.extend(process.stdout or ()))
    reader.start()
    try:
        yield stack
    finally:
        if process.poll() is None:
            stack.interrupt()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def processes_in(folder: Path) -> list[str]:
    """The command lines of processes that name `folder` in command or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            seen = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if str(folder).encode() in seen and entry.name != str(os.getpid()):
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
