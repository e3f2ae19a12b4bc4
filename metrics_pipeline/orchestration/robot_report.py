"""Robots in the lineage: an external asset, and a sensor that tells Dagster what was stored.

The gateway knows nothing of Dagster. What it counts is in the operational database; the sensor
reads that once in `gateway.report_every_seconds`, and reports what is new since its last report.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta

import dagster as dg

from metrics_pipeline.core.catalog import ROBOT_CONNECTIONS, ROBOT_MESSAGES
from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.robots import ASSET, CONNECTED, SENSOR, STORED
from metrics_pipeline.core.telemetry_assets import GROUP
from metrics_pipeline.orchestration.tables import table_of_counts
from metrics_pipeline.settings import GatewaySettings, Settings
from metrics_pipeline.storage import snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase

KEY = dg.AssetKey.from_user_string(ASSET)
ROBOTS = dg.AssetKey(["robots", "messages"])
COUNTED = (ROBOT_MESSAGES.name, ROBOT_CONNECTIONS.name)

Totals = Mapping[str, Mapping[str, int]]
"""By name and label."""


def build_robot_assets(gateway: GatewaySettings) -> list[dg.AssetSpec]:
    """What robots send, and what is stored of it; no run makes either."""
    every = timedelta(seconds=gateway.report_every_seconds)
    source = dg.AssetSpec(
        key=ROBOTS,
        description="What robots send over WebSocket: read by the gateway.",
        group_name="sources",
        kinds={"websocket"},
    )
    stored = dg.AssetSpec(
        key=KEY,
        description="Telemetry of robots, in micro-batches: stored by the gateway, reported at "
        f"most every {gateway.report_every_seconds} s.",
        group_name=GROUP,
        kinds={"websocket"},
        owners=["team:network-operations"],
        deps=[ROBOTS],
        # Dagster takes no window below a minute.
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=max(4 * every, timedelta(minutes=4)),
            warn_window=max(2 * every, timedelta(minutes=2)),
        ),
    )
    return [source, stored]


def build_robot_sensor(settings: Settings, gateway: GatewaySettings) -> dg.SensorDefinition:
    """Reports what is new; on by default."""

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=gateway.report_every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports what the gateway stored of robots since the last report.",
    )
    def robot_metrics(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            totals, connected = _look(settings)
        except StoreError as error:
            return dg.SensorResult(skip_reason=f"Nothing is known of robots: {error}")
        return report(totals, connected, context.cursor)

    return robot_metrics


def report(totals: Totals, connected: int, cursor: str | None) -> dg.SensorResult:
    """What is new in `totals` since `cursor`: a materialization, if anything was stored."""
    new = _since(totals, _from_cursor(cursor))
    messages, connections = (new[name] for name in COUNTED)
    if not messages.get(STORED):
        return dg.SensorResult(skip_reason="No message of a robot was stored since the last time.")
    refused = {reason: n for reason, n in messages.items() if n and reason != STORED}
    ended = sorted((outcome, n) for outcome, n in connections.items() if n)
    metadata = {
        "messages_stored": dg.MetadataValue.int(messages[STORED]),
        "messages_refused": dg.MetadataValue.int(sum(refused.values())),
        "robots_connected": dg.MetadataValue.int(connected),
        **table_of_counts("refused_by_reason", "outcome", sorted(refused.items())),
        **table_of_counts("connections", "outcome", ended),
        "snapshot": dg.MetadataValue.json({"asset": ASSET}),
    }
    return dg.SensorResult(
        asset_events=[dg.AssetMaterialization(KEY, metadata=metadata)], cursor=json.dumps(totals)
    )


def _look(settings: Settings) -> tuple[Totals, int]:
    """Totals of the two counters, and how many robots were connected last."""
    opened = closing(OperationalDatabase(settings.operational_database))
    with opened as database, database.reading() as connection:
        found = tallies.totals(connection)
        snapshot = snapshots.find(connection, ASSET)
    totals = {name: found.get(name, {}) for name in COUNTED}
    connected = snapshot.points[0].fields[CONNECTED] if snapshot and snapshot.points else 0
    return totals, int(connected)


def _since(totals: Totals, before: Totals) -> Totals:
    """Of a total that fell, in a database that is another one, all of it is new."""
    return {
        name: {
            label: n - old if n >= (old := before.get(name, {}).get(label, 0)) else n
            for label, n in totals.get(name, {}).items()
        }
        for name in COUNTED
    }


def _from_cursor(text: str | None) -> Totals:
    """What `report` gave; nothing of a text that is not such a one."""
    try:
        found = json.loads(text or "{}")
        return {name: {k: int(n) for k, n in found[name].items()} for name in COUNTED}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
