"""`metrics-pipeline COMMAND` that serves: fresh, or forked from a process that has imported it.

An interpreter of its own imports for one to three seconds of CPU before it does anything. It is for
tests whose promise is what the command does; that the command itself starts is for others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from metrics_pipeline.cli import main
from metrics_pipeline_tests.at_once import CONTEXT
from metrics_pipeline_tests.servers import STOP_SECONDS, wait_until

SERVING = "serving "
"""What a command says before the address on which it listens."""


class ForkedCommand:
    """What is asked of a `subprocess.Popen`."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start it; what it prints is in `log`."""
        log.write_bytes(b"")  # what the one before said is not what this one says
        self._words = tuple(words)
        self._process = CONTEXT.Process(target=_run, args=(words, dict(environment), log))
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status, as soon as it has ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status once it has ended; TimeoutExpired if it has not after so many seconds."""
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self._words, timeout)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """To the process, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def fresh_command(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """An interpreter of its own with `arguments`; what it prints is in `log`."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *arguments], env=environment, stdout=output, stderr=subprocess.STDOUT
        )


@contextmanager
def serving(process: ForkedCommand | subprocess.Popen[bytes], log: Path) -> Iterator[str]:
    """The address on which it listens, once it does; killed at last."""
    try:
        wait_until(lambda: SERVING in log.read_text(), f"it serves: {log}", process)
        yield log.read_text().partition(SERVING)[2].split()[0]
    finally:
        process.kill()
        process.wait(STOP_SECONDS)


def _run(words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Be an interpreter that was started for it."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.exit(main(words))
