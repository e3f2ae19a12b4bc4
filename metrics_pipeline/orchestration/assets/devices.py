"""Device polls: who is up, every 30 s, and how each device is doing, every 5 minutes.

A sweep stores its points as it goes, through the writer, and publishes them at its end. A device
that does not answer is a result, not an error: what fails a step is an inventory that cannot be
read, a store that does not take the points, or a probe that cannot be opened.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta

import dagster as dg

from metrics_pipeline.core.device_assets import (
    GROUP,
    METRICS_JOB,
    STATUS,
    STATUS_JOB,
    WINDOW_SECONDS,
    metrics_asset,
    shard_names,
)
from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.orchestration.assets.device_metrics import poll_metrics
from metrics_pipeline.orchestration.assets.device_status import poll_status
from metrics_pipeline.orchestration.device_report import CHECKS, Report
from metrics_pipeline.orchestration.device_run import INVENTORY, DeviceRun
from metrics_pipeline.orchestration.failures import failure
from metrics_pipeline.orchestration.resources import WRITER
from metrics_pipeline.orchestration.status_grid import StatusGrid
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.probe_registry import PROBES

DEVICES_TABLE = dg.AssetKey(["inventory", "devices"])


def build_device_assets(
    settings: Settings, grid: StatusGrid | None = None
) -> list[dg.AssetsDefinition]:
    """The status asset, and one of metrics for each protocol that gives any."""
    protocols = settings.sweeps.metrics_by
    return [
        _build_status_asset(settings, grid or StatusGrid(settings.sweeps.grid_seconds)),
        *(_build_metrics_asset(protocol, settings) for protocol in protocols),
    ]


def _build_status_asset(settings: Settings, grid: StatusGrid) -> dg.AssetsDefinition:
    every = settings.sweeps.grid_seconds
    return _build_asset(
        STATUS,
        settings,
        lambda run: poll_status(run, grid),
        pool=STATUS_JOB,
        description=f"Who is up: every device of the inventory, asked every {every} s.",
        kind=settings.sweeps.status_by,
        cadence=timedelta(seconds=WINDOW_SECONDS),
    )


def _build_metrics_asset(protocol: str, settings: Settings) -> dg.AssetsDefinition:
    return _build_asset(
        metrics_asset(protocol),
        settings,
        lambda run: poll_metrics(run, protocol),
        pool=METRICS_JOB,
        description=f"How the devices that are asked over {PROBES[protocol].title} are doing.",
        kind=protocol,
        cadence=timedelta(minutes=settings.sweeps.tick_minutes),
    )


def _build_asset(
    name: str,
    settings: Settings,
    poll: Callable[[DeviceRun], Report],
    *,
    pool: str,
    description: str,
    kind: str,
    cadence: timedelta,
) -> dg.AssetsDefinition:
    key = dg.AssetKey.from_user_string(name)
    shards = shard_names(settings.sweeps.shards)

    @dg.asset(
        key=key,
        description=description,
        group_name=GROUP,
        kinds={kind},
        owners=["team:network-operations"],
        deps=[DEVICES_TABLE],
        required_resource_keys={INVENTORY, WRITER},
        check_specs=[
            dg.AssetCheckSpec(check, asset=key, description=about)
            for check, about in CHECKS.items()
        ],
        # A pool would let one shard in at a time; what holds then is the schedule's guard.
        pool=None if shards else pool,
        partitions_def=dg.StaticPartitionsDefinition(shards) if shards else None,
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=3 * cadence, warn_window=2 * cadence
        ),
    )
    def poll_devices(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        try:
            report = poll(DeviceRun(context, name, settings))
        except MetricsPipelineError as error:
            raise failure([error], kept=0) from error
        # With the result it would be stored with the output as well.
        context.add_asset_metadata(report.metadata)
        yield dg.MaterializeResult(check_results=report.checks)
        if report.failed:
            raise failure(report.failed, kept=report.kept)

    return poll_devices
