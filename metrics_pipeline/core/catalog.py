"""Every metric once: name, unit, type, help, where it is stored and how Prometheus sees it.

The heart of the product. A source may only give what stands here, the writer checks values
against it, and the exporter, the docs and the dashboards are made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from metrics_pipeline.core import devices
from metrics_pipeline.core.points import Point, Shape
from metrics_pipeline.core.service_counters import HEALTHY, KNOWN_COUNTERS, WAITING


class ValueType(StrEnum):
    """The type of a stored field, which never changes during a metric's life."""

    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    STRING = "string"


class MetricType(StrEnum):
    """The type of a Prometheus metric family."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Measurement:
    """A table of the time-series store. `database` is a bucket (InfluxDB 2) or database (3).

    Every point has all of `tags`, and may have `optional_tags`. Where many metrics share one field,
    `selector` is the tag whose value tells which it is. Points may be `max_age_days` old, for where
    they come from may keep them that long, and `max_ahead_minutes` ahead of the clock of who stores
    them, for where they come from may have a clock of its own.
    """

    name: str
    database: str
    tags: tuple[str, ...]
    selector: str = ""
    optional_tags: tuple[str, ...] = ()
    max_age_days: int = 7
    max_ahead_minutes: int = 10

    @property
    def all_tags(self) -> tuple[str, ...]:
        """Those a point must have, then those it may have."""
        return self.tags + self.optional_tags


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family of the exporter's page; `labels` are in the order they are shown."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """One field of a measurement: its unit, its type, its range, and the family that shows it."""

    measurement: Measurement
    field: str
    value_type: ValueType
    unit: str
    family: Family
    minimum: float | None = None
    maximum: float | None = None
    selected_by: str = ""
    """The value of the measurement's selector tag, where it has one."""

    @property
    def help(self) -> str:
        """One sentence for people: in the page, the docs and the dashboards."""
        return self.family.help


@dataclass(frozen=True, slots=True)
class StoredMetric:
    """One field of a measurement that is in the store alone: too many series for any page."""

    measurement: Measurement
    field: str
    value_type: ValueType
    unit: str
    help: str
    minimum: float | None = None
    maximum: float | None = None
    selected_by: str = ""


@dataclass(frozen=True, slots=True)
class OpenFields:
    """All fields of a measurement that begin with `prefix`: others name them, and choose the type.

    They are in the store alone. A number has to be finite; there is no range.
    """

    measurement: Measurement
    prefix: str
    help: str


AnyMetric = Metric | StoredMetric

Range = tuple[str, float, float]
"""A field, its least value, and its most."""

UsualPoints = dict[Shape, tuple[Range, ...]]
"""Points with these fields are fit to be stored as long as all values are in their ranges."""


class Catalog:
    """The metrics that may be stored, found by measurement, field and selector.

    Iterating gives those that the exporter shows.
    """

    def __init__(
        self,
        metrics: Iterable[Metric],
        stored_only: Iterable[StoredMetric] = (),
        open_fields: Iterable[OpenFields] = (),
    ) -> None:
        self._shown = tuple(metrics)
        self.stored_only = tuple(stored_only)
        self.open_fields = tuple(open_fields)
        stored: tuple[AnyMetric, ...] = (*self._shown, *self.stored_only)
        self._metrics = {(m.measurement.name, m.field, m.selected_by): m for m in stored}
        self._open: dict[str, list[OpenFields]] = {}
        for fields in self.open_fields:
            self._open.setdefault(fields.measurement.name, []).append(fields)
        self.measurements: Mapping[str, Measurement] = {
            m.measurement.name: m.measurement for m in (*stored, *self.open_fields)
        }
        self.shown_measurements = frozenset(m.measurement.name for m in self._shown)
        self.usual_points: dict[tuple[str, str], UsualPoints] = {}
        """What validation remembers, by measurement and selector; to tell quickly what is fit."""

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._shown)

    def extended(self, metrics: Iterable[Metric]) -> Catalog:
        """This catalogue and `metrics` besides, which the settings name."""
        return Catalog((*self._shown, *metrics), self.stored_only, self.open_fields)

    def find(self, point: Point, field: str) -> AnyMetric | OpenFields | None:
        """The metric that `field` of `point` is a value of, or None if there is no such metric."""
        measurement = self.measurements.get(point.measurement)
        if measurement is None:
            return None
        selected_by = point.tags.get(measurement.selector, "") if measurement.selector else ""
        metric = self._metrics.get((point.measurement, field, selected_by))
        if metric is not None:
            return metric
        for fields in self._open.get(point.measurement, ()):
            if field.startswith(fields.prefix):
                return fields
        return None

    def open_prefixes(self, measurement: str) -> tuple[str, ...]:
        """How the fields of `measurement` begin that others name, and give a type to."""
        return tuple(fields.prefix for fields in self._open.get(measurement, ()))


