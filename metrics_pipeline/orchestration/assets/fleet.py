"""Fleet counts: how many devices there are, how many are connected, what failed.

Three assets in one job. Each reads its counts one by one, stores those that could be read, and
fails, with every reason, if one could not.
"""

import functools
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta

import dagster as dg

from metrics_pipeline.access.fetching import measured
from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.fleet import GROUP, JOB, FleetAsset
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.orchestration.checks import CHECK_SPECS, judge
from metrics_pipeline.orchestration.failures import Attempt, outcome
from metrics_pipeline.orchestration.fetch_counting import count_fetches
from metrics_pipeline.orchestration.resources import POINTS_IO_MANAGER, WRITER
from metrics_pipeline.orchestration.run_time import time_ns
from metrics_pipeline.settings import FleetSettings
from metrics_pipeline.sources.registry import SOURCES


def build_fleet_assets(
    assets: Iterable[FleetAsset], fleet: FleetSettings
) -> list[dg.AssetsDefinition]:
    """A Dagster asset for each of `assets`."""
    return [_build_asset(asset, fleet) for asset in assets]


def _build_asset(asset: FleetAsset, fleet: FleetSettings) -> dg.AssetsDefinition:
    key = dg.AssetKey.from_user_string(asset.key)
    cadence = timedelta(minutes=fleet.every_minutes)

    @dg.asset(
        key=key,
        description=asset.description,
        group_name=GROUP,
        kinds={kind for name in asset.asked for kind in SOURCES[name].kinds},
        owners=["team:fleet-operations"],
        deps=[dg.AssetKey(SOURCES[name].reads.split("/")) for name in asset.asked],
        required_resource_keys={*asset.asked, WRITER},
        io_manager_key=POINTS_IO_MANAGER,
        check_specs=[spec(key) for spec in CHECK_SPECS],
        pool=JOB,
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=3 * cadence, warn_window=2 * cadence
        ),
    )
    def count(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Reading]]:
        began = time.monotonic()
        reading = _read(context, asset, time_ns(context, cadence))
        attempt = Attempt(context.retry_number, time.monotonic() - began)
        if reading.points:
            yield _result(context, asset, reading, fleet.warn_drop_share)
        else:
            count_fetches(context, reading.fetches)
        error = outcome(reading, attempt, fleet.retry_delay_seconds)
        if error is not None:
            raise error

    return count


def _read(context: dg.AssetExecutionContext, asset: FleetAsset, at_ns: int) -> Reading:
    total = Reading(())
    for name, metrics in asset.asked.items():
        source = getattr(context.resources, name)
        total += measured(
            name, functools.partial(source.read, metrics, at_ns), SOURCES[name].query_type
        )
    return total


def _result(
    context: dg.AssetExecutionContext, asset: FleetAsset, reading: Reading, warn_drop_share: float
) -> dg.MaterializeResult[Reading]:
    previous = _previous(context, asset)
    return dg.MaterializeResult(
        value=reading, check_results=judge(previous, reading.points, warn_drop_share)
    )


def _previous(context: dg.AssetExecutionContext, asset: FleetAsset) -> tuple[Point, ...]:
    """The points before these; none if they cannot be had, which is no reason not to store."""
    try:
        snapshot = getattr(context.resources, WRITER).latest(asset.key)
    except StoreError as error:
        context.log.warning("The counts are not compared with the last ones: %s", error)
        return ()
    return snapshot.points if snapshot else ()
