"""The four commands of the image, run as processes with what compose.yaml gives them.

Against a real PostgreSQL with the role and the database of compose.yaml, and with VictoriaMetrics
in place of InfluxDB 2 (it takes the same write API).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import httpx
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
    """The containers that were started, in that order, and where two of them answer."""

    containers: tuple[Container, ...]
    children: tuple[Child, ...]
    files_before: dict[str, set[str]]
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
    """The secrets; nothing answers where the IoT Hub of this connection string is."""
    subprocess.run([DOCKER / "make-secrets", folder], check=False, capture_output=True)
    (folder / "iot_hub_connection_string").write_text(
        "HostName=127.0.0.1;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0"
    )
    return folder


def in_order(containers: dict[str, Container]) -> list[str]:
    """Their names, each after the ones of ours that it waits for."""
    needs = {name: set(SERVICES[name].get("depends_on", ())) & set(OURS) for name in containers}
    return list(TopologicalSorter(needs).static_order())


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
        containers = {name: machine.create(name) for name in OURS}
        before = {name: container.written() for name, container in containers.items()}
        children: list[Child] = []
        stack.callback(end_all, children)
        for name in in_order(containers):
            child = containers[name].start(folder / "logs")
            children.append(child)
            child.wait_until(containers[name].is_healthy, WITHIN_SECONDS)
        yield Running(
            tuple(containers.values()),
            tuple(children),
            before,
            WebserverClient(f"http://{LOOPBACK}:{ports['3000']}"),
            f"http://{LOOPBACK}:{ports['9464']}",
        )


def wait_for(child: Child, value: Callable[[], str | None]) -> str:
    """What `value` gives, as soon as it gives something."""
    found: list[str] = []

    def look() -> bool:
        found.extend(filter(None, [value()]))
        return bool(found)

    child.wait_until(look, WITHIN_SECONDS)
    return found[0]


def concentrator_gauge(running: Running) -> str | None:
    lines = PLAIN_HTTP.get(f"{running.exporter_url}/metrics").text.splitlines()
    return next((line for line in lines if line.startswith(CONCENTRATOR_COUNT.family.name)), None)


@pytest.mark.timeout(300)
def test_the_commands_of_the_image_run_the_pipeline(running: Running) -> None:
    """One test, because starting is what takes the time."""
    assert running.webserver.is_up()
    run_id = running.webserver.launch(JOB)
    exporter = running.children[-1]
    gauge = wait_for(exporter, lambda: concentrator_gauge(running))
    assert gauge.endswith(" 1.0")
    wait_for(exporter, lambda: "ended" if running.webserver.have_ended([run_id]) else None)
    assert all(child.is_running for child in running.children)
    assert all(container.is_healthy() for container in running.containers)
    for container in running.containers:
        assert container.written() == running.files_before[container.name]
    assert httpx.get(f"{running.exporter_url}/readyz").text == "ready\n"
