"""What the stack is made of: folders, ports, environment, and the command of each process."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import yaml

from metrics_pipeline.access.environment import (
    SETTINGS_VARIABLE,
    STATE_DIR_VARIABLE,
    make_dagster_home,
    past_proxies,
    settings_file,
    state_dir,
)
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.stack.ports import LOOPBACK, find_free_port, require_free_port
from metrics_pipeline.stack.webserver_client import LOCATION


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of one stack is."""

    state_dir: Path
    settings_file: Path
    webserver_port: int
    exporter_port: int
    gateway_port: int
    code_server_port: int

    @property
    def dagster_home(self) -> Path:
        """Dagster's own folder."""
        return self.state_dir / "dagster"

    @property
    def workspace(self) -> Path:
        """The workspace file: where webserver and daemon find the code server."""
        return self.dagster_home / "workspace.yaml"

    @property
    def log_dir(self) -> Path:
        """One log for each process."""
        return self.state_dir / "logs"

    @property
    def webserver_url(self) -> str:
        """Dagster's UI."""
        return f"http://{LOOPBACK}:{self.webserver_port}"

    def environment(self) -> Mapping[str, str]:
        """The environment of every process of the stack; `docker/Dockerfile` has the same."""
        return {
            # malloc(3) has an area for each of many threads otherwise, all of which become full.
            "MALLOC_ARENA_MAX": "2",
            **os.environ,
            **past_proxies(os.environ),
            STATE_DIR_VARIABLE: str(self.state_dir),
            SETTINGS_VARIABLE: str(self.settings_file),
            "DAGSTER_HOME": str(self.dagster_home),
            "PYTHONUNBUFFERED": "1",
        }

    def prepare(self) -> None:
        """Make the folders, and Dagster's two files in them."""
        make_dagster_home(self.state_dir)
        server = {"host": LOOPBACK, "port": self.code_server_port, "location_name": LOCATION}
        self.workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))

    def code_server(self) -> Sequence[str]:
        """Loads the definitions, evaluates schedules and starts the runs."""
        address = ["--host", LOOPBACK, "--port", str(self.code_server_port)]
        return [*_module("metrics_pipeline"), "code-server", *address]

    def webserver(self) -> Sequence[str]:
        """Dagster's UI and GraphQL API."""
        address = ["--host", LOOPBACK, "--port", str(self.webserver_port)]
        return [*_module("dagster_webserver"), *address, "--workspace", str(self.workspace)]

    def daemon(self) -> Sequence[str]:
        """Schedules, the run queue and run monitoring."""
        return [*_module("metrics_pipeline"), "daemon", "--workspace", str(self.workspace)]

    def exporter(self) -> Sequence[str]:
        """The page that Prometheus scrapes."""
        where = ["--port", str(self.exporter_port), "--dagster-url", self.webserver_url]
        return [*_module("metrics_pipeline"), "exporter", *where]

    def gateway(self) -> Sequence[str]:
        """Where robots send to."""
        return [*_module("metrics_pipeline"), "gateway", "--port", str(self.gateway_port)]

    def simulator(self) -> Sequence[str]:
        """The simulated IoT Hub, and what else is simulated."""
        port = ["--gateway-port", str(self.gateway_port)]
        return [*_module("metrics_pipeline"), "simulate", *port]


def choose_layout(webserver_port: int, exporter_port: int, gateway_port: int = 0) -> Layout:
    """The layout of this environment; a port 0 is any free one, another must be free."""
    layout = Layout(
        state_dir=state_dir(),
        settings_file=settings_file(),
        webserver_port=_choose_port(webserver_port, "--webserver-port"),
        exporter_port=_choose_port(exporter_port, "--exporter-port"),
        gateway_port=_choose_port(gateway_port, "--gateway-port"),
        code_server_port=0,
    )
    return replace(
        layout, code_server_port=find_free_port(_code_server_of_before(layout.workspace))
    )


def _code_server_of_before(workspace: Path) -> int | None:
    """Its port: run monitoring asks there whether a run of before still goes on."""
    with suppress(FileNotFoundError, yaml.YAMLError, LookupError, TypeError, ValueError):
        return int(yaml.safe_load(workspace.read_text())["load_from"][0]["grpc_server"]["port"])
    return None


def _choose_port(port: int, option: str) -> int:
    if port == 0:
        return find_free_port()
    require_free_port(port, option)
    return port


def lock(folder: Path) -> IO[str]:
    """Hold `folder` for this process; ConfigurationError if another stack runs in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigurationError(
            str(folder),
            f"nothing can be written there ({error.strerror})",
            "Make it writable, or give another with --state-dir.",
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigurationError(
            str(folder),
            "another `metrics-pipeline run` uses it",
            "End that one, or give --state-dir.",
        ) from None
    return file


def _module(name: str) -> Sequence[str]:
    return [sys.executable, "-m", name]
