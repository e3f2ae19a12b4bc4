"""The garbage collector is as it was once what held it back is over."""

import gc

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
