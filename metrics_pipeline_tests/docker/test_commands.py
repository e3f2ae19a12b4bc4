"""The four commands of the image, run as processes with what compose.yaml gives them.

Against a real PostgreSQL with the role and the database of compose.yaml, and with VictoriaMetrics
in place of InfluxDB 2 (it takes the same write API).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrics_pipeline.core.catalog import CONCENTRATOR_COUNT
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.simulators.event_hub.server import serve_event_hub
from metrics_pipeline.stack.layout import LOOPBACK, find_free_port
from metrics_pipeline.stack.processes import Child, end_all
from metrics_pipeline.stack.webserver_client import WebserverClient
from metrics_pipeline_tests.docker.container_files import DOCKER, OURS, SERVICES
from metrics_pipeline_tests.docker.native import Container, Machine
from metrics_pipeline_tests.orchestration.telemetry_pipeline import DEVICE, EUI, uplink
from metrics_pipeline_tests.postgresql import PostgresqlServer, running_postgresql
from metrics_pipeline_tests.servers import PLAIN_HTTP, victoria_metrics

WITHIN_SECONDS = 120.0
FRAME_COUNTER = "lorawan_device_frame_counter"


@dataclass(frozen=True, slots=True)
class Running:
    """The containers, all started and found to be well once, and where two of them answer."""

    machine: Machine
    containers: Mapping[str, Container]
    children: Mapping[str, Child]
    webserver: WebserverClient
    exporter_url: str


def prepare_postgresql(server: PostgresqlServer, password: str) -> None:
    """What the image of PostgreSQL does on an empty volume, and one concentrator."""
    server.execute(
        f"CREATE ROLE metrics LOGIN SUPERUSER PASSWORD '{password}'",
        "CREATE DATABASE metrics OWNER metrics",
    )
    engine = sa.create_engine(f"postgresql://metrics:{password}@{LOOPBACK}:{server.port}/metrics")
    with engine.begin() as connection:
        connection.exec_driver_sql((DOCKER / "postgres" / "inventory.sql").read_text())
        connection.exec_driver_sql(
            "INSERT INTO concentrators (id, name, eui) VALUES ('a', 'Roof', '00800000A0001234')"
        )
    engine.dispose()


def make_secrets(folder: Path, event_hub: str) -> Path:
    """The secrets; that of IoT Hub is wrong, so that counting devices fails at once."""
    subprocess.run([DOCKER / "make-secrets", folder], check=False, capture_output=True)
    (folder / "iot_hub_connection_string").write_text("not a connection string")
    (folder / "event_hub_connection_string").write_text(event_hub)
    return folder


def start_in_order(containers: Mapping[str, Container], children: dict[str, Child]) -> None:
    """Start each as soon as the ones of ours that it waits for are well."""
    needs = {name: set(SERVICES[name].get("depends_on", ())) & set(OURS) for name in containers}
    order = TopologicalSorter(needs)
    order.prepare()
    while order.is_active():
        names = order.get_ready()
        for name in names:
            children[name] = containers[name].start()
        for name in names:
            children[name].wait_until(containers[name].is_healthy, WITHIN_SECONDS)
            order.done(name)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("machine")
    with ExitStack() as stack:
        hub = stack.enter_context(serve_event_hub(consumer_groups=["metrics"]))
        hub.append(uplink(7), partition="0", annotations=DEVICE)
        secrets = make_secrets(folder / "secrets", hub.connection_string)
        postgresql = stack.enter_context(running_postgresql())
        store_url = stack.enter_context(victoria_metrics(folder / "store"))
        prepare_postgresql(postgresql, (secrets / "postgres_password").read_text())
        ports = {port: str(find_free_port()) for port in ("3000", "4000", "9464")}
        here = {
            r"\bpostgres:5432\b": f"{LOOPBACK}:{postgresql.port}",
            r"http://influxdb:8086\b": store_url,
            r"\bhost: code-server\b": f"host: {LOOPBACK}",
            r"\b0\.0\.0\.0\b": LOOPBACK,
            **{rf"\b{port}\b": free for port, free in ports.items()},
        }
        machine = Machine(folder, secrets, here)
        machine.build()
        containers = {name: machine.create(name) for name in OURS}
        children: dict[str, Child] = {}
        stack.callback(lambda: end_all(list(children.values())))
        start_in_order(containers, children)
        yield Running(
            machine,
            containers,
            children,
            WebserverClient(f"http://{LOOPBACK}:{ports['3000']}"),
            f"http://{LOOPBACK}:{ports['9464']}",
        )


def gauge(running: Running, name: str) -> str | None:
    """The first line of the exporter's page that begins so, if there is one."""
    lines = PLAIN_HTTP.get(f"{running.exporter_url}/metrics").text.splitlines()
    return next((line for line in lines if line.startswith(name)), None)


@pytest.mark.timeout(300)
def test_the_commands_of_the_image_run_the_pipeline(running: Running) -> None:
    """One test, because starting is what takes the time."""
    assert running.webserver.is_up()
    run_ids = [running.webserver.launch(JOB)]
    exporter, code_server = running.children["exporter"], running.children["code-server"]

    def is_shown(name: str) -> bool:
        return gauge(running, name) is not None

    exporter.wait_until(lambda: is_shown(CONCENTRATOR_COUNT.family.name), WITHIN_SECONDS)
    exporter.wait_until(lambda: is_shown(FRAME_COUNTER), WITHIN_SECONDS)
    code_server.wait_until(lambda: running.webserver.have_ended(run_ids), WITHIN_SECONDS)

    assert (gauge(running, CONCENTRATOR_COUNT.family.name) or "").endswith(" 1.0")
    assert gauge(running, FRAME_COUNTER) == f'{FRAME_COUNTER}{{device_eui="{EUI}0"}} 7.0'
    assert all(child.is_running for child in running.children.values())
    assert running.machine.written() == {"/var/lib/metrics_pipeline/dagster/dagster.yaml"}
    printed = [file.read_text() for file in running.machine.image.rglob("compute_logs/*.err")]
    assert sum("connection string" in text for text in printed) == 1
