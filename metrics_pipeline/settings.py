"""Every choice an operator has, typed and nested. `settings_file.py` reads them from YAML.

The sections of `sources` come from the sources themselves, through the registry.
"""

from __future__ import annotations

import functools
import math
import operator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    create_model,
    field_validator,
    model_validator,
)

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.hosts import is_loopback
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.core.catalog import (
    CATALOG,
    CONCENTRATOR_COUNT,
    DEVICE_COUNT,
    DEVICE_METRIC_LIST,
    DEVICE_UP,
    FLEET_METRICS,
    LORAWAN_DEVICE_METRICS,
    ROBOT_LAST_MESSAGE,
    ROBOT_METRIC_LIST,
    SERVICE_COUNTERS,
    Catalog,
    Metric,
    service_counter,
)
from metrics_pipeline.core.device_assets import (
    METRICS_JOB,
    STATUS,
    STATUS_JOB,
    metrics_asset,
    part_of,
    shard_names,
)
from metrics_pipeline.core.devices import DISKS, INTERFACES
from metrics_pipeline.core.fleet import (
    JOB,
    FleetAsset,
    concentrator_counts,
    device_counts,
    edge_device_counts,
)
from metrics_pipeline.core.lorawan import Rules
from metrics_pipeline.core.lorawan_devices import DEVICES_KEPT_DAYS
from metrics_pipeline.core.lorawan_payload import Limits
from metrics_pipeline.core.maintenance_assets import JOB as RETENTION_JOB
from metrics_pipeline.core.ports import DeviceProbe
from metrics_pipeline.core.robots import ROBOT_ID_RULE, is_robot_pattern
from metrics_pipeline.core.telemetry import BatchLimits
from metrics_pipeline.core.telemetry_assets import JOB as TELEMETRY_JOB
from metrics_pipeline.events.settings import EventsSettings
from metrics_pipeline.sources.event_hub_settings import EventHubSettings
from metrics_pipeline.sources.pipeline_health_settings import (
    LAST_SUCCESS_AGE,
    MEASUREMENT,
    HealthSettings,
    find_health_queries,
)
from metrics_pipeline.sources.probe_registry import METRICS_PROTOCOLS, PROBES, ProbeSpec
from metrics_pipeline.sources.registry import SOURCES
from metrics_pipeline.sources.service_health_settings import (
    ServiceName,
    ServiceSettings,
    check_counters,
    counters_of,
)
from metrics_pipeline.sources.sql_sets import SqlSet, extend_catalog
from metrics_pipeline.sources.sql_settings import SqlSettings
from metrics_pipeline.storage.checkpoints import CheckpointSettings, DatabaseCheckpointSettings
from metrics_pipeline.storage.dead_letters import DeadLetterSettings
from metrics_pipeline.storage.embedded import EmbeddedStoreSettings
from metrics_pipeline.storage.influx import InfluxStoreSettings
from metrics_pipeline.storage.spool import SpoolSettings

DEVICE_FAMILIES = tuple(
    metric.family.name
    for metric in (
        DEVICE_UP,
        *DEVICE_METRIC_LIST,
        *LORAWAN_DEVICE_METRICS,
        *ROBOT_METRIC_LIST,
        ROBOT_LAST_MESSAGE,
    )
)
CADENCES_MINUTES = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)
STATUS_CADENCES_SECONDS = (10, 20, 30, 60, 100, 150, 300)


class FleetSettings(BaseModel, frozen=True, extra="forbid"):
    """How many devices there are: who is asked, and how often."""

    provider: str = Field(
        default="azure_iot_hub", description="The source that counts devices and edge devices."
    )
    lora_enabled: bool = Field(
        default=True,
        description="Whether LoRa features are on. Off means there is no concentrator gauge.",
    )
    concentrators_from: str = Field(
        default="inventory", description="The source that counts registered concentrators."
    )
    every_minutes: int = Field(
        default=5, description="Minutes between two counts; a divisor of 60, at most 30."
    )
    max_runtime_seconds: int = Field(
        default=280, ge=30, description="A run that takes longer is ended."
    )
    without: tuple[str, ...] = Field(
        default=(),
        description="Counts that are not collected, such as connected_device_count where AWS IoT "
        "has no fleet indexing.",
    )
    retry_delay_seconds: float = Field(
        default=10.0,
        ge=0,
        description="About this long after none of an asset's counts could be read, and only if "
        "that may pass by itself, they are asked for once more.",
    )
    warn_drop_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="A total that falls by more than this share of itself is a warning.",
    )

    @model_validator(mode="after")
    def _check(self) -> FleetSettings:
        if self.every_minutes not in CADENCES_MINUTES:
            raise ValueError(f"every_minutes: expected one of {CADENCES_MINUTES}")
        known = [metric.field for metric in FLEET_METRICS]
        if not set(self.without).issubset(known):
            raise ValueError(f"without: expected some of {', '.join(known)}")
        return self


