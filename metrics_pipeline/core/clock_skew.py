"""How far another machine's clock is from this one's, and what that does to what is stored."""

from __future__ import annotations

from metrics_pipeline.core.findings import Finding, warning, well, wrong

NOTED_SKEW_SECONDS = 2.0
HARMFUL_SKEW_SECONDS = 30.0
"""Leases, heartbeats and the ages that alerts are made of are of this size."""


def judge_skew(whose: str, skew_seconds: float, precision_seconds: float) -> Finding:
    """The finding; `skew_seconds` is above 0 where the other clock is ahead.

    It is known to `precision_seconds` only, such as half of how long the answer took.
    """
    certain = max(0.0, abs(skew_seconds) - precision_seconds)
    looked_at, where = f"the clock of {whose}", "ahead of" if skew_seconds > 0 else "behind"
    if certain < NOTED_SKEW_SECONDS:
        return well("clock", looked_at, "within 2 s of this machine's")
    said = f"it is {abs(skew_seconds):.1f} s {where} this machine's"
    fix = "Set both by NTP (timedatectl, chronyc tracking); ages and leases count on it."
    kind = wrong if certain >= HARMFUL_SKEW_SECONDS else warning
    return kind("clock", looked_at, said, fix)