FLEET_COUNTS = Measurement("fleet_counts", database="network_metrics", tags=("provider",))


def _fleet_count(field: str, help_text: str) -> Metric:
    family = Family(f"iot_hub_portal_{field}", MetricType.GAUGE, help_text)
    return Metric(FLEET_COUNTS, field, ValueType.INTEGER, "1", family, minimum=0)


DEVICE_COUNT = _fleet_count(
    "device_count",
    "Registered standard devices: not edge devices, and not LoRaWAN concentrators.",
)
CONNECTED_DEVICE_COUNT = _fleet_count(
    "connected_device_count", "Registered standard devices that are connected now."
)
EDGE_DEVICE_COUNT = _fleet_count("edge_device_count", "Registered edge devices.")
CONNECTED_EDGE_DEVICE_COUNT = _fleet_count(
    "connected_edge_device_count", "Registered edge devices that are connected now."
)
FAILED_DEPLOYMENT_COUNT = _fleet_count(
    "failed_deployment_count",
    "Failed edge deployments: pairs of device and deployment that failed (IoT Hub; a device on "
    "which two failed counts twice), or deployments whose latest revision failed (AWS IoT).",
)
CONCENTRATOR_COUNT = _fleet_count(
    "concentrator_count", "Registered LoRaWAN concentrators. Absent when LoRa features are off."
)
CONNECTED_CONCENTRATOR_COUNT = _fleet_count(
    "connected_concentrator_count",
    "Registered LoRaWAN concentrators that are connected now, as IoT Hub sees them.",
)

FLEET_METRICS = (
    DEVICE_COUNT,
    CONNECTED_DEVICE_COUNT,
    EDGE_DEVICE_COUNT,
    CONNECTED_EDGE_DEVICE_COUNT,
    FAILED_DEPLOYMENT_COUNT,
    CONCENTRATOR_COUNT,
    CONNECTED_CONCENTRATOR_COUNT,
)

# --- devices --------------------------------------------------------------------------------

DEVICE_LABELS = ("device_id", "hostname", "device_type")
"""What the exporter knows a device by; host name and type come from the inventory."""

DEVICE_STATUS = Measurement("device_status", database="network_metrics", tags=("device_id",))
DEVICE_METRICS = Measurement(
    "device_metrics",
    database="network_metrics",
    tags=("device_id", "metric_name"),
    selector="metric_name",
)

ONLINE = "online"
OFFLINE = "offline"

DEVICE_UP = Metric(
    DEVICE_STATUS,
    "status",
    ValueType.STRING,
    "",
    Family(
        "device_up",
        MetricType.GAUGE,
        "1 while the device answers, 0 once it has missed its answers, and before its first.",
        DEVICE_LABELS,
    ),
)


def _device_metric(
    name: str, unit: str, help_text: str, minimum: float | None = 0, maximum: float | None = None
) -> Metric:
    kind = MetricType.COUNTER if name.endswith("_total") else MetricType.GAUGE
    family = Family(f"device_{name}", kind, help_text, DEVICE_LABELS)
    return Metric(
        DEVICE_METRICS, "value", ValueType.FLOAT, unit, family, minimum, maximum, selected_by=name
    )


DEVICE_METRIC_LIST = (
    _device_metric(devices.CPU_UTILIZATION, "%", "Share of all processors in use.", maximum=100),
    _device_metric(
        devices.MEMORY_UTILIZATION,
        "%",
        "Share of memory in use; buffers and cache are not in use.",
        maximum=100,
    ),
    _device_metric(
        devices.TEMPERATURE, "°C", "The device's hottest sensor.", minimum=-273.15, maximum=1000
    ),
    _device_metric(
        devices.NETWORK_RECEIVE, "B", "Octets received by the physical interfaces that are up."
    ),
    _device_metric(
        devices.NETWORK_TRANSMIT, "B", "Octets sent by the physical interfaces that are up."
    ),
    _device_metric(devices.DISK_USAGE, "%", "Use of the fullest real file system.", maximum=100),
    _device_metric(devices.UPTIME, "s", "Seconds since the device started."),
    _device_metric(devices.PING_STATUS, "1", "1 if the device answered to ping.", maximum=1),
    _device_metric(devices.PING_RTT, "ms", "Round-trip time of the device's answer to ping."),
)


