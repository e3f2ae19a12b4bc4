"""Everything that an exporter can show, stored as the runs, the sensor and the sampler store it.

Of each polled device there are ten series: its status and every metric of the catalogue. There
are as many LoRaWAN devices, of six series each. Services and SQL sets are all those that ship, with
`ROASTERS` roasters and `TABLES` tables; beside them the health score, what is counted about
fetches, slots, points and dead letters, and the lag of `PARTITIONS` partitions.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from random import Random

from metrics_pipeline.core import robots
from metrics_pipeline.core.catalog import (
    ARTIFACTS,
    CATALOG,
    DATABASE_QUERIES,
    DEAD_LETTERS,
    DEAD_LETTERS_DROPPED,
    DEVICE_METRIC_LIST,
    DEVICE_METRICS,
    DEVICE_STATUS,
    EVENTHUB_LOST_EVENTS,
    EVENTS_DROPPED,
    EVENTS_PUBLISHED,
    HEALTH_METRICS,
    LORAWAN_DEVICES,
    OFFLINE,
    ONLINE,
    PIPELINE_HEALTH,
    POINTS_REJECTED,
    POINTS_SPOOLED,
    POINTS_WRITTEN,
    ROBOT_CONNECTIONS,
    ROBOT_LAST_MESSAGE,
    ROBOT_MESSAGES,
    SAMPLE_SLOTS,
    SERVICE_METRICS,
    Metric,
    ValueType,
)
from metrics_pipeline.core.device_assets import STATUS, metrics_asset
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.fetches import BUCKET_TOTALS, BUCKETS, TIME_TOTALS, to_label
from metrics_pipeline.core.platform_assets import sampled_asset
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.core.service_counters import HEALTHY, KNOWN_COUNTERS
from metrics_pipeline.core.telemetry_assets import DEVICES, LAG, UPLINKS
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.platform_sources import find_sampled
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.service_health import NAME as SERVICES
from metrics_pipeline.sources.sql_sets import SHIPPED, load_sql_set
from metrics_pipeline.storage import device_labels, sampling_lease, snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase

SETTINGS = """\
version: 1
sources:
  azure_iot_hub: {connection_string: {file: nowhere}}
  inventory: {database: {url: sqlite:///inventory.sqlite}}
fleet: {}
exporter: {port: 0, refresh_seconds: REFRESH_SECONDS}
polling: {enabled: true}
telemetry: {source: {connection_string: {file: nowhere}}}
gateway: {robot_tokens_file: nowhere}
sql:
  databases: {platform: {url: "sqlite:///nowhere"}, postgres: {url: "postgresql://nowhere/x"}}
  sets: {platform: {}, scrape_pipeline: {database: platform}, postgres: {}}
platform:
  services:
    ingest: {url: "http://127.0.0.1:1/"}
    evaluator: {url: "http://127.0.0.1:1/"}
    dispatcher: {url: "http://127.0.0.1:1/"}
    delivery: {url: "http://127.0.0.1:1/"}
"""

GATEWAYS, PARTITIONS, ROASTERS, ROBOTS, TABLES = 20, 4, 20, 100, 20
TAG_VALUES: Mapping[str, Sequence[str]] = {
    "roaster_id": [f"roaster-{number:02}" for number in range(ROASTERS)],
    "status": ["success", "failed", "running"],
    "http_status": ["200", "304", "404", "500", "none"],
    "schema": ["public"],
    "table": [f"table_{number:02}" for number in range(TABLES)],
    "standby": ["standby-1"],
    "slot": ["slot_1"],
}
REASONS = ("not_json", "no_device_eui")
COUNTED = 1000
"""What each total begins with, so that none is at zero."""


def device_name(number: int) -> str:
    """The id of a polled device."""
    return f"device-{number:05}"


def uptime_line(turn: int) -> str:
    """What the page says of the first device's uptime after `turn`; of each turn another."""
    name = device_name(0)
    labels = f'device_id="{name}",device_type="router",hostname="{name}.example.org"'
    return f"device_uptime_seconds{{{labels}}} {float(COUNTED + 10 * turn)}"


def queue_line(turn: int) -> str:
    """What the page says of a queue after `turn`."""
    return f'service_queue_depth{{service="ingest"}} {float(COUNTED + turn)}'


def pack_devices(devices: int, turn: int, now_ns: int) -> dict[str, bytes]:
    """What one sweep of all devices, and one publication of telemetry, leave by asset, packed."""
    names = [device_name(number) for number in range(devices)]
    status = (
        Point(DEVICE_STATUS.name, {"device_id": name}, {"status": _status(number)}, now_ns)
        for number, name in enumerate(names)
    )
    random = Random(turn)
    values = (
        Point(
            DEVICE_METRICS.name,
            {"device_id": name, "metric_name": metric.selected_by},
            {"value": _value(metric, random, turn)},
            now_ns,
        )
        for name, metric in itertools.product(names, DEVICE_METRIC_LIST)
    )
    return {
        STATUS: snapshots.encode(status),
        metrics_asset("snmp"): snapshots.encode(values),
        DEVICES: snapshots.encode(_lorawan_rows(devices, turn, now_ns)),
    }


def store_devices(settings: Settings, bodies: Mapping[str, bytes], devices: int) -> None:
    """Store what was packed; the packing is the run's work, and in another process than this."""
    known = [
        Device(device_name(n), f"{device_name(n)}.example.org", "192.0.2.1", "router", "snmp")
        for n in range(devices)
    ]
    now_ns = time.time_ns()
    with (
        closing(OperationalDatabase(settings.operational_database)) as database,
        database.writing() as connection,
    ):
        for asset, body in bodies.items():
            snapshots.replace_packed(connection, asset, body, now_ns)
            if asset != DEVICES:
                device_labels.replace(connection, asset, known)


def store_samples(settings: Settings, turn: int) -> None:
    """What the sampler and the telemetry sensor leave: every service, set and partition."""
    now_ns = time.time_ns()
    points = {
        UPLINKS: [
            Point(LAG, {"partition": str(n)}, {"lag_events": turn % 7, "lag_seconds": 0.5}, now_ns)
            for n in range(PARTITIONS)
        ],
        sampled_asset(SERVICES): [
            Point(SERVICE_METRICS.name, {"service": name}, _counters(name, turn), now_ns)
            for name in KNOWN_COUNTERS
        ],
        **{sampled_asset(name): list(_sql_points(name, turn, now_ns)) for name in SHIPPED},
    }
    health = [
        Point(PIPELINE_HEALTH.name, {"component": metric.selected_by}, {"value": 97.5}, now_ns)
        for metric in HEALTH_METRICS
    ]
    points[sampled_asset("scrape_pipeline")] += health
    points[robots.ASSET] = [Point(robots.GATEWAY, {}, {robots.CONNECTED: ROBOTS}, now_ns)]
    points[robots.LATEST] = list(_robot_rows(turn, now_ns))
    with (
        closing(OperationalDatabase(settings.operational_database)) as database,
        database.writing() as connection,
    ):
        sampling_lease.take(connection, "benchmark", now_ns, 60 * NS_PER_SECOND)
        for asset, rows in points.items():
            snapshots.replace(connection, asset, tuple(rows), now_ns)


def store_totals(settings: Settings) -> None:
    """Add to every total that the exporter shows."""
    sources = (*(sampled.name for sampled in find_sampled(settings)), *settings.fetched_sources())
    pairs: dict[str, Iterator[tuple[str, ...]]] = {
        BUCKET_TOTALS: itertools.product(sources, map(str, BUCKETS)),
        TIME_TOTALS: itertools.product(sources),
        ARTIFACTS.name: itertools.product(sources, ("ok", "failed")),
        DATABASE_QUERIES.name: itertools.product((*SHIPPED, "inventory"), ("true", "false")),
        SAMPLE_SLOTS.name: itertools.product((SERVICES, *SHIPPED), Outcome),
    }
    plain: dict[str, Iterable[str]] = {
        POINTS_WRITTEN.name: CATALOG.measurements,
        POINTS_SPOOLED.name: CATALOG.measurements,
        ROBOT_MESSAGES.name: (robots.STORED,),
        ROBOT_CONNECTIONS.name: ("established",),
        EVENTS_PUBLISHED.name: ("",),
        EVENTS_DROPPED.name: ("queue_full",),
        POINTS_REJECTED.name: ("range", "time"),
        EVENTHUB_LOST_EVENTS.name: map(str, range(PARTITIONS)),
        DEAD_LETTERS.name: REASONS,
        DEAD_LETTERS_DROPPED.name: REASONS,
    }
    labels = {name: map(to_label, each) for name, each in pairs.items()} | plain
    counts = {name: dict.fromkeys(each, COUNTED) for name, each in labels.items()}
    with (
        closing(OperationalDatabase(settings.operational_database)) as database,
        database.writing() as connection,
    ):
        tallies.add_all(connection, counts)


def _status(number: int) -> str:
    return OFFLINE if number % 50 == 1 else ONLINE


def _value(metric: Metric, random: Random, turn: int) -> float:
    if metric.family.name == "device_uptime_seconds":
        return COUNTED + 10 * turn
    if metric.family.name.endswith("_total"):
        return 1e9 + 1e6 * turn + random.randrange(10**5)
    return 1.0 if metric.family.name == "device_ping_status" else random.random() * 100


def _lorawan_rows(devices: int, turn: int, now_ns: int) -> Iterator[Point]:
    random = Random(turn)
    for number in range(devices):
        tags = {"device_eui": f"{number:016X}", "gateway_id": f"gateway-{number % GATEWAYS:02}"}
        fields: dict[str, FieldValue] = {
            "last_uplink_timestamp_seconds": now_ns / NS_PER_SECOND,
            "rssi_dbm": float(random.randrange(-120, -60)),
            "snr_db": random.randrange(-40, 20) / 2,
            "frame_counter": COUNTED + turn,
            "frames_received_total": COUNTED + turn,
            "frames_lost_total": number % 10,
            "frames_duplicate": 0,
            "frames_missing": 0,
        }
        yield Point(LORAWAN_DEVICES.name, tags, fields, now_ns)


def _robot_rows(turn: int, now_ns: int) -> Iterator[Point]:
    for number in range(ROBOTS):
        fields: dict[str, FieldValue] = {
            **dict.fromkeys(robots.FIELDS, float((number + turn) % 100)),
            ROBOT_LAST_MESSAGE.field: now_ns / NS_PER_SECOND,
        }
        yield Point(
            ROBOT_LAST_MESSAGE.measurement.name, {"robot_id": f"robot-{number}"}, fields, now_ns
        )


def _counters(service: str, turn: int) -> dict[str, FieldValue]:
    return {HEALTHY: 1, **dict.fromkeys(KNOWN_COUNTERS[service], COUNTED + turn)}


def _sql_points(name: str, turn: int, now_ns: int) -> Iterator[Point]:
    sql_set = load_sql_set(name)
    if sql_set.healthy is not None:
        yield Point(sql_set.healthy.measurement.name, {}, {sql_set.healthy.field: 1}, now_ns)
    for query in sql_set.queries:
        fields = {field: _figure(metric, turn) for field, metric in query.metrics.items()}
        for values in itertools.product(*(TAG_VALUES[tag] for tag in query.tags)):
            tags = dict(zip(query.tags, values, strict=True))
            yield Point(query.measurement.name, tags, fields, now_ns)


def _figure(metric: Metric, turn: int) -> FieldValue:
    if metric.value_type is ValueType.BOOLEAN:
        return True
    most = metric.maximum or 10**9
    number = min(COUNTED + turn, most)
    return int(number) if metric.value_type is ValueType.INTEGER else float(number)
