"""What our servers have in common: where they listen, what they show, who waits for whom."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.applications import Starlette

from metrics_pipeline.access.http_server import (
    ServerSettings,
    configure,
    find_clear_text,
    listen,
)
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.settings import (
    BasicAuthSettings,
    ExporterSettings,
    GatewaySettings,
    RobotTokenSettings,
    TlsSettings,
)
from metrics_pipeline_tests.servers import self_signed

ANSWERING = """
import gc, sys
from metrics_pipeline.access.http_server import answer_meanwhile
before = gc.get_freeze_count(), sys.getswitchinterval()
answer_meanwhile()
print(before[0], gc.get_freeze_count() > 0, sys.getswitchinterval() < before[1])
"""


def test_the_port_that_is_given_wins_over_that_of_the_settings() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ExporterSettings(port=taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match=r"exporter\.host and exporter\.port"):
            listen("exporter", settings, None)
        with listen("exporter", settings, 0) as listener:
            assert listener.getsockname()[1] not in (0, settings.port)


TOKEN = SecretReference(env="TOKEN")
SHOWN = TlsSettings(certificate_file=Path("tls.crt"), key_file=Path("tls.key"))
LOGIN = BasicAuthSettings(username="prometheus", password=TOKEN)
ASKING: dict[str, ServerSettings] = {
    "exporter with a password": ExporterSettings(host="0.0.0.0", basic_auth=LOGIN),
    "exporter with a token": ExporterSettings(host="::", bearer_token=TOKEN),
    "gateway": GatewaySettings(
        host="gateway.example.net", tokens={"all": RobotTokenSettings(token=TOKEN)}
    ),
}


@pytest.mark.parametrize("settings", ASKING.values(), ids=ASKING)
def test_what_would_be_shown_passwords_in_the_clear_does_not_listen(
    settings: ServerSettings,
) -> None:
    with pytest.raises(ConfigurationError, match="whoever is on the way would read") as refused:
        listen("section", settings, 0)
    assert refused.value.where == "section.tls"
    assert "section.tls_terminated_in_front: true" in refused.value.fix


@pytest.mark.parametrize(
    "changed",
    [{"host": "127.0.0.1"}, {"tls": SHOWN}, {"tls_terminated_in_front": True}],
    ids=str,
)
def test_what_is_shown_to_nobody_on_the_way_may_listen(changed: dict[str, object]) -> None:
    exporter = ExporterSettings(host="0.0.0.0", bearer_token=TOKEN)
    assert find_clear_text("exporter", exporter.model_copy(update=changed)) is None


def test_a_page_for_everybody_may_listen_everywhere() -> None:
    assert find_clear_text("exporter", ExporterSettings(host="0.0.0.0")) is None


def test_a_certificate_is_shown_and_one_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    pem = self_signed(tmp_path)
    settings = ExporterSettings(tls=TlsSettings(certificate_file=pem, key_file=pem))
    assert configure("exporter", settings, Starlette()).is_ssl
    assert not configure("exporter", ExporterSettings(), Starlette()).is_ssl
    pem.write_text("no PEM")
    with pytest.raises(ConfigurationError, match=r"exporter\.tls"):
        configure("exporter", settings, Starlette())


def test_what_one_server_needs_beside_is_given_to_uvicorn() -> None:
    config = configure("exporter", ExporterSettings(), Starlette(), proxy_headers=False)
    assert not config.proxy_headers
    assert not config.server_header


def test_a_process_that_answers_lets_nothing_hold_it_up() -> None:
    command = [sys.executable, "-c", ANSWERING]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.split() == ["0", "True", "True"]