def _detail(table: str) -> Measurement:
    tags = ("device_id", "metric_name", "name")
    return Measurement(table, "network_metrics", tags, selector="metric_name")


DEVICE_INTERFACES, DEVICE_DISKS = _detail(devices.INTERFACES), _detail(devices.DISKS)


def _detail_metric(
    table: Measurement, name: str, unit: str, help_text: str, maximum: float | None = None
) -> StoredMetric:
    return StoredMetric(
        table, "value", ValueType.FLOAT, unit, help_text, 0, maximum, selected_by=name
    )


DETAIL_METRICS = (
    _detail_metric(
        DEVICE_INTERFACES,
        devices.NETWORK_RECEIVE,
        "B",
        "Octets received by one physical interface that is up.",
    ),
    _detail_metric(
        DEVICE_INTERFACES,
        devices.NETWORK_TRANSMIT,
        "B",
        "Octets sent by one physical interface that is up.",
    ),
    _detail_metric(
        DEVICE_DISKS, devices.DISK_USAGE, "%", "Use of one real file system.", maximum=100
    ),
)
"""Only where `polling.details` asks for them: 10,000 devices with 48 ports are a million series."""

# --- telemetry ------------------------------------------------------------------------------

PAYLOAD, EXTRA = "payload_", "extra_"

LORAWAN_UPLINK = Measurement(
    "lorawan_uplink",
    database="network_metrics",
    tags=("device_eui",),
    optional_tags=("gateway_id", "port"),
    # Event Hubs keep events up to 90 days, and delete them some hours late.
    max_age_days=91,
    # The hub's clock is the one to trust, and this machine's may be behind it: by up to half a day
    # where it keeps the local time of some zone as UTC. Beyond that it is no clock that is off.
    max_ahead_minutes=14 * 60,
)


def _uplink_metric(
    field: str, unit: str, help_text: str, value_type: ValueType = ValueType.FLOAT
) -> StoredMetric:
    return StoredMetric(LORAWAN_UPLINK, field, value_type, unit, help_text)


UPLINK_METRICS = (
    _uplink_metric("rssi_dbm", "dBm", "Received signal strength at the gateway."),
    _uplink_metric("snr_db", "dB", "Signal-to-noise ratio at the gateway."),
    _uplink_metric("frequency_mhz", "MHz", "Frequency of the channel."),
    _uplink_metric(
        "spreading_factor", "1", "LoRa spreading factor, from `datr`.", ValueType.INTEGER
    ),
    _uplink_metric("bandwidth_khz", "kHz", "LoRa bandwidth, from `datr`."),
    _uplink_metric("frame_counter", "1", "The device's number of the frame.", ValueType.INTEGER),
    _uplink_metric("rawdata", "", "The frame's payload as it was sent, base64.", ValueType.STRING),
)

UPLINK_OPEN_FIELDS = (
    OpenFields(
        LORAWAN_UPLINK,
        PAYLOAD,
        "Each number, flag and text of the decoded payload, by its path joined with `_`.",
    ),
    OpenFields(LORAWAN_UPLINK, EXTRA, "What else the message says, by the name it has there."),
)

LORAWAN_DEVICES = Measurement(
    "lorawan_devices",
    database="network_metrics",
    tags=("device_eui",),
    optional_tags=("gateway_id",),
    max_age_days=91,
)
"""The latest values of each device that sent, for the exporter."""

EUI_LABEL = ("device_eui",)
SIGNAL_LABELS = ("device_eui", "gateway_id")
"""What a gateway measured is shown with the gateway. A device that is heard by another from then on
is another series there, so what counts or is watched for its age has the device alone."""


def _lorawan_device_metric(
    field: str,
    value_type: ValueType,
    unit: str,
    help_text: str,
    minimum: float | None = None,
    *,
    labels: tuple[str, ...] = EUI_LABEL,
) -> Metric:
    kind = MetricType.COUNTER if field.endswith("_total") else MetricType.GAUGE
    family = Family(f"lorawan_device_{field}", kind, help_text, labels)
    return Metric(LORAWAN_DEVICES, field, value_type, unit, family, minimum)


