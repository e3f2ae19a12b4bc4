"""Device polls: who is up, every 30 s, and how each device is doing, every 5 minutes.

A sweep stores its points as it goes, through the writer, and publishes them at its end. A device
that does not answer is a result, not an error: what fails a step is an inventory that cannot be
read, a store that does not take the points, or a probe that cannot be opened.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from metrics_pipeline.core.device_assets import (
    GROUP,
    METRICS_JOB,
    POLLED_EVERY_MINUTES,
    STATUS,
    STATUS_JOB,
)
from metrics_pipeline.core.device_points import (
    StatusBoard,
    metric_points,
    status_point,
    statuses_in,
)
from metrics_pipeline.core.devices import Device, DeviceReading
from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import DeviceProbe, RemembersDevices
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.orchestration.device_report import CHECKS, describe, judge
from metrics_pipeline.orchestration.device_sweep import Question, Swept, sweep_and_store
from metrics_pipeline.orchestration.failures import failure
from metrics_pipeline.orchestration.resources import WRITER
from metrics_pipeline.orchestration.run_time import time_ns
from metrics_pipeline.orchestration.status_grid import sweep_times
from metrics_pipeline.polling import Limits
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.inventory import Inventory
from metrics_pipeline.sources.probe_registry import PROBES
from metrics_pipeline.storage.writer import Writer

INVENTORY = "inventory"
DEVICES_TABLE = dg.AssetKey(["inventory", "devices"])
if TYPE_CHECKING:
    Result = dg.MaterializeResult[None]
else:
    Result = dg.MaterializeResult  # Dagster takes no other annotation of an asset with checks

CADENCE = timedelta(minutes=POLLED_EVERY_MINUTES)
METRICS_PROTOCOLS = ("snmp", "ssh", "winrm")


Grid = Callable[[float], Iterable[int]]
"""The times of a status run's sweeps, given the present; seconds since the epoch."""


def build_device_assets(settings: Settings, grid: Grid = sweep_times) -> list[dg.AssetsDefinition]:
    """The status asset, and one of metrics for each protocol that gives any."""
    return [
        _build_status_asset(settings, grid),
        *(_build_metrics_asset(protocol, settings) for protocol in METRICS_PROTOCOLS),
    ]


def _build_status_asset(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    def device_status(context: dg.AssetExecutionContext) -> Result:
        writer: Writer = getattr(context.resources, WRITER)
        latest = writer.latest(STATUS)
        online = statuses_in(latest.points if latest else ())
        board = StatusBoard(settings.sweeps.missed_answers, online)
        swept = Swept()
        devices: Sequence[Device] = ()
        for at_seconds in list(grid(time.time())) or [int(time.time())]:
            time.sleep(max(0.0, at_seconds - time.time()))
            devices = _read_devices(context, tuple(PROBES))
            swept = _sweep_status(context, settings, board, devices, at_seconds * NS_PER_SECOND)
        return _result(swept, devices, settings)

    about = "Who is up: every device of the inventory, asked every 30 s."
    return _build_asset(STATUS, STATUS_JOB, about, settings.sweeps.status_by, device_status)


def _build_metrics_asset(protocol: str, settings: Settings) -> dg.AssetsDefinition:
    key = f"{GROUP}/{protocol}_metrics"
    spec = PROBES[protocol]

    def device_metrics(context: dg.AssetExecutionContext) -> Result:
        devices = _read_devices(context, (protocol,))
        at_ns = time_ns(context, CADENCE)
        probe = settings.build_probe(protocol)
        _load_memories(context, protocol, probe)
        question = Question(probe, devices, spec.metrics + settings.sweeps.detail_tables)
        swept = _sweep(context, settings, [question], lambda reading: metric_points(reading, at_ns))
        writer: Writer = getattr(context.resources, WRITER)
        writer.publish(key, swept.kept, devices)
        if isinstance(probe, RemembersDevices):
            writer.save_memories(protocol, probe.dump_memories())
        return _result(swept, devices, settings)

    about = f"How the devices that are asked over {spec.title} are doing."
    return _build_asset(key, METRICS_JOB, about, protocol, device_metrics)


def _build_asset(
    name: str,
    pool: str,
    description: str,
    kind: str,
    compute: Callable[[dg.AssetExecutionContext], Result],
) -> dg.AssetsDefinition:
    key = dg.AssetKey.from_user_string(name)
    checks = [
        dg.AssetCheckSpec(check, asset=key, description=about) for check, about in CHECKS.items()
    ]
    return dg.asset(
        key=key,
        description=description,
        group_name=GROUP,
        kinds={kind},
        owners=["team:network-operations"],
        deps=[DEVICES_TABLE],
        required_resource_keys={INVENTORY, WRITER},
        check_specs=checks,
        pool=pool,
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=3 * CADENCE, warn_window=2 * CADENCE
        ),
    )(_failing_readably(compute))


