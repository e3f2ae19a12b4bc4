"""The one place where our errors become Dagster's: would running the step again help?"""

from collections.abc import Sequence

import dagster as dg

from metrics_pipeline.core.errors import MetricsPipelineError, SourceError

QUICK_SECONDS = 20.0
"""A failure that came sooner leaves time for a second try within the run's time."""


def source_retry(delay_seconds: float) -> dg.RetryPolicy:
    """One more try for a source that did not answer at all; it has tried several times by then."""
    return dg.RetryPolicy(max_retries=1, delay=delay_seconds, jitter=dg.Jitter.PLUS_MINUS)


def failure(
    errors: Sequence[MetricsPipelineError], kept: int, took_seconds: float = 0.0
) -> dg.Failure:
    """The step's failure: every error, and how many values were kept nevertheless.

    Dagster's RetryPolicy applies only where nothing was read, all errors may pass by themselves,
    and they came quickly: a second try after a part was stored or after a refusal gains nothing,
    and after a hub that hung (`took_seconds`) it would outlast the run.
    """
    is_retried = kept == 0 and took_seconds < QUICK_SECONDS and all(map(_may_pass, errors))
    return dg.Failure(
        description="\n".join(str(error) for error in errors),
        metadata={
            "failed": dg.MetadataValue.md(_as_list(errors)),
            "values_kept": dg.MetadataValue.int(kept),
        },
        allow_retries=is_retried,
    )


def _may_pass(error: MetricsPipelineError) -> bool:
    return isinstance(error, SourceError) and error.retry_helps


def _as_list(errors: Sequence[MetricsPipelineError]) -> str:
    return "\n".join(f"- `{type(error).__name__}` {error}" for error in errors)
