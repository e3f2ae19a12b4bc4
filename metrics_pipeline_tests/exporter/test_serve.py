"""The exporter's process: how it starts, what it says, how it ends."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE, default_settings_file
from metrics_pipeline.cli import main
from metrics_pipeline.exporter.serve import build_refresher, build_status_page
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline_tests.exporter.exporter_process import (
    ExporterProcess,
    fresh_exporter_process,
    store_counts,
    write_settings,
)
from metrics_pipeline_tests.servers import STOP_SECONDS, listening_ports, wait_until

COUNT = "iot_hub_portal_device_count"
PASSWORD = "hunter2"
STATE_OF_FLEET = re.compile(r'<th scope="row">fleet/(.*)</th><td><span class="bad">(.*?)<')
BASIC_AUTH = {"username": "prometheus", "password": {"file": "password"}}


def make_certificate(folder: Path, name: str, passphrase: bytes | None = None) -> dict[str, str]:
    """A self-signed certificate for 127.0.0.1; the settings' section that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase)
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, protection)
    (folder / f"{name}.key").write_bytes(private)
    return {"certificate_file": f"{name}.crt", "key_file": f"{name}.key"}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of the exporter that several tests look at: TLS and a password."""
    folder = tmp_path_factory.mktemp("served") / "state"
    tls = make_certificate(folder, "tls")
    (folder / "password").write_text(f"{PASSWORD}\n")
    write_settings(folder, {"tls": tls, "basic_auth": BASIC_AUTH})
    store_counts(folder, 5 * 10**9, device_count=15)
    return folder


@pytest.fixture(scope="module")
def exporter(state: Path) -> Iterator[ExporterProcess]:
    with fresh_exporter_process(state) as started:
        yield started


@pytest.fixture(scope="module")
def client(exporter: ExporterProcess, state: Path) -> Iterator[httpx.Client]:
    trusted = ssl.create_default_context(cafile=state / "tls.crt")
    trusted.check_hostname = False
    with httpx.Client(verify=trusted) as opened:
        yield opened


def test_it_serves_tls_to_those_who_know_the_password(
    exporter: ExporterProcess, client: httpx.Client
) -> None:
    assert exporter.url.startswith("https://127.0.0.1:")
    assert client.get(exporter.url).status_code == 401
    assert client.get(exporter.url, auth=("prometheus", "wrong")).status_code == 401

    def page() -> str:
        return client.get(exporter.url, auth=("prometheus", PASSWORD)).text

    wait_until(lambda: f"\n{COUNT} 15.0\n" in page(), "the count is on the page", exporter.process)


def test_it_listens_on_loopback_alone(exporter: ExporterProcess) -> None:
    [port] = listening_ports(exporter.process.pid)
    assert f":{port}/" in exporter.url
    table = Path("/proc/net/tcp").read_text()
    assert f"0100007F:{port:04X} 00000000:0000 0A" in table


def test_it_makes_a_dagster_home_of_its_own_where_none_is_named(
    exporter: ExporterProcess, client: httpx.Client, state: Path
) -> None:
    ready = exporter.url.replace("/metrics", "/readyz")
    wait_until(lambda: client.get(ready).is_success, "it is ready", exporter.process)
    assert (state / "dagster" / "dagster.yaml").exists()


def test_it_never_says_the_password(exporter: ExporterProcess) -> None:
    assert PASSWORD not in exporter.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_while_a_client_stays(
    number: signal.Signals, tmp_path: Path, dagster_home_template: Path
) -> None:
    write_settings(tmp_path, {})
    shutil.copytree(dagster_home_template, tmp_path / "dagster")
    with fresh_exporter_process(tmp_path) as exporter, httpx.Client(verify=False) as client:
        assert client.get(exporter.url).is_success
        exporter.process.send_signal(number)
        assert exporter.process.wait(STOP_SECONDS) == 0
        log = exporter.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log


def complaint(state: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What `metrics-pipeline exporter` says when it does not start."""
    files = ["--settings", str(state / "settings.yaml"), "--state-dir", str(state)]
    assert main(["exporter", *files, *options]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) == 1
    return said.err


