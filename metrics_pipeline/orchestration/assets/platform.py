"""What is sampled: external assets, as no run makes them. The sensor reports what was sampled."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

import dagster as dg

from metrics_pipeline.core.platform_assets import GROUP
from metrics_pipeline.orchestration.platform_report import (
    ABSENT,
    CHECK_DESCRIPTION,
    SLOTS,
    SLOTS_ARE_SAMPLED,
    judge,
)
from metrics_pipeline.sampling import Sampled
from metrics_pipeline.settings import PlatformSettings


def build_platform_assets(
    sampled: Iterable[Sampled], platform: PlatformSettings
) -> list[dg.AssetSpec]:
    """An external asset for each source that is sampled, and one for each thing that is read."""
    listed = list(sampled)
    read = {each.reads: each for each in reversed(listed) if each.reads}
    return [*map(_read_asset, read.values()), *(_asset(each, platform) for each in listed)]


def build_platform_checks(
    sampled: Iterable[Sampled], platform: PlatformSettings
) -> list[dg.AssetChecksDefinition]:
    """For each source, whether its slots are sampled."""
    return [_check(each, platform.warn_missed_share) for each in sampled]


def _asset(sampled: Sampled, platform: PlatformSettings) -> dg.AssetSpec:
    cadence = timedelta(seconds=max(sampled.every_seconds, platform.report_every_seconds))
    return dg.AssetSpec(
        key=dg.AssetKey.from_user_string(sampled.asset),
        description=f"{sampled.description} Sampled every {sampled.every_seconds:g} s.",
        group_name=GROUP,
        kinds=set(sampled.kinds),
        owners=["team:platform-operations"],
        deps=[dg.AssetKey.from_user_string(sampled.reads)] if sampled.reads else [],
        # Dagster takes no window below a minute.
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=max(4 * cadence, timedelta(minutes=4)),
            warn_window=max(2 * cadence, timedelta(minutes=2)),
        ),
    )


def _read_asset(sampled: Sampled) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=dg.AssetKey.from_user_string(sampled.reads),
        description=f"What {sampled.name} is read from: kept by others.",
        group_name="sources",
        kinds=set(sampled.kinds),
    )


def _check(sampled: Sampled, warn_missed_share: float) -> dg.AssetChecksDefinition:
    key = dg.AssetKey.from_user_string(sampled.asset)

    @dg.asset_check(asset=key, name=SLOTS_ARE_SAMPLED, description=CHECK_DESCRIPTION)
    def slots_are_sampled(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """By hand, of the last report; the sensor gives the outcome whenever it changes."""
        last = _last_report(context.instance, key)
        if last is None:
            return _result(False, "nothing was reported yet")
        slots, absent = (last[name].value for name in (SLOTS, ABSENT))
        return _result(*judge(int(str(slots)), int(str(absent)), warn_missed_share))

    return slots_are_sampled


def _last_report(
    instance: dg.DagsterInstance, key: dg.AssetKey
) -> Mapping[str, dg.MetadataValue] | None:
    """The metadata of the last one, whether anything was sampled or not."""
    records = [
        *instance.fetch_materializations(key, limit=1).records,
        *instance.fetch_observations(key, limit=1).records,
    ]
    if not records:
        return None
    entry = max(records, key=lambda record: record.timestamp).event_log_entry
    report = entry.asset_materialization or entry.asset_observation
    return None if report is None else report.metadata


def _result(passed: bool, seen: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, description=seen)
