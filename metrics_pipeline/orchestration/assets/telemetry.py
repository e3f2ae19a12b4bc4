"""LoRaWAN uplinks: a run stores what the hub has, and what comes until its window ends.

Micro-batches are stored as they come, and checkpoints move with them (`ingestion/`): a run that
is cancelled or dies has lost nothing. What fails a step is a hub or a store that is out of reach
still when the window ends.
"""

import threading
import time
from collections.abc import Callable, Iterator

import dagster as dg

from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.telemetry_assets import DEVICES, GROUP, JOB, UPLINKS
from metrics_pipeline.ingestion import IngestionReport, Stores, ingest
from metrics_pipeline.orchestration.failures import failure
from metrics_pipeline.orchestration.in_flight import find_in_flight
from metrics_pipeline.orchestration.resources import TELEMETRY_WRITER
from metrics_pipeline.orchestration.telemetry_report import (
    CHECKS,
    LongestLag,
    describe,
    errors_in,
    in_words,
    judge,
    points_in,
)
from metrics_pipeline.settings import Settings, TelemetrySettings
from metrics_pipeline.telemetry_connections import open_telemetry

HUB = dg.AssetKey(["event_hub", "uplinks"])
PATIENCE_SECONDS = 3.0
"""A run that is taken over notices that with its next micro-batch, and then shows its last rows."""

TELL_EVERY_SECONDS = 30.0
"""A line of the log is a row in Dagster's database."""


def build_telemetry_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of uplinks, if the settings have a section for telemetry."""
    telemetry = settings.telemetry
    return [] if telemetry is None else [_build_asset(settings, telemetry)]


def _build_asset(settings: Settings, telemetry: TelemetrySettings) -> dg.AssetsDefinition:
    """Without a pool: a run takes over from the one before while that still reads."""
    key = dg.AssetKey.from_user_string(UPLINKS)

    @dg.asset(
        key=key,
        description="Every LoRaWAN uplink of the hub, in micro-batches with a checkpoint each.",
        group_name=GROUP,
        kinds={"azure"},
        owners=["team:network-operations"],
        deps=[HUB],
        required_resource_keys={TELEMETRY_WRITER},
        check_specs=[
            dg.AssetCheckSpec(check, asset=key, description=about)
            for check, about in CHECKS.items()
        ],
    )
    def store_uplinks(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        longest = LongestLag()
        try:
            report = _ingest(context, settings, longest)
        except MetricsPipelineError as error:
            raise failure([error], kept=0) from error
        # With the result it would be stored with the output as well.
        context.add_asset_metadata(describe(report, longest))
        yield dg.MaterializeResult(check_results=judge(report, telemetry))
        errors = errors_in(report)
        if errors:
            raise failure(errors, kept=points_in(report))

    return store_uplinks


def _ingest(
    context: dg.AssetExecutionContext, settings: Settings, longest: LongestLag
) -> IngestionReport:
    with open_telemetry(settings, context.run.run_id) as opened:
        telemetry = opened.telemetry
        writer = getattr(context.resources, TELEMETRY_WRITER)
        return ingest(
            opened.stream,
            Stores(writer, opened.dead_letters, opened.checkpoints),
            telemetry.rules(),
            telemetry.batch_limits(),
            asset=DEVICES,
            window_seconds=telemetry.window_seconds,
            stop=threading.Event(),
            devices_kept_days=telemetry.devices_kept_days,
            patience_seconds=PATIENCE_SECONDS if _is_beside_another(context) else 0.0,
            tell=_telling(context.log.info, longest),
        )


def _is_beside_another(context: dg.AssetExecutionContext) -> bool:
    return len(find_in_flight(context.instance, JOB, [context.asset_key])) > 1


def _telling(say: Callable[[str], None], longest: LongestLag) -> Callable[[IngestionReport], None]:
    """Says now and then what was done so far."""
    told = time.monotonic()

    def tell(report: IngestionReport) -> None:
        nonlocal told
        longest.see(report)
        if time.monotonic() - told >= TELL_EVERY_SECONDS:
            told = time.monotonic()
            say(in_words(report))

    return tell
