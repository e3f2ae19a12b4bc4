"""Every metric once: name, unit, type, help, where it is stored and how Prometheus sees it.

The heart of the product. A source may only give what stands here, the writer checks values
against it, and the exporter, the docs and the dashboards are made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from metrics_pipeline.core import devices
from metrics_pipeline.core.points import Point


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
        self.usual_fields: dict[tuple[str, str], dict[tuple[str, type], tuple[float, ...]]] = {}
        """What validation remembers, by measurement and selector; to tell quickly what is fit."""

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._shown)

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
        "1 while the device answers, 0 once it has missed its answers.",
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
    "0 to 100: the mean of pipeline_health_component, weighted by health.weights of the settings; "
    "a component without data is left out.",
)
_HEALTH_COMPONENT = Family(
    "pipeline_health_component",
    MetricType.GAUGE,
    "0 to 100: run_success, artifact_quality and review are shares of the last day in percent, "
    "freshness falls from 100 to 0 with the age of the last successful run.",
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

FETCH_LATENCY = Family(
    "fetch_latency_seconds",
    MetricType.HISTOGRAM,
    "How long it took to read a source once, with everything that was asked for.",
    ("source",),
)
ARTIFACTS = Family(
    "artifacts_total",
    MetricType.COUNTER,
    "What was asked of a source, a count or a figure each, by whether it came (ok, failed).",
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
    RUN_DURATION,
    RUNS,
    POINTS_WRITTEN,
    POINTS_REJECTED,
    EVENTHUB_LAG_EVENTS,
    EVENTHUB_LAG_SECONDS,
    EVENTHUB_LOST_EVENTS,
    DEAD_LETTERS,
    DEAD_LETTERS_DROPPED,
    DAEMON_HEARTBEAT,
    RUN_QUEUE_LENGTH,
    BUILD_INFO,
    EXPORTER_LAST_REFRESH,
    EXPORTER_REFRESH_FAILURES,
    EXPORTER_SERIES_DROPPED,
)
