"""The one place where our errors become Dagster's: would running the step again help?

Dagster's own RetryPolicy is not used: under one, a step that is interrupted is run again as well,
so that a run could not be cancelled (seen with 1.13), and so is one that fails by our own mistake.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.ports import Reading

QUICK_SECONDS = 20.0
"""A failure that came sooner leaves time for a second try within the run's time."""

ERROR_TYPE = "error_type"
"""In the metadata of a failure: the name of its first error's class."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a step to read: how many there were before it, and how long it took."""

    earlier: int
    took_seconds: float


def outcome(reading: Reading, attempt: Attempt, retry_delay_seconds: float) -> Exception | None:
    """What a step has to raise after it read `reading`, if anything.

    Once, a step is run again: if nothing was read, all errors may pass by themselves, and they
    came quickly. A second try after a part was stored or after a refusal gains nothing, and after
    a hub that hung it would outlast the run. Otherwise a missing value is the step's failure.
    """
    if not reading.failures:
        return None
    may_pass = not reading.points and all(error.retry_helps for error in reading.failures)
    if may_pass and attempt.earlier == 0 and attempt.took_seconds < QUICK_SECONDS:
        return dg.RetryRequested(max_retries=1, seconds_to_wait=retry_delay_seconds)
    return failure(reading.failures, kept=len(reading.points))


def failure(errors: Sequence[MetricsPipelineError], kept: int) -> dg.Failure:
    """The step's failure: every error, and how many values were kept nevertheless."""
    return dg.Failure(
        description="\n".join(str(error) for error in errors),
        metadata={
            "failed": dg.MetadataValue.md(_as_list(errors)),
            ERROR_TYPE: dg.MetadataValue.text(type(errors[0]).__name__),
            "values_kept": dg.MetadataValue.int(kept),
        },
        allow_retries=False,
    )


def _as_list(errors: Sequence[MetricsPipelineError]) -> str:
    return "\n".join(f"- `{type(error).__name__}` {error}" for error in errors)
