"""What the product takes of its machine, of real processes, real files and a /proc of our own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE
from metrics_pipeline.exporter.host_resources import MEMORY_SECONDS, HostReader
from metrics_pipeline_tests.servers import wait_until

SLEEP = "import sys; sys.stdin.read()"
SHARED_BYTES = 60_000_000
FORK = f"""
import os, sys
held = b"x" * {SHARED_BYTES}
if all(os.fork() for _ in range(3)):
    print("forked", flush=True)
sys.stdin.read()
"""
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that calls itself Dagster's daemon, over the state directory `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", SLEEP, "dagster-daemon"],
        env={STATE_DIR_VARIABLE: str(tmp_path)},
        stdin=subprocess.PIPE,
    ) as process:
        yield process


def test_processes_over_the_same_state_are_found_and_no_others(
    tmp_path: Path, daemon: subprocess.Popen[bytes]
) -> None:
    reader = HostReader(tmp_path, {})
    wait_until(lambda: "daemon" in reader.read().processes, "the process is seen")
    usage = reader.read().processes["daemon"]
    assert usage.resident_bytes > 1_000_000
    assert usage.open_files >= 3
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "daemon" not in HostReader(elsewhere, {}).read().processes


def test_memory_that_forked_processes_share_is_counted_once(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORK, "dagster-daemon"],
        env={STATE_DIR_VARIABLE: str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"forked\n"
        usage = HostReader(tmp_path, {}).read().processes["daemon"]
    assert usage.open_files >= 4 * 3
    assert SHARED_BYTES < usage.resident_bytes < 3 * SHARED_BYTES


def test_memory_is_looked_at_seldom_and_that_of_a_new_process_at_once(tmp_path: Path) -> None:
    now, proc = [0.0], tmp_path / "proc"
    reader = HostReader(tmp_path, {}, proc, lambda: now[0])

    def look(*kilobytes: int) -> int:
        for pid, size in enumerate(kilobytes, start=1):
            write_process(proc, pid, 1.0, 1, tmp_path)
            (proc / str(pid) / "smaps_rollup").write_text(f"0-f [rollup]\nPss: {size} kB\n")
        return reader.read().processes["run"].resident_bytes // 1024

    assert look(900) == 900
    assert look(500, 400) == 900 + 400
    now[0] = MEMORY_SECONDS
    assert look(500, 400) == 900


def write_process(proc: Path, pid: int, cpu_seconds: float, started: int, state: Path) -> None:
    """As proc(5) says: the program's name may have anything in it."""
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True, exist_ok=True)
    ticks = round(cpu_seconds * TICKS_PER_SECOND)
    fields = ["S", *"0" * 10, str(ticks), "0", *"0" * 6, str(started), "0", "3"]
    (folder / "stat").write_text(f"{pid} (a) b (c) {' '.join(fields)}")
    (folder / "environ").write_bytes(f"A=b\0{STATE_DIR_VARIABLE}={state}\0".encode())
    (folder / "cmdline").write_bytes(b"python\0-c\0from x import spawn_main\0")


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("daemon", "daemon"),
        ("code-server", "code_server"),
        ("exporter", "exporter"),
        ("gateway", "gateway"),
        ("worker", "worker"),
    ],
)
@pytest.mark.parametrize("program", ["python\0-m\0metrics_pipeline", "bin/metrics-pipeline"])
def test_each_command_that_goes_on_is_called_by_its_name(
    tmp_path: Path, program: str, command: str, role: str
) -> None:
    write_process(tmp_path / "proc", 1, 1.0, 1, tmp_path)
    (tmp_path / "proc" / "1" / "cmdline").write_text(f"{program}\0{command}\0--port\0001\0")
    assert set(HostReader(tmp_path, {}, tmp_path / "proc").read().processes) == {role}


def test_the_cpu_time_of_runs_only_rises_while_processes_come_and_go(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    reader = HostReader(tmp_path, {}, proc)
    seen = []
    # Another process with the same number has another start time.
    for cpu_seconds, started in ((2.0, 1), (5.0, 1), (1.0, 2), (1.5, 2)):
        write_process(proc, 4242, cpu_seconds, started, tmp_path)
        seen.append(reader.read().processes["run"].cpu_seconds)
    assert seen == [2.0, 5.0, 6.0, 6.5]
    assert reader.read().processes["run"].resident_bytes == 3 * os.sysconf("SC_PAGE_SIZE")


def test_a_process_that_ends_while_it_is_looked_at_is_left_out(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    write_process(proc, 1, 1.0, 1, tmp_path)
    write_process(proc, 2, 1.0, 1, tmp_path)
    (proc / "2" / "environ").unlink()
    assert HostReader(tmp_path, {}, proc).read().processes["run"].cpu_seconds == 1.0


def test_databases_are_files_with_their_logs_or_folders_and_absent_ones_have_no_size(
    tmp_path: Path,
) -> None:
    (tmp_path / "one.sqlite").write_bytes(b"x" * 10)
    (tmp_path / "one.sqlite-wal").write_bytes(b"x" * 5)
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "runs.db").write_bytes(b"x" * 7)
    files = {"operational": "one.sqlite", "dagster": "history", "store": "absent"}
    reader = HostReader(tmp_path, {name: tmp_path / file for name, file in files.items()})
    state = reader.read()
    assert state.databases["operational"] == 15
    assert state.databases["dagster"] >= 7
    assert "store" not in state.databases
    assert 0 < state.disk_free_bytes <= state.disk_size_bytes
