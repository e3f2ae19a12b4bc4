"""Child processes: started with a log of their own, watched, and ended with all their children."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metrics_pipeline.core.errors import MetricsPipelineError

TERM_SECONDS = 10.0
LOG_TAIL_LINES = 15
LOG_BYTES = 10_000_000
"""A log that has grown beyond this is begun anew, and what it had is kept until the next time."""
LOOK_EVERY_SECONDS = 0.1
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class ProcessFailed(MetricsPipelineError):
    """A process of the stack ended by itself, or was not ready in time."""

    def __init__(self, child: Child, problem: str) -> None:
        super().__init__(f"{child.name} {problem}. {child.log} ends with:\n{child.tail()}")


@dataclass(slots=True)
class Child:
    """One process of the stack, the leader of its own process group."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str], log_dir: Path
    ) -> Child:
        """Start `command`; its output goes to `log_dir/NAME.log`, anew at each start."""
        log_dir.mkdir(parents=True, exist_ok=True)
        log = log_dir / f"{name.replace(' ', '_')}.log"
        log.write_bytes(b"")
        with log.open("ab") as output:  # so that it is cut off under whoever writes to it
            process = subprocess.Popen(  # noqa: S603 (the commands are ours)
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 (there are no threads here)
            )
        return cls(name, log, process)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:]) or "    (nothing)"

    def bound_log(self) -> None:
        """Keep at most `LOG_BYTES` of what it printed, and as much again as `NAME.log.1`.

        What is printed between the copy and the cut, some milliseconds, is in neither.
        """
        with suppress(OSError):  # somebody has moved it away, or the copy has no room
            if self.log.stat().st_size > LOG_BYTES:
                try:
                    shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
                finally:  # also where the disk is full: then it gets room
                    os.truncate(self.log, 0)

    def wait_until(self, is_ready: Callable[[], bool], within_seconds: float) -> None:
        """Return when `is_ready`; ProcessFailed if it ends before, or is not ready in time."""
        deadline = time.monotonic() + within_seconds
        while not is_ready():
            if not self.is_running:
                raise ProcessFailed(self, f"ended with status {self.process.returncode}")
            if time.monotonic() > deadline:
                raise ProcessFailed(self, f"was not ready within {within_seconds:.0f} s")
            time.sleep(LOOK_EVERY_SECONDS)


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when our parent dies, however it dies (prctl(2), PR_SET_PDEATHSIG)."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_all(children: Sequence[Child]) -> None:
    """End every child and whatever it started: SIGTERM, a while to finish, then SIGKILL."""
    for child in children:
        _signal_group(child, signal.SIGTERM)
    deadline = time.monotonic() + TERM_SECONDS
    for child in children:
        _wait(child, deadline)
    for child in children:
        _signal_group(child, signal.SIGKILL)
        child.process.wait()


def _wait(child: Child, deadline: float) -> None:
    try:
        child.process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return


def _signal_group(child: Child, number: signal.Signals) -> None:
    try:
        os.killpg(child.process.pid, number)
    except ProcessLookupError:
        return  # the whole group has ended
