"""The exporter's answers over real HTTP."""

from __future__ import annotations

import base64
import contextlib
import gzip
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
import uvicorn
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from metrics_pipeline.access.bearer_token import digest_of
from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.exporter.app import build_app
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.exporter.page import OPENMETRICS, TEXT
from metrics_pipeline.exporter.refresher import Refresher
from metrics_pipeline.exporter.sign_in import SignIn
from metrics_pipeline.exporter.status_page import StatusPage
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.servers import wait_until

USER, PASSWORD, TOKEN = "prometheus", "påss:wörd", "a-token-of-the-exporter"
LOGIN = SignIn(login=digest_of(f"{USER}:{PASSWORD}"))
BY_TOKEN = SignIn(token=digest_of(TOKEN))
BOTH = SignIn(LOGIN.login, BY_TOKEN.token)


@pytest.fixture
def refresher(tmp_path: Path, dagster_home: Path) -> Iterator[Refresher]:
    """One that has not looked yet."""
    operational = OperationalDatabase(DatabaseSettings(url=f"sqlite:///{tmp_path}/o.sqlite"))
    made = Refresher(
        operational=operational,
        instance=InstanceReader([], operational),
        catalog=CATALOG,
        assets={},
        max_series=10,
    )
    with contextlib.closing(made):
        yield made


@contextlib.contextmanager
def serving(
    refresher: Refresher, sign_in: SignIn | None = None, status_page: StatusPage | None = None
) -> Iterator[httpx.Client]:
    """A client of the application behind a real server."""
    app = build_app(refresher, sign_in or SignIn(), status_page)
    config = uvicorn.Config(app, log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started, "the server has started")
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(
                base_url=url, verify=False, headers={"accept-encoding": ""}
            ) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def basic(credentials: bytes) -> bytes:
    return b"Basic " + base64.b64encode(credentials)


def test_health_is_that_the_process_answers(refresher: Refresher) -> None:
    with serving(refresher) as client:
        reply = client.get("/healthz")
    assert (reply.status_code, reply.text) == (200, "ok\n")


def test_it_is_ready_once_a_look_has_found_everything(refresher: Refresher) -> None:
    with serving(refresher) as client:
        reply = client.get("/readyz")
        assert reply.status_code == 503
        assert reply.text == "not ready: the first look is not finished\n"
        refresher.refresh()
        reply = client.get("/readyz")
        assert (reply.status_code, reply.text) == (200, "ready\n")