LORAWAN_DEVICE_METRICS = (
    _lorawan_device_metric(
        "last_uplink_timestamp_seconds",
        ValueType.FLOAT,
        "s",
        "When the hub accepted the device's last uplink, in seconds since the epoch.",
    ),
    _lorawan_device_metric(
        "rssi_dbm",
        ValueType.FLOAT,
        "dBm",
        "Received signal strength of the device's last uplink.",
        labels=SIGNAL_LABELS,
    ),
    _lorawan_device_metric(
        "snr_db",
        ValueType.FLOAT,
        "dB",
        "Signal-to-noise ratio of the device's last uplink.",
        labels=SIGNAL_LABELS,
    ),
    _lorawan_device_metric(
        "frame_counter", ValueType.INTEGER, "1", "The device's own number of its last frame.", 0
    ),
    _lorawan_device_metric(
        "frames_received_total",
        ValueType.INTEGER,
        "1",
        "Frames that came, each counted once however many gateways heard it.",
        0,
    ),
    _lorawan_device_metric(
        "frames_lost_total",
        ValueType.INTEGER,
        "1",
        "Frames missing in the gaps of the frame counter, counted once they can no longer be late.",
        0,
    ),
)

LORAWAN_DEVICE_STATE = (
    StoredMetric(
        LORAWAN_DEVICES,
        "frames_duplicate",
        ValueType.INTEGER,
        "1",
        "Copies of frames that had come before.",
        0,
    ),
    StoredMetric(
        LORAWAN_DEVICES,
        "frames_missing",
        ValueType.INTEGER,
        "1",
        "Which of the last 62 frames before this one may still come: bit 0 is the one before.",
        0,
    ),
)
"""What counting frames needs to know besides (`frame_counts.py`)."""

# --- robots ---------------------------------------------------------------------------------

ROBOT_METRICS = Measurement(
    "robot_metrics",
    database="network_metrics",
    tags=("robot_id",),
    # A robot that was out of reach sends later what it kept meanwhile.
    max_age_days=31,
)
ROBOTS = Measurement("robots", database="network_metrics", tags=("robot_id",), max_age_days=3650)
"""When each robot was last heard of, for the exporter."""

ROBOT_LABELS = ("robot_id",)


def _robot_metric(
    field: str,
    unit: str,
    help_text: str,
    maximum: float | None = None,
    measurement: Measurement = ROBOT_METRICS,
) -> Metric:
    family = Family(f"robot_{field}", MetricType.GAUGE, help_text, ROBOT_LABELS)
    return Metric(measurement, field, ValueType.FLOAT, unit, family, 0, maximum)


ROBOT_METRIC_LIST = (
    _robot_metric("cpu_usage", "%", "Share of the robot's processors in use.", maximum=100),
    _robot_metric("memory_usage", "%", "Share of the robot's memory in use.", maximum=100),
    _robot_metric("network_latency_ms", "ms", "Delay of the robot's network, as it measured it."),
    _robot_metric("battery_percentage", "%", "Charge of the robot's battery.", maximum=100),
)
"""What a robot may say, in a message over WebSocket (docs/gateway.md)."""

ROBOT_LAST_MESSAGE = _robot_metric(
    "last_message_timestamp_seconds",
    "s",
    "The time of the robot's latest message, in seconds since the epoch.",
    measurement=ROBOTS,
)

# --- the platform ---------------------------------------------------------------------------

SERVICE_METRICS = Measurement("service_metrics", database="system_metrics", tags=("service",))


def _service_metric(
    field: str, help_text: str, *, is_counter: bool, maximum: float | None = None
) -> Metric:
    kind = MetricType.COUNTER if is_counter else MetricType.GAUGE
    suffix = "_total" if is_counter and not field.endswith("_total") else ""
    family = Family(f"service_{field}{suffix}", kind, help_text, ("service",))
    return Metric(SERVICE_METRICS, field, ValueType.INTEGER, "1", family, 0, maximum)


SERVICE_HEALTHY = _service_metric(
    HEALTHY,
    "1 if the service's health page came in time, with status 200 and JSON on it; else 0.",
    is_counter=False,
    maximum=1,
)
SERVICE_COUNTERS = tuple(
    _service_metric(field, help_text, is_counter=field not in WAITING)
    for counters in KNOWN_COUNTERS.values()
    for field, help_text in counters.items()
)


