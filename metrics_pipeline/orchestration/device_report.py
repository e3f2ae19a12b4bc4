"""What the UI shows of a sweep: counts by outcome, the slowest devices, failures, and checks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from metrics_pipeline.core.device_points import outcome_of
from metrics_pipeline.core.devices import Device, DeviceReading
from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.orchestration.device_sweep import MAX_EXAMPLES, Summary
from metrics_pipeline.orchestration.poll_list import PollList
from metrics_pipeline.orchestration.tables import Metadata, Row, table

OFFLINE_SHARE = "few_devices_are_silent"
PARTIAL_SHARE = "few_devices_answer_in_part"
NOTHING_REJECTED = "values_are_in_range"
NOBODY_MISSING = "every_device_has_a_result"
NO_TWINS = "no_two_devices_are_one"

CHECKS = {
    OFFLINE_SHARE: "No more devices than polling.warn_offline_share give no answer.",
    PARTIAL_SHARE: "No more devices than polling.warn_offline_share leave questions unanswered.",
    NOTHING_REJECTED: "No value was refused because it cannot be right.",
    NOBODY_MISSING: "Every enabled row of the inventory can be polled, was, and has a result.",
    NO_TWINS: "No two devices of the inventory have the same address, port and protocol.",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a run tells of itself in Dagster."""

    metadata: Metadata
    checks: Sequence[dg.AssetCheckResult]
    failed: Sequence[MetricsPipelineError] = ()
    """What failed although the rest was stored and shown."""
    kept: int = 0
    """Points that were stored or spooled."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Devices of which some may be there twice, or why there are none to look at."""

    devices: Iterable[Device]
    said: str = "there are none"
    is_known: bool = True


LOOKED_FOR_ELSEWHERE = Compared((), "the sweeps of the first shard look for them")


@dataclass(frozen=True, slots=True)
class Round:
    """One of the sweeps of a status run. Numbers of devices; `slot` since the epoch."""

    slot: int
    asked: int
    answered: int
    offline: int
    changed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Change:
    """A device that came or went, found by the sweep of `slot`."""

    slot: int
    device: Device
    is_online: bool


def describe(
    summary: Summary, listed: PollList, asked: Sequence[Device], seconds: float
) -> Metadata:
    """The metadata of a materialization; its size does not grow with the fleet."""
    names = {device.id: device.hostname for device in asked}
    unusable, outcomes = (
        sum(listed.unusable.values()),
        sorted(Counter(summary.outcomes.values()).items()),
    )
    return {
        "devices": dg.MetadataValue.int(len(listed.devices)),
        "devices_asked": dg.MetadataValue.int(len(asked)),
        "sweep_seconds": dg.MetadataValue.float(round(seconds, 3)),
        "points_stored": dg.MetadataValue.int(summary.stored),
        **({"points_spooled": dg.MetadataValue.int(summary.spooled)} if summary.spooled else {}),
        "points_rejected": dg.MetadataValue.int(summary.rejected.total()),
        **{f"devices_{kind}": dg.MetadataValue.int(n) for kind, n in outcomes},
        "slowest": _readings(summary.slowest, names),
        **(
            {"failures": _readings(list(summary.failures.values()), names)}
            if summary.failures
            else {}
        ),
        **({"inventory_rows_unusable": dg.MetadataValue.int(unusable)} if unusable else {}),
    }


def describe_rounds(rounds: Sequence[Round], changes: Iterable[Change], left_out: int) -> Metadata:
    """What a status run adds: each of its sweeps, who came and went, and slots without a sweep."""
    sweeps: list[Row] = [
        {
            "time": _time(each.slot),
            "asked": each.asked,
            "answered": each.answered,
            "offline": each.offline,
            "changed": each.changed,
            "seconds": round(each.seconds, 3),
        }
        for each in rounds
    ]
    changed = [
        {
            "time": _time(each.slot),
            "device_id": each.device.id,
            "hostname": each.device.hostname,
            "status": "online" if each.is_online else "offline",
        }
        for each in changes
    ]
    return {
        "sweeps": table(sweeps),
        "sweeps_left_out": dg.MetadataValue.int(left_out),
        "devices_changed": dg.MetadataValue.int(sum(each.changed for each in rounds)),
        **({"changes": table(changed)} if changed else {}),
    }


def judge(
    summary: Summary,
    listed: PollList,
    asked: Sequence[Device],
    warn_share: float,
    compared: Compared,
) -> Sequence[dg.AssetCheckResult]:
    """The outcome of every check; `compared` are those among whom some may be there twice."""
    total = max(1, len(asked))
    silent = sum(device.id in summary.silent for device in asked)
    partial = sum(summary.outcomes.get(device.id) == "partial" for device in asked)
    rejected = ", ".join(f"{n} {reason}" for reason, n in summary.rejected.items())
    twins = _twins(compared.devices)
    no_twins = compared.is_known and not twins
    lost = _lost(summary, listed, asked)
    return [
        _check(OFFLINE_SHARE, silent <= total * warn_share, f"{silent} of {total} are silent"),
        _check(PARTIAL_SHARE, partial <= total * warn_share, f"{partial} of {total} are partial"),
        _check(NOTHING_REJECTED, not rejected, rejected or "nothing was refused"),
        _check(NOBODY_MISSING, not lost, "; ".join(lost) or "nobody is missing"),
        _check(NO_TWINS, no_twins, "; ".join(twins[:MAX_EXAMPLES]) or compared.said),
    ]


def _lost(summary: Summary, listed: PollList, asked: Sequence[Device]) -> list[str]:
    """What is missing from the result, and why."""
    missing = sorted({device.id for device in asked} - summary.outcomes.keys())
    found = [f"{len(missing)} without a result, such as {missing[0]}"] if missing else []
    rows = ", ".join(f"{n} {reason}" for reason, n in sorted(listed.unusable.items()))
    if rows:
        found += [f"rows of the inventory that cannot be polled: {rows}", *listed.examples]
    return found[:MAX_EXAMPLES]


def _twins(devices: Iterable[Device]) -> list[str]:
    """Devices that are asked twice, under several ids."""
    ids: dict[tuple[str, int, str], list[str]] = {}
    for device in devices:
        ids.setdefault((device.address, device.port, device.protocol), []).append(device.id)
    return [
        f"{protocol} {address}: {', '.join(names)}"
        for (address, _, protocol), names in sorted(ids.items())
        if len(names) > 1
    ]


def _check(name: str, passed: bool, seen: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name, passed=passed, severity=dg.AssetCheckSeverity.WARN, description=seen
    )


def _readings(readings: Sequence[DeviceReading], names: Mapping[str, str]) -> dg.MetadataValue:
    return table(
        [
            {
                "device_id": reading.device_id,
                "hostname": names.get(reading.device_id, ""),
                "seconds": round(reading.took_seconds, 3),
                "outcome": outcome_of(reading),
                "detail": reading.detail,
            }
            for reading in readings
        ]
    )


def _time(seconds: int) -> str:
    """Hours, minutes and seconds, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")
