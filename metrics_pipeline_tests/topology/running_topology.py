"""The services of docker/compose.yaml as processes that can be killed and started again.

Those of the image, with the settings, the workspace and the dagster.yaml that ship; a real
PostgreSQL; InfluxDB's engine; Prometheus with the configuration and the rules that ship. Only
addresses and times are others. What they read is simulated, in this process.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from metrics_pipeline.core.catalog import (
    FLEET_COUNTS,
    LAST_SUCCESS,
    LORAWAN_UPLINK,
    SAMPLE_SLOTS,
    SERVICE_METRICS,
)
from metrics_pipeline.core.fetches import from_label
from metrics_pipeline.core.platform_assets import sampled_asset
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.service_counters import HEALTHY
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline.simulators.fleet import Fleet
from metrics_pipeline.simulators.iot_hub import IotHubSimulator
from metrics_pipeline.simulators.platform_services import PlatformService
from metrics_pipeline.sources.service_health import NAME as SERVICES
from metrics_pipeline.stack.ports import LOOPBACK, find_free_port
from metrics_pipeline.stack.processes import Child, end_all
from metrics_pipeline.stack.webserver_client import WebserverClient
from metrics_pipeline.storage import sampling_lease, tallies
from metrics_pipeline_tests.alert_rules.running_prometheus import get, states
from metrics_pipeline_tests.docker.container_files import OURS
from metrics_pipeline_tests.docker.native import (
    Container,
    Machine,
    make_secrets,
    prepare_postgresql,
    start_in_order,
)
from metrics_pipeline_tests.graphql import Unanswered, ask
from metrics_pipeline_tests.ingestion.sending import Sending
from metrics_pipeline_tests.orchestration.pipeline import FLEET
from metrics_pipeline_tests.orchestration.telemetry_pipeline import DEVICE
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.postgresql import PostgresqlServer, running_postgresql
from metrics_pipeline_tests.running_stack import processes_in
from metrics_pipeline_tests.servers import PLAIN_HTTP, require
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import (
    TOKEN,
    Influxdb1EngineShim,
    influxdb_1_engine,
)
from metrics_pipeline_tests.topology.faster import (
    SAMPLE_SECONDS,
    SETTINGS,
    change_settings,
    scrape_often,
    shorten_rules,
)

CODE_SERVER, DAEMON, WEBSERVER, EXPORTER = "code-server", "daemon", "webserver", "exporter"
POSTGRESQL, INFLUXDB, PROMETHEUS = "postgres", "influxdb", "prometheus"
GATEWAY, EVENT_HUB = "gateway", "event hub"
PARTITIONS = 2
LOOK_EVERY_SECONDS = 0.5
WATCHING = "metrics_monitor"
LAST_UPLINK = "max(lorawan_device_last_uplink_timestamp_seconds)"
LAST_SAMPLE = f'{LAST_SUCCESS.name}{{asset="{sampled_asset(SERVICES)}"}}'
RUNS = "{ runsOrError { ... on Runs { results { runId jobName status } } } }"
TICKS = """query ($schedule: String!) { scheduleOrError(scheduleSelector: {
    repositoryLocationName: "metrics_pipeline", repositoryName: "__repository__",
    scheduleName: $schedule}) { ... on Schedule {
    scheduleState { ticks { timestamp status skipReason runIds error { message } } } } } }"""
FLEET_SCHEDULE = "fleet_every_1_minutes"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of Dagster."""

    id: str
    job: str
    status: str

    @property
    def is_in_flight(self) -> bool:
        """Whether it has not ended."""
        return self.status not in ("SUCCESS", "FAILURE", "CANCELED")


@dataclass(frozen=True, slots=True)
class Account:
    """Of slots of one source: the newest, in ns since the epoch, and totals by outcome."""

    slot_ns: int
    outcomes: Mapping[str, int]

    def slots_since(self, before: Account) -> int:
        """By the clock."""
        return (self.slot_ns - before.slot_ns) // (SAMPLE_SECONDS * NS_PER_SECOND)

    def since(self, before: Account) -> dict[str, int]:
        """What became of them."""
        found = {what: n - before.outcomes.get(what, 0) for what, n in self.outcomes.items()}
        return {what: n for what, n in found.items() if n}


