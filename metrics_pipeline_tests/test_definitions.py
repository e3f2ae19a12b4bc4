"""What Dagster loads: the whole graph, as a committed snapshot that one reads in a review.

After a wanted change: `python -m metrics_pipeline_tests.test_definitions` writes it anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from metrics_pipeline.access.environment import default_settings_file
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.settings_file import load_settings

SNAPSHOT = Path(__file__).with_name("asset_graph.json")
ROOT = Path(__file__).parents[1]


def describe(definitions: dg.Definitions) -> dict[str, Any]:
    """Everything about the graph that an operator can see."""
    graph = definitions.resolve_asset_graph()
    jobs = [job for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")]
    schedules = [
        definitions.resolve_schedule_def(name)
        for name in sorted(s.name for s in definitions.get_repository_def().schedule_defs)
    ]
    return {
        "assets": {
            key.to_user_string(): describe_asset(graph.get(key))
            for key in sorted(graph.get_all_asset_keys())
        },
        "jobs": {
            job.name: {"tags": dict(job.tags), "executor": job.executor_def.name} for job in jobs
        },
        "schedules": {
            schedule.name: {
                "cron": schedule.cron_schedule,
                "job": schedule.job_name,
                "default_status": schedule.default_status.value,
            }
            for schedule in schedules
        },
        "sensors": {
            sensor.name: {
                "job": next((target.job_name for target in sensor.targets), None),
                "minimum_interval_seconds": sensor.minimum_interval_seconds,
                "default_status": sensor.default_status.value,
            }
            for sensor in definitions.get_repository_def().sensor_defs
        },
        "resources": sorted(definitions.resources or {}),
    }


def describe_asset(node: Any) -> dict[str, Any]:
    """One asset."""
    policy = node.freshness_policy
    return {
        "group": node.group_name,
        "description": node.description,
        "kinds": sorted(node.kinds),
        "owners": list(node.owners),
        "reads": sorted(key.to_user_string() for key in node.parent_keys),
        "checks": sorted(key.name for key in node.check_keys),
        "pools": sorted(node.pools or []),
        "is_stale_after_seconds": policy.fail_window.to_timedelta().total_seconds()
        if policy
        else None,
    }


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    """The definitions under the settings that ship."""
    monkeypatch.setenv("METRICS_PIPELINE_STATE_DIR", str(tmp_path))
    return build_definitions(load_settings(default_settings_file()))


def test_the_graph_is_the_one_that_was_reviewed(definitions: dg.Definitions) -> None:
    assert describe(definitions) == json.loads(SNAPSHOT.read_text())


def test_no_asset_has_partitions_by_which_the_event_log_would_grow(
    definitions: dg.Definitions,
) -> None:
    graph = definitions.resolve_asset_graph()
    parted = {key for key in graph.get_all_asset_keys() if graph.get(key).partitions_def}
    assert parted == set()


def test_every_asset_says_where_it_is_written(definitions: dg.Definitions) -> None:
    for asset in definitions.assets or []:
        if isinstance(asset, dg.AssetsDefinition):
            for metadata in asset.metadata_by_key.values():
                references = metadata["dagster/code_references"].code_references
                assert [Path(r.file_path).is_file() for r in references] == [True]


def test_definitions_load_without_any_secret_being_there(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


@pytest.mark.parametrize(
    "command", [["dagster", "definitions", "validate", "-w", "workspace.yaml"]]
)
def test_the_workspace_file_loads(command: list[str], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(tmp_path),
        "METRICS_PIPELINE_STATE_DIR": str(tmp_path),
    }
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    shown = describe(build_definitions(load_settings(default_settings_file())))
    SNAPSHOT.write_text(json.dumps(shown, indent=2, sort_keys=True) + "\n")
