"""The clock that faults are made with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from metrics_pipeline_tests.faults.wrong_clock import make_wrong_clock

PROGRAM = """
import sys, threading, time
for _ in sys.stdin:
    began = time.monotonic()
    threading.Event().wait(0.01)
    time.sleep(0.01)
    assert 0.02 <= time.monotonic() - began < 1000
    print(time.time(), flush=True)
"""
TOLERANCE_SECONDS = 900


def test_a_process_goes_by_the_clock_it_is_given_and_waits_as_long_as_before(
    tmp_path: Path,
) -> None:
    clock = make_wrong_clock(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **clock.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for wrong_seconds in (0, 3600, -3600, 0):
        clock.set(wrong_seconds)
        assert process.stdin is not None
        assert process.stdout is not None
        print("now?", file=process.stdin, flush=True)
        said = float(process.stdout.readline())
        assert abs(said - wrong_seconds - time.time()) < TOLERANCE_SECONDS
    process.communicate()
    assert process.returncode == 0