@dataclass(slots=True)
class Topology:
    """Everything that runs, what it reads, and what can be seen of it."""

    machine: Machine
    containers: Mapping[str, Container]
    children: dict[str, Child]
    postgresql: PostgresqlServer
    influxdb: Influxdb1EngineShim
    hub: IotHubSimulator
    event_hub: EventHubServer
    fleet: Fleet
    sending: Sending
    ports: Mapping[str, int]
    outage: ExitStack
    """Of InfluxDB's engine: closed, it starts again."""

    # --- processes ------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL for all processes of a service at once, as for a container."""
        if name == POSTGRESQL:
            self.postgresql.kill()
        elif name == INFLUXDB:
            self.outage.enter_context(self.influxdb.outage())
        else:
            child = self.children[name]
            os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
            assert processes_in(self.containers[name].root) == []

    def start(self, name: str) -> None:
        """Start a service that was killed, as it was."""
        if name == POSTGRESQL:
            self.postgresql.start()
        elif name == INFLUXDB:
            self.outage.close()
        elif name == PROMETHEUS:
            self.children[name] = self._start_prometheus()
            url = f"{self.prometheus_url}/-/ready"
            self.wait_until(lambda: PLAIN_HTTP.get(url).is_success, "Prometheus is ready")
        else:
            self.children[name] = self.containers[name].start()

    def _start_prometheus(self) -> Child:
        """With the arguments of compose.yaml, but for where it listens."""
        container = self.containers[PROMETHEUS]
        arguments = map(container.translate, container.service["command"])
        listen = f"--web.listen-address={LOOPBACK}:{self.ports['9090']}"
        command = [require("prometheus"), *arguments, listen]
        return Child.start(PROMETHEUS, command, os.environ, container.root)

    def start_all(self) -> None:
        """Each once what it needs is well."""
        self.start(PROMETHEUS)
        start_in_order({name: self.containers[name] for name in OURS}, self.children)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Return once `condition` holds; what it asks may be away meanwhile."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with suppress(httpx.TransportError, Unanswered):
                if condition():
                    return
            if time.monotonic() > deadline:
                tails = (f"{each.name}:\n{each.tail()}" for each in self.children.values())
                pytest.fail(f"waited in vain until {what}:\n" + "\n".join(tails))
            time.sleep(LOOK_EVERY_SECONDS)

    def wait_until_it_goes_on(self) -> None:
        """Return once what came after this moment is stored, and shown in Prometheus."""
        moment, sent = time.time(), self.sending.count
        moment_ns = moment * NS_PER_SECOND
        self.wait_until(lambda: self.uplink_count() >= sent, "the uplinks are stored")
        self.wait_until(lambda: self.last_sample_ns() > moment_ns, "the service is sampled")
        self.wait_until(lambda: self.value(LAST_UPLINK) > moment, "an uplink is shown")
        self.wait_until(lambda: self.value(LAST_SAMPLE) > moment, "a sample is shown")
        self.wait_until(self.webserver.is_up, "the webserver is up")
        self.wait_until(lambda: self.runs() != [], "it lists the runs")

    # --- Dagster --------------------------------------------------------------------------------

    @property
    def webserver(self) -> WebserverClient:
        """A client of its webserver."""
        return WebserverClient(self.webserver_url)

    @property
    def webserver_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['3000']}"

    def runs(self) -> list[Run]:
        """All there are, the newest first."""
        found = ask(self.webserver_url, RUNS)["runsOrError"]["results"]
        return [Run(each["runId"], each["jobName"], each["status"]) for each in found]

    def runs_in_flight(self) -> list[Run]:
        """Those that have not ended."""
        return [run for run in self.runs() if run.is_in_flight]

    def ticks(self, schedule: str = FLEET_SCHEDULE) -> list[Mapping[str, Any]]:
        """Of a schedule: of the one that counts the fleet."""
        answer = ask(self.webserver_url, TICKS, schedule=schedule)
        found: list[Mapping[str, Any]] = answer["scheduleOrError"]["scheduleState"]["ticks"]
        return found

    # --- what is stored -------------------------------------------------------------------------

    def uplinks(self) -> list[Point]:
        """All there are in InfluxDB."""
        return self.influxdb.read(LORAWAN_UPLINK.name, LORAWAN_UPLINK.database)

    def uplink_count(self) -> int:
        """How many there are."""
        statement = f'SELECT COUNT("frame_counter") FROM "{LORAWAN_UPLINK.name}"'
        found = self.influxdb.query(statement, LORAWAN_UPLINK.database)
        return int(found[0]["values"][0][1]) if found else 0

    def sampled_ns(self) -> set[int]:
        """The times of the samples of the service."""
        points = self.influxdb.read(SERVICE_METRICS.name, SERVICE_METRICS.database)
        return {point.time_ns for point in points}

    def last_sample_ns(self) -> int:
        """The time of the newest; 0 before there is one."""
        statement = f'SELECT LAST("{HEALTHY}") FROM "{SERVICE_METRICS.name}"'
        found = self.influxdb.query(statement, SERVICE_METRICS.database)
        return int(found[0]["values"][0][0]) if found else 0

    def account(self) -> Account:
        """How far the service is sampled, and what became of all slots so far."""
        url = self.postgresql.url("metrics", self.postgresql.password)
        engine = sa.create_engine(url, isolation_level="REPEATABLE READ")
        try:
            with engine.connect() as connection:
                slot_ns = sampling_lease.last_slots(connection).get(SERVICES, 0)
                totals = tallies.totals(connection).get(SAMPLE_SLOTS.name, {})
        finally:
            engine.dispose()
        outcomes = {from_label(label): count for label, count in totals.items()}
        return Account(
            slot_ns, {what: n for (source, what), n in outcomes.items() if source == SERVICES}
        )

    def counted_ns(self) -> set[int]:
        """The times of counts of the fleet."""
        points = self.influxdb.read(FLEET_COUNTS.name, FLEET_COUNTS.database)
        return {point.time_ns for point in points}

    # --- what is shown --------------------------------------------------------------------------

    @property
    def prometheus_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['9090']}"

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """What Prometheus says now, by labels."""
        rows = get(f"{self.prometheus_url}/api/v1/query", query=expression)["result"]
        return {tuple(sorted(row["metric"].items())): float(row["value"][1]) for row in rows}

    def value(self, expression: str) -> float:
        """What Prometheus says now, of one series; NaN where there is none."""
        found = self.query(expression)
        return next(iter(found.values())) if len(found) == 1 else float("nan")

    def series_names(self) -> set[str]:
        """Of everything that was scraped from the exporter."""
        url, ours = f"{self.prometheus_url}/api/v1/series", '{job="metrics_pipeline"}'
        return {series["__name__"] for series in get(url, **{"match[]": ours})}

    def alerts(self) -> dict[str, str]:
        """By the name of an alert, whether it is inactive, pending or firing."""
        return states(self.prometheus_url)