def service_counter(field: str) -> Metric:
    """The metric of a counter that the settings name; a gauge, unless it ends in `_total`."""
    help_text = f"{field} as the service's health page has it."
    return _service_metric(field, help_text, is_counter=field.endswith("_total"))


# --- how well a pipeline does ---------------------------------------------------------------

PIPELINE_HEALTH = Measurement(
    "pipeline_health", database="system_metrics", tags=("component",), selector="component"
)
SCORE = "score"


def _health_metric(component: str, family: Family) -> Metric:
    return Metric(
        PIPELINE_HEALTH, "value", ValueType.FLOAT, "1", family, 0, 100, selected_by=component
    )


_HEALTH_SCORE = Family(
    "pipeline_health_score",
    MetricType.GAUGE,
    "0 to 100: sum(weight * pipeline_health_component) / sum(weight), with the weights run_success "
    "40, artifact_quality 30, freshness 20, review 10 unless health.weights says otherwise; a "
    "component without data is left out of both sums.",
)
_HEALTH_COMPONENT = Family(
    "pipeline_health_component",
    MetricType.GAUGE,
    "0 to 100: run_success is the share of the last day's runs that succeeded, artifact_quality "
    "that of artifacts with status 2xx and a body, or 304, review that of those that nobody has to "
    "look at; freshness falls from 100 to 0 while the last successful run ages from "
    "health.fresh_seconds to health.stale_seconds.",
    ("component",),
)
HEALTH_COMPONENTS = ("run_success", "artifact_quality", "freshness", "review")
HEALTH_METRICS = (
    _health_metric(SCORE, _HEALTH_SCORE),
    *(_health_metric(component, _HEALTH_COMPONENT) for component in HEALTH_COMPONENTS),
)

CATALOG = Catalog(
    (
        *FLEET_METRICS,
        DEVICE_UP,
        *DEVICE_METRIC_LIST,
        *LORAWAN_DEVICE_METRICS,
        *ROBOT_METRIC_LIST,
        ROBOT_LAST_MESSAGE,
        SERVICE_HEALTHY,
        *SERVICE_COUNTERS,
        *HEALTH_METRICS,
    ),
    (*DETAIL_METRICS, *UPLINK_METRICS, *LORAWAN_DEVICE_STATE),
    UPLINK_OPEN_FIELDS,
)

# --- the product about itself ---------------------------------------------------------------

