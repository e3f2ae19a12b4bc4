"""Asset checks over fleet counts; the rules themselves are pure and in `core/counts.py`.

They run in the step that reads, over what was read: a separate step would cost another look at
the source or the store.
"""

from collections.abc import Callable, Iterable, Sequence

import dagster as dg

from metrics_pipeline.core.counts import (
    Verdict,
    check_drop,
    check_never_negative,
    check_parts,
    counts_of,
)
from metrics_pipeline.core.points import Point

NEVER_NEGATIVE = "counts_are_never_negative"
CONNECTED_WITHIN_TOTAL = "connected_within_total"
PLAUSIBLE_DROP = "total_drop_is_plausible"

DESCRIPTIONS = {
    NEVER_NEGATIVE: "A count below zero is a defect of its source.",
    CONNECTED_WITHIN_TOTAL: "No more devices are connected than are registered.",
    PLAUSIBLE_DROP: "A total that falls by more than fleet.warn_drop_share is worth a look.",
}


def _spec_of(name: str) -> Callable[[dg.AssetKey], dg.AssetCheckSpec]:
    return lambda key: dg.AssetCheckSpec(name, asset=key, description=DESCRIPTIONS[name])


CHECK_SPECS = tuple(_spec_of(name) for name in DESCRIPTIONS)


def judge(
    old: Iterable[Point], new: Iterable[Point], warn_drop_share: float
) -> Sequence[dg.AssetCheckResult]:
    """The outcome of every check, given the points before and the points just read."""
    before, now = counts_of(old), counts_of(new)
    return [
        _outcome(NEVER_NEGATIVE, check_never_negative(now), dg.AssetCheckSeverity.ERROR),
        # Total and connected are two questions asked one after the other: a warning.
        _outcome(CONNECTED_WITHIN_TOTAL, check_parts(now), dg.AssetCheckSeverity.WARN),
        _outcome(
            PLAUSIBLE_DROP,
            check_drop(before, now, warn_drop_share),
            dg.AssetCheckSeverity.WARN,
        ),
    ]


def _outcome(name: str, verdict: Verdict, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        passed=verdict.passed,
        severity=severity,
        description=verdict.seen,
    )
