"""What runs are forked from has all they need in memory, and nothing open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE

SHIPPED = Path(__file__).parents[1] / "docker" / "settings.yaml"
CLIENTS = {
    "influxdb_client.client.influxdb_client",
    "metrics_pipeline.sources.event_hub",
    "metrics_pipeline.sources.ping",
    "metrics_pipeline.sources.snmp",
    "metrics_pipeline.sources.ssh",
    "metrics_pipeline.sources.winrm",
}
LOOK = """
import json, os, sys, threading
from metrics_pipeline import definitions, run_template
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.settings_file import load_settings

built = definitions.definitions.cache_info().currsize
try:
    late = list(run_template.late_imports(load_settings()))
except ConfigurationError:
    late = []
files = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")[:-1]]
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "sockets": sum(file.startswith("socket:") for file in files),
    "late": late,
    "missing": [name for name in late if name not in sys.modules],
    "built": built,
}))
"""


def with_polls(folder: Path) -> Path:
    """The settings that ship, which poll no devices."""
    file = folder / "settings.yaml"
    file.write_text(f"{SHIPPED.read_text()}\npolling: {{enabled: true}}\n")
    return file


def template(settings: Path, state: Path) -> dict[str, Any]:
    """What a process that has imported it says of itself."""
    environment = {SETTINGS_VARIABLE: str(settings), STATE_DIR_VARIABLE: str(state)}
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**os.environ, **environment},
        capture_output=True,
        check=True,
        text=True,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_definitions_and_clients_are_there_and_no_thread_and_no_connection(tmp_path: Path) -> None:
    said = template(with_polls(tmp_path), tmp_path / "state")
    assert set(said.pop("late")) >= CLIENTS
    assert said == {"threads": 1, "sockets": 0, "missing": [], "built": 1}
    assert not (tmp_path / "state").exists()


def test_mistakes_in_the_settings_are_left_to_the_code_server(tmp_path: Path) -> None:
    said = template(tmp_path / "nowhere.yaml", tmp_path)
    assert (said["threads"], said["built"], said["late"]) == (1, 0, [])
