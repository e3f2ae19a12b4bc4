"""What the UI shows of samples: slots, delays and durations since the last report, and a check."""

import statistics
from collections.abc import Collection, Mapping

import dagster as dg

from metrics_pipeline.core.fetches import FAILED, OK
from metrics_pipeline.core.sample_slots import MISSED, Outcome
from metrics_pipeline.orchestration.tables import Metadata, table_of_counts
from metrics_pipeline.sampling import Sampled, Summary

SLOTS_ARE_SAMPLED = "slots_are_sampled"
CHECK_DESCRIPTION = (
    "No more of the slots than platform.warn_missed_share are without a sample in the store."
)
WITHOUT_SAMPLE = (*MISSED, Outcome.NOT_STORED, Outcome.FAILED)

SLOTS, ABSENT = "slots", "slots_without_sample"
"""Names in the metadata that the check reads again."""

MS_PER_SECOND = 1000


def event(sampled: Sampled, summary: Summary) -> dg.AssetMaterialization | dg.AssetObservation:
    """The runless event; its size depends on nothing but the kinds of failures.

    Where no slot brought anything it is an observation, so that the asset grows stale.
    """
    is_made = summary.outcomes[Outcome.SAMPLED] > 0
    kind = dg.AssetMaterialization if is_made else dg.AssetObservation
    key = dg.AssetKey.from_user_string(sampled.asset)
    return kind(asset_key=key, metadata=describe(sampled, summary))


def describe(sampled: Sampled, summary: Summary) -> Metadata:
    """The metadata. Delays are from the slot to the question, durations to the answer."""
    return {
        SLOTS: dg.MetadataValue.int(summary.outcomes.total()),
        ABSENT: dg.MetadataValue.int(_absent(summary)),
        **{
            f"slots_{outcome}": dg.MetadataValue.int(summary.outcomes[outcome])
            for outcome in Outcome
            if summary.outcomes[outcome] or outcome is Outcome.SAMPLED
        },
        "points_stored": dg.MetadataValue.int(summary.points),
        "points_rejected": dg.MetadataValue.int(summary.rejected.total()),
        **{
            f"artifacts_{status}": dg.MetadataValue.int(summary.artifacts[status])
            for status in (OK, FAILED)
        },
        **_percentiles("delay", summary.delays),
        **_percentiles("duration", summary.durations),
        **table_of_counts("failures_by_reason", "reason", sorted(summary.failures.items())),
        **table_of_counts("rejected_by_reason", "reason", sorted(summary.rejected.items())),
        **({"last_problem": dg.MetadataValue.text(summary.problem)} if summary.problem else {}),
        "snapshot": dg.MetadataValue.json({"asset": sampled.asset}),
    }


def judge(slots: int, absent: int, warn_missed_share: float) -> tuple[bool, str]:
    """Whether the check passes, and what it saw."""
    seen = f"{absent} of {slots} slots are without a sample"
    return absent <= slots * warn_missed_share, seen


def evaluation(
    sampled: Sampled, summary: Summary, warn_missed_share: float
) -> dg.AssetCheckEvaluation:
    """The check's outcome as a runless event."""
    passed, seen = judge(summary.outcomes.total(), _absent(summary), warn_missed_share)
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey.from_user_string(sampled.asset),
        check_name=SLOTS_ARE_SAMPLED,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=seen,
    )


def in_words(summaries: Mapping[str, Summary]) -> str:
    """For the tick: what waits to be reported."""
    return "; ".join(
        f"{name} {summary.outcomes[Outcome.SAMPLED]} of {summary.outcomes.total()} slots"
        for name, summary in summaries.items()
    )


def _absent(summary: Summary) -> int:
    return sum(summary.outcomes[outcome] for outcome in WITHOUT_SAMPLE)


def _percentiles(name: str, seconds: Collection[float]) -> Metadata:
    """Median, 99th percentile and most, in milliseconds; nothing where nothing was asked."""
    if not seconds:
        return {}
    ranked = sorted(seconds)
    p99 = statistics.quantiles(ranked, n=100, method="inclusive")[98] if ranked[1:] else ranked[0]
    shown = {"p50": statistics.median(ranked), "p99": p99, "max": ranked[-1]}
    return {
        f"{name}_{which}_ms": dg.MetadataValue.float(round(value * MS_PER_SECOND, 1))
        for which, value in shown.items()
    }
