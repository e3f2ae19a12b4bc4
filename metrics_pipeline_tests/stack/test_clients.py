"""What `metrics-pipeline run` asks of its own servers."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from metrics_pipeline.settings import ExporterSettings
from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, Request
from metrics_pipeline.stack.exporter_client import ExporterClient
from metrics_pipeline.stack.ports import find_free_port
from metrics_pipeline.stack.webserver_client import WebserverClient
from metrics_pipeline_tests.proxies import name_proxy


class Proxy(LoopbackServer):
    """Of the environment; keeps what it is shown."""

    def respond(self, request: Request) -> Answer:
        return Answer(HTTPStatus.BAD_GATEWAY, b"")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy() as server:
        name_proxy(monkeypatch, f"http://{server.host}")
        yield server


def test_no_proxy_of_the_environment_is_shown_the_exporters_password(
    proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("opensesame")
    login = {"username": "prometheus", "password": {"file": str(tmp_path / "password")}}
    settings = ExporterSettings.model_validate({"basic_auth": login})
    assert not ExporterClient(settings, find_free_port()).is_ready()
    assert not proxy.requests


def test_the_webserver_is_asked_past_the_proxy_of_the_environment(proxy: Proxy) -> None:
    assert not WebserverClient(f"http://127.0.0.1:{find_free_port()}").is_up()
    assert not proxy.requests
