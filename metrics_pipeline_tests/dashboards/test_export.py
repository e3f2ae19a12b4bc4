"""`metrics-pipeline dashboards export DIR`, and the files that docker/ has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from metrics_pipeline.cli import main
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.dashboards.export import export
from metrics_pipeline_tests.dashboards.exported import DASHBOARDS
from metrics_pipeline_tests.docker.container_files import DOCKER, SERVICES, bind_mounts

COMMITTED = DOCKER / "grafana" / "dashboards"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_command_writes_a_file_for_each_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    assert main(["dashboards", "export", str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [str(folder / f"{name}.json") for name in DASHBOARDS]
    assert {name: json.loads(text) for name, text in contents(folder).items()} == {
        f"{name}.json": dashboard for name, dashboard in DASHBOARDS.items()
    }


def test_what_docker_has_is_what_is_exported(tmp_path: Path) -> None:
    export(tmp_path)
    assert contents(COMMITTED) == contents(tmp_path), "run `make docs`"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="the dashboards cannot be written there"):
        export(tmp_path / "file" / "folder")


def test_grafana_finds_the_dashboards_and_its_prometheus() -> None:
    mounts = bind_mounts(SERVICES["grafana"])
    provisioning = mounts["/etc/grafana/provisioning/dashboards"]
    (provider,) = yaml.safe_load((provisioning / "metrics_pipeline.yaml").read_text())["providers"]
    assert mounts[provider["options"]["path"]].resolve() == COMMITTED.resolve()
    assert provider["allowUiUpdates"] is False


def test_prometheus_renames_the_label_job_as_the_queries_expect() -> None:
    configuration = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    assert not any(job.get("honor_labels") for job in configuration["scrape_configs"])
