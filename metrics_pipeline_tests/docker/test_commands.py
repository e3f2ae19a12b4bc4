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
from metrics_pipeline.stack.layout import LOOPBACK, find_free_port
from metrics_pipeline.stack.processes import Child, end_all
from metrics_pipeline.stack.webserver_client import WebserverClient
from metrics_pipeline_tests.docker.container_files import DOCKER, OURS, SERVICES
from metrics_pipeline_tests.docker.native import Container, Machine
from metrics_pipeline_tests.postgresql import PostgresqlServer, running_postgresql
from metrics_pipeline_tests.servers import PLAIN_HTTP, victoria_metrics

WITHIN_SECONDS = 120.0


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


def make_secrets(folder: Path) -> Path:
    """The secrets; the one of the operator is wrong, so that counting devices fails at once."""
    subprocess.run([DOCKER / "make-secrets", folder], check=False, capture_output=True)
    (folder / "iot_hub_connection_string").write_text("not a connection string")
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
    secrets = make_secrets(folder / "secrets")
    with ExitStack() as stack:
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


def concentrator_gauge(running: Running) -> str | None:
    """The line of the exporter's page, if there is one."""
    lines = PLAIN_HTTP.get(f"{running.exporter_url}/metrics").text.splitlines()
    return next((line for line in lines if line.startswith(CONCENTRATOR_COUNT.family.name)), None)


@pytest.mark.timeout(300)
def test_the_commands_of_the_image_run_the_pipeline(running: Running) -> None:
    """One test, because starting is what takes the time."""
    assert running.webserver.is_up()
    run_ids = [running.webserver.launch(JOB)]
    exporter, code_server = running.children["exporter"], running.children["code-server"]

    exporter.wait_until(lambda: concentrator_gauge(running) is not None, WITHIN_SECONDS)
    code_server.wait_until(lambda: running.webserver.have_ended(run_ids), WITHIN_SECONDS)

    assert (concentrator_gauge(running) or "").endswith(" 1.0")
    assert all(child.is_running for child in running.children.values())
    assert running.machine.written() == {"/var/lib/metrics_pipeline/dagster/dagster.yaml"}
    (printed,) = running.machine.image.rglob("compute_logs/*.err")
    assert "connection string" in printed.read_text()