LAST_SUCCESS = Family(
    "metrics_pipeline_last_success_timestamp_seconds",
    MetricType.GAUGE,
    "When the asset was last read and stored in full, in seconds since the epoch.",
    ("asset",),
)
LAST_UPDATE = Family(
    "metrics_pipeline_last_update_timestamp_seconds",
    MetricType.GAUGE,
    "When anything of the asset was last stored, all of it or a part, in seconds since the epoch; "
    "of telemetry/lorawan_uplinks when the hub was last asked how far it is.",
    ("asset",),
)
ASSET_INTERVAL = Family(
    "metrics_pipeline_asset_interval_seconds",
    MetricType.GAUGE,
    "How often the asset is to be read and stored in full, as the settings say.",
    ("asset",),
)
SAMPLING_LEASE_END = Family(
    "metrics_pipeline_sampling_lease_end_timestamp_seconds",
    MetricType.GAUGE,
    "When the lease of the code server that samples the platform ends, which it renews every few "
    "seconds, in seconds since the epoch; 0 if it was given back.",
)
RUN_DURATION = Family(
    "metrics_pipeline_run_duration_seconds",
    MetricType.GAUGE,
    "How long the job's last finished run took, from start to end.",
    ("job",),
)
RUNS = Family(
    "metrics_pipeline_runs_total",
    MetricType.COUNTER,
    "Finished runs by job and status (success, failure, canceled).",
    ("job", "status"),
)
POINTS_WRITTEN = Family(
    "metrics_pipeline_points_written_total",
    MetricType.COUNTER,
    "Points the time-series store has acknowledged.",
    ("measurement",),
)
POINTS_SPOOLED = Family(
    "metrics_pipeline_points_spooled_total",
    MetricType.COUNTER,
    "Points kept in the spool, since the time-series store did not take them for the moment.",
    ("measurement",),
)
SPOOL_BYTES = Family(
    "metrics_pipeline_spool_bytes",
    MetricType.GAUGE,
    "Size of the spool: of what waits in it for the time-series store, and of what was damaged.",
)
SPOOL_LIMIT_BYTES = Family(
    "metrics_pipeline_spool_limit_bytes",
    MetricType.GAUGE,
    "What the spool may hold (spool.max_bytes); a write beyond it fails.",
)
SPOOL_POINTS = Family(
    "metrics_pipeline_spool_points",
    MetricType.GAUGE,
    "Points that wait in the spool for the time-series store.",
)
SPOOL_OLDEST = Family(
    "metrics_pipeline_spool_oldest_timestamp_seconds",
    MetricType.GAUGE,
    "When the oldest of what waits in the spool was kept, in seconds since the epoch; absent while "
    "nothing waits.",
)
SPOOL_DAMAGED = Family(
    "metrics_pipeline_spool_damaged_records",
    MetricType.GAUGE,
    "Pieces of the spool that could not be read and were set aside (files *.damaged).",
)
POINTS_REJECTED = Family(
    "metrics_pipeline_points_rejected_total",
    MetricType.COUNTER,
    "Points that were dropped because they were wrong, by reason.",
    ("reason",),
)
DAEMON_HEARTBEAT = Family(
    "metrics_pipeline_daemon_heartbeat_timestamp_seconds",
    MetricType.GAUGE,
    "When the Dagster daemon last said it is alive, in seconds since the epoch.",
    ("daemon",),
)
RUN_QUEUE_LENGTH = Family(
    "metrics_pipeline_run_queue_length", MetricType.GAUGE, "Runs that wait in Dagster's queue."
)
BUILD_INFO = Family(
    "metrics_pipeline_build_info",
    MetricType.GAUGE,
    "Always 1; the version is the label.",
    ("version",),
)
EXPORTER_LAST_REFRESH = Family(
    "metrics_pipeline_exporter_last_refresh_timestamp_seconds",
    MetricType.GAUGE,
    "When the exporter last read the instance and the snapshots, in seconds since the epoch.",
)
EXPORTER_REFRESH_FAILURES = Family(
    "metrics_pipeline_exporter_refresh_failures_total",
    MetricType.COUNTER,
    "Refreshes that failed since this exporter started; the page keeps its last values.",
)
EXPORTER_SERIES_DROPPED = Family(
    "metrics_pipeline_exporter_series_dropped",
    MetricType.GAUGE,
    "Series left out of this page because the family reached exporter.max_series_per_metric.",
    ("metric",),
)

PROCESS_CPU = Family(
    "metrics_pipeline_process_cpu_seconds_total",
    MetricType.COUNTER,
    "CPU time of the product's processes on the exporter's machine, by what they are, since the "
    "exporter started to look at them.",
    ("process",),
)
PROCESS_MEMORY = Family(
    "metrics_pipeline_process_resident_memory_bytes",
    MetricType.GAUGE,
    "Memory of the product's processes on the exporter's machine, by what they are; what several "
    "share is divided among them.",
    ("process",),
)
PROCESS_FILES = Family(
    "metrics_pipeline_process_open_fds",
    MetricType.GAUGE,
    "Open file descriptors of the product's processes on the exporter's machine.",
    ("process",),
)
DISK_FREE = Family(
    "metrics_pipeline_state_disk_free_bytes",
    MetricType.GAUGE,
    "Room left on the file system of the state directory.",
)
DISK_SIZE = Family(
    "metrics_pipeline_state_disk_size_bytes",
    MetricType.GAUGE,
    "Size of the file system of the state directory.",
)
DATABASE_SIZE = Family(
    "metrics_pipeline_database_size_bytes",
    MetricType.GAUGE,
    "Size of the product's databases that are files: operational, store, dagster.",
    ("database",),
)

