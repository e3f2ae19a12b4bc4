"""How the benchmark accounts for CPU; the stack itself is not started here."""

from __future__ import annotations

import subprocess
import sys

from metrics_pipeline_tests.benchmarks.idle import Watch, promised
from metrics_pipeline_tests.soak.watching import RUN, Footprint

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


def test_what_others_rely_on_is_printed() -> None:
    memory = {"daemon": Footprint(1, rss_mb=145.04), "exporter": Footprint(1, rss_mb=140.0)}
    spent = {"daemon": 7.5, RUN: 7.5}
    assert promised(100.0, spent, memory, [0.4, 0.9, 0.5], event_log_grew_mb=0.01) == {
        "cpu_share_of_one_core": 0.15,
        "rss_mb_by_process": {"daemon": 145.0, "exporter": 140.0},
        "run_create_to_start_s": 0.5,
        "bytes_per_day": 8_640_000,
    }
    assert promised(100.0, spent, memory, [], 0.0)["run_create_to_start_s"] is None
