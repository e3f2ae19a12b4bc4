"""Processes of the stack: started, watched, ended with everything they started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metrics_pipeline.stack.processes import Child, ProcessFailed, end_all
from metrics_pipeline_tests.servers import wait_until

SLEEP = "import time; time.sleep(600)"
PARENT = f"""
import subprocess, sys, pathlib
child = subprocess.Popen([sys.executable, "-c", "{SLEEP}"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
child.wait()
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
)


def start(folder: Path, code: str, *arguments: str) -> Child:
    command = [sys.executable, "-c", code, *arguments]
    return Child.start("a process", command, {}, folder)


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_ending_a_process_ends_what_it_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    child = start(tmp_path, PARENT, str(file))
    wait_until(lambda: file.exists() and file.read_text() != "", "the grandchild has started")
    grandchild = int(file.read_text())
    end_all([child])
    wait_until(lambda: not is_alive(grandchild), "the grandchild has ended")
    assert not child.is_running


def test_a_process_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.stack.processes.TERM_SECONDS", 0.1)
    child = start(tmp_path, f"{STUBBORN}; {SLEEP}")
    wait_until(lambda: child.log.read_text() != "", "it ignores SIGTERM")
    end_all([child])
    assert child.process.returncode == -9


PRINTING = """
import sys, time
for number in range(10**9):
    print(number, flush=True)
    time.sleep(0.001)
"""


def test_a_log_is_bounded_while_it_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.stack.processes.LOG_BYTES", 1000)
    child = start(tmp_path, PRINTING)
    before = child.log.with_name(f"{child.log.name}.1")
    try:
        for _ in range(2):
            wait_until(lambda: child.log.stat().st_size > 1000, "it has grown")
            child.bound_log()
            kept = before.read_text()
            assert len(kept) > 1000
            assert kept.splitlines()[0].isdecimal()
            wait_until(lambda: child.log.read_text() != "", "it goes on")
            assert int(child.log.read_text().splitlines()[0]) > int(kept.splitlines()[-2])
    finally:
        end_all([child])


def test_a_log_that_is_gone_holds_nobody_up(tmp_path: Path) -> None:
    child = start(tmp_path, SLEEP)
    child.log.unlink()
    child.bound_log()
    end_all([child])


def test_what_a_process_started_is_ended_though_the_process_itself_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    child = start(tmp_path, PARENT.replace("child.wait()", ""), str(file))
    child.process.wait()
    grandchild = int(file.read_text())
    end_all([child])
    wait_until(lambda: not is_alive(grandchild), "the grandchild has ended")


def test_a_process_that_ends_before_it_is_ready_shows_its_last_words(tmp_path: Path) -> None:
    child = start(tmp_path, "import sys; print('the port is taken'); sys.exit(3)")
    with pytest.raises(ProcessFailed, match=r"ended with status 3(.|\n)*the port is taken"):
        child.wait_until(lambda: False, within_seconds=30)


def test_a_process_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    child = start(tmp_path, SLEEP)
    try:
        with pytest.raises(ProcessFailed, match="not ready within 0 s"):
            child.wait_until(lambda: False, within_seconds=0.2)
    finally:
        end_all([child])
