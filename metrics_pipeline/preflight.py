"""`metrics-pipeline check`: tries everything the settings name, and says what to do about it.

Reads every source that is used, lists the devices that are polled, opens what polls them, reads the
secrets they need, asks Redis how many polls wait for workers, asks the event hub how far it goes,
asks the store, looks at the spool, takes the write lock of the operational database, and opens the
Dagster instance. Polls no device, reads no event, and stores no point, and runs every query of the
SQL sets once. What an earlier release made stays as it is: that release may still work with it.
"""

from __future__ import annotations

import asyncio
import os
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis
from pydantic import BaseModel

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.database_trust import FIX, PROBLEM, find_unverified
from metrics_pipeline.access.environment import settings_file
from metrics_pipeline.access.http_server import find_clear_text
from metrics_pipeline.access.one_line import first_line
from metrics_pipeline.access.redis_address import read_redis_url
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.catalog import Metric
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.errors import (
    ConfigurationError,
    CredentialRefused,
    MetricsPipelineError,
    SourceError,
    StoreError,
)
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.core.telemetry import PartitionState
from metrics_pipeline.core.telemetry_backlog import MOVE_IT, ahead_in_words, look
from metrics_pipeline.events.open import open_transport
from metrics_pipeline.events.settings import TransportSettings
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.gateway.tokens import Tokens
from metrics_pipeline.orchestration.poll_list import PollList, list_devices
from metrics_pipeline.settings import GatewaySettings, Settings, WorkersSettings
from metrics_pipeline.settings_file import INFLUXDB_TOKEN, INFLUXDB_URL
from metrics_pipeline.sources.inventory import Inventory, InventorySettings
from metrics_pipeline.sources.probe_registry import PROBES
from metrics_pipeline.sources.registry import SOURCES
from metrics_pipeline.sources.service_health import ServiceHealth
from metrics_pipeline.sources.spec import SourceSpec
from metrics_pipeline.sources.sql_metrics import SqlMetrics
from metrics_pipeline.sources.sql_rights import find_excess
from metrics_pipeline.storage.checkpoints import DatabaseCheckpointSettings
from metrics_pipeline.storage.influx import CLEAR_FIX, CLEAR_PROBLEM, InfluxStoreSettings
from metrics_pipeline.storage.open import open_store
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.spool import Spool
from metrics_pipeline.storage.spool_state import SpoolWatch
from metrics_pipeline.telemetry_connections import TelemetryConnections, open_telemetry

