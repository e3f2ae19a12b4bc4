"""What the UI shows of a sweep: counts by outcome, the slowest devices, failures, and checks."""

from collections.abc import Mapping, Sequence

import dagster as dg

from metrics_pipeline.core.device_points import count_outcomes, outcome_of
from metrics_pipeline.core.devices import Device, DeviceReading
from metrics_pipeline.orchestration.device_sweep import Swept

MAX_ROWS = 20
ANSWERED = ("complete", "partial")
"""Outcomes of devices that gave a value, or that have none."""

OFFLINE_SHARE = "few_devices_are_silent"
PARTIAL_SHARE = "few_devices_answer_in_part"
NOTHING_REJECTED = "values_are_in_range"
NOBODY_MISSING = "every_device_has_a_result"

CHECKS = {
    OFFLINE_SHARE: "No more devices than polling.warn_offline_share give no answer.",
    PARTIAL_SHARE: "No more devices than polling.warn_offline_share leave questions unanswered.",
    NOTHING_REJECTED: "No value was refused because it cannot be right.",
    NOBODY_MISSING: "Every enabled device of the inventory was asked, and has a result.",
}


def describe(swept: Swept, devices: Sequence[Device]) -> Mapping[str, dg.MetadataValue]:
    """The metadata of a materialization; its size does not grow with the fleet."""
    names = {device.id: device.hostname for device in devices}
    slowest = sorted(swept.readings, key=lambda reading: -reading.took_seconds)[:MAX_ROWS]
    failed = [r for r in swept.readings if r.reason is not None or outcome_of(r) not in ANSWERED]
    outcomes = count_outcomes(swept.readings)
    return {
        "devices": dg.MetadataValue.int(len(devices)),
        "points_stored": dg.MetadataValue.int(swept.stored),
        "points_rejected": dg.MetadataValue.int(sum(swept.rejected.values())),
        **{f"devices_{name}": dg.MetadataValue.int(n) for name, n in sorted(outcomes.items())},
        "slowest": _table(slowest, names),
        **({"failures": _table(failed[:MAX_ROWS], names)} if failed else {}),
    }


def judge(
    swept: Swept, devices: Sequence[Device], warn_share: float
) -> Sequence[dg.AssetCheckResult]:
    """The outcome of every check."""
    total = max(1, len(devices))
    silent = sum(not reading.is_up for reading in swept.readings)
    partial = sum(outcome_of(reading) == "partial" for reading in swept.readings)
    missing = {device.id for device in devices} - {r.device_id for r in swept.readings}
    rejected = ", ".join(f"{n} {reason}" for reason, n in swept.rejected.items())
    return [
        _check(OFFLINE_SHARE, silent <= total * warn_share, f"{silent} of {total} are silent"),
        _check(PARTIAL_SHARE, partial <= total * warn_share, f"{partial} of {total} are partial"),
        _check(NOTHING_REJECTED, not rejected, rejected or "nothing was refused"),
        _check(
            NOBODY_MISSING, not missing, f"{len(missing)} without a result: {sorted(missing)[:5]}"
        ),
    ]


def _check(name: str, passed: bool, seen: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name, passed=passed, severity=dg.AssetCheckSeverity.WARN, description=seen
    )


def _table(readings: Sequence[DeviceReading], names: Mapping[str, str]) -> dg.MetadataValue:
    records = [
        dg.TableRecord(
            {
                "device_id": reading.device_id,
                "hostname": names.get(reading.device_id, ""),
                "seconds": round(reading.took_seconds, 3),
                "outcome": outcome_of(reading),
                "detail": reading.detail,
            }
        )
        for reading in readings
    ]
    schema = dg.TableSchema(
        columns=[
            dg.TableColumn("device_id", "string"),
            dg.TableColumn("hostname", "string"),
            dg.TableColumn("seconds", "float"),
            dg.TableColumn("outcome", "string"),
            dg.TableColumn("detail", "string"),
        ]
    )
    return dg.MetadataValue.table(records, schema=schema)
