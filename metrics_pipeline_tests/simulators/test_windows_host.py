"""The simulated Windows host itself: who is let in, what is encrypted, what changes."""

from __future__ import annotations

import base64
import http.client
import os
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import spnego
from spnego.channel_bindings import GssChannelBindings

from metrics_pipeline.core.devices import CPU_UTILIZATION, NETWORK_RECEIVE, UPTIME, Miss
from metrics_pipeline.simulators.windows_host import (
    USERS_VARIABLE,
    Machine,
    WindowsHost,
    ntlm_users,
)
from metrics_pipeline.sources.windows_report import QUERIES
from metrics_pipeline_tests.servers import self_signed
from metrics_pipeline_tests.windows_hosts import PASSWORD, USER, Site, site


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        yield made


@pytest.fixture
def host(here: Site) -> Iterator[WindowsHost]:
    with WindowsHost() as started:
        yield started


def post(
    connection: http.client.HTTPConnection, body: bytes = b"", **headers: str
) -> http.client.HTTPResponse:
    connection.request("POST", "/wsman", body, {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    response.read()
    return response


def log_in(
    connection: http.client.HTTPConnection, password: str, bindings: GssChannelBindings | None
) -> int:
    """The status of the last answer of a whole log-in."""
    client = spnego.client(USER, password, protocol="ntlm", channel_bindings=bindings)
    token, response = client.step(), post(connection)
    while token and response.status == http.HTTPStatus.UNAUTHORIZED:
        mark = f"Negotiate {base64.b64encode(token).decode()}"
        response = post(connection, authorization=mark)
        answer = response.headers["www-authenticate"].removeprefix("Negotiate").strip()
        token = client.step(base64.b64decode(answer)) if answer else None
    return response.status


@contextmanager
def connected(
    host: WindowsHost, trust: ssl.SSLContext | None = None
) -> Iterator[http.client.HTTPConnection]:
    made = (
        http.client.HTTPSConnection(*host.address, context=trust)
        if trust
        else http.client.HTTPConnection(*host.address)
    )
    with closing(made) as connection:
        yield connection


def test_who_does_not_log_in_is_told_how(host: WindowsHost) -> None:
    with connected(host) as connection:
        response = post(connection)
    assert (response.status, response.headers["www-authenticate"]) == (401, "Negotiate")
    assert host.logins == 0


@pytest.mark.parametrize(("password", "status"), [(PASSWORD, 200), ("guessed-wrong", 401)])
def test_only_the_right_password_is_let_in(host: WindowsHost, password: str, status: int) -> None:
    with connected(host) as connection:
        assert log_in(connection, password, None) == status
    assert host.logins == (status == 200)


def test_a_log_in_is_worth_nothing_on_another_connection(host: WindowsHost) -> None:
    with connected(host) as known, connected(host) as stranger:
        assert log_in(known, PASSWORD, None) == 200
        assert post(stranger, b"<x/>").status == 401


def test_a_message_in_the_clear_is_not_taken_over_plain_http(host: WindowsHost) -> None:
    with connected(host) as connection:
        log_in(connection, PASSWORD, None)
        assert post(connection, b"<x/>", content_type="application/soap+xml").status == 415
    assert list(host.requests) == []


@pytest.mark.parametrize("application_data", [b"tls-server-end-point:" + bytes(32), None])
def test_over_tls_a_log_in_for_another_channel_is_refused(
    here: Site, application_data: bytes | None
) -> None:
    """What makes a relayed NTLM log-in useless: it is bound to the certificate that was seen."""
    certificate = self_signed(here.folder)
    trust = ssl.create_default_context(cafile=certificate)
    bindings = application_data and GssChannelBindings(application_data=application_data)
    with WindowsHost(certificate=certificate) as host, connected(host, trust) as connection:
        assert log_in(connection, PASSWORD, bindings or None) == 401
        assert host.logins == 0


def test_another_path_is_not_there(host: WindowsHost) -> None:
    with connected(host) as connection:
        connection.request("POST", "/elsewhere", b"")
        assert connection.getresponse().status == 404


def test_each_host_has_an_address_of_its_own(here: Site) -> None:
    with WindowsHost("127.0.7.1") as first, WindowsHost("127.0.7.2", first.address[1]) as second:
        assert first.address[1] == second.address[1]
        assert here.poll(first).misses == here.poll(second).misses == {}


def test_every_class_the_probe_asks_for_is_there() -> None:
    machine = Machine()
    assert all(machine.rows(query.class_name) for query in QUERIES)
    assert machine.rows("Win32_Process") is None


def as_text(value: str | datetime) -> str:
    return value.isoformat() if isinstance(value, datetime) else value


def test_figures_change_with_the_clock() -> None:
    now = [100.0]
    machine = Machine(clock=lambda: now[0])

    def read() -> dict[str, float]:
        found: dict[str, float] = {}
        for query in QUERIES:
            rows = machine.rows(query.class_name) or []
            given = [{k: as_text(v) for k, v in row.items() if v is not None} for row in rows]
            found |= {k: float(v) for k, v in query.read(given).items() if not isinstance(v, Miss)}
        return found

    before = read()
    now[0] += 60
    after = read()
    assert after[UPTIME] == before[UPTIME] + 60
    assert after[NETWORK_RECEIVE] == before[NETWORK_RECEIVE] + 60 * 125_000
    assert after[CPU_UTILIZATION] != before[CPU_UTILIZATION]


def test_the_users_are_forgotten_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(USERS_VARIABLE, "as it was")
    with ntlm_users(tmp_path, {"alone": "secret"}):
        assert Path(os.environ[USERS_VARIABLE]).read_text() == ":alone:secret\n"
    assert os.environ[USERS_VARIABLE] == "as it was"
    monkeypatch.delenv(USERS_VARIABLE)
    with ntlm_users(tmp_path, {"alone": "secret"}):
        pass
    assert USERS_VARIABLE not in os.environ
