"""What the UI shows of a run of telemetry: counts, lag, each partition's checkpoint, checks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.lorawan import Reason
from metrics_pipeline.ingestion import IngestionReport, PartitionReport, store_reason
from metrics_pipeline.orchestration.tables import Metadata, Row, table, table_of_counts
from metrics_pipeline.settings import TelemetrySettings

FEW_DEAD_LETTERS = "few_events_are_dead_letters"
LAG_IS_SHORT = "the_lag_is_short"
NOTHING_LOST = "nothing_is_lost_to_retention"
NOTHING_REJECTED = "values_are_in_range"

CHECKS = {
    FEW_DEAD_LETTERS: "No more of the uplinks than telemetry.warn_dead_letter_share were refused, "
    "by the decoding or by the store.",
    LAG_IS_SHORT: "At its end, nothing had been waiting longer than telemetry.warn_lag_seconds.",
    NOTHING_LOST: "No event was gone, for its age, before it was read.",
    NOTHING_REJECTED: "No point was refused because it cannot be right.",
}

PARTITIONS_PLOTTED = 32
"""Each number of the metadata is a plot of its own; more partitions are in the table alone."""

NO_UPLINK = Reason.FOREIGN_SCOPE.value
"""Refused, and rightly so: not sent by a device."""


class LongestLag:
    """How far behind a run was at most: at its end it has mostly caught up."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def see(self, report: IngestionReport) -> None:
        """Take what one more report says."""
        self.seconds = max(self.seconds, _lag_seconds(report.partitions.values()))


def describe(report: IngestionReport, longest: LongestLag) -> Metadata:
    """The metadata of the materialization. Its size depends on the number of partitions alone."""
    parts = report.partitions.values()
    events = sum(part.events for part in parts)
    return {
        "events": dg.MetadataValue.int(events),
        "points_stored": dg.MetadataValue.int(points_in(report)),
        "uplinks_refused": dg.MetadataValue.int(_refused(parts).total()),
        "points_rejected": dg.MetadataValue.int(_total(p.rejected for p in parts).total()),
        "dead_letters": dg.MetadataValue.int(_total(p.dead_letters for p in parts).total()),
        "events_lost": dg.MetadataValue.int(sum(part.lost_events for part in parts)),
        "lag_events": dg.MetadataValue.int(sum(part.lag_events for part in parts)),
        "lag_seconds": dg.MetadataValue.float(round(_lag_seconds(parts), 3)),
        "longest_lag_seconds": dg.MetadataValue.float(round(longest.seconds, 3)),
        "run_seconds": dg.MetadataValue.float(round(report.seconds, 3)),
        "events_per_second": dg.MetadataValue.float(round(events / max(report.seconds, 0.001), 1)),
        "epoch": dg.MetadataValue.int(report.epoch),
        **_plots(report),
        "partitions": table([_row(name, part) for name, part in report.partitions.items()]),
        **_reasons(parts),
    }


def judge(report: IngestionReport, telemetry: TelemetrySettings) -> Sequence[dg.AssetCheckResult]:
    """The outcome of every check."""
    parts = report.partitions.values()
    unstored = _unstored(parts)
    refused = unstored.total()
    uplinks = max(1, refused + points_in(report))
    reasons = ", ".join(f"{n} {why}" for why, n in unstored.most_common())
    rejected = ", ".join(f"{n} {why}" for why, n in _total(p.rejected for p in parts).items())
    lost, lag = sum(part.lost_events for part in parts), _lag_seconds(parts)
    return [
        _check(
            FEW_DEAD_LETTERS,
            refused <= uplinks * telemetry.warn_dead_letter_share,
            f"{refused} of {uplinks} uplinks were refused{': ' if reasons else ''}{reasons}",
        ),
        _check(
            LAG_IS_SHORT,
            lag <= telemetry.warn_lag_seconds,
            f"something has been waiting for {lag:.1f} s" if lag else "nothing waits",
        ),
        _check(NOTHING_LOST, not lost, f"{lost} events were gone" if lost else "nothing was"),
        _check(NOTHING_REJECTED, not rejected, rejected or "nothing was refused"),
    ]


def in_words(report: IngestionReport) -> str:
    """For the log of a run that goes on."""
    parts = report.partitions.values()
    refused = _unstored(parts).total()
    lag = sum(part.lag_events for part in parts)
    return (
        f"{report.seconds:.0f} s: {sum(part.events for part in parts)} events, "
        f"{points_in(report)} points stored, {refused} refused, {lag} events waiting"
    )


def points_in(report: IngestionReport) -> int:
    """How many points were stored."""
    return sum(part.points for part in report.partitions.values())


def errors_in(report: IngestionReport) -> list[MetricsPipelineError]:
    """What still was wrong at the end, each cause once.

    Also that others have taken every partition before anything was stored: a run that succeeds is
    followed at once by the next, which would fare no better.
    """
    parts = report.partitions.values()
    errors = [part.error for part in parts if part.error is not None]
    if all(part.is_taken and not part.events for part in parts):
        errors = [part.failures[-1] for part in parts]
    return list({str(error): error for error in errors}.values())


def _refused(parts: Iterable[PartitionReport]) -> Counter[str]:
    refused = _total(part.refused for part in parts)
    del refused[NO_UPLINK]
    return refused


def _unstored(parts: Iterable[PartitionReport]) -> Counter[str]:
    """Uplinks that were not stored, by the reasons that dead letters have."""
    by_store = _total(part.rejected for part in parts)
    return _refused(parts) + Counter({store_reason(why): n for why, n in by_store.items()})


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    return sum((Counter(each) for each in counts), Counter[str]())


def _lag_seconds(parts: Iterable[PartitionReport]) -> float:
    return max((part.lag_seconds for part in parts), default=0.0)


def _plots(report: IngestionReport) -> Metadata:
    """Of each partition the lag and the checkpoint, which the UI plots over the runs."""
    if len(report.partitions) > PARTITIONS_PLOTTED:
        return {}
    found = {}
    for name, part in report.partitions.items():
        found[f"lag_events_{name}"] = dg.MetadataValue.int(part.lag_events)
        if part.checkpoint is not None:
            number = part.checkpoint.position.sequence_number
            found[f"checkpoint_{name}"] = dg.MetadataValue.int(number)
    return found


def _row(name: str, part: PartitionReport) -> Row:
    stored = part.checkpoint
    return {
        "partition": name,
        "events": part.events,
        "points": part.points,
        "refused": sum(part.refused.values()),
        "rejected": sum(part.rejected.values()),
        "dead_letters": sum(part.dead_letters.values()),
        "lost": part.lost_events,
        "lag_events": part.lag_events,
        "lag_seconds": round(part.lag_seconds, 3),
        "checkpoint": -1 if stored is None else stored.position.sequence_number,
        "offset": "" if stored is None else stored.position.offset,
        "outcome": _outcome(part),
    }


def _outcome(part: PartitionReport) -> str:
    if part.is_taken:
        return "taken over by another reader"
    return "read" if part.error is None else str(part.error)


def _reasons(parts: Iterable[PartitionReport]) -> Metadata:
    refused = _total(part.refused for part in parts)
    altered = _total(part.altered for part in parts)
    letters = _total(part.dead_letters for part in parts)
    found = {
        "refused_by_reason": refused,
        "dead_letters_by_reason": letters,
        "altered_by_reason": altered,
    }
    tables = (table_of_counts(name, "reason", n.most_common()) for name, n in found.items())
    return {name: shown for each in tables for name, shown in each.items()}


def _check(name: str, passed: bool, seen: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name, passed=passed, severity=dg.AssetCheckSeverity.WARN, description=seen
    )