EVENTHUB_LAG_EVENTS = Family(
    "metrics_pipeline_eventhub_lag_events",
    MetricType.GAUGE,
    "Events that the hub has accepted and that are not stored yet.",
    ("partition",),
)
EVENTHUB_LAG_SECONDS = Family(
    "metrics_pipeline_eventhub_lag_seconds",
    MetricType.GAUGE,
    "How long the oldest event known not to be stored has been waiting; 0 if there is none.",
    ("partition",),
)
EVENTHUB_LOST_EVENTS = Family(
    "metrics_pipeline_eventhub_lost_events_total",
    MetricType.COUNTER,
    "Events that were older than the hub's retention before they were read.",
    ("partition",),
)
DEAD_LETTERS = Family(
    "metrics_pipeline_dead_letters_total",
    MetricType.COUNTER,
    "Events of which something could not be decoded or stored, kept as dead letters, by reason.",
    ("reason",),
)
DEAD_LETTERS_DROPPED = Family(
    "metrics_pipeline_dead_letters_dropped_total",
    MetricType.COUNTER,
    "Dead letters that were dropped because their table was full, by reason.",
    ("reason",),
)
SAMPLE_SLOTS = Family(
    "metrics_pipeline_sample_slots_total",
    MetricType.COUNTER,
    "Slots of the sampling grid by what became of them: sampled, failed (asked in time, nothing "
    "came), not_stored; missed_busy (it had not answered the last one yet), missed_late (the "
    "machine was held up), missed_clock (the clock went forward), missed_stopped (nobody sampled).",
    ("source", "outcome"),
)

ROBOTS_CONNECTED = Family(
    "metrics_pipeline_robots_connected",
    MetricType.GAUGE,
    "Robots that are connected to the gateway; absent when the gateway has not said so lately.",
)
ROBOT_MESSAGES = Family(
    "metrics_pipeline_robot_messages_total",
    MetricType.COUNTER,
    "Messages of robots by what became of them: stored, or why they were refused.",
    ("outcome",),
)
ROBOT_CONNECTIONS = Family(
    "metrics_pipeline_robot_connections_total",
    MetricType.COUNTER,
    "Connections of robots: established, ended_REASON, and refused_STATUS where the handshake was "
    "answered with that status of HTTP.",
    ("outcome",),
)

EVENTS_PUBLISHED = Family(
    "metrics_pipeline_events_published_total",
    MetricType.COUNTER,
    "Lifecycle events that their transport has taken, of all processes.",
)
EVENTS_DROPPED = Family(
    "metrics_pipeline_events_dropped_total",
    MetricType.COUNTER,
    "Lifecycle events that were lost, by reason: queue_full, not_sent (the transport was away when "
    "the process ended), not_json, closed (they came while the process ended).",
    ("reason",),
)
FETCH_LATENCY = Family(
    "fetch_latency_seconds",
    MetricType.HISTOGRAM,
    "How long it took to read a source once, with everything that was asked for: the counts of an "
    "asset, all services, an SQL set, the rows of the inventory, a sweep of devices.",
    ("source",),
)
ARTIFACTS = Family(
    "artifacts_total",
    MetricType.COUNTER,
    "What was asked of a source, by whether it came (ok, failed): counts, services, queries of an "
    "SQL set, devices of a sweep.",
    ("source", "status"),
)
DATABASE_QUERIES = Family(
    "database_queries_total",
    MetricType.COUNTER,
    "Queries to the databases that are read, by what they are for and whether they gave an answer.",
    ("query_type", "success"),
)

SELF_FAMILIES = (
    FETCH_LATENCY,
    ARTIFACTS,
    DATABASE_QUERIES,
    LAST_SUCCESS,
    LAST_UPDATE,
    ASSET_INTERVAL,
    SAMPLING_LEASE_END,
    RUN_DURATION,
    RUNS,
    POINTS_WRITTEN,
    POINTS_SPOOLED,
    POINTS_REJECTED,
    SPOOL_BYTES,
    SPOOL_LIMIT_BYTES,
    SPOOL_POINTS,
    SPOOL_OLDEST,
    SPOOL_DAMAGED,
    EVENTHUB_LAG_EVENTS,
    EVENTHUB_LAG_SECONDS,
    EVENTHUB_LOST_EVENTS,
    DEAD_LETTERS,
    DEAD_LETTERS_DROPPED,
    SAMPLE_SLOTS,
    ROBOTS_CONNECTED,
    ROBOT_MESSAGES,
    ROBOT_CONNECTIONS,
    EVENTS_PUBLISHED,
    EVENTS_DROPPED,
    DAEMON_HEARTBEAT,
    RUN_QUEUE_LENGTH,
    BUILD_INFO,
    EXPORTER_LAST_REFRESH,
    EXPORTER_REFRESH_FAILURES,
    EXPORTER_SERIES_DROPPED,
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESS_FILES,
    DISK_FREE,
    DISK_SIZE,
    DATABASE_SIZE,
)