TEXT_COLUMNS = 76
NAME_COLUMNS = 22
MAX_EXAMPLES = 5
QUEUES = ("dagster", *(f"dagster\x06\x16{priority}" for priority in (3, 6, 9)))
"""Of Dagster's Celery executor: in kombu 5.7 a list of Redis for each step of priority."""
BROKER_FIX = "Check that Redis runs, its address, and user and password in it."
INSTANCE_FIX = "Check the folder DAGSTER_HOME, or DAGSTER_POSTGRES_URL, if Dagster uses PostgreSQL."


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing that was tried. `says` is what came back; of a failure, also what to do."""

    name: str
    is_well: bool
    says: str


def check_everything(settings: Settings) -> list[Attempt]:
    """Try everything, one after the other; a failure does not keep the rest from being tried."""
    used = [spec for spec in SOURCES.values() if settings.source(spec.name) is not None]
    return [
        Attempt("settings", True, str(settings_file())),
        *_check_simulator(settings),
        *(attempt for spec in used for attempt in _check_source(spec, settings)),
        *_check_polling(settings),
        *_check_workers(settings),
        *_check_telemetry(settings),
        *_check_sql(settings),
        *_check_services(settings),
        *_check_gateway(settings),
        _attempt("time-series store", lambda: _check_store(settings)),
        *_check_spool(settings),
        _attempt("operational database", lambda: _check_operational(settings)),
        *_check_events(settings.events.transport),
        _attempt("Dagster instance", lambda: _check_instance(settings), INSTANCE_FIX),
        *_check_certificates(settings),
        _check_exposure(settings),
    ]


def render(attempts: Iterable[Attempt]) -> str:
    """The attempts as a table."""
    return "\n".join(_render_one(attempt) for attempt in attempts)


def _render_one(attempt: Attempt) -> str:
    lines = [line for paragraph in attempt.says.splitlines() for line in _wrap(paragraph)]
    head = f"{'ok' if attempt.is_well else 'FAIL':<5} {attempt.name:<{NAME_COLUMNS}} "
    return head + f"\n{' ' * len(head)}".join(lines)


def _wrap(paragraph: str) -> list[str]:
    """Between words only: a path stays whole, to be copied."""
    return textwrap.wrap(paragraph, TEXT_COLUMNS, break_long_words=False, break_on_hyphens=False)


def _check_simulator(settings: Settings) -> list[Attempt]:
    """Nothing unless these are settings for the simulator, and it was never started here."""
    simulator = settings.simulator
    if simulator is None or not settings.reads_simulator():
        return []
    if simulator.connection_string_file.exists():
        return []
    says = "not running, so there is nothing to count yet. Start `make run` first, or name your own"
    return [Attempt("simulated IoT Hub", False, f"{says} hub and leave `simulator` out.")]


def _check_source(spec: SourceSpec, settings: Settings) -> list[Attempt]:
    try:
        reading = _read(spec, settings)
    except MetricsPipelineError as error:
        return [Attempt(spec.name, False, str(error))]
    values = [f"{k} {v}" for point in reading.points for k, v in point.fields.items()]
    well = [Attempt(spec.name, True, ", ".join(values))] if values else []
    wrong = "\n".join(_tell(reading.failures))
    return [*well, Attempt(spec.name, False, wrong)] if wrong else well


def _tell(failures: Iterable[SourceError]) -> Iterator[str]:
    """Each cause once, with all that it kept from being read."""
    by_cause: dict[tuple[str, str], list[str]] = {}
    for failure in failures:
        by_cause.setdefault((failure.problem, failure.fix), []).append(failure.target)
    for (problem, fix), targets in by_cause.items():
        yield f"reading {', '.join(targets)}: {problem}. {fix}"


def _read(spec: SourceSpec, settings: Settings) -> Reading:
    source = spec.build(settings.source(spec.name))
    first, *others = _metrics_used(spec, settings) or spec.answers
    try:
        reading = source.read([first], time.time_ns())
        if not others or any(_concerns_everything(failure) for failure in reading.failures):
            return reading
        return reading + source.read(others, time.time_ns())
    finally:
        source.close()


def _concerns_everything(failure: SourceError) -> bool:
    """Whether asking for more would only take longer: nobody answers, or lets us in."""
    return failure.retry_helps or isinstance(failure, CredentialRefused)


def _metrics_used(spec: SourceSpec, settings: Settings) -> Sequence[Metric]:
    return [m for asset in settings.fleet_assets() for m in asset.asked.get(spec.name, ())]


def _check_polling(settings: Settings) -> Iterator[Attempt]:
    """Nothing where no device is polled. What needs no list of them is tried without one, too."""
    if not settings.polls_devices:
        return
    devices: Sequence[Device] = ()
    try:
        listed = _list_devices(settings)
    except MetricsPipelineError as error:
        yield Attempt("devices", False, str(error))
    else:
        devices = listed.devices
        yield from _judge_list(listed)
    for name in _probes_used(settings, devices):
        yield _attempt(f"{name} probe", partial(_check_probe, settings, name))
        yield from _check_credentials(settings, name, devices)


def _check_workers(settings: Settings) -> Iterator[Attempt]:
    """Nothing where runs poll themselves. What hands polls out is asked how many there are."""
    workers = settings.sweeps.workers
    if settings.polls_devices and workers is not None:
        yield _attempt("workers", partial(_ask_broker, workers), BROKER_FIX)


def _ask_broker(workers: WorkersSettings) -> str:
    url = read_redis_url(workers.broker)
    with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
        waiting = sum(client.llen(f"{workers.key_prefix}{queue}") for queue in QUEUES)
        taken = client.hlen(f"{workers.key_prefix}unacked")
        return f"Redis answers ({workers.broker}): {waiting} polls wait, {taken} go on"


def _list_devices(settings: Settings) -> PollList:
    """As a run lists them, of all shards; SourceError if the table cannot be read."""
    section = settings.source("inventory")
    assert isinstance(section, InventorySettings)
    with closing(Inventory(section)) as inventory:
        return list_devices(inventory.read_device_rows(), tuple(PROBES), shard="", shards=1)


def _judge_list(listed: PollList) -> Iterator[Attempt]:
    by_protocol = Counter(device.protocol for device in listed.devices)
    counts = "".join(f", {by_protocol[name]} by {name}" for name in PROBES if by_protocol[name])
    yield Attempt("devices", True, f"{len(listed.devices)} can be polled{counts}")
    if listed.unusable:
        reasons = (f"{reason} {count}" for reason, count in sorted(listed.unusable.items()))
        lines = [
            f"rows that cannot be polled: {', '.join(reasons)}. Correct them in the inventory:",
            *listed.examples[:MAX_EXAMPLES],
        ]
        yield Attempt("devices", False, "\n".join(lines))


def _probes_used(settings: Settings, devices: Iterable[Device]) -> Sequence[str]:
    """Those that the runs open: of `metrics_by` also those by which there is no device."""
    sweeps = settings.sweeps
    used = {*sweeps.metrics_by, sweeps.status_by}
    if sweeps.status_by == "protocol":
        used |= {device.protocol for device in devices}
    return [name for name in PROBES if name in used]


def _check_probe(settings: Settings, name: str) -> str:
    async def open_and_close() -> None:
        async with settings.build_probe(name):
            pass

    asyncio.run(open_and_close())
    return "can be opened"


def _check_credentials(
    settings: Settings, protocol: str, devices: Iterable[Device]
) -> Iterator[Attempt]:
    """Of those that devices of `protocol` name; nothing where there are none to name."""
    if not PROBES[protocol].credential_types:
        return
    defined: Mapping[str, BaseModel] = getattr(settings.polling, protocol).credentials
    named = Counter(device.credential for device in devices if device.protocol == protocol)
    well, wrong = [], []
    for name, count in sorted(named.items()):
        try:
            _read_credential(f"polling.{protocol}.credentials", defined, name)
        except ConfigurationError as error:
            wrong.append(f"{error} Devices that need it: {count}.")
        else:
            well.append(f"{name} ({count})")
    if well:
        says = f"can be read, each with how many devices name it: {', '.join(well)}"
        yield Attempt(f"{protocol} credentials", True, says)
    if wrong:
        yield Attempt(f"{protocol} credentials", False, "\n".join(wrong))


def _read_credential(section: str, defined: Mapping[str, BaseModel], name: str) -> None:
    """ConfigurationError if it is not `defined`, or something that it names cannot be read."""
    if not name:
        fix = f"Name one of {section} in the inventory's column credential."
        raise ConfigurationError("the inventory", "devices name no credential", fix)
    if name not in defined:
        fix = "Define it, or correct the inventory's column credential."
        raise ConfigurationError(section, f"there is no {name!r}", fix)
    try:
        _read_all(defined[name])
    except ConfigurationError as error:
        problem = f"{error.where}: {error.problem}"
        raise ConfigurationError(f"{section}.{name}", problem, error.fix) from error


def _read_all(part: BaseModel) -> None:
    """Read every secret and file that `part` names, and keep none of it."""
    for name in type(part).model_fields:
        given = getattr(part, name)
        if isinstance(given, SecretReference):
            given.read()
        elif isinstance(given, Path):
            _read_file(given)
        elif isinstance(given, BaseModel):
            _read_all(given)


def _read_file(path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise ConfigurationError(str(path), problem, "Create it, or make it readable.") from error


def _check_telemetry(settings: Settings) -> Iterator[Attempt]:
    """Nothing where there is none. The hub is asked how far it goes; no event is read."""
    if settings.telemetry is None:
        return
    try:
        with open_telemetry(settings, "check") as opened:
            states = opened.stream.partitions()
            kept = sum(_kept(state) for state in states.values())
            says = f"{opened.stream.name}: {len(states)} partitions, {kept} events are kept"
            yield Attempt("event hub", True, says)
            yield _attempt("checkpoints", partial(_check_checkpoints, opened, states))
    except SourceError as error:
        yield Attempt("event hub", False, "\n".join(_tell([error])))
    except MetricsPipelineError as error:
        yield Attempt("event hub", False, str(error))


def _kept(state: PartitionState) -> int:
    return 0 if state.is_empty else state.last_sequence_number - state.first_sequence_number + 1


def _check_checkpoints(opened: TelemetryConnections, states: Mapping[str, PartitionState]) -> str:
    stream, checkpoints = opened.stream, opened.checkpoints
    in_database = isinstance(opened.telemetry.checkpoints, DatabaseCheckpointSettings)
    if in_database and (due := opened.database.what_is_due()):
        return f"{checkpoints.name}: not read, as of the operational database {due}"
    stored = checkpoints.find_all(stream.namespace, stream.hub, stream.consumer_group)
    backlog = look(states, stored, {})
    waiting = sum(each.lag_events for each in backlog.values())
    lost = sum(each.lost_events for each in backlog.values())
    ahead = ahead_in_words(backlog)
    if ahead:
        raise ConfigurationError(checkpoints.name, ahead, f"To go on, {MOVE_IT}.")
    gone = f"; {lost} are gone, for the hub does not keep them so long" if lost else ""
    return f"{checkpoints.name}: {waiting} events are not stored yet{gone}"


def _check_sql(settings: Settings) -> Iterator[Attempt]:
    """Every query of every set once. Nothing where there are none."""
    for sql_set in settings.sql.loaded if settings.sql is not None else ():
        assert settings.sql is not None
        name = f"SQL {sql_set.name}"
        database = settings.sql.database_of(sql_set)
        with closing(SqlMetrics(sql_set, database)) as metrics:
            reading = metrics.read(time.time_ns())
            is_answered = bool(metrics.answered)
        values = sum(len(point.fields) for point in reading.points)
        if wrong := "\n".join(_tell(reading.failures)):
            yield Attempt(name, False, wrong)
        if is_answered or not wrong:
            says = f"{sql_set.file}: {len(reading.points)} points with {values} values"
            yield Attempt(name, True, says + _tell_excess(database))


def _tell_excess(database: DatabaseSettings) -> str:
    """A line about a role that may do more than a set needs."""
    excess = find_excess(database)
    advice = "give the set one that may only read (docs/sql-metrics.md)"
    return f"\nthe role in {database.url} {excess}: {advice}" if excess else ""


def _check_services(settings: Settings) -> Iterator[Attempt]:
    """Each service by itself; nothing where there is none."""
    platform = settings.platform
    if not platform.services:
        return
    with closing(
        ServiceHealth(platform.services, platform.ca_file, platform.sample_every_seconds)
    ) as source:
        reading = source.read(time.time_ns())
    for point in reading.points:
        service = point.tags["service"]
        wrong = [each for each in reading.failures if each.target.partition(".")[0] == service]
        values = ", ".join(f"{name} {value}" for name, value in point.fields.items())
        yield Attempt(f"service {service}", not wrong, "\n".join(_tell(wrong)) or values)


def _check_gateway(settings: Settings) -> Iterator[Attempt]:
    """Its tokens, and who reaches it. Nothing where there is none; no port is opened."""
    gateway = settings.gateway
    if gateway is None:
        return
    yield _attempt("gateway tokens", partial(_check_tokens, gateway))
    if clear := find_clear_text("gateway", gateway):
        yield Attempt("gateway", False, str(clear))
    else:
        yield Attempt("gateway", True, f"will listen on {gateway.host}:{gateway.port}")


def _check_tokens(gateway: GatewaySettings) -> str:
    tokens = Tokens(gateway)
    tokens.load()
    return tokens.in_words(time.time())


def _attempt(name: str, check: Callable[[], str], fix: str = "") -> Attempt:
    try:
        return Attempt(name, True, check())
    except MetricsPipelineError as error:
        return Attempt(name, False, str(error))
    except Exception as error:  # noqa: BLE001 (Dagster's storages raise their drivers' errors)
        return Attempt(name, False, f"{first_line(error)}. {fix}")


def _check_store(settings: Settings) -> str:
    store = open_store(settings.store, settings.catalog())
    try:
        return f"{store.check()}{_unused_influxdb(settings)}"
    finally:
        store.close()


def _unused_influxdb(settings: Settings) -> str:
    """What to say of variables that name an InfluxDB that the settings do not."""
    given = [f"${name}" for name in (INFLUXDB_URL, INFLUXDB_TOKEN) if os.environ.get(name)]
    if not given or settings.store.kind == "influxdb":
        return ""
    return f"\n{', '.join(given)}: not used, as store.kind is {settings.store.kind}"


def _check_spool(settings: Settings) -> Iterator[Attempt]:
    """Nothing where there is none. One file is made and taken away again."""
    if settings.spool is None:
        return
    spool = Spool(settings.spool)
    try:
        spool.check()
        state = SpoolWatch(settings.spool).look()
    except (StoreError, OSError) as error:
        yield Attempt("spool", False, str(error))
        return
    says = (
        f"{spool.directory}: {state.points} points wait, {state.size_bytes} of "
        f"{state.limit_bytes} bytes are taken"
    )
    if state.damaged:
        says += (
            f"\n{state.damaged} damaged pieces were set aside ({spool.directory}/*.damaged): see "
            "docs/runbooks/alerts/SpoolDamaged.md, have those stored that the store takes by now, "
            "and move the others away"
        )
    if state.is_nearly_full:
        says += "\nit is nearly full: bring the time-series store back, or raise spool.max_bytes"
    yield Attempt("spool", not (state.is_nearly_full or state.damaged), says)


def _check_operational(settings: Settings) -> str:
    with closing(OperationalDatabase(settings.operational_database)) as database:
        due = database.rehearse()
        return f"{database.name} can be written{'; ' if due else ''}{due}"


def _check_events(transport: TransportSettings | None) -> Iterator[Attempt]:
    """Nothing where events go nowhere; none is sent."""
    if transport is not None:
        with closing(open_transport(transport)) as opened:
            yield _attempt("events", opened.check)


def _check_instance(settings: Settings) -> str:
    reader = InstanceReader([], OperationalDatabase(settings.operational_database))
    try:
        state = reader.read()
        return f"{reader.where}; {len(state.heartbeats)} daemons known, {state.queue_length} queued"
    finally:
        reader.close()


def _check_certificates(settings: Settings) -> Iterator[Attempt]:
    """Nothing where each server of databases has to prove who it is, or is on this machine."""
    if unverified := find_unverified(settings, os.environ):
        says = f"{', '.join(unverified)}: {PROBLEM}. {FIX}"
        yield Attempt("TLS to PostgreSQL", True, says)
    store = settings.store
    if isinstance(store, InfluxStoreSettings) and store.shows_token:
        yield Attempt("TLS to InfluxDB", True, f"{store.url}: {CLEAR_PROBLEM}. {CLEAR_FIX}")


def _check_exposure(settings: Settings) -> Attempt:
    exporter = settings.exporter
    address = f"{exporter.host}:{exporter.port}"
    if clear := find_clear_text("exporter", exporter):
        return Attempt("exporter", False, str(clear))
    if exporter.is_public and not (exporter.is_covered and exporter.asks_who):
        return Attempt(
            "exporter",
            True,
            f"{address} can be read by everybody who reaches this machine; "
            "set exporter.tls and exporter.basic_auth or exporter.bearer_token, or keep it behind "
            "a firewall",
        )
    return Attempt("exporter", True, f"will listen on {address}")