def _read_devices(
    context: dg.AssetExecutionContext, protocols: tuple[str, ...]
) -> Sequence[Device]:
    inventory: Inventory = getattr(context.resources, INVENTORY)
    return inventory.read_devices(protocols)


def _load_memories(context: dg.AssetExecutionContext, protocol: str, probe: DeviceProbe) -> None:
    if isinstance(probe, RemembersDevices):
        probe.load_memories(getattr(context.resources, WRITER).load_memories(protocol))


def _sweep_status(
    context: dg.AssetExecutionContext,
    settings: Settings,
    board: StatusBoard,
    devices: Sequence[Device],
    at_ns: int,
) -> Swept:
    """Ask everybody once, and show who is up at once."""

    def points_of(reading: DeviceReading) -> Sequence[Point]:
        return [status_point(reading.device_id, board.judge(reading), at_ns)]

    swept = _sweep(context, settings, _status_questions(settings, devices), points_of)
    getattr(context.resources, WRITER).publish(STATUS, swept.kept, devices)
    return swept


def _status_questions(settings: Settings, devices: Sequence[Device]) -> list[Question]:
    if settings.sweeps.status_by != "protocol":
        name = settings.sweeps.status_by
        return [Question(settings.build_probe(name), devices, PROBES[name].cheapest)]
    return [
        Question(settings.build_probe(name), asked, PROBES[name].cheapest)
        for name in PROBES
        if (asked := [device for device in devices if device.protocol == name])
    ]


def _sweep(
    context: dg.AssetExecutionContext,
    settings: Settings,
    questions: Sequence[Question],
    points_of: Callable[[DeviceReading], Sequence[Point]],
) -> Swept:
    limits = Limits(settings.sweeps.max_in_flight, settings.sweeps.device_budget_seconds)
    writer: Writer = getattr(context.resources, WRITER)
    return asyncio.run(sweep_and_store(questions, limits, points_of, writer, context.log.info))


def _failing_readably(
    compute: Callable[[dg.AssetExecutionContext], Result],
) -> Callable[[dg.AssetExecutionContext], Result]:
    """`compute`, whose errors are the step's failure, in words."""

    @functools.wraps(compute)
    def run(context: dg.AssetExecutionContext) -> Result:
        failed: list[MetricsPipelineError] = []
        try:
            return compute(context)
        except* MetricsPipelineError as errors:
            failed = list(_flatten(errors))
        raise failure(failed, kept=0)  # not above, where it would become part of a group

    return run


def _flatten(errors: BaseExceptionGroup[MetricsPipelineError]) -> Iterator[MetricsPipelineError]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flatten(error)
        else:
            yield error


def _result(swept: Swept, devices: Sequence[Device], settings: Settings) -> Result:
    return dg.MaterializeResult(
        metadata=describe(swept, devices),
        check_results=judge(swept, devices, settings.sweeps.warn_offline_share),
    )
