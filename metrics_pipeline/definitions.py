"""START HERE: everything Dagster loads, assembled in one function.

settings -> sources (resources) -> assets -> points -> IO manager -> writer -> stores.
"""

import functools
from collections.abc import Sequence

import dagster as dg

from metrics_pipeline.orchestration.assets.devices import build_device_assets
from metrics_pipeline.orchestration.assets.fleet import build_fleet_assets
from metrics_pipeline.orchestration.assets.platform import (
    build_platform_assets,
    build_platform_checks,
)
from metrics_pipeline.orchestration.assets.retention import build_retention_asset
from metrics_pipeline.orchestration.assets.sources import build_source_assets
from metrics_pipeline.orchestration.assets.telemetry import build_telemetry_assets
from metrics_pipeline.orchestration.code_references import with_code_references
from metrics_pipeline.orchestration.platform_sensor import build_platform_sensor
from metrics_pipeline.orchestration.resources import build_resources, build_sampling
from metrics_pipeline.orchestration.robot_report import build_robot_assets, build_robot_sensor
from metrics_pipeline.orchestration.run_events import build_executor, build_poll_executor
from metrics_pipeline.orchestration.run_failure_sensor import build_run_failure_sensors
from metrics_pipeline.orchestration.schedules import (
    build_device_jobs,
    build_device_schedules,
    build_fleet_job,
    build_fleet_schedule,
    build_retention_job,
    build_retention_schedule,
    build_telemetry_job,
)
from metrics_pipeline.orchestration.telemetry_sensor import BacklogWatch, build_telemetry_sensor
from metrics_pipeline.platform_sources import find_sampled
from metrics_pipeline.sampling import Sampled
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings


def build_definitions(
    settings: Settings, sampled: Sequence[Sampled] | None = None
) -> dg.Definitions:
    """All assets, jobs, schedules, sensors and resources under `settings`.

    `sampled` stands in for what the settings have sampled.
    """
    fleet = settings.fleet
    counted = settings.fleet_assets()
    assets = build_fleet_assets(counted, fleet) if fleet else []
    polled = settings.polls_devices
    assets += build_device_assets(settings) if polled else []
    telemetry, gateway = settings.telemetry, settings.gateway
    assets += [*build_telemetry_assets(settings), build_retention_asset(settings)]
    platform, sampled = settings.platform, find_sampled(settings) if sampled is None else sampled
    sampling = build_sampling(settings, sampled)
    return dg.Definitions(
        assets=[
            *build_source_assets(settings),
            *with_code_references(assets),
            *build_platform_assets(sampled, platform),
            *(build_robot_assets(gateway) if gateway else []),
        ],
        asset_checks=build_platform_checks(sampled, platform),
        jobs=[
            *([build_fleet_job(fleet)] if fleet else []),
            *(build_device_jobs(settings.sweeps, build_poll_executor(settings)) if polled else []),
            *([build_telemetry_job(telemetry)] if telemetry else []),
            build_retention_job(settings.retention),
        ],
        schedules=[
            *([build_fleet_schedule(fleet, counted)] if fleet else []),
            *(build_device_schedules(settings.sweeps) if polled else []),
            build_retention_schedule(),
        ],
        sensors=[
            *([build_telemetry_sensor(BacklogWatch(settings))] if telemetry else []),
            *([build_platform_sensor(sampling, platform)] if sampled else []),
            *([build_robot_sensor(settings, gateway)] if gateway else []),
            *build_run_failure_sensors(settings),
        ],
        resources=build_resources(settings),
        executor=build_executor(settings),
    )


@functools.cache
def definitions() -> dg.Definitions:
    """Those under the settings of this environment: of the process's start, and its runs'."""
    return build_definitions(load_settings())


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster` finds here."""
    return definitions()
