"""Each fuzz target runs, and keeps its promise for some thousands of inputs."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from metrics_pipeline_tests.servers import require_module

TARGETS = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if path.stem not in {"__init__", "runner", Path(__file__).stem}
)
RUNS = 500


@pytest.fixture(autouse=True)
def _fuzzer() -> None:
    # As pyproject.toml has it.
    is_there = sys.platform == "linux" and platform.machine() == "x86_64"
    if not is_there or sys.version_info >= (3, 14):
        pytest.skip("there is atheris for Linux on x86_64 and Python 3.11 to 3.13")
    require_module("atheris", "make install-test")


def run(module: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a target in a process of its own, which leaves nothing outside of `folder`."""
    return run_python("-m", f"metrics_pipeline_tests.fuzz.{module}", *arguments, folder=folder)


def run_python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python as a child of a shell, not of this process.

    Linux counts the memory of the process that starts another as the most the other ever had
    (getrusage(2), ru_maxrss), and libFuzzer ends where that is above its limit.
    """
    in_a_shell = ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
    return subprocess.run(
        [*in_a_shell, sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"TMPDIR": str(folder)},
    )


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_keeps_its_promise(target: str, tmp_path: Path) -> None:
    done = run(target, "--runs", str(RUNS), folder=tmp_path)
    assert done.returncode == 0, done.stderr[-5000:]
    assert f"Done {RUNS} runs" in done.stderr


def test_the_product_is_watched(tmp_path: Path) -> None:
    done = run("snmp_messages", "--runs", "50", folder=tmp_path)
    assert "INFO: Instrumenting metrics_pipeline.access.snmp_ber" in done.stderr


def test_the_memory_of_this_process_is_not_counted(tmp_path: Path) -> None:
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    assert int(run_python("-c", code, folder=tmp_path).stdout) < ours / 2


def test_a_broken_promise_is_a_failure_and_its_input_is_kept(tmp_path: Path) -> None:
    promise = (
        "from metrics_pipeline_tests.fuzz.runner import fuzz\n"
        "def check(data):\n    assert b'!' not in data\nfuzz(check, [b'fine', b'not!'])\n"
    )
    done = run_python("-c", promise, "--runs", "100", folder=tmp_path)
    assert done.returncode != 0
    assert "AssertionError" in done.stderr + done.stdout
    (kept,) = tmp_path.glob("fuzz-*/crash-*")
    assert b"!" in kept.read_bytes()
