"""Which failures Dagster may run again, and what it shows of them."""

from __future__ import annotations

import pytest

from metrics_pipeline.core.errors import (
    MetricsPipelineError,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    StoreUnavailable,
    UnexpectedReply,
)
from metrics_pipeline.orchestration.failures import failure

UNREACHABLE = SourceUnreachable("hub", "device_count", "no answer", "Check the address.")
THROTTLED = SourceThrottled("hub", "edge_device_count", "asked too often", "Wait.", 30)
REFUSED = SourceRefused("hub", "device_count", "401", "Name another key.")
UNEXPECTED = UnexpectedReply("hub", "device_count", "not JSON", b"<html>")
STORE_DOWN = StoreUnavailable("store", "refused", "Start it.")


@pytest.mark.parametrize(
    ("errors", "kept", "may_run_again"),
    [
        ([UNREACHABLE], 0, True),
        ([UNREACHABLE, THROTTLED], 0, True),
        ([UNREACHABLE], 1, False),
        ([UNREACHABLE, REFUSED], 0, False),
        ([UNEXPECTED], 0, False),
        ([STORE_DOWN], 0, False),
    ],
)
def test_a_step_runs_again_only_if_nothing_was_read_and_that_may_pass(
    errors: list[MetricsPipelineError], kept: int, may_run_again: bool
) -> None:
    assert failure(errors, kept).allow_retries is may_run_again


def test_the_failure_shows_every_error_and_how_many_values_were_kept() -> None:
    shown = failure([UNREACHABLE, REFUSED], 3)
    assert shown.description == f"{UNREACHABLE}\n{REFUSED}"
    assert shown.metadata["values_kept"].value == 3
    assert str(shown.metadata["failed"].value).count("\n- ") == 1
