"""Jobs and the schedules that run them; on by default, skipped while the last run is in flight."""

import math
from collections.abc import Iterable, Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from metrics_pipeline.core.device_assets import GROUP as DEVICES
from metrics_pipeline.core.device_assets import (
    METRICS_JOB,
    STATUS,
    STATUS_JOB,
    WINDOW_SECONDS,
    metrics_asset,
    shard_names,
)
from metrics_pipeline.core.fleet import GROUP, JOB, FleetAsset
from metrics_pipeline.core.maintenance_assets import JOB as RETENTION_JOB
from metrics_pipeline.core.maintenance_assets import RETENTION
from metrics_pipeline.core.telemetry_assets import GROUP as TELEMETRY
from metrics_pipeline.core.telemetry_assets import JOB as TELEMETRY_JOB
from metrics_pipeline.orchestration.in_flight import launch_unless_in_flight
from metrics_pipeline.settings import (
    FleetSettings,
    RetentionSettings,
    SweepSettings,
    TelemetrySettings,
)

MAX_RUNTIME_TAG = "dagster/max_runtime"
STATUS_END_SECONDS = 5
METRICS_END_SECONDS = 20
"""So long before the next run is due one that hangs is ended."""

STATUS_MAX_RUNTIME_SECONDS = WINDOW_SECONDS - STATUS_END_SECONDS

TELEMETRY_END_SECONDS = 60
"""So long after its window has ended a run may still store what it has read."""

RETENTION_CRON = "37 * * * *"
"""Once an hour, when nothing else begins."""

KINDS_PURGED = 9
"""Of which each may take its budget."""


def build_fleet_job(fleet: FleetSettings) -> UnresolvedAssetJobDefinition:
    """The job that counts the fleet; Dagster ends a run that takes too long."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.groups(GROUP),
        description="Counts devices, edge devices, failed deployments and concentrators.",
        tags={MAX_RUNTIME_TAG: str(fleet.max_runtime_seconds)},
    )


def build_fleet_schedule(
    fleet: FleetSettings, assets: Iterable[FleetAsset]
) -> dg.ScheduleDefinition:
    """`fleet_every_{n}_minutes`."""
    keys = _keys(asset.key for asset in assets)
    about = "Counts the fleet, unless the last count is still running."
    return _schedule(GROUP, fleet.every_minutes, JOB, keys, about)


def build_telemetry_job(telemetry: TelemetrySettings) -> UnresolvedAssetJobDefinition:
    """The job that the sensor launches; Dagster ends a run that outlasts its window by far."""
    return dg.define_asset_job(
        TELEMETRY_JOB,
        selection=dg.AssetSelection.groups(TELEMETRY),
        description="Stores what the event hub has, and what comes until its window ends: "
        f"{telemetry.window_seconds:g} s.",
        tags={MAX_RUNTIME_TAG: str(math.ceil(telemetry.window_seconds) + TELEMETRY_END_SECONDS)},
    )


def build_retention_job(retention: RetentionSettings) -> UnresolvedAssetJobDefinition:
    """The job that deletes what is old; Dagster ends a run that outlasts its budgets by far."""
    longest = 2 * KINDS_PURGED * math.ceil(retention.budget_seconds)
    return dg.define_asset_job(
        RETENTION_JOB,
        selection=dg.AssetSelection.assets(dg.AssetKey.from_user_string(RETENTION)),
        description="Deletes what is older than the settings' `retention` says.",
        tags={MAX_RUNTIME_TAG: str(max(longest, 300))},
    )


def build_retention_schedule() -> dg.ScheduleDefinition:
    """`retention_every_60_minutes`."""
    about = "Deletes what is old, unless the last purge is still going on."
    return _schedule(
        RETENTION_JOB, 60, RETENTION_JOB, _keys([RETENTION]), about, cron=RETENTION_CRON
    )


def build_device_jobs(
    sweeps: SweepSettings, executor: dg.ExecutorDefinition | None
) -> list[UnresolvedAssetJobDefinition]:
    """Who is up, and how all are doing; `executor` of None is that of all jobs."""
    status = dg.AssetKey.from_user_string(STATUS)
    looking = dg.define_asset_job(
        STATUS_JOB,
        selection=dg.AssetSelection.assets(status),
        description=f"Asks every device every {sweeps.grid_seconds} s whether it is up, for 5 "
        "minutes.",
        tags={MAX_RUNTIME_TAG: str(STATUS_MAX_RUNTIME_SECONDS)},
        executor_def=executor,
    )
    if not sweeps.metrics_by:
        return [looking]
    asking = dg.define_asset_job(
        METRICS_JOB,
        selection=dg.AssetSelection.groups(DEVICES) - dg.AssetSelection.assets(status),
        description="Asks the devices that are due once how they are doing.",
        tags={MAX_RUNTIME_TAG: str(_metrics_max_runtime_seconds(sweeps))},
        executor_def=executor,
    )
    return [looking, asking]


def build_device_schedules(sweeps: SweepSettings) -> list[dg.ScheduleDefinition]:
    """`device_status_every_5_minutes`, and `device_metrics_every_{n}_minutes`."""
    about = "Polls the devices of the inventory, unless the last poll is still running."
    shards, window = shard_names(sweeps.shards), WINDOW_SECONDS // 60
    status = _keys([STATUS])
    looking = _schedule(STATUS_JOB, window, STATUS_JOB, status, about, partitions=shards)
    if not sweeps.metrics_by:
        return [looking]
    job, keys = METRICS_JOB, _keys(map(metrics_asset, sweeps.metrics_by))
    return [looking, _schedule(job, sweeps.tick_minutes, job, keys, about, partitions=shards)]


def longest_poll_seconds(sweeps: SweepSettings) -> int:
    """When the run of any poll is ended, so that nobody waits for it any more."""
    return max(STATUS_MAX_RUNTIME_SECONDS, _metrics_max_runtime_seconds(sweeps))


def _metrics_max_runtime_seconds(sweeps: SweepSettings) -> int:
    """Short of the next tick; a fleet that needs minutes for a poll skips ticks of one minute."""
    return max(WINDOW_SECONDS, 60 * sweeps.tick_minutes) - METRICS_END_SECONDS


def _keys(names: Iterable[str]) -> list[dg.AssetKey]:
    return [dg.AssetKey.from_user_string(name) for name in names]


def _schedule(
    what: str,
    every_minutes: int,
    job: str,
    assets: Sequence[dg.AssetKey],
    description: str,
    *,
    cron: str | None = None,
    partitions: Sequence[str] = (),
) -> dg.ScheduleDefinition:
    """`{what}_every_{n}_minutes`: on by default, skipped while the job or an asset is in flight."""

    @dg.schedule(
        name=f"{what}_every_{every_minutes}_minutes",
        cron_schedule=cron or f"*/{every_minutes} * * * *",
        job_name=job,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def run_job(
        context: dg.ScheduleEvaluationContext,
    ) -> Sequence[dg.RunRequest] | dg.SkipReason:
        return launch_unless_in_flight(context, job, assets, partitions)

    return run_job
