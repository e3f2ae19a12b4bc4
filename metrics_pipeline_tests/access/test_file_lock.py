"""Locks that files stand for: who has one, who does not, and who waits."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from metrics_pipeline.access.file_lock import hold, hold_in_turn
from metrics_pipeline_tests.servers import running

THREADS, TURNS = 4, 25
LONG_SECONDS = 60.0
HOLDER = """
import sys, time
from pathlib import Path
from metrics_pipeline.access.file_lock import hold_in_turn
with hold_in_turn(Path(sys.argv[1])):
    Path(sys.argv[2]).touch()
    time.sleep(600)
"""


def test_what_one_holds_another_does_not_get(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path, 0) as is_mine, hold(path, 0) as is_another_s:
        assert is_mine
        assert not is_another_s
    with hold(path, 0) as is_mine:
        assert is_mine


def test_those_who_wait_have_it_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    holders: list[int] = []

    def take_turns(number: int) -> None:
        for _ in range(TURNS):
            with hold_in_turn(path):
                holders.append(number)
                with hold(path, 0) as is_free:
                    assert not is_free
                assert holders == [number]
                holders.clear()

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(take_turns, range(THREADS))) == [None] * THREADS


def test_who_dies_lets_it_go(tmp_path: Path) -> None:
    path, held = tmp_path / "lock", tmp_path / "held"
    with running([sys.executable, "-c", HOLDER, str(path), str(held)], held.exists) as pid:
        with hold(path, 0) as is_mine:
            assert not is_mine
        os.kill(pid, signal.SIGKILL)
        with hold(path, LONG_SECONDS) as is_mine:
            assert is_mine
