"""What is said of the machine, of who else gets in, and of what should answer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from metrics_pipeline.core.findings import Finding, Severity, span_in_words
from metrics_pipeline.doctor import servers
from metrics_pipeline.doctor.exposure import examine_exposure
from metrics_pipeline.doctor.machine import Room, examine_disks, where_daemons_are
from metrics_pipeline.doctor.servers import EXPORTER, GATEWAY, examine_servers
from metrics_pipeline.orchestration.code_server import examine_code_servers
from metrics_pipeline.settings import Settings
from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, NoAnswer, Request
from metrics_pipeline.stack.ports import find_free_port, is_listening
from metrics_pipeline_tests.doctor.findings import of, the_bad_one, the_wrong_one
from metrics_pipeline_tests.not_root import not_root
from metrics_pipeline_tests.proxies import name_proxy
from metrics_pipeline_tests.servers import running
from metrics_pipeline_tests.storage.influx_stub import TOKEN, InfluxStub

HOUR = 3600.0
NOWHERE = "http://127.0.0.1:9"
EVERYTHING = Room(2**63, 2.0)
NOTHING = Room(0, 0.0)


def settings_of(**sections: Any) -> Settings:
    return Settings.model_validate({"version": 1, "sources": {}, **sections})


# --- disks ----------------------------------------------------------------------------------------


def test_a_disk_is_judged_once_whatever_is_on_it_and_whether_it_is_there(tmp_path: Path) -> None:
    folders = [tmp_path, tmp_path / "made" / "later", tmp_path / "spool"]
    [found] = examine_disks(folders, NOTHING, NOTHING)
    assert found.severity is Severity.OK
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("hardly", "severity"), [(NOTHING, Severity.WARNING), (EVERYTHING, Severity.WRONG)]
)
def test_a_disk_with_less_room_than_is_needed_is_told(
    tmp_path: Path, hardly: Room, severity: Severity
) -> None:
    found = the_bad_one(examine_disks([tmp_path], EVERYTHING, hardly))
    assert found.severity is severity
    assert "MB are free" in found.found


def test_a_share_that_is_small_of_a_disk_that_is_large_is_enough(tmp_path: Path) -> None:
    [found] = examine_disks([tmp_path], Room(1, 2.0), Room(1, 2.0))
    assert found.severity is Severity.OK


def test_a_folder_that_this_user_may_not_look_into_is_on_the_disk_of_the_one_above(
    folder_for_all: Path,
) -> None:
    folder_for_all.chmod(0o000)
    with not_root():
        [found] = examine_disks([folder_for_all / "spool"])
    assert found.looked_at == str(folder_for_all)


# --- daemons of other folders ---------------------------------------------------------------------


SLEEPING = "import sys; sys.stdin.read()"


@contextmanager
def process_called(*words: str, home: Path) -> Iterator[int]:
    """A process of this user with these words in its command line, and this DAGSTER_HOME."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPING, *words],
        env={**os.environ, "DAGSTER_HOME": str(home)},
        stdin=subprocess.PIPE,
    )
    with process:
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


