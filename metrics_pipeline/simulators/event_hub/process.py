"""A hub in a process of its own, for benchmarks: it takes no time from who reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

STOP_SECONDS = 10.0


class EventHubProcess:
    """A hub that is told what to do. Not thread-safe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.connection_string: str = self._answer()["connection_string"]

    @property
    def pid(self) -> int:
        """Of the hub."""
        return self._process.pid

    def do(self, command: str, **arguments: Any) -> Any:
        """Tell it one of `commands`, and give what came back.

        Raises ValueError when it says that it cannot, and EOFError when it has ended.
        """
        print(json.dumps({"do": command, **arguments}), file=self._process.stdin, flush=True)
        answer = self._answer()
        if "error" in answer:
            raise ValueError(f"The event hub was told to {command} and said {answer['error']}")
        return answer["done"]

    def _answer(self) -> dict[str, Any]:
        output = self._process.stdout
        line = output.readline() if output is not None else ""
        if not line:
            raise EOFError("The event hub's process has ended.")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def event_hub_process(
    *, name: str = "telemetry", partition_count: int = 4
) -> Iterator[EventHubProcess]:
    """Start a hub, and end it afterwards."""
    command = [
        sys.executable,
        "-m",
        __package__,
        "--name",
        name,
        "--partitions",
        str(partition_count),
    ]
    process = subprocess.Popen(  # noqa: S603  (our own module)
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield EventHubProcess(process)
    finally:
        _close(process.stdin)
        process.wait(STOP_SECONDS)
        _close(process.stdout)


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        stream.close()
