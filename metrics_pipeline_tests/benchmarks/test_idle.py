"""How the benchmark accounts for CPU; the stack itself is not started here."""

from __future__ import annotations

import subprocess
import sys

from metrics_pipeline_tests.benchmarks.idle import Watch
from metrics_pipeline_tests.soak.watching import RUN

CPU_SECONDS = 0.3
BURN = f"import time\nwhile time.process_time() < {CPU_SECONDS}: pass"
PARENT = f"""
import subprocess, sys
sys.stdin.readline()
subprocess.run([sys.executable, "-c", {BURN!r}])
print("it has ended", flush=True)
sys.stdin.readline()
"""


def test_what_a_run_took_is_counted_after_it_has_ended() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        watch = Watch(parent.pid)
        watch.look()
        print(file=parent.stdin, flush=True)
        parent.stdout.readline()
        watch.look()
        print(file=parent.stdin, flush=True)
    assert watch.spent()[RUN] > CPU_SECONDS - 0.1