def test_a_daemon_of_another_folder_is_named_and_nothing_else(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    with (
        process_called("metrics_pipeline", "daemon", home=other) as daemon,
        process_called("metrics_pipeline", "daemon", home=ours) as own,
        process_called("dagster", "api", "grpc", home=other) as server,
    ):
        said = where_daemons_are(ours)
    assert f"process {daemon} with DAGSTER_HOME={other}" in said
    assert f"process {own} " not in said
    assert f"process {server} " not in said


# --- who else gets in -----------------------------------------------------------------------------


@pytest.fixture
def secret(folder_for_all: Path) -> Path:
    """In a folder that everybody may enter."""
    file = folder_for_all / "secret"
    file.write_text("hunter2")
    file.chmod(0o640)
    return file


def tokens(secret: Path) -> dict[str, Any]:
    return {"fleet": {"token": {"file": str(secret)}}}


def secret_files(settings: Settings, **environment: str) -> list[Finding]:
    return of(examine_exposure(settings, environment), "secret files")


def test_a_file_with_a_secret_that_everybody_may_read_is_wrong(secret: Path) -> None:
    settings = settings_of(gateway={"tokens": tokens(secret)})
    assert [each.severity for each in secret_files(settings)] == [Severity.OK]
    secret.chmod(0o644)
    found = the_bad_one(secret_files(settings))
    assert found.looked_at == f"gateway.tokens.fleet.token: {secret}"
    assert found.fix == f"chmod o-rwx {secret}"


def test_a_file_below_a_folder_that_keeps_others_out_may_be_readable(secret: Path) -> None:
    settings = settings_of(gateway={"tokens": tokens(secret)})
    secret.chmod(0o666)
    secret.parent.chmod(0o754)
    assert [each.severity for each in secret_files(settings)] == [Severity.OK]


def test_a_secret_that_is_mounted_read_only_for_the_one_user_of_a_container_may_be_readable(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(gateway={"tokens": tokens(secret)})
    secret.chmod(0o444)
    here = secret.stat().st_uid
    for flags, user, expected in (
        (os.ST_RDONLY, here + 1, Severity.OK),
        (os.ST_RDONLY, here, Severity.WRONG),
        (0, here + 1, Severity.WRONG),
    ):
        monkeypatch.setattr(os, "statvfs", lambda _, flags=flags: SimpleNamespace(f_flag=flags))
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert [each.severity for each in secret_files(settings)] == [expected]


def test_a_key_that_everybody_may_change_is_wrong(secret: Path) -> None:
    key = {"user": "metrics", "key_file": str(secret)}
    settings = settings_of(polling={"ssh": {"credentials": {"core": key}}})
    secret.chmod(0o602)
    found = the_bad_one(secret_files(settings))
    assert found.looked_at == f"polling.ssh.credentials.core.key_file: {secret}"
    assert "may change it" in found.found


def test_the_file_with_the_url_of_dagsters_postgresql_is_one_of_them(secret: Path) -> None:
    secret.chmod(0o604)
    found = the_bad_one(secret_files(settings_of(), DAGSTER_POSTGRES_URL_FILE=str(secret)))
    assert "DAGSTER_POSTGRES_URL_FILE" in found.looked_at


def test_secret_files_that_are_not_there_are_told_at_once(tmp_path: Path) -> None:
    missing = {
        name: {"token": {"file": str(tmp_path / name)}} for name in ("a", "b", "c", "d", "e")
    }
    found = the_bad_one(secret_files(settings_of(gateway={"tokens": missing})))
    assert found.found.startswith("5 cannot be read: ")
    assert found.found.endswith("; and 2 more")


def test_a_server_of_postgresql_that_proves_nothing_is_a_warning_and_told_by_its_key() -> None:
    far = "postgresql://me@db.example.net/metrics"
    settings = settings_of(
        operational_database={"url": far},
        sources={"inventory": {"database": {"url": f"{far}?sslmode=verify-full"}}},
        sql={"databases": {"shop": {"url": f"{far}?sslmode=require"}}},
    )
    url = {"DAGSTER_POSTGRES_URL": far}
    found = the_bad_one(examine_exposure(settings, url))
    assert found.looked_at == (
        "sql.databases.shop (sslmode=require), operational_database (sslmode=prefer), "
        "Dagster's (sslmode=prefer)"
    )
    assert found.severity is Severity.WARNING
    assert "sslmode=verify-full" in found.fix
    verified = {**url, "PGSSLMODE": "verify-full"}
    assert "sql.databases.shop" in the_bad_one(examine_exposure(settings, verified)).looked_at
    assert "Dagster's" not in the_bad_one(examine_exposure(settings, verified)).looked_at


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@127.0.0.1/metrics",
        "postgresql://me@[::1]:5433/metrics",
        "postgresql://me@localhost/metrics",
        "postgresql:///metrics",
        "postgresql:///metrics?host=/run/postgresql",
        "postgresql://me@db.example.net/metrics?hostaddr=127.0.0.1",
        "sqlite:///metrics.sqlite",
    ],
)
def test_a_database_on_this_machine_needs_no_certificate(url: str) -> None:
    settings = settings_of(operational_database={"url": url})
    assert of(examine_exposure(settings, {}), "TLS to PostgreSQL") == []