@pytest.fixture(autouse=True)
def _keep_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` exports its options; they end with the test."""
    for name in ("METRICS_PIPELINE_STATE_DIR", "METRICS_PIPELINE_SETTINGS", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "")


def test_a_password_that_is_not_there_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(tmp_path, {"basic_auth": BASIC_AUTH})
    assert f"file {tmp_path}/password: cannot be read (FileNotFoundError)" in complaint(
        tmp_path, capsys
    )


def test_a_password_in_the_clear_from_elsewhere_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(tmp_path, {"host": "0.0.0.0", "basic_auth": BASIC_AUTH})
    (tmp_path / "password").write_text(PASSWORD)
    assert "exporter.tls_terminated_in_front: true" in complaint(tmp_path, capsys)


def test_a_token_that_can_be_guessed_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(tmp_path, {"bearer_token": {"file": "token"}})
    (tmp_path / "token").write_text(PASSWORD)
    said = complaint(tmp_path, capsys)
    assert "exporter.bearer_token: a token has at least 16 ASCII characters" in said
    assert PASSWORD not in said


def test_a_certificate_that_is_not_there_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tls = make_certificate(tmp_path, "tls")
    write_settings(tmp_path, {"tls": tls})
    (tmp_path / "tls.key").unlink()
    said = complaint(tmp_path, capsys)
    assert said.startswith("exporter.tls: ")
    assert f"{tmp_path}/tls.key" in said
    assert "No such file or directory" in said


def test_a_certificate_that_is_none_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tls = make_certificate(tmp_path, "tls")
    write_settings(tmp_path, {"tls": tls})
    (tmp_path / "tls.crt").write_text("<html>not found</html>")
    assert f"{tmp_path}/tls.crt" in complaint(tmp_path, capsys)


def test_a_key_of_another_certificate_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tls, other = make_certificate(tmp_path, "tls"), make_certificate(tmp_path, "other")
    write_settings(tmp_path, {"tls": {**tls, "key_file": other["key_file"]}})
    assert "key values mismatch" in complaint(tmp_path, capsys).lower().replace("_", " ")


def test_a_key_with_a_passphrase_is_one_error_and_no_question_at_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(tmp_path, {"tls": make_certificate(tmp_path, "tls", b"passphrase")})
    assert "the key without a passphrase" in complaint(tmp_path, capsys)


def test_an_address_of_another_machine_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(tmp_path, {"host": "203.0.113.1"})
    said = complaint(tmp_path, capsys)
    assert "cannot listen on 203.0.113.1:0 (Cannot assign requested address)" in said


@pytest.mark.parametrize("host", ["nowhere.invalid", "ä" * 70, "::g"], ids=ascii)
def test_a_host_that_is_none_is_one_error(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(tmp_path, {"host": host})
    assert f"cannot listen on {host}:0 (" in complaint(tmp_path, capsys)


def test_a_port_that_is_taken_is_one_error_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(tmp_path, {})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = complaint(tmp_path, capsys, "--port", port)
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in said
    assert "--port" in said


def test_the_status_page_is_there_for_those_with_the_password(
    exporter: ExporterProcess, client: httpx.Client
) -> None:
    url = exporter.url.removesuffix("metrics")
    assert client.get(url).status_code == 401

    def states() -> list[tuple[str, str]]:
        shown = client.get(url, auth=("prometheus", PASSWORD))
        assert shown.headers["content-type"] == "text/html; charset=utf-8"
        return STATE_OF_FLEET.findall(shown.text)

    expected = [("edge_device_counts", "never collected"), ("device_counts", "stale")]
    wait_until(lambda: states() == expected, "it has what was collected", exporter.process)


def test_the_status_page_links_to_the_dagster_of_the_settings_before_that_of_the_command() -> None:
    settings = load_settings(default_settings_file())
    given = "http://given:3000"
    assert build_status_page(settings.exporter, given).dagster_url == given
    assert build_status_page(settings.exporter, None).dagster_url is None
    named = settings.exporter.model_copy(update={"dagster_url": "https://dagster.example.net/"})
    assert build_status_page(named, given).dagster_url == "https://dagster.example.net"


def test_what_is_shown_knows_how_often_everything_should_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path))
    with closing(build_refresher(load_settings(default_settings_file()))) as refresher:
        every_seconds = refresher.known.seen.every_seconds
    assert {
        "fleet/device_counts": 300,
        "fleet/concentrator_counts": 300,
        "devices/device_status": 10,
        "devices/snmp_metrics": 300,
        "platform/service_health": 5,
        "platform/scrape_pipeline": 10,
        "telemetry/lorawan_uplinks": 240,
    }.items() <= every_seconds.items()
