"""START HERE: everything Dagster loads, assembled in one function.

settings -> sources (resources) -> assets -> points -> IO manager -> writer -> stores.
"""

import dagster as dg

from metrics_pipeline.orchestration.assets.devices import build_device_assets
from metrics_pipeline.orchestration.assets.fleet import build_fleet_assets
from metrics_pipeline.orchestration.assets.sources import build_source_assets
from metrics_pipeline.orchestration.assets.telemetry import build_telemetry_assets
from metrics_pipeline.orchestration.code_references import with_code_references
from metrics_pipeline.orchestration.resources import build_resources
from metrics_pipeline.orchestration.schedules import (
    build_device_jobs,
    build_device_schedules,
    build_fleet_job,
    build_fleet_schedule,
    build_telemetry_job,
)
from metrics_pipeline.orchestration.telemetry_sensor import BacklogWatch, build_telemetry_sensor
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """All assets, jobs, schedules, sensors and resources under `settings`."""
    fleet = settings.fleet
    counted = settings.fleet_assets()
    assets = build_fleet_assets(counted, fleet) if fleet else []
    polled = settings.polls_devices
    assets += build_device_assets(settings) if polled else []
    telemetry = settings.telemetry
    assets += build_telemetry_assets(settings)
    return dg.Definitions(
        assets=[*build_source_assets(settings), *with_code_references(assets)],
        jobs=[
            *([build_fleet_job(fleet)] if fleet else []),
            *(build_device_jobs(settings.sweeps) if polled else []),
            *([build_telemetry_job(telemetry)] if telemetry else []),
        ],
        schedules=[
            *([build_fleet_schedule(fleet, counted)] if fleet else []),
            *(build_device_schedules(settings.sweeps) if polled else []),
        ],
        sensors=[build_telemetry_sensor(BacklogWatch(settings))] if telemetry else [],
        resources=build_resources(settings),
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster` finds here: the definitions under the settings of this environment."""
    return build_definitions(load_settings())