@pytest.mark.parametrize(
    ("url", "has_token", "is_told"),
    [
        ("http://influx.example.net:8086", True, True),
        ("http://influx.example.net:8086", False, False),
        ("https://influx.example.net:8086", True, False),
        ("http://127.0.0.1:8086", True, False),
        ("http://[::1]:8086", True, False),
        ("http://localhost:8086", True, False),
    ],
)
def test_a_token_that_goes_to_influxdb_in_the_clear_is_a_warning(
    url: str, has_token: bool, is_told: bool
) -> None:
    token = {"token": {"env": "INFLUXDB_TOKEN"}} if has_token else {}
    settings = settings_of(store={"kind": "influxdb", "api": "v3", "url": url, **token})
    found = of(examine_exposure(settings, {}), "TLS to InfluxDB")
    assert [(each.severity, each.looked_at) for each in found] == [
        (Severity.WARNING, url)
    ] * is_told


def test_of_several_servers_one_that_is_elsewhere_is_enough() -> None:
    url = {"DAGSTER_POSTGRES_URL": "postgresql://me@/metrics?host=127.0.0.1&host=db.example.net"}
    assert "Dagster's" in the_bad_one(examine_exposure(settings_of(), url)).looked_at


def test_listening_beyond_loopback_without_tls_and_password_is_told(secret: Path) -> None:
    open_to_all = {"host": "0.0.0.0"}
    settings = settings_of(exporter=open_to_all, gateway={**open_to_all, "tokens": tokens(secret)})
    findings = examine_exposure(settings, {})
    bad = {each.name: each.found for each in findings if each.is_bad}
    assert bad == {
        "exporter's address": "other machines reach it, without TLS and a password or token",
        "gateway's address": "other machines reach 0.0.0.0, and whoever is on the way would read "
        "the passwords or tokens that they show",
    }
    tls = {"certificate_file": str(secret), "key_file": str(secret)}
    login = {"username": "prometheus", "password": {"file": str(secret)}}
    token = {"file": str(secret)}
    for exporter, cover in (
        ({"tls": tls, "basic_auth": login}, {"tls": tls}),
        ({"tls": tls, "bearer_token": token}, {"tls_terminated_in_front": True}),
    ):
        closed = settings_of(
            exporter={**open_to_all, **exporter},
            gateway={**open_to_all, **cover, "tokens": tokens(secret)},
        )
        assert not any(each.is_bad for each in examine_exposure(closed, {}))


# --- exporter, gateway, InfluxDB's clock ----------------------------------------------------------


class Page(LoopbackServer):
    """Answers everything with `status`."""

    status = HTTPStatus.OK

    def respond(self, request: Request) -> Answer:
        return Answer(self.status, b"operational database: away\n")

    @property
    def url(self) -> str:
        return f"http://{self.host}"


def with_gateway(secret: Path) -> Settings:
    return settings_of(gateway={"tokens": tokens(secret)})


def test_exporter_and_gateway_that_answer_are_well(secret: Path) -> None:
    with Page() as page:
        findings = list(examine_servers(with_gateway(secret), page.url, page.url))
    assert {each.name: each.severity for each in findings} == {
        EXPORTER: Severity.OK,
        GATEWAY: Severity.OK,
    }


def test_exporter_and_gateway_that_do_not_answer_are_wrong(secret: Path) -> None:
    findings = list(examine_servers(with_gateway(secret), NOWHERE, NOWHERE))
    for name in (EXPORTER, GATEWAY):
        assert "Connection refused" in the_wrong_one(findings, name).found


def test_an_exporter_that_cannot_read_is_a_warning_in_its_words() -> None:
    with Page() as page:
        page.status = HTTPStatus.SERVICE_UNAVAILABLE
        found = the_bad_one(examine_servers(settings_of(), page.url))
    assert found.found == "/readyz answers 503: operational database: away"


def test_an_exporter_that_hangs_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "TIMEOUT_SECONDS", 0.2)
    with Page() as page:
        page.faults.append(NoAnswer())
        assert the_bad_one(examine_servers(settings_of(), page.url)).name == EXPORTER


