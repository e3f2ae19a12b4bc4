"""The exporter as its own process, on a free port, with what it says in a file."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.core.points import Point
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.storage import snapshots
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.forked_command import ForkedCommand, fresh_command, serving

ASSET = "fleet/device_counts"


@dataclass(frozen=True, slots=True)
class ExporterProcess:
    """`url` is of the page."""

    process: ForkedCommand | subprocess.Popen[bytes]
    url: str
    log: Path


def write_settings(state: Path, exporter: Mapping[str, object]) -> Path:
    """Settings with an AWS fleet, which needs no simulator, and this section `exporter`."""
    state.mkdir(parents=True, exist_ok=True)
    settings = {
        "version": 1,
        "sources": {"aws_iot": {"region": "eu-west-1"}},
        "fleet": {"provider": "aws_iot", "lora_enabled": False},
        "exporter": {"port": 0, "refresh_seconds": 0.2, **exporter},
    }
    file = state / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def environment(state: Path) -> dict[str, str]:
    """Of a process that finds those settings; without the instance of anybody else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_")}
    names = {STATE_DIR_VARIABLE: str(state), SETTINGS_VARIABLE: str(state / "settings.yaml")}
    return {**kept, **names}


def store_counts(state: Path, time_ns: int, **counts: int) -> None:
    """What a run leaves when it has counted the devices, at `time_ns`."""
    settings = load_settings(state / "settings.yaml").operational_database
    file = settings.url.rpartition("/")[2]
    database = OperationalDatabase(settings.model_copy(update={"url": f"sqlite:///{state}/{file}"}))
    point = Point("fleet_counts", {"provider": "aws_iot"}, dict(counts), time_ns)
    with contextlib.closing(database), database.writing() as connection:
        snapshots.replace(connection, ASSET, (point,), time_ns)


@contextlib.contextmanager
def exporter_process(state: Path) -> Iterator[ExporterProcess]:
    """`metrics-pipeline exporter` over the settings in `state`, once it listens; killed at last."""
    log = state / "exporter.log"
    process = ForkedCommand(["exporter"], environment(state), log)
    with serving(process, log) as url:
        yield ExporterProcess(process, url, log)


@contextlib.contextmanager
def fresh_exporter_process(state: Path) -> Iterator[ExporterProcess]:
    """The same with an interpreter of its own."""
    log = state / "exporter.log"
    process = fresh_command(["-m", "metrics_pipeline", "exporter"], environment(state), log)
    with serving(process, log) as url:
        yield ExporterProcess(process, url, log)
