"""docker/compose.yaml and what it mounts: valid, hardened, and without a secret."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
import yaml

from metrics_pipeline import __version__
from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.http_server import find_clear_text
from metrics_pipeline.access.inventory_schema import upgrade_inventory
from metrics_pipeline.access.inventory_tables import CONCENTRATORS, DEVICES
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.catalog import CATALOG, CONCENTRATOR_COUNT
from metrics_pipeline.core.findings import Severity
from metrics_pipeline.doctor.exposure import examine_exposure
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.sources.inventory import Inventory, InventorySettings
from metrics_pipeline.storage.influx import InfluxStoreSettings
from metrics_pipeline.telemetry_connections import open_telemetry
from metrics_pipeline_tests.docker import native
from metrics_pipeline_tests.docker.container_files import (
    COMPOSE,
    DOCKER,
    OURS,
    REPOSITORY,
    SERVICES,
    bind_mounts,
    image_environment,
    named_volumes,
)
from metrics_pipeline_tests.doctor.findings import of
from metrics_pipeline_tests.postgresql import PostgresqlDatabase, running_postgresql
from metrics_pipeline_tests.servers import require

SCHEMA = json.loads(Path(__file__).with_name("compose_spec.schema.json").read_text())
SECRETS = "/run/secrets/"
OF_THE_OPERATOR = ("iot_hub_connection_string", "event_hub_connection_string")
EVENT_HUB = "Endpoint=sb://h.x/;SharedAccessKeyName=n;SharedAccessKey=k;EntityPath=uplinks"

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


def make_secrets(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [DOCKER / "make-secrets", folder]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def words_of(node: Any) -> set[str]:
    """All strings in a piece of YAML, keys included."""
    if isinstance(node, Mapping):
        return {word for key, value in node.items() for word in words_of(key) | words_of(value)}
    if isinstance(node, list):
        return {word for item in node for word in words_of(item)}
    return {str(node)}


def test_it_follows_the_compose_specification() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    problems = jsonschema.Draft7Validator(SCHEMA).iter_errors(COMPOSE)
    assert [(list(p.absolute_path), p.message) for p in problems] == []


def test_the_schema_refuses_a_key_that_does_not_exist() -> None:
    broken = {"services": {"exporter": {**SERVICES["exporter"], "helthcheck": {}}}}
    with pytest.raises(jsonschema.ValidationError, match="helthcheck"):
        jsonschema.Draft7Validator(SCHEMA).validate(broken)


@each_service
def test_a_service_restarts_and_is_hardened(service: Mapping[str, Any]) -> None:
    uid = service["user"].split(":")[0]
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert uid.isdecimal()
    assert int(uid) > 0
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(service)


@each_service
def test_a_service_is_bounded(service: Mapping[str, Any]) -> None:
    assert service["mem_limit"]
    assert service["pids_limit"] > 0
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}


@each_service
def test_a_service_says_whether_it_is_well(service: Mapping[str, Any]) -> None:
    check = service["healthcheck"]
    assert check["test"][0] == "CMD"  # without a shell, which an image may not have
    assert {"interval", "timeout", "retries", "start_period", "start_interval"} < set(check)


@each_service
def test_a_service_waits_for_what_it_needs_to_be_well(service: Mapping[str, Any]) -> None:
    for target, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[target]


@each_service
def test_ports_are_published_on_loopback_only(service: Mapping[str, Any]) -> None:
    assert [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")] == []


@each_service
def test_an_image_is_pinned(service: Mapping[str, Any]) -> None:
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", service["image"])


@each_service
def test_what_a_service_uses_is_declared(service: Mapping[str, Any]) -> None:
    assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert set(named_volumes(service).values()) <= set(COMPOSE["volumes"])
    assert [path for path in bind_mounts(service).values() if not path.exists()] == []


@each_service
def test_a_service_has_exactly_the_secrets_its_environment_names_or_its_settings_read(
    service: Mapping[str, Any],
) -> None:
    """Of ours only the code server reads sources; it and the gateway write into the stores."""
    named = {w.removeprefix(SECRETS) for w in words_of(service) if w.startswith(SECRETS)}
    given = set(service.get("secrets", ()))
    if service is SERVICES["code-server"]:
        settings = words_of(yaml.safe_load((DOCKER / "settings.yaml").read_text()))
        named |= {w.removeprefix(SECRETS) for w in settings if w.startswith(SECRETS)}
    if service is SERVICES["exporter"]:
        named.add("postgres_password")
    if service is SERVICES["postgres"]:
        named |= {"postgres_password", "postgres_monitor_password"}  # role.sql, monitor.sql
    if service is SERVICES["gateway"]:
        named |= {"postgres_password", "influxdb_token", "robot_token"}
    assert given == named


def test_nothing_is_declared_that_nobody_uses() -> None:
    services = SERVICES.values()
    assert set(COMPOSE["secrets"]) == {
        s for service in services for s in service.get("secrets", ())
    }
    assert set(COMPOSE["networks"]) == {n for service in services for n in service["networks"]}
    assert set(COMPOSE["volumes"]) == {
        name for service in services for name in named_volumes(service).values()
    }


def test_no_two_services_publish_the_same_port() -> None:
    ports = [port.split(":")[1] for s in SERVICES.values() for port in s.get("ports", ())]
    assert len(set(ports)) == len(ports)


def test_databases_and_the_code_server_are_not_published() -> None:
    published = {name for name, service in SERVICES.items() if "ports" in service}
    assert published == {"webserver", "exporter", "gateway", "prometheus", "grafana"}
    assert COMPOSE["networks"]["databases"] == {"internal": True}
    for name in ("postgres", "influxdb"):
        assert SERVICES[name]["networks"] == ["databases"]


def test_the_image_carries_the_version_of_the_package() -> None:
    assert {SERVICES[name]["image"] for name in OURS} == {f"metrics-pipeline:{__version__}"}
    assert {SERVICES[name]["user"] for name in OURS} == {"10001:10001"}


def test_what_runs_print_is_where_the_webserver_looks() -> None:
    storage = image_environment()["DAGSTER_HOME"] + "/storage"
    for name in ("code-server", "webserver"):
        assert named_volumes(SERVICES[name])[storage] == "compute_logs"


def test_the_exporter_looks_at_the_spool_that_runs_and_samples_fill() -> None:
    directory = image_environment()["METRICS_PIPELINE_STATE_DIR"] + "/spool"
    for name in ("code-server", "exporter"):
        assert named_volumes(SERVICES[name])[directory].partition(":")[0] == "spool"
    assert directory in (DOCKER / "Dockerfile").read_text()


def test_the_store_makes_every_bucket_of_the_catalogue() -> None:
    environment = SERVICES["influxdb"]["environment"]
    (script,) = (each for each in SERVICES["influxdb"]["volumes"] if "initdb.d" in each)
    file = script.partition(":")[0]
    made = re.findall(r"bucket create --name (\w+)", (DOCKER / file).read_text())
    buckets = {measurement.database for measurement in CATALOG.measurements.values()}
    assert buckets == {environment["DOCKER_INFLUXDB_INIT_BUCKET"], *made}


def test_settings_load_and_read_their_secrets_from_the_files_that_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_secrets(tmp_path / "secrets")
    (tmp_path / "secrets" / "iot_hub_connection_string").write_text("HostName=h;SharedAccessKey=k")
    (tmp_path / "secrets" / "event_hub_connection_string").write_text(EVENT_HUB)
    file = tmp_path / "settings.yaml"
    text = (DOCKER / "settings.yaml").read_text()
    file.write_text(text.replace(SECRETS, f"{tmp_path}/secrets/"))
    monkeypatch.delenv("INFLUXDB_URL", raising=False)

    settings = load_settings(file)

    assert isinstance(settings.store, InfluxStoreSettings)
    assert settings.store.org == SERVICES["influxdb"]["environment"]["DOCKER_INFLUXDB_INIT_ORG"]
    password = settings.operational_database.password
    assert password is not None
    assert len(password.read()) == 64
    url = (tmp_path / "secrets" / "dagster_postgres_url").read_text()
    parsed = sa.make_url(url)
    assert parsed.password == password.read()
    assert url.replace(f":{parsed.password}", "") == settings.operational_database.url
    assert settings.gateway is not None
    for server in (settings.exporter, settings.gateway):
        assert find_clear_text("it", server) is None
    with open_telemetry(settings, "test") as opened:
        assert opened.stream.name == "event hub h.x/uplinks, consumer group metrics"


def test_make_secrets_makes_each_secret_but_those_only_the_operator_has(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    done = make_secrets(folder)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert done.returncode == 1
    assert all(f"missing {folder}/{name}" in done.stderr for name in OF_THE_OPERATOR)
    workers = yaml.safe_load((DOCKER / "workers.yaml").read_text())
    assert {*made, *OF_THE_OPERATOR} == {*COMPOSE["secrets"], *workers["secrets"]}
    assert len(set(made.values())) == len(made)
    assert all(
        len(value) >= 64 and value not in done.stdout + done.stderr for value in made.values()
    )


def test_make_secrets_keeps_what_is_there_and_opens_it_to_the_containers(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    own = {name: f"the key of {name}" for name in OF_THE_OPERATOR}
    for name, key in own.items():
        (tmp_path / name).write_text(key)
        (tmp_path / name).chmod(0o600)
    done = make_secrets(tmp_path)
    assert done.returncode == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        **before,
        **own,
    }
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o444}


def test_the_doctor_has_nothing_against_the_secrets_that_are_made(folder_for_all: Path) -> None:
    folder = folder_for_all / "secrets"
    make_secrets(folder)
    for name in OF_THE_OPERATOR:
        (folder / name).write_text(EVENT_HUB)
    make_secrets(folder)
    file = folder_for_all / "settings.yaml"
    file.write_text((DOCKER / "settings.yaml").read_text().replace(SECRETS, f"{folder}/"))
    named = {"DAGSTER_POSTGRES_URL_FILE": f"{folder}/dagster_postgres_url"}
    found = of(examine_exposure(load_settings(file), named), "secret files")
    assert [each.severity for each in found] == [Severity.OK]


def test_the_doctor_finds_the_workspace_in_the_code_servers_container() -> None:
    mounts = bind_mounts(SERVICES["code-server"])
    assert mounts[f"{image_environment()['DAGSTER_HOME']}/workspace.yaml"].name == "workspace.yaml"


def test_make_secrets_refuses_a_password_that_would_break_the_url(tmp_path: Path) -> None:
    (tmp_path / "postgres_password").write_text("p@ss/word")
    done = make_secrets(tmp_path)
    assert done.returncode == 1
    assert "part of a URL" in done.stderr
    assert "p@ss" not in done.stdout + done.stderr
    assert not (tmp_path / "dagster_postgres_url").exists()


@pytest.mark.parametrize("new", ["another-password", "suffix"])
def test_make_secrets_says_that_the_url_has_an_old_password(tmp_path: Path, new: str) -> None:
    for name in OF_THE_OPERATOR:
        (tmp_path / name).write_text(f"the key of {name}")
    assert make_secrets(tmp_path).returncode == 0
    password, url = tmp_path / "postgres_password", tmp_path / "dagster_postgres_url"
    replaced = password.read_text()[8:] if new == "suffix" else new
    password.chmod(0o600)
    password.write_text(replaced)
    before = url.read_text()

    done = make_secrets(tmp_path)

    assert done.returncode == 1
    assert f"{url} has another password than {password}" in done.stderr
    assert replaced not in done.stdout + done.stderr
    assert url.read_text() == before
    url.unlink()
    assert make_secrets(tmp_path).returncode == 0
    assert f":{replaced}@" in url.read_text()


def test_make_secrets_takes_a_url_with_another_host_and_tls(tmp_path: Path) -> None:
    for name in OF_THE_OPERATOR:
        (tmp_path / name).write_text(f"the key of {name}")
    (tmp_path / "postgres_password").write_text("p4ss")
    url = "postgresql://metrics:p4ss@pg.example.net:5432/metrics?sslmode=verify-full"
    (tmp_path / "dagster_postgres_url").write_text(url)
    assert make_secrets(tmp_path).returncode == 0
    assert (tmp_path / "dagster_postgres_url").read_text() == url


def test_git_ignores_the_secrets() -> None:
    assert "/docker/secrets/" in (REPOSITORY / ".gitignore").read_text().splitlines()
    assert COMPOSE["secrets"] == {
        name: {"file": f"./secrets/{name}"} for name in COMPOSE["secrets"]
    }


def test_no_password_stands_in_an_environment() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|URL|KEY|SECRET", name):
                assert value.startswith(SECRETS)


def test_no_file_holds_a_url_with_a_password() -> None:
    files = [path for path in DOCKER.rglob("*") if path.is_file() and path.parent.name != "secrets"]
    for path in files:
        for line in path.read_text().splitlines():
            assert not re.search(r"://\w+:(?!\$password@)[^@\s/]+@", line), (path, line)


def test_the_inventory_is_the_table_its_source_counts(
    postgresql: PostgresqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(postgresql.url)
    with engine.begin() as connection:
        connection.exec_driver_sql((DOCKER / "postgres" / "inventory.sql").read_text())
        row = {"id": "a", "name": "Roof", "eui": "00800000A0001234"}
        connection.execute(CONCENTRATORS.insert().values(row))
    engine.dispose()
    monkeypatch.setenv("INVENTORY_PASSWORD", postgresql.password)
    database = DatabaseSettings(
        url=postgresql.plain_url, password=SecretReference(env="INVENTORY_PASSWORD")
    )
    inventory = Inventory(InventorySettings(database=database))
    reading = inventory.read([CONCENTRATOR_COUNT], time_ns=1)
    inventory.close()
    assert [dict(point.fields) for point in reading.points] == [{CONCENTRATOR_COUNT.field: 1}]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, sa.Engine]]:
    """A server as it is after its first start; an engine for each of its roles."""
    known = dict.fromkeys(OF_THE_OPERATOR, "not a connection string")
    secrets = native.make_secrets(tmp_path_factory.mktemp("roles") / "secrets", **known)
    with running_postgresql() as server, ExitStack() as stack:
        native.prepare_postgresql(server, secrets)
        urls = {role: native.url_of(server, secrets, role) for role in native.PASSWORDS}
        engines = {role: sa.create_engine(url) for role, url in urls.items()}
        for engine in engines.values():
            stack.callback(engine.dispose)
        yield engines


def test_the_products_role_owns_its_database_and_is_no_superuser(
    prepared: Mapping[str, sa.Engine],
) -> None:
    with prepared["metrics"].begin() as connection:
        role = sa.text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert connection.execute(role).scalar_one() is False
        connection.execute(CONCENTRATORS.insert().values(id="b", name="Door", eui="0" * 16))
    upgrade_inventory(prepared["metrics"])


@pytest.mark.parametrize(
    "forbidden",
    [
        "SELECT * FROM devices",
        "INSERT INTO concentrators VALUES ('x', 'x', 'x')",
        "CREATE TABLE mine (id INTEGER)",
        "CREATE SCHEMA mine",
        "CREATE TEMP TABLE mine (id INTEGER)",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'mine')",
        "DROP TABLE devices",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ],
)
def test_the_role_that_watches_the_database_reads_no_table_and_makes_nothing_if_it_tries(
    prepared: Mapping[str, sa.Engine], forbidden: str
) -> None:
    with prepared["metrics_monitor"].connect() as connection:
        default = connection.exec_driver_sql("SHOW transaction_read_only").scalar_one()
        assert default == "on"
        connection.rollback()
        connection.exec_driver_sql("SET TRANSACTION READ WRITE")
        with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"):
            connection.exec_driver_sql(forbidden)


@pytest.mark.parametrize("table", [CONCENTRATORS, DEVICES], ids=lambda table: table.name)
def test_the_tables_of_the_inventory_are_those_of_the_product(
    postgresql: PostgresqlDatabase, table: sa.Table
) -> None:
    engine = sa.create_engine(postgresql.url)
    with engine.begin() as connection:
        connection.exec_driver_sql((DOCKER / "postgres" / "inventory.sql").read_text())
    before = sa.inspect(engine).get_columns(table.name)
    upgrade_inventory(engine)
    columns = {c["name"]: c for c in sa.inspect(engine).get_columns(table.name)}
    dialect = engine.dialect
    engine.dispose()
    assert [c["name"] for c in before] == list(columns)
    for column in table.columns:
        made = columns.pop(column.name)
        assert made["type"].compile(dialect) == column.type.compile(dialect)
        assert made["nullable"] is column.nullable
    assert columns == {}


def test_promtool_accepts_the_configuration_of_prometheus() -> None:
    command = [require("promtool"), "check", "config", str(DOCKER / "prometheus.yml")]
    checked = subprocess.run(
        command, check=False, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_alertmanager_in_the_comment_is_a_configuration_of_prometheus(tmp_path: Path) -> None:
    text = (DOCKER / "prometheus.yml").read_text()
    assert "alerting" not in yaml.safe_load(text)
    with_it = tmp_path / "prometheus.yml"
    with_it.write_text(re.sub(r"^# (alerting:| +\S)", r"\1", text, flags=re.MULTILINE))
    command = [require("promtool"), "check", "config", "--syntax-only", str(with_it)]
    checked = subprocess.run(command, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (manager,) = yaml.safe_load(with_it.read_text())["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["alertmanager:9093"]}]


def test_prometheus_scrapes_the_exporter_where_it_listens() -> None:
    prometheus = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    exporter = yaml.safe_load((DOCKER / "settings.yaml").read_text())["exporter"]
    targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"exporter:{exporter['port']}"]
    assert SERVICES["exporter"]["ports"] == [f"127.0.0.1:{exporter['port']}:{exporter['port']}"]
    assert set(SERVICES["exporter"]["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_grafana_asks_the_prometheus_that_is_there() -> None:
    folder = bind_mounts(SERVICES["grafana"])["/etc/grafana/provisioning/datasources"]
    (datasource,) = yaml.safe_load((folder / "prometheus.yaml").read_text())["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
    assert datasource["access"] == "proxy"