def make_containers(
    machine: Machine,
    service_url: str,
    settings: Mapping[str, Any],
) -> Mapping[str, Container]:
    """Of the image, and of Prometheus; what they are told of time is shorter."""
    containers = {name: machine.create(name) for name in (*OURS, PROMETHEUS)}
    changes = {
        "sources": {"azure_iot_hub": {"scheme": "http"}},
        "platform": {"services": {"ingest": {"url": service_url}}},
    }
    for name in (CODE_SERVER, EXPORTER):
        file = containers[name].root / "etc/metrics_pipeline/settings.yaml"
        for each in (SETTINGS, changes, settings):
            change_settings(file, each)
    inside = containers[PROMETHEUS].root / "etc/prometheus"
    scrape_often(inside / "prometheus.yml")
    for file in (inside / "rules").iterdir():
        shorten_rules(file)
    return containers


def make_machine(
    folder: Path,
    secrets: Path,
    ports: Mapping[str, int],
    postgresql_port: int,
    store_url: str,
) -> Machine:
    """On which the hosts and ports of compose.yaml are those of this one."""
    here = {
        r"\bpostgres:5432\b": f"{LOOPBACK}:{postgresql_port}",
        r"http://influxdb:8086\b": store_url,
        r"\bhost: code-server\b": f"host: {LOOPBACK}",
        r"\bexporter:9464\b": f"{LOOPBACK}:9464",
        r"=/prometheus$": f"={folder / 'prometheus-data'}",
        r"\b0\.0\.0\.0\b": LOOPBACK,
        **{rf"\b{port}\b": str(free) for port, free in ports.items()},
    }
    machine = Machine(folder, secrets, here)
    machine.build()
    return machine


def directly(_name: str, port: int) -> int:
    """Nothing is in between."""
    return port


@contextmanager
def running_topology(
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    between: Callable[[str, int], int] = directly,
) -> Iterator[Topology]:
    """All of it, with uplinks that come all the time.

    `settings` are merged into what ships. `between` gives the port by which the containers reach
    the one called so: POSTGRESQL, INFLUXDB or EVENT_HUB.
    """
    with ExitStack() as stack:
        fleet = Fleet(FLEET)
        hub = stack.enter_context(IotHubSimulator(fleet))
        event_hub = stack.enter_context(
            serve_event_hub(partition_count=PARTITIONS, consumer_groups=["metrics"])
        )
        service = stack.enter_context(PlatformService({"messages_received": 7}))
        postgresql = stack.enter_context(running_postgresql())
        influxdb = stack.enter_context(influxdb_1_engine(folder / "influxdb"))
        for database in (FLEET_COUNTS.database, SERVICE_METRICS.database):
            influxdb.create(database)
        secrets = make_secrets(
            folder / "secrets",
            influxdb_token=TOKEN,
            iot_hub_connection_string=hub.connection_string,
            event_hub_connection_string=event_hub.connection_string.replace(
                f":{event_hub.port}", f":{between(EVENT_HUB, event_hub.port)}"
            ),
        )
        prepare_postgresql(postgresql, secrets)
        ports = {port: find_free_port() for port in ("3000", "4000", "8765", "9464", "9090")}
        store_url = f"http://{LOOPBACK}:{between(INFLUXDB, int(influxdb.host.rpartition(':')[2]))}"
        postgresql_port = between(POSTGRESQL, postgresql.port)
        machine = make_machine(folder, secrets, ports, postgresql_port, store_url)
        containers = make_containers(machine, service.url, settings or {})
        sending = Sending(event_hub, PARTITIONS, DEVICE)
        children: dict[str, Child] = {}
        stack.callback(lambda: end_all(list(children.values())))
        outage = stack.enter_context(ExitStack())
        topology = Topology(
            machine=machine,
            containers=containers,
            children=children,
            postgresql=postgresql,
            influxdb=influxdb,
            hub=hub,
            event_hub=event_hub,
            fleet=fleet,
            sending=sending,
            ports=ports,
            outage=outage,
        )
        topology.start_all()
        stack.enter_context(sending)
        yield topology
