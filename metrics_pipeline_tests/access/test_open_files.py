"""The limit of open files: raised as far as the system lets us, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHILD = """
import resource
from metrics_pipeline.access.open_files import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
allow_open_files(1000)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "then"),
    [(100, 10_000, 5096), (100, 2000, 2000), (100, 100, 100), (9000, 10_000, 9000)],
)
def test_the_limit_is_raised_to_what_is_needed_and_allowed(soft: int, hard: int, then: int) -> None:
    argv = [sys.executable, "-c", CHILD.format(soft=soft, hard=hard)]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert said.split() == [str(then), str(hard)]
