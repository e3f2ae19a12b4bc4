"""The garbage collector is as it was once what held it back is over."""

import gc
import subprocess
import sys

import pytest

from metrics_pipeline.access.garbage_collection import importing


@pytest.mark.parametrize("was_enabled", [True, False])
def test_while_a_process_imports_no_garbage_is_looked_for_and_then_as_before(
    was_enabled: bool,
) -> None:
    before = gc.isenabled()
    try:
        switch(was_enabled)
        with importing():
            assert not gc.isenabled()
        assert gc.isenabled() is was_enabled
    finally:
        switch(before)


def switch(on: bool) -> None:
    if on:
        gc.enable()
    else:
        gc.disable()


SERVES = """
import gc
from metrics_pipeline.access.garbage_collection import keep_what_is_there

def pass_by():
    cycle = []
    cycle.append(cycle)

imported = [[number] for number in range(300_000)]
keep_what_is_there()
before = gc.get_stats()[2]["collections"]
for _ in range(150_000):
    pass_by()
print(gc.get_freeze_count(), gc.get_stats()[2]["collections"] - before)
"""


def test_garbage_of_a_process_that_serves_does_not_wait_for_a_quarter_of_what_was_imported() -> (
    None
):
    done = subprocess.run([sys.executable, "-c", SERVES], capture_output=True, check=True)
    frozen, collections = map(int, done.stdout.split())
    assert frozen > 300_000
    assert collections > 0
