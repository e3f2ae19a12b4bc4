"""What must hold among the counts of one fleet. Pure; the asset checks show the outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from metrics_pipeline.core.catalog import (
    CONCENTRATOR_COUNT,
    CONNECTED_CONCENTRATOR_COUNT,
    CONNECTED_DEVICE_COUNT,
    CONNECTED_EDGE_DEVICE_COUNT,
    DEVICE_COUNT,
    EDGE_DEVICE_COUNT,
    FLEET_COUNTS,
)
from metrics_pipeline.core.points import FieldValue, Point

Counts = Mapping[str, FieldValue]
"""The counts of a fleet by field name; one that could not be read is not there."""

PARTS = {
    CONNECTED_DEVICE_COUNT.field: DEVICE_COUNT.field,
    CONNECTED_EDGE_DEVICE_COUNT.field: EDGE_DEVICE_COUNT.field,
    CONNECTED_CONCENTRATOR_COUNT.field: CONCENTRATOR_COUNT.field,
}
"""Which count is a part of which total."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a rule holds, and what was seen, in words."""

    passed: bool
    seen: str


def counts_of(points: Iterable[Point]) -> dict[str, FieldValue]:
    """The fleet counts among `points`; of two values of a count the newer."""
    return {
        field: value
        for point in sorted(points, key=lambda point: point.time_ns)
        if point.measurement == FLEET_COUNTS.name
        for field, value in point.fields.items()
    }


def check_never_negative(counts: Counts) -> Verdict:
    """No count is below zero."""
    wrong = [f"{field} is {value}" for field, value in counts.items() if _number(value) < 0]
    return _verdict(wrong, f"{len(counts)} counts are 0 or more")


def check_parts(counts: Counts) -> Verdict:
    """No more are connected than there are."""
    pairs = [(part, total) for part, total in PARTS.items() if part in counts and total in counts]
    wrong = [
        f"{part} is {counts[part]}, {total} is {counts[total]}"
        for part, total in pairs
        if _number(counts[part]) > _number(counts[total])
    ]
    return _verdict(wrong, f"{len(pairs)} connected counts are within their totals")


def check_drop(old: Counts, new: Counts, share: float) -> Verdict:
    """No total fell by more than `share` (0 to 1) of itself since it was last read."""
    totals = [total for total in PARTS.values() if total in old and total in new]
    wrong = [
        f"{total} fell from {old[total]} to {new[total]}"
        for total in totals
        if _number(new[total]) < _number(old[total]) * (1 - share)
    ]
    return _verdict(wrong, f"{len(totals)} totals fell by at most {share:.0%}")


def _verdict(wrong: list[str], well: str) -> Verdict:
    return Verdict(not wrong, "; ".join(wrong) or well)


def _number(value: FieldValue) -> float:
    return float(value)
