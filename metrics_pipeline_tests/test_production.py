"""What docs/production.md tells an operator to type does what it says there."""

from __future__ import annotations

import re
import shlex
import sqlite3
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from shutil import copytree

import pytest
import sqlalchemy as sa
import yaml

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.access.inventory_schema import upgrade_inventory
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.cli import build_parser
from metrics_pipeline.core.points import Point
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.sources.sql_rights import find_excess
from metrics_pipeline.stack.ports import LOOPBACK
from metrics_pipeline.storage import snapshots
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.docker.cluster_objects import KUBECTL, Cluster, environment, render
from metrics_pipeline_tests.docker.container_files import DOCKER, OURS, REPOSITORY, SERVICES
from metrics_pipeline_tests.postgresql import PostgresqlServer, running_postgresql

PAGE = (REPOSITORY / "docs" / "production.md").read_text()
ASSET = "fleet/device_counts"
MEASUREMENT = "fleet_counts"
END_NS = 2**63 - 1
RUN_SECONDS = 60
AFTER_CYCLES = 50
PASSWORD = "Pa55.word_~-"
"""Of the role of the page: with every kind of letter that it may have."""


def blocks() -> list[str]:
    """What is set as code on the page, without the indentation."""
    found = re.findall(r"(?:^(?: {4,}.*)?\n)+", PAGE, re.MULTILINE)
    return ["\n".join(line.lstrip() for line in each.splitlines()).strip() for each in found]


def block_with(text: str) -> str:
    """The one piece of code that contains `text`."""
    (block,) = (each for each in blocks() if text in each)
    return block


def kustomization(text: str) -> str:
    """The one of the page that contains `text`, indented as it is there."""
    found = re.findall(r"^ {7}apiVersion: kustomize.*\n(?: {7}.*\n)+", PAGE, re.MULTILINE)
    (one,) = (each for each in found if text in each)
    return "".join(line.removeprefix(" " * 7) for line in one.splitlines(keepends=True))


def overlay() -> str:
    """The kustomization of what runs."""
    return kustomization("newTag")