def test_a_first_look_that_failed_says_what_failed(
    refresher: Refresher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    refresher.refresh()
    with serving(refresher) as client:
        reply = client.get("/readyz")
    assert reply.status_code == 503
    assert reply.text.startswith("not ready: Dagster instance: DagsterHomeNotSetError: ")


def test_what_failed_is_said_without_secrets_where_everybody_may_ask(
    refresher: Refresher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere/postgresql://dagster:opensesame@database")
    refresher.refresh()
    with serving(refresher) as client:
        said = client.get("/readyz").text
    for text in (said, caplog.text):
        assert "dagster:***@database" in text
        assert "opensesame" not in text


def test_the_page_is_text_and_for_those_who_ask_openmetrics(refresher: Refresher) -> None:
    with serving(refresher) as client:
        text = client.get("/metrics")
        openmetrics = client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert (text.status_code, text.headers["content-type"]) == (200, TEXT)
    assert (openmetrics.status_code, openmetrics.headers["content-type"]) == (200, OPENMETRICS)
    assert "metrics_pipeline_build_info" in {f.name for f in parse_text(text.text)}
    families = parse_openmetrics(openmetrics.text)  # type: ignore[no-untyped-call]
    assert "metrics_pipeline_build_info" in {f.name for f in families}
    assert text.headers["vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_a_compressed_page_is_the_plain_one(accept: str, refresher: Refresher) -> None:
    with serving(refresher) as client:
        plain = client.get("/metrics", headers={"accept": accept})
        head = {"accept": accept, "accept-encoding": "br, gzip;q=0.9"}
        with client.stream("GET", "/metrics", headers=head) as reply:
            compressed = b"".join(reply.iter_raw())
    assert "content-encoding" not in plain.headers
    assert reply.headers["content-encoding"] == "gzip"
    assert reply.headers["content-length"] == str(len(compressed))
    assert gzip.decompress(compressed) == plain.content


def test_a_client_that_refuses_compression_gets_none(refresher: Refresher) -> None:
    with serving(refresher) as client:
        reply = client.get("/metrics", headers={"accept-encoding": "gzip;q=0, identity"})
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/"])
def test_head_is_get_without_the_body(path: str, refresher: Refresher) -> None:
    with serving(refresher) as client:
        got, headed = client.get(path), client.head(path)
    assert (headed.status_code, headed.content) == (200, b"")
    for name in ("content-type", "content-length"):
        assert headed.headers[name] == got.headers[name]


def test_other_methods_and_paths_are_refused(refresher: Refresher) -> None:
    with serving(refresher) as client:
        assert client.post("/metrics").status_code == 405
        assert client.get("/metric").status_code == 404


def test_the_right_user_and_password_are_let_in(refresher: Refresher) -> None:
    with serving(refresher, LOGIN) as client:
        given = basic(f"{USER}:{PASSWORD}".encode())
        assert client.get("/metrics", headers={b"authorization": given}).status_code == 200
        given = given.replace(b"Basic", b"bAsIc")
        assert client.get("/metrics", headers={b"authorization": given}).status_code == 200


BASIC = 'Basic realm="metrics", charset="UTF-8"'
BEARER = 'Bearer realm="metrics"'
INVALID_TOKEN = 'Bearer realm="metrics", error="invalid_token"'

WRONG: tuple[bytes | None, ...] = (
    None,
    b"Basic",
    b"Basic !!!!",
    b"Basic \xff\xfe",
    b"Basic " + "påss".encode(),
    b"Basic YWJj\xe4",
    b"Basic YWJ",
    basic(b"\xff\xfe"),
    basic(f"{USER}:".encode()),
    basic(f"{USER}:{PASSWORD} ".encode()),
    basic(f"{USER}:{PASSWORD}".encode("latin-1")),
    basic(f"prometheuss:{PASSWORD}".encode()),
    basic(f"{USER}:{PASSWORD}".encode()).replace(b"Basic", b"Bearer"),
    base64.b64encode(f"{USER}:{PASSWORD}".encode()),
)


def test_anybody_else_is_asked_for_them(refresher: Refresher) -> None:
    with serving(refresher, LOGIN) as client:
        for given in WRONG:
            reply = client.get("/metrics", headers={b"authorization": given} if given else {})
            assert reply.status_code == 401, given
            assert reply.headers["www-authenticate"] == BASIC
            assert reply.text == "user and password expected\n"


def test_a_token_opens_the_page_beside_a_password_and_in_its_place(refresher: Refresher) -> None:
    token, login = f"bEaReR {TOKEN}".encode(), basic(f"{USER}:{PASSWORD}".encode())
    with serving(refresher, BOTH) as client:
        for given in (token, login):
            assert client.get("/", headers={b"authorization": given}).status_code == 200
    with serving(refresher, BY_TOKEN) as client:
        for path in ("/", "/metrics"):
            assert client.get(path, headers={b"authorization": token}).status_code == 200
        assert client.get("/metrics", headers={b"authorization": login}).status_code == 401


@pytest.mark.parametrize(
    "given", [None, b"Bearer", b"Basic !!!!", basic(TOKEN.encode()), TOKEN.encode()]
)
def test_who_shows_no_token_is_told_the_ways_there_are(
    given: bytes | None, refresher: Refresher
) -> None:
    for sign_in, text, challenges in (
        (BY_TOKEN, "token expected\n", [BEARER]),
        (BOTH, "user and password or token expected\n", [BASIC, BEARER]),
    ):
        with serving(refresher, sign_in) as client:
            reply = client.get("/metrics", headers={b"authorization": given} if given else {})
        assert (reply.status_code, reply.text) == (401, text)
        assert reply.headers.get_list("www-authenticate") == challenges


@pytest.mark.parametrize("given", [TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), f"{USER}:{PASSWORD}"])
def test_who_shows_another_token_is_told_that_it_is_none(given: str, refresher: Refresher) -> None:
    with serving(refresher, BOTH) as client:
        head = {b"authorization": f"Bearer {given}".encode()}
        reply = client.get("/metrics", headers=head)
    assert reply.status_code == 401
    assert reply.headers.get_list("www-authenticate") == [BASIC, INVALID_TOKEN]


def test_health_and_readiness_ask_for_no_password(refresher: Refresher) -> None:
    refresher.refresh()
    with serving(refresher, BOTH) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200


def test_many_scrapes_use_one_connection(refresher: Refresher) -> None:
    with serving(refresher) as client:
        connection = HTTPConnection(client.base_url.host, client.base_url.port or 0)
        ports = set()
        for _ in range(3):
            connection.request("GET", "/metrics")
            assert connection.getresponse().read()
            ports.add(connection.sock.getsockname())
        connection.close()
    assert len(ports) == 1
