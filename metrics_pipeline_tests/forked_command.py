"""`metrics-pipeline COMMAND` as a fork of a process that has imported it already.

An interpreter of its own imports for one to three seconds of CPU before it does anything. It is for
tests whose promise is what the command does; that the command itself starts is for others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from metrics_pipeline.cli import main
from metrics_pipeline_tests.at_once import CONTEXT


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