def shell(command: str, folder: Path, path: Path, typed: str = "", **variables: str) -> str:
    """What `command` prints, as typed in `folder`, with the programs in `path`.

    Without a terminal, so that what asks for something reads what is `typed`.
    """
    done = subprocess.run(
        ["sh", "-euc", command],
        check=True,
        cwd=folder,
        input=typed,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": f"{path}:/usr/bin:/bin", **variables},
        timeout=RUN_SECONDS,
        start_new_session=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """What the overlay makes, with settings that are another's."""
    folder = tmp_path_factory.mktemp("repository")
    copytree(DOCKER, folder / "docker")
    (folder / "production").mkdir()
    (folder / "production" / "kustomization.yaml").write_text(overlay())
    (folder / "production" / "settings.yaml").write_text("version: 1\n")
    return Cluster(render(folder / "production"))


def test_the_overlay_gives_every_pod_its_image(production: Cluster) -> None:
    images = {production.container(name)["image"] for name in OURS}
    images.add(environment(production.container("code-server"))["DAGSTER_CURRENT_IMAGE"])
    (given,) = yaml.safe_load(overlay())["images"]
    assert images == {f"{given['newName']}:{given['newTag']}"}
    assert f"docker push {given['newName']}:{given['newTag']}" in PAGE


def test_the_overlay_changes_the_settings_and_where_the_databases_are(production: Cluster) -> None:
    assert production.file("settings", "settings.yaml") == "version: 1\n"
    services = production.of("Service")
    assert services["postgres"]["spec"]["externalName"] == "pg.example.net"
    assert services["influxdb"]["spec"]["externalName"] == "influx.example.net"


def test_the_overlay_names_who_may_pull_the_image_for_every_pod(production: Cluster) -> None:
    accounts = production.of("ServiceAccount")
    assert set(accounts) == {*OURS, "run"}
    assert all(a["imagePullSecrets"] == [{"name": "registry"}] for a in accounts.values())
    assert "create secret docker-registry registry" in PAGE


def test_the_patch_of_the_page_leaves_the_gateway_out(tmp_path: Path) -> None:
    (patch,) = re.findall(r"^   add the patch `(\{.*\})`\.$", PAGE, re.MULTILINE)
    copytree(DOCKER, tmp_path / "docker")
    (tmp_path / "kustomization.yaml").write_text(f"resources: [docker]\npatches: [{patch}]\n")
    deployments = Cluster(render(tmp_path)).of("Deployment")
    replicas = {name: each["spec"]["replicas"] for name, each in deployments.items()}
    assert replicas == {**dict.fromkeys(OURS, 1), "gateway": 0}


def test_what_prometheus_selects_by_is_on_what_the_operator_reads(tmp_path: Path) -> None:
    copytree(DOCKER, tmp_path / "docker")
    (tmp_path / "monitoring").mkdir()
    text = kustomization("release: NAME")
    (tmp_path / "monitoring" / "kustomization.yaml").write_text(text)
    objects = render(tmp_path / "monitoring")
    assert {each["kind"] for each in objects} == {"ServiceMonitor", "PrometheusRule"}
    assert all(each["metadata"]["labels"]["release"] == "NAME" for each in objects)
    policy = Cluster(render(DOCKER)).of("NetworkPolicy")["to-the-exporter"]
    caller, _doctor = policy["spec"]["ingress"][0]["from"]
    (namespace,) = caller["namespaceSelector"]["matchLabels"].values()
    assert f"called `{namespace}`" in " ".join(PAGE.split())


def test_the_settings_of_a_cluster_load_without_a_spool(tmp_path: Path) -> None:
    assert "`spool: null`" in PAGE
    file = tmp_path / "settings.yaml"
    file.write_text((DOCKER / "settings.yaml").read_text() + "spool: null\n")
    assert load_settings(file).spool is None


def test_no_command_shows_a_password_in_the_list_of_processes() -> None:
    """Only words of the shell itself may have one as an argument."""
    shown = [line for line in PAGE.splitlines() if "$(cat " in line]
    assert len(shown) == 2
    assert all(re.match(r" +(\(umask 077; printf |export )", line) for line in shown)


def test_the_overlay_changes_nothing_else(production: Cluster) -> None:
    plain = Cluster(render(DOCKER))
    changed = {"Deployment", "ConfigMap", "Service", "ServiceAccount"}
    assert [o for o in plain.objects if o["kind"] not in changed] == [
        o for o in production.objects if o["kind"] not in changed
    ]
    assert set(production.of("ConfigMap")) == set(plain.of("ConfigMap"))
    ours = production.of("ConfigMap")["settings"]["metadata"]["namespace"]
    assert ours == "metrics-pipeline"


def test_the_secret_has_what_is_mounted_of_it(tmp_path: Path) -> None:
    make = [DOCKER / "make-secrets", tmp_path / "docker" / "secrets"]
    subprocess.run(make, check=False, capture_output=True)
    for name in ("iot_hub_connection_string", "event_hub_connection_string"):
        (tmp_path / "docker" / "secrets" / name).write_text(f"the {name}")
    command = block_with("create secret generic").partition("\n")[2]
    made = shell(f"{command} --dry-run=client --output yaml", tmp_path, KUBECTL.parent)
    secret = yaml.safe_load(made)
    assert secret["metadata"] == {"name": "metrics-pipeline", "namespace": "metrics-pipeline"}
    data = {name: b64decode(value).decode() for name, value in secret["data"].items()}
    mounted = {name for each in OURS for name in SERVICES[each]["secrets"]}
    assert data == {name: (tmp_path / "docker/secrets" / name).read_text() for name in mounted}


def test_what_the_commands_name_is_there() -> None:
    for path in re.findall(r"(?:--filename|--kustomize) (docker/\S+)`?", PAGE):
        assert (REPOSITORY / path.rstrip("`")).exists(), path
    for name in re.findall(r"deployment[ /]([a-z][a-z-]+) ", PAGE):
        assert name in OURS, name
    commands = re.findall(r"metrics-pipeline ((?:check|telemetry)[^`\n]*)`", PAGE)
    assert len(commands) == 4
    for command in commands:
        build_parser().parse_args(shlex.split(command.replace("NUMBER", "0")))


def point(number: int) -> Point:
    """The number is in the point's value and, as the second it is of, in its time."""
    return Point(
        MEASUREMENT, {"provider": "azure_iot_hub"}, {"device_count": number}, number * 10**9
    )


@contextmanager
def at_work(cycle: Callable[[int], None]) -> Iterator[None]:
    """Cycles 0, 1, … one after the other, for the length of the `with`; some are done before it."""
    enough, stop = threading.Event(), threading.Event()

    def work() -> None:
        for number in count():
            if stop.is_set():
                return
            cycle(number)
            if number == AFTER_CYCLES:
                enough.set()

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            while not (enough.wait(0.1) or working.done()):
                pass
            yield
        finally:
            stop.set()
        working.result()


def newest(operational: OperationalDatabase) -> int:
    """The number in the latest values."""
    with operational.reading() as connection:
        snapshot = snapshots.find(connection, ASSET)
    assert snapshot is not None
    (latest,) = snapshot.points
    assert latest == point(snapshot.revision - 1)
    return snapshot.revision - 1


def publish(operational: OperationalDatabase, number: int) -> None:
    with operational.writing() as connection:
        snapshots.replace(connection, ASSET, (point(number),), now_ns=number)


def test_the_databases_of_a_machine_are_copied_while_they_are_written(tmp_path: Path) -> None:
    state, backup = tmp_path / ".state", tmp_path / "backup"
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    state.mkdir()
    inventory = sa.create_engine(f"sqlite:///{state}/inventory.sqlite")
    upgrade_inventory(inventory)
    inventory.dispose()
    with (
        closing(EmbeddedStore(EmbeddedStoreSettings(path=state / "embedded.sqlite"))) as store,
        closing(open_operational(f"sqlite:///{state}/operational.sqlite")) as operational,
    ):

        def cycle(number: int) -> None:
            store.write([point(number)])
            publish(operational, number)

        with at_work(cycle):
            shell(block_with("there.backup(copy)"), tmp_path, Path("/usr/bin"))
        assert newest(operational) >= AFTER_CYCLES

    assert {file.name for file in backup.iterdir()} == {
        file.name for file in state.iterdir() if file.suffix == ".sqlite"
    }
    for file in backup.iterdir():
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for name in ("embedded", "operational"):  # before the product opens them
        with closing(sqlite3.connect(backup / f"{name}.sqlite")) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    with (
        closing(EmbeddedStore(EmbeddedStoreSettings(path=backup / "embedded.sqlite"))) as store,
        closing(open_operational(f"sqlite:///{backup}/operational.sqlite")) as operational,
    ):
        known, history = newest(operational), store.read(MEASUREMENT, 0, END_NS)
        assert list(history) == [point(number) for number in range(len(history))]
        assert AFTER_CYCLES <= known + 1 <= len(history)  # nothing is known that is not kept
        cycle_on = len(history)
        store.write([point(cycle_on)])
        assert len(store.read(MEASUREMENT, 0, END_NS)) == cycle_on + 1


def open_operational(url: str, password: Path | None = None) -> OperationalDatabase:
    secret = None if password is None else SecretReference(file=password)
    return OperationalDatabase(DatabaseSettings(url=url, password=secret))


def natively(command: str, server: PostgresqlServer) -> str:
    """A command of the page, with the address of a server of ours."""
    command = command.removeprefix("docker compose exec -T postgres ")
    return command.replace("--host pg.example.net", f"--host {LOOPBACK} --port {server.port}")


def as_superuser(server: PostgresqlServer, statements: str) -> None:
    """In the product's database."""
    engine = sa.create_engine(server.url("metrics", server.password))
    with engine.begin() as connection:
        connection.exec_driver_sql(statements)
    engine.dispose()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    """With the role, the database and the tables that the page has one make."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "docker").symlink_to(DOCKER)
    with running_postgresql() as server:
        role = natively(block_with("CREATE ROLE metrics LOGIN"), server)
        twice = f"{PASSWORD}\n" * 2
        shell(role, folder, server.binaries, typed=twice, PGPASSWORD=server.password)
        tables = natively(block_with("inventory.sql"), server)
        shell(tables, folder, server.binaries, PGPASSWORD=PASSWORD)
        (folder / "monitor_password").write_text(PASSWORD)
        # As in PostgreSQL 14, where the schema is nobody's but the superuser's.
        schema = "ALTER SCHEMA public OWNER TO postgres; GRANT ALL ON SCHEMA public TO PUBLIC"
        as_superuser(server, schema)
        monitor = natively(block_with("monitor.sql"), server)
        monitor = monitor.replace("docker/secrets/postgres_monitor_password", "monitor_password")
        shell(monitor, folder, server.binaries, PGPASSWORD=server.password)
        yield server


def test_the_role_that_the_page_makes_has_no_rights_and_owns_its_tables(
    server: PostgresqlServer,
) -> None:
    engine = sa.create_engine(f"postgresql://metrics:{PASSWORD}@{LOOPBACK}:{server.port}/metrics")
    with engine.connect() as connection:
        role = sa.text(
            "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles"
            " WHERE rolname = 'metrics'"
        )
        assert connection.execute(role).scalar_one() is False
        tables = sa.text(
            "SELECT tablename, tableowner FROM pg_tables"
            " WHERE tablename IN ('concentrators', 'devices')"
        )
        assert sorted(connection.execute(tables).tuples()) == [
            ("concentrators", "metrics"),
            ("devices", "metrics"),
        ]
    upgrade_inventory(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE later (id INTEGER); DROP TABLE later")
    engine.dispose()


def test_the_role_that_watches_sees_statistics_and_may_write_nothing(
    server: PostgresqlServer, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    monitor = DatabaseSettings(
        url=f"postgresql://metrics_monitor@{LOOPBACK}:{server.port}/metrics",
        password=SecretReference(file=tmp_path / "password"),
    )
    assert find_excess(monitor) == ""
    engine = open_engine(monitor)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on"
        seen = "SELECT pg_has_role('pg_monitor', 'MEMBER')"
        assert connection.exec_driver_sql(seen).scalar_one() is True
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            connection.exec_driver_sql("SELECT * FROM devices")
    engine.dispose()


@pytest.mark.parametrize("where", ["docker compose exec -T postgres ", "PGPASSFILE=pgpass "])
def test_postgresql_is_dumped_while_it_is_written_and_restored(
    server: PostgresqlServer, tmp_path: Path, where: str
) -> None:
    password = tmp_path / "docker" / "secrets" / "postgres_password"
    password.parent.mkdir(parents=True)
    password.write_text(PASSWORD)
    lines = [line.strip() for line in PAGE.splitlines()]
    (dump,) = (line for line in lines if line.startswith(f"{where}pg_dump "))
    (restore,) = (line for line in lines if line.startswith(f"{where}pg_restore "))
    (pgpass,) = (line for line in lines if line.endswith("> pgpass)"))
    inside = {"PGHOST": LOOPBACK, "PGPORT": str(server.port), "PGPASSWORD": PASSWORD}
    variables = inside if where.startswith("docker") else {}

    def type_in(command: str) -> None:
        shell(natively(command, server), tmp_path, server.binaries, **variables)

    type_in(pgpass)
    assert (tmp_path / "pgpass").stat().st_mode & 0o077 == 0
    url = f"postgresql://metrics@{LOOPBACK}:{server.port}/metrics"
    empty = ("DROP DATABASE metrics WITH (FORCE)", "CREATE DATABASE metrics OWNER metrics")
    server.execute(*empty)
    with closing(open_operational(url, password)) as working:
        with at_work(lambda number: publish(working, number)):
            type_in(dump)
        last = newest(working)
    server.execute(*empty)
    for _ in range(2):  # over what is there, too
        type_in(restore)
    with closing(open_operational(url, password)) as restored:
        known = newest(restored)
        assert AFTER_CYCLES <= known + 1 <= last + 1
        publish(restored, known + 1)
        assert newest(restored) == known + 1