def test_an_exporter_on_any_free_port_cannot_be_looked_at() -> None:
    [found] = examine_servers(settings_of(exporter={"port": 0}))
    assert found.severity is Severity.UNKNOWN
    assert "--exporter-url" in found.found


def test_a_clock_that_is_apart_from_influxdbs_is_told(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with Page() as page, InfluxStub() as stub:
        store = {"kind": "influxdb", "url": stub.url, "api": "v3"}
        settings = settings_of(store={**store, "token": {"file": str(tmp_path / "token")}})
        assert not any(each.is_bad for each in examine_servers(settings, page.url))
        ahead = examine_servers(settings, page.url, None, lambda: time.time() + HOUR)
        found = the_wrong_one(ahead, "clock")
    assert "s behind this machine's" in found.found


def test_a_store_that_does_not_answer_has_no_clock() -> None:
    with Page() as page:
        store = {"kind": "influxdb", "url": NOWHERE, "api": "v3"}
        findings = list(examine_servers(settings_of(store=store), page.url))
    assert of(findings, "clock") == []


def test_authorities_of_the_store_that_cannot_be_read_end_no_doctor(tmp_path: Path) -> None:
    with Page() as page:
        url, missing = "https://127.0.0.1:9", str(tmp_path / "ca.pem")
        store = {"kind": "influxdb", "url": url, "api": "v3", "ca_file": missing}
        findings = list(examine_servers(settings_of(store=store), page.url))
    assert [each.name for each in findings] == [EXPORTER]


def test_no_proxy_of_the_environment_stands_in_for_what_is_on_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Page() as page:
        name_proxy(monkeypatch, page.url)
        assert "Connection refused" in the_bad_one(examine_servers(settings_of(), NOWHERE)).found


def test_a_url_that_is_none_is_told() -> None:
    found = the_bad_one(examine_servers(settings_of(), "http://[::1"))
    assert found.name == EXPORTER


# --- code server ----------------------------------------------------------------------------------


def workspace(folder: Path, port: int) -> Path:
    file = folder / "workspace.yaml"
    server = {"host": "127.0.0.1", "port": port, "location_name": "metrics_pipeline"}
    file.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return file


@contextmanager
def code_server(folder: Path, code: str) -> Iterator[Path]:
    """Dagster's own, over a module with this code; its workspace file."""
    (folder / "loaded.py").write_text(code)
    port = find_free_port()
    address = ["--host", "127.0.0.1", "--port", str(port), "--lazy-load-user-code"]
    command = [sys.executable, "-m", "dagster", "api", "grpc", *address]
    named = ["--python-file", str(folder / "loaded.py")]
    with running([*command, *named], lambda: is_listening(port)):
        yield workspace(folder, port)


def test_a_code_server_that_could_not_load_its_definitions_is_wrong(tmp_path: Path) -> None:
    with code_server(tmp_path, "raise RuntimeError('the settings are wrong')\n") as file:
        found = the_bad_one(examine_code_servers(file))
    assert "could not load its definitions" in found.found
    assert "the settings are wrong" in found.found


def test_a_code_server_that_is_away_is_wrong(tmp_path: Path) -> None:
    found = the_bad_one(examine_code_servers(workspace(tmp_path, find_free_port())))
    assert found.found == "no answer (UNAVAILABLE)"


@pytest.mark.parametrize("content", [None, "load_from: [{python_module: {module_name: m}}]", "[]"])
def test_a_workspace_without_a_server_is_told(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "workspace.yaml"
    if content is not None:
        file.write_text(content)
    [found] = examine_code_servers(file)
    assert found.severity is Severity.UNKNOWN


def test_a_workspace_that_is_no_yaml_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "workspace.yaml"
    file.write_text("load_from: [")
    assert the_bad_one(examine_code_servers(file)).severity is Severity.WRONG


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(95, "95 s"), (120, "2 min"), (5400, "90 min"), (9000, "2.5 h"), (400_000, "4.6 days")],
)
def test_spans_are_in_the_largest_unit_that_they_are_two_of(seconds: float, words: str) -> None:
    assert span_in_words(seconds) == words
