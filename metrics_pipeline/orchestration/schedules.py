"""Jobs and the schedules that run them; on by default, skipped while the last run is in flight."""

from collections.abc import Iterable, Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from metrics_pipeline.core.device_assets import (
    DEVICE_ASSETS,
    METRICS_JOB,
    POLLED_EVERY_MINUTES,
    STATUS,
    STATUS_JOB,
)
from metrics_pipeline.core.device_assets import GROUP as DEVICES
from metrics_pipeline.core.fleet import GROUP, JOB, FleetAsset
from metrics_pipeline.orchestration.in_flight import launch_unless_in_flight
from metrics_pipeline.settings import FleetSettings

MAX_RUNTIME_TAG = "dagster/max_runtime"


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


STATUS_MAX_RUNTIME_SECONDS = 295
METRICS_MAX_RUNTIME_SECONDS = 280


def build_device_jobs() -> list[UnresolvedAssetJobDefinition]:
    """Who is up, and how all are doing."""
    status = dg.AssetKey.from_user_string(STATUS)
    return [
        dg.define_asset_job(
            STATUS_JOB,
            selection=dg.AssetSelection.assets(status),
            description="Asks every device every 30 s whether it is up, for 5 minutes.",
            tags={MAX_RUNTIME_TAG: str(STATUS_MAX_RUNTIME_SECONDS)},
        ),
        dg.define_asset_job(
            METRICS_JOB,
            selection=dg.AssetSelection.groups(DEVICES) - dg.AssetSelection.assets(status),
            description="Asks every device once how it is doing.",
            tags={MAX_RUNTIME_TAG: str(METRICS_MAX_RUNTIME_SECONDS)},
        ),
    ]


def build_device_schedules() -> list[dg.ScheduleDefinition]:
    """`device_status_every_5_minutes` and `device_metrics_every_5_minutes`."""
    assets = {
        STATUS_JOB: [STATUS],
        METRICS_JOB: [key for key in DEVICE_ASSETS if key != STATUS],
    }
    about = "Polls the devices of the inventory, unless the last poll is still running."
    return [
        _schedule(job, POLLED_EVERY_MINUTES, job, _keys(names), about)
        for job, names in assets.items()
    ]


def _keys(names: Iterable[str]) -> list[dg.AssetKey]:
    return [dg.AssetKey.from_user_string(name) for name in names]


def _schedule(
    what: str, every_minutes: int, job: str, assets: Sequence[dg.AssetKey], description: str
) -> dg.ScheduleDefinition:
    """`{what}_every_{n}_minutes`: on by default, skipped while the job or an asset is in flight."""

    @dg.schedule(
        name=f"{what}_every_{every_minutes}_minutes",
        cron_schedule=f"*/{every_minutes} * * * *",
        job_name=job,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def run_job(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return launch_unless_in_flight(context, job, assets)

    return run_job
