"""Folders, ports and commands of the stack."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.stack.layout import Layout, choose_layout, lock
from metrics_pipeline.stack.ports import LOOPBACK
from metrics_pipeline_tests.docker.container_files import image_environment


def make_layout(folder: Path) -> Layout:
    return Layout(folder / "state", folder / "settings.yaml", 3000, 9464, 8765, 4000)


def test_two_stacks_do_not_share_a_state_directory(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(ConfigurationError, match=r"another .* uses it"):
        lock(tmp_path)
    lock(tmp_path).close()


def test_the_code_server_is_where_it_was_so_that_it_can_be_asked_for_runs_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path))
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        Layout(tmp_path, tmp_path / "settings.yaml", 3000, 9464, 8765, port).prepare()
        assert choose_layout(0, 0).code_server_port != port
    assert choose_layout(0, 0).code_server_port == port


@pytest.mark.parametrize("text", ["", "{", "load_from: []", "load_from: [{python_file: a.py}]"])
def test_a_workspace_file_that_names_no_code_server_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path))
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "workspace.yaml").write_text(text)
    assert choose_layout(0, 0).code_server_port > 0


def test_webserver_and_daemon_find_the_code_server_by_the_workspace_file(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    layout.prepare()
    (entry,) = yaml.safe_load(layout.workspace.read_text())["load_from"]
    assert entry["grpc_server"] == {
        "host": "127.0.0.1",
        "port": 4000,
        "location_name": "metrics_pipeline",
    }
    assert "4000" in layout.code_server()


def test_every_process_listens_on_loopback_alone(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    for command in (layout.code_server(), layout.webserver()):
        assert command[command.index("--host") + 1] == "127.0.0.1"


def test_the_simulated_robots_send_to_where_the_gateway_listens(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    assert layout.gateway()[-2:] == ["--port", "8765"]
    assert layout.simulator()[-2:] == ["--gateway-port", "8765"]


def test_the_memory_areas_of_threads_are_few_as_in_the_image_unless_one_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    ours = make_layout(tmp_path).environment()["MALLOC_ARENA_MAX"]
    assert ours == image_environment()["MALLOC_ARENA_MAX"] == "2"
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    assert make_layout(tmp_path).environment()["MALLOC_ARENA_MAX"] == "8"


@pytest.mark.parametrize(
    ("given", "direct"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": ".example.net"}, ".example.net,localhost,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_its_processes_find_each_other_whatever_proxy_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], direct: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert make_layout(tmp_path).environment()["no_proxy"] == direct
