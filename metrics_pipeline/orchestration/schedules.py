"""Jobs and the schedules that run them; on by default, skipped while the last run is in flight."""

from collections.abc import Iterable

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

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
    every = fleet.every_minutes
    keys = {dg.AssetKey.from_user_string(asset.key) for asset in assets}

    @dg.schedule(
        name=f"{GROUP}_every_{every}_minutes",
        cron_schedule=f"*/{every} * * * *",
        job_name=JOB,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Counts the fleet, unless the last count is still running.",
    )
    def count_fleet(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return launch_unless_in_flight(context, JOB, keys)

    return count_fleet