class TlsSettings(BaseModel, frozen=True, extra="forbid"):
    """The certificate a server of ours shows."""

    certificate_file: StatePath = Field(description="PEM, the whole chain.")
    key_file: StatePath = Field(description="PEM, readable by this user only.")


class ListeningSettings(BaseModel, frozen=True, extra="forbid"):
    """Where a server of ours listens, and who can read what is said to it."""

    host: str = Field(
        default="127.0.0.1", description="Address to listen on; 0.0.0.0 is everybody."
    )
    tls: TlsSettings | None = Field(default=None, description="Speak TLS: https and wss.")
    tls_terminated_in_front: bool = Field(
        default=False,
        description="That what other machines reach ends TLS and comes to this server over a way "
        "on which nobody listens. Without it and `tls` a server that is shown passwords or tokens "
        "does not start where `host` is not this machine alone.",
    )

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach it."""
        return not is_loopback(self.host)

    @property
    def is_covered(self) -> bool:
        """Whether TLS is spoken, by it or in front of it."""
        return self.tls is not None or self.tls_terminated_in_front


class BasicAuthSettings(BaseModel, frozen=True, extra="forbid"):
    """The one user who may read."""

    username: str = Field(min_length=1, description="The user's name.")
    password: SecretReference = Field(description="Where the password is; read at the start.")


class ExporterSettings(ListeningSettings, frozen=True, extra="forbid"):
    """The page that Prometheus scrapes, and the status page."""

    port: int = Field(default=9464, ge=0, le=65535, description="Port to listen on; 0 is any free.")
    refresh_seconds: float = Field(
        default=3.0, ge=0.2, le=300, description="Seconds between two looks at the instance."
    )
    max_series_per_metric: int = Field(
        default=20_000, ge=1, description="A family shows no more series than this, and says so."
    )
    per_device: bool = Field(
        default=True, description="Show gauges of every single device that is polled or sends."
    )
    device_metrics: tuple[str, ...] = Field(
        default=DEVICE_FAMILIES,
        description="Which of them, by their names on the page; fewer for a large fleet.",
    )
    basic_auth: BasicAuthSettings | None = Field(
        default=None, description="Ask for a user and a password on /metrics and the status page."
    )
    bearer_token: SecretReference | None = Field(
        default=None,
        description="Where a token is that opens both, `Authorization: Bearer …`, beside user and "
        "password or in their place; at least 16 characters, read at the start.",
    )
    dagster_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/@]+(/[^\s?#]*)?$",
        description="Where people reach Dagster's UI, for links on the status page; null is none.",
    )

    @field_validator("device_metrics")
    @classmethod
    def _check_device_metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(names) - set(DEVICE_FAMILIES))
        if unknown:
            known = ", ".join(DEVICE_FAMILIES)
            raise ValueError(f"expected some of {known}; got {', '.join(unknown)}")
        return names

    @property
    def device_families(self) -> tuple[str, ...]:
        """Names of the families that are shown device by device."""
        return self.device_metrics if self.per_device else ()

    @property
    def asks_who(self) -> bool:
        """Whether only those may read who show a password or a token."""
        return self.basic_auth is not None or self.bearer_token is not None


class RobotTokenSettings(BaseModel, frozen=True, extra="forbid"):
    """A token, which whoever shows it may use for some robots: `Authorization: Bearer …`."""

    token: SecretReference = Field(
        description="Where it is; at least 16 characters. Looked at again every 5 s, so that it "
        "can be changed while robots are connected."
    )
    robots: tuple[str, ...] = Field(
        default=("*",),
        min_length=1,
        description="The ids it is for; one that ends in * is for all that begin so.",
    )
    rights: tuple[Literal["send", "read"], ...] = Field(
        default=("send", "read"),
        min_length=1,
        description="What it is for: to send as a robot, and to read a robot's latest values.",
    )
    expires_at: AwareDatetime | None = Field(
        default=None,
        description="Until when it is good, `2027-01-01T00:00:00Z`; then who is connected with it "
        "is sent away. null is for ever.",
    )

    @field_validator("robots")
    @classmethod
    def _check_robots(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [each for each in patterns if not is_robot_pattern(each)]
        if wrong:
            raise ValueError(
                f"no robot can be called {', '.join(wrong)}: an id has {ROBOT_ID_RULE}"
            )
        return patterns


class GatewaySettings(ListeningSettings, frozen=True, extra="forbid"):
    """Where robots send their telemetry over WebSocket, and what each may."""

    port: int = Field(default=8765, ge=0, le=65535, description="Port to listen on; 0 is any free.")
    tokens: dict[str, RobotTokenSettings] = Field(
        default={}, description="Tokens, by a name of your choice, which is what logs call them."
    )
    robot_tokens_file: StatePath | None = Field(
        default=None,
        description="A file with a token for each of many robots, a line each: `robot-7 TOKEN`, "
        "and the time at which it expires behind it, if it does. Looked at again every 5 s.",
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(),
        description="Web pages that may connect, `https://console.example.net`. Robots send no "
        "Origin; whoever does and is not named here is refused.",
    )
    max_connections: int = Field(
        default=5000, ge=1, le=100_000, description="Robots that may be connected at once."
    )
    max_robots: int = Field(
        default=20_000,
        ge=1,
        le=1_000_000,
        description="Robots that may be known at once, connected or not; one more is told to come "
        "later (status 503). Each is known for robots_kept_days, and is some series of metrics.",
    )
    connects_per_second: float = Field(
        default=500.0,
        gt=0,
        description="So many may connect in a second, four seconds' worth at once; others are told "
        "to come later (status 429).",
    )
    message_bytes: int = Field(
        default=16_384, ge=256, le=1_048_576, description="The largest message."
    )
    messages_per_second: float = Field(
        default=20.0,
        ge=1,
        description="A robot's messages are read no faster, but for ten seconds' worth at once: "
        "who sends more has to wait.",
    )
    max_unacknowledged: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Of one robot no more messages are taken before one of them is acknowledged.",
    )
    queue_messages: int = Field(
        default=20_000,
        ge=1,
        le=1_000_000,
        description="Of all robots no more are taken while they wait for the store; a message "
        "takes 1 KB.",
    )
    batch_messages: int = Field(
        default=1000, ge=1, le=20_000, description="Messages that are stored together at most."
    )
    batch_wait_seconds: float = Field(
        default=0.1, ge=0, le=5, description="So long messages are gathered before they are stored."
    )
    ping_seconds: float = Field(
        default=20.0, gt=0, le=3600, description="Seconds between two pings to a robot."
    )
    pong_seconds: float = Field(
        default=20.0,
        gt=0,
        le=3600,
        description="A robot of which nothing comes for so long after a ping is gone.",
    )
    send_seconds: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="A robot that does not read what it is told for so long is sent away.",
    )
    handshake_seconds: float = Field(
        default=10.0, gt=0, le=600, description="What a request may take to come in whole."
    )
    publish_seconds: float = Field(
        default=3.0, ge=0.1, le=60, description="Seconds between two looks of the exporter at it."
    )
    report_every_seconds: int = Field(
        default=60,
        ge=10,
        le=3600,
        description="Dagster is told of what came this often at most: each time is a row of its "
        "event log.",
    )
    robots_kept_days: float = Field(
        default=30.0,
        gt=0,
        le=3650,
        description="Days after its last message for which a robot is shown.",
    )

    @model_validator(mode="after")
    def _check_tokens(self) -> GatewaySettings:
        if not self.tokens and self.robot_tokens_file is None:
            raise ValueError("tokens: give at least one, or robot_tokens_file")
        return self

    @property
    def asks_who(self) -> bool:
        """There is no gateway without tokens."""
        return True


class SimulatorSettings(BaseModel, frozen=True, extra="forbid"):
    """The simulated hubs, devices and services that `metrics-pipeline run` starts beside it."""

    port: int = Field(default=0, ge=0, le=65535, description="Loopback port; 0 is any free.")
    connection_string_file: StatePath = Field(
        default=Path("simulator/iot_hub_connection_string"),
        validate_default=True,
        description="Where the simulator writes what one needs to reach it.",
    )
    devices_dir: StatePath | None = Field(
        default=Path("simulator/devices"),
        validate_default=True,
        description="Where it writes what opens its SNMP agents, SSH hosts and TCP targets on "
        "127.20.0.0/16, which are in the inventory (Linux only); null is no such devices.",
    )
    event_hub_connection_string_file: StatePath | None = Field(
        default=Path("simulator/event_hub_connection_string"),
        validate_default=True,
        description="Where it writes what one needs to reach its event hub, to which simulated "
        "LoRaWAN devices send; null is no such hub.",
    )
    services_dir: StatePath | None = Field(
        default=Path("simulator/services"),
        validate_default=True,
        description="Where it writes the addresses of its services' health pages, `NAME_url`; "
        "null is no such services.",
    )
    lorawan_devices: int = Field(
        default=20, ge=0, le=10_000, description="How many send a frame in every step."
    )
    robots: int = Field(
        default=10,
        ge=0,
        le=10_000,
        description="How many robots send to the gateway, where there is one on loopback that "
        "takes their token.",
    )
    robot_token_file: StatePath = Field(
        default=Path("simulator/robot_token"),
        validate_default=True,
        description="Where it writes the token of its robots, once.",
    )
    platform_database_file: StatePath | None = Field(
        default=Path("simulator/platform.sqlite"),
        validate_default=True,
        description="The SQLite file in which it keeps the tables of a platform and of a scraper, "
        "which change; null is no such file.",
    )
    step_seconds: float = Field(
        default=5.0, gt=0, le=3600, description="Seconds between two changes of what is simulated."
    )
    seed: int = Field(default=1, description="The same seed gives the same fleet.")


SourceSections = create_model(
    "SourceSections",
    __config__=ConfigDict(frozen=True, extra="forbid"),
    __doc__="The sources there are; a section that is absent means the source is not used.",
    **{
        spec.name: (spec.settings_type | None, Field(default=None, description=spec.title))
        for spec in SOURCES.values()
    },  # type: ignore[call-overload]
)


def _probe_section(spec: ProbeSpec) -> Any:
    """The probe's settings, and the credentials that the inventory's `credential` names."""
    if not spec.credential_types:
        return spec.settings_type
    credential: Any = functools.reduce(operator.or_, spec.credential_types)
    return create_model(
        f"{spec.settings_type.__name__}AndCredentials",
        __base__=spec.settings_type,
        credentials=(
            dict[str, credential],
            Field(default={}, description="Who we are to the devices, by a name of your choice."),
        ),
    )


def _one_of(choices: tuple[int, ...]) -> AfterValidator:
    def check(value: int) -> int:
        if value not in choices:
            raise ValueError(f"expected one of {', '.join(map(str, choices))}")
        return value

    return AfterValidator(check)


StatusCadence = Annotated[int, _one_of(STATUS_CADENCES_SECONDS)]
MetricsCadence = Annotated[int, _one_of(CADENCES_MINUTES)]


class DeviceTypeSettings(BaseModel, frozen=True, extra="forbid"):
    """How devices of one type are polled, where it is not as all others are."""

    status_every_seconds: StatusCadence | None = Field(
        default=None,
        description="Instead of polling.status_every_seconds; of the cadences in use each must be "
        "a multiple of the shortest.",
    )
    metrics_every_minutes: MetricsCadence | None = Field(
        default=None, description="Instead of polling.metrics_every_minutes."
    )


AS_ALL_OTHERS = DeviceTypeSettings()


class WorkersSettings(BaseModel, frozen=True, extra="forbid"):
    """Workers of Celery, on any machine, that poll what runs hand to them."""

    broker: SecretReference = Field(
        description="Where the address is of the Redis or Valkey that hands the polls out, "
        "`redis://user:password@host:6379/0`, or `rediss://…` with TLS. Whoever may write there "
        "can have the workers run what they like."
    )
    key_prefix: str = Field(
        default="metrics_pipeline:polls:",
        min_length=1,
        max_length=512,
        description="What its keys begin with; another for each installation that shares a Redis.",
    )
    lost_after_seconds: float = Field(
        default=30.0,
        ge=1,
        le=600,
        description="What a worker has taken that is silent for so long, another one polls. The "
        "clocks of their machines must not differ by nearly as much.",
    )


class SweepSettings(BaseModel, frozen=True, extra="forbid"):
    """How all devices of the inventory are polled, whatever their protocol."""

    enabled: bool = Field(
        default=False, description="Whether the devices of the inventory are polled."
    )
    status_by: Literal["ping", "tcp", "protocol"] = Field(
        default="ping",
        description="How one finds out who is up: by ping, by TCP connect, or by each device's own "
        "protocol.",
    )
    metrics_by: tuple[str, ...] = Field(
        default=METRICS_PROTOCOLS,
        description="The protocols over which devices are asked how they are doing; one that is "
        "left out has no asset.",
    )
    status_every_seconds: StatusCadence = Field(
        default=30,
        description="Seconds between two looks at who is up: 10, 20, 30, 60, 100, 150 or 300.",
    )
    metrics_every_minutes: MetricsCadence = Field(
        default=5,
        description="Minutes between two polls of how a device is doing; a divisor of 60, at most "
        "30.",
    )
    device_types: dict[str, DeviceTypeSettings] = Field(
        default={},
        description="Other cadences for some types of the inventory's column device_type: "
        "`{camera: {metrics_every_minutes: 15}}`.",
    )
    shards: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Into how many runs each poll is divided: static partitions in Dagster, for "
        "several processors, or with workers or a run launcher several machines. 1 is none.",
    )
    workers: WorkersSettings | None = Field(
        default=None,
        description="Polls are handed to workers (`metrics-pipeline worker`), by Dagster's Celery "
        "executor; null is that each run polls in its own process.",
    )
    missed_answers: int = Field(
        default=2,
        ge=1,
        le=10,
        description="Offline is who was online and misses so many answers in a row. With 2, every "
        "30 s, the gauge says so 30 to 60 s after the device went, and the time-outs of one poll "
        "later. Who has never answered is offline at once.",
    )
    device_budget_seconds: float = Field(
        default=10.0, gt=0, le=25, description="What one poll of one device may take in all."
    )
    warn_offline_share: float = Field(
        default=0.2, gt=0, le=1, description="More than this share of silent devices is a warning."
    )
    details: tuple[Literal["interfaces", "disks"], ...] = Field(
        default=(),
        description="What is also stored one by one: `[interfaces, disks]`. Two points a poll for "
        "each physical interface that is up, and one for each disk: 10,000 devices with 48 ports "
        "are 960,000 points a poll. No more is asked but names, with each discovery of an agent: "
        "on its first poll, where its rows have changed, and every 72 polls. Not on the "
        "exporter's page.",
    )

    @property
    def detail_tables(self) -> tuple[str, ...]:
        """The tables of detail to ask for, each once."""
        tables = {"interfaces": INTERFACES, "disks": DISKS}
        return tuple(table for word, table in tables.items() if word in self.details)

    @field_validator("metrics_by")
    @classmethod
    def _check_metrics_by(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not set(names) <= set(METRICS_PROTOCOLS) or len(set(names)) < len(names):
            raise ValueError(f"expected some of {', '.join(METRICS_PROTOCOLS)}, each once")
        return names

    @model_validator(mode="after")
    def _check_grid(self) -> SweepSettings:
        cadences = self._status_cadences()
        odd = sorted(each for each in cadences if each % self.grid_seconds)
        if odd:
            raise ValueError(
                f"device_types: status_every_seconds is {odd[0]} for some and {self.grid_seconds} "
                "for others; expected multiples of the shortest"
            )
        return self

    def status_seconds(self, device_type: str) -> int:
        """How often a device of this type is asked whether it is up."""
        own = self._of_type(device_type).status_every_seconds
        return self.status_every_seconds if own is None else own

    def metrics_minutes(self, device_type: str) -> int:
        """How often a device of this type is asked how it is doing."""
        own = self._of_type(device_type).metrics_every_minutes
        return self.metrics_every_minutes if own is None else own

    @property
    def grid_seconds(self) -> int:
        """How often there is a sweep of somebody."""
        return min(self._status_cadences())

    @property
    def slowest_status_seconds(self) -> int:
        """How often everybody is asked at least whether it is up."""
        return max(self._status_cadences())

    @property
    def tick_minutes(self) -> int:
        """How often metrics of somebody may be due."""
        return math.gcd(*self.metrics_cadences())

    def metrics_cadences(self) -> set[int]:
        """The cadences of all types, in minutes."""
        return {self.metrics_every_minutes, *map(self.metrics_minutes, self.device_types)}

    def _status_cadences(self) -> set[int]:
        return {self.status_every_seconds, *map(self.status_seconds, self.device_types)}

    def _of_type(self, device_type: str) -> DeviceTypeSettings:
        return self.device_types.get(device_type, AS_ALL_OTHERS)

    def snapshots(self) -> tuple[str, ...]:
        """The names of all snapshots that polls of devices leave."""
        assets = (STATUS, *map(metrics_asset, self.metrics_by))
        shards = shard_names(self.shards) or [""]
        return tuple(part_of(asset, shard) for asset in assets for shard in shards)


PollingSettings = create_model(
    "PollingSettings",
    __base__=SweepSettings,
    __doc__="How devices of the inventory are polled: in general, and protocol by protocol.",
    **{
        spec.name: (
            _probe_section(spec),
            Field(default={}, validate_default=True, description=spec.title),
        )
        for spec in PROBES.values()
    },  # type: ignore[call-overload]
)


class BatchSettings(BaseModel, frozen=True, extra="forbid"):
    """A micro-batch of one partition: it is stored when the first of these is reached."""

    max_events: int = Field(
        default=4000, ge=1, le=20_000, description="Events; 4,000 uplinks take about 20 MB."
    )
    max_bytes: int = Field(
        default=4_000_000,
        ge=1000,
        le=100_000_000,
        description="Bytes of their bodies; one event may be larger by itself.",
    )
    max_wait_seconds: float = Field(
        default=0.5,
        gt=0,
        le=10,
        description="Seconds since the one before; so much later an event can be read at least.",
    )


class DecodeSettings(BaseModel, frozen=True, extra="forbid"):
    """What of an event is taken; what is beyond is cut off and counted, or a dead letter."""

    is_iot_hub: bool = Field(
        default=True,
        description="Whether the events are an IoT Hub's, which says who sent each; false for a "
        "hub that others send to directly.",
    )
    body_bytes: int = Field(
        default=262_144, ge=1000, le=1_048_576, description="The largest body that is decoded."
    )
    uplinks: int = Field(default=1000, ge=1, le=1000, description="Uplinks in one event at most.")
    depth: int = Field(
        default=8, ge=1, le=32, description="Objects and arrays inside each other, of `data`."
    )
    fields: int = Field(default=200, ge=1, le=1000, description="Fields of one uplink at most.")
    text_characters: int = Field(
        default=2000, ge=1, le=60_000, description="Of one text, which is cut there."
    )


class TelemetrySettings(BaseModel, frozen=True, extra="forbid"):
    """LoRaWAN uplinks that come over a stream of events."""

    source: EventHubSettings = Field(description="Where the events are.")
    checkpoints: CheckpointSettings = Field(
        default=DatabaseCheckpointSettings(), description="Where it is kept how far is stored."
    )
    dead_letters: DeadLetterSettings = Field(
        default=DeadLetterSettings(),
        description="How much is kept of what cannot be decoded or stored.",
    )
    window_seconds: int = Field(
        default=240,
        ge=5,
        le=3300,
        description="Seconds that one run reads before the next takes over.",
    )
    batch: BatchSettings = Field(default=BatchSettings(), description="How events are grouped.")
    decode: DecodeSettings = Field(
        default=DecodeSettings(), description="What of an event is taken."
    )
    devices_kept_days: float = Field(
        default=DEVICES_KEPT_DAYS,
        gt=0,
        le=3650,
        description="Days after its last uplink for which a device is shown, and its frames are "
        "counted on. Several times the longest pause between two uplinks, or its series come and "
        "go.",
    )
    warn_dead_letter_share: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="More than this share of uplinks that the decoding or the store refused is a "
        "warning.",
    )
    warn_lag_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Events that wait for longer than this at the end of a run are a warning.",
    )

    def batch_limits(self) -> BatchLimits:
        """What one micro-batch may hold."""
        batch = self.batch
        return BatchLimits(batch.max_events, batch.max_bytes, batch.max_wait_seconds)

    def rules(self) -> Rules:
        """What is decoded."""
        decode = self.decode
        limits = Limits(decode.depth, decode.fields, decode.text_characters)
        return Rules(decode.is_iot_hub, decode.body_bytes, decode.uplinks, limits)


class PlatformSettings(BaseModel, frozen=True, extra="forbid"):
    """What is sampled on a grid, whose slots are the multiples of an interval since the epoch."""

    services: Annotated[dict[ServiceName, ServiceSettings], AfterValidator(check_counters)] = Field(
        default={},
        max_length=100,
        description="Services with a health page, by name: `{ingest: {url: "
        "http://ingest:8080/health}}`. Of ingest, evaluator, dispatcher and delivery the counters "
        "are known; of others they are named: `{billing: {url: …, counters: [invoices_total]}}`.",
    )
    ca_file: StatePath | None = Field(
        default=None,
        description="A PEM file of the certificate authorities to trust for https, instead of the "
        "usual.",
    )

    sample_every_seconds: int = Field(
        default=5, ge=1, le=3600, description="Seconds between two samples of services."
    )
    report_every_seconds: int = Field(
        default=300,
        ge=10,
        le=3600,
        description="Dagster is told of the samples of each asset this often at most: each time "
        "is a row of its event log.",
    )
    warn_missed_share: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="More than this share of slots without a sample, of those of one report, is "
        "a warning.",
    )

    def named_counters(self) -> tuple[Metric, ...]:
        """The counters that are not known, but named here."""
        known = {metric.field for metric in SERVICE_COUNTERS}
        fields = [counters_of(name, service) for name, service in self.services.items()]
        others = {field for each in fields for field in each if field not in known}
        return tuple(service_counter(field) for field in sorted(others))


Days = Annotated[float, Field(gt=0, le=36_500)]


class RetentionSettings(BaseModel, frozen=True, extra="forbid"):
    """For how long what is stored is kept; once an hour what is older is deleted.

    Of each asset and partition the newest materialization and observation stays, with its run, and
    so does what is in flight.
    """

    successful_runs_days: Days = Field(
        default=1,
        ge=0.05,
        description="Days for which Dagster keeps a run that succeeded, and outcomes of checks.",
    )
    run_details_days: Days = Field(
        default=0.05,
        ge=0.05,
        description="Days for the details of a run that succeeded: how it began and ended, what it "
        "logged (warnings stay), checks that passed (the newest outcome of each stays).",
    )
    failed_runs_days: Days = Field(
        default=14, ge=0.05, description="Days for a run that failed or was canceled."
    )
    runless_events_days: Days = Field(
        default=7,
        ge=0.05,
        description="Days for events that belong to no run: reports of samples, and freshness.",
    )
    skipped_ticks_days: Days = Field(
        default=0.5,
        ge=0.01,
        description="Days for ticks of schedules and sensors that asked for nothing.",
    )
    ticks_days: Days = Field(default=7, ge=0.05, description="Days for all other ticks.")
    points_days: Days | None = Field(
        default=90,
        ge=0.05,
        description="Days for points in the embedded store; null is for ever. InfluxDB has a "
        "retention of its own, with the bucket.",
    )
    dead_letters_days: Days | None = Field(
        default=30, ge=0.05, description="Days for dead letters; null is until the table is full."
    )
    budget_seconds: float = Field(
        default=60,
        ge=1,
        le=600,
        description="Seconds in an hour for each kind of what is old; what is left is deleted the "
        "next time, and a check warns.",
    )


class Settings(BaseModel, frozen=True, extra="forbid"):
    """The whole settings file."""

    version: Literal[1] = Field(description="The format of this file.")
    sources: SourceSections = Field(description="What is read.")  # type: ignore[valid-type]
    fleet: FleetSettings | None = Field(
        default=None, description="Fleet counts; absent means they are not collected."
    )
    polling: PollingSettings = Field(  # type: ignore[valid-type]
        default={},
        validate_default=True,
        description="How devices of the inventory are polled, protocol by protocol.",
    )
    telemetry: TelemetrySettings | None = Field(
        default=None, description="Uplinks of LoRaWAN devices; absent means they are not read."
    )
    gateway: GatewaySettings | None = Field(
        default=None, description="Telemetry of robots; absent means there is no gateway."
    )
    sql: SqlSettings | None = Field(
        default=None, description="Metrics that are defined in SQL; absent means there are none."
    )
    health: HealthSettings = Field(
        default=HealthSettings(),
        description="How well the pipeline does that the SQL set scrape_pipeline reads.",
    )
    platform: PlatformSettings = Field(
        default=PlatformSettings(), description="How services and databases are sampled."
    )
    events: EventsSettings = Field(
        default=EventsSettings(), description="Whom collections and robots are told to."
    )
    store: Annotated[EmbeddedStoreSettings | InfluxStoreSettings, Field(discriminator="kind")] = (
        Field(
            default={"kind": "embedded"},
            validate_default=True,
            description="The time-series store that keeps the history.",
        )
    )
    spool: SpoolSettings | None = Field(
        default={},
        validate_default=True,
        description="Where polls, counts and samples wait while the store is down; null is no such "
        "place, and their runs fail.",
    )
    operational_database: DatabaseSettings = Field(
        default={"url": "sqlite:///operational.sqlite"},
        validate_default=True,
        description="Where the latest values are; shared by runs and exporters.",
    )
    retention: RetentionSettings = Field(
        default=RetentionSettings(), description="For how long what is stored is kept."
    )
    exporter: ExporterSettings = Field(
        default=ExporterSettings(),
        description="How the sidecar that Prometheus scrapes listens and looks.",
    )
    simulator: SimulatorSettings | None = Field(
        default=None, description="Absent means that no simulator is started."
    )

    def source(self, name: str) -> BaseModel | None:
        """The section of the source called `name`, or None if it is not used."""
        section: BaseModel | None = getattr(self.sources, name)
        return section

    def catalog(self) -> Catalog:
        """Every metric there is with these settings: the product's own, and those of SQL sets."""
        named = CATALOG.extended(self.platform.named_counters())
        return named if self.sql is None else extend_catalog(named, self.sql.loaded)

    def judged_set(self) -> SqlSet | None:
        """The SQL set that the health score is made of, if there is one that can be judged."""
        sets = () if self.sql is None else self.sql.loaded
        named = (each for each in sets if each.name == self.health.sql_set)
        return next((s for s in named if LAST_SUCCESS_AGE in find_health_queries(s)), None)

    @property
    def sweeps(self) -> SweepSettings:
        """How devices are polled, whatever their protocol."""
        polling: SweepSettings = self.polling
        return polling

    @property
    def polls_devices(self) -> bool:
        """Whether the devices of the inventory are polled."""
        return self.sweeps.enabled

    def jobs(self) -> tuple[str, ...]:
        """The names of the jobs there are."""
        fleet = (JOB,) if self.fleet is not None else ()
        metrics = (METRICS_JOB,) if self.sweeps.metrics_by else ()
        polls = (STATUS_JOB, *metrics) if self.polls_devices else ()
        telemetry = (TELEMETRY_JOB,) if self.telemetry is not None else ()
        return (*fleet, *polls, *telemetry, RETENTION_JOB)

    def build_probe(self, name: str) -> DeviceProbe:
        """The probe called `name`, with its credentials; opens nothing yet."""
        section = getattr(self.polling, name)
        return PROBES[name].build(section, getattr(section, "credentials", {}))

    def max_in_flight(self, protocol: str) -> int:
        """How many devices are asked over `protocol` at the same time."""
        limit: int = getattr(self.polling, protocol).max_in_flight
        return limit

    def reads_simulator(self) -> bool:
        """Whether the IoT Hub that is counted is the simulated one."""
        hub = self.source("azure_iot_hub")
        secret = getattr(hub, "connection_string", None)
        return (
            self.simulator is not None
            and secret is not None
            and secret.file == self.simulator.connection_string_file
        )

    def fleet_assets(self) -> tuple[FleetAsset, ...]:
        """What is counted; without LoRa there are no concentrators."""
        fleet = self.fleet
        if fleet is None:
            return ()
        counted = (asset.without(fleet.without) for asset in self._all_fleet_assets(fleet))
        return tuple(asset for asset in counted if asset.metrics)

    def fetched_sources(self) -> frozenset[str]:
        """What runs read and measure: the names of sources, and of kinds of queries."""
        names = {name for asset in self.fleet_assets() for name in asset.asked}
        swept: set[str] = set()
        if self.polls_devices:
            names.add("inventory")
            swept = {STATUS, *map(metrics_asset, self.sweeps.metrics_by)}
        return frozenset({*names, *swept, *(SOURCES[name].query_type for name in names)})

    def _all_fleet_assets(self, fleet: FleetSettings) -> tuple[FleetAsset, ...]:
        devices = (device_counts(fleet.provider), edge_device_counts(fleet.provider))
        if not fleet.lora_enabled:
            return devices
        answers = SOURCES[fleet.provider].answers
        concentrators = concentrator_counts(fleet.concentrators_from, fleet.provider, answers)
        return (*devices, concentrators)

    @model_validator(mode="after")
    def _check_fleet_sources(self) -> Settings:
        if self.fleet is not None:
            self._require_source("fleet.provider", self.fleet.provider, DEVICE_COUNT)
        if self.fleet is not None and self.fleet.lora_enabled:
            self._require_source(
                "fleet.concentrators_from", self.fleet.concentrators_from, CONCENTRATOR_COUNT
            )
        return self

    @model_validator(mode="after")
    def _check_polling(self) -> Settings:
        if self.polls_devices and self.source("inventory") is None:
            raise ValueError("polling.enabled needs the section sources.inventory")
        return self

    @model_validator(mode="after")
    def _check_times(self) -> Settings:
        needed = sum(
            getattr(self.source(name), "deadline_seconds", 0)
            for asset in self.fleet_assets()
            for name in asset.asked
        )
        if self.fleet is not None and needed > self.fleet.max_runtime_seconds:
            raise ValueError(
                f"fleet.max_runtime_seconds: the readings of one run may take {needed:g} s "
                f"(deadline_seconds of each), so {self.fleet.max_runtime_seconds} is too short"
            )
        return self

    @model_validator(mode="after")
    def _check_health(self) -> Settings:
        """Who asks for a score has to name a set that gives one."""
        if "health" not in self.model_fields_set or self.judged_set() is not None:
            return self
        known = () if self.sql is None else tuple(self.sql.sets)
        if self.health.sql_set not in known:
            raise ValueError(
                f"health.sql_set: expected one of sql.sets ({', '.join(known) or 'there are none'})"
                f", got {self.health.sql_set!r}"
            )
        raise ValueError(
            f"health.sql_set: no query of {self.health.sql_set} has the measurement {MEASUREMENT}, "
            f"no tags and the field {LAST_SUCCESS_AGE}; take those of the shipped scrape_pipeline"
        )

    def _require_source(self, key: str, name: str, metric: Metric) -> None:
        able = sorted(spec.name for spec in SOURCES.values() if metric in spec.answers)
        if name not in able:
            raise ValueError(f"{key}: expected one of {', '.join(able)}, got {name!r}")
        if self.source(name) is None:
            raise ValueError(f"{key}: there is no section sources.{name}; add it")
