"""docs/spool-volume.md: the component gives the spool's folder to all who need it, and no more."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from shutil import copytree
from typing import Any

import pytest
import yaml

from metrics_pipeline_tests.docker.cluster_objects import Cluster, only_container, render
from metrics_pipeline_tests.docker.container_files import (
    DOCKER,
    OURS,
    REPOSITORY,
    image_environment,
)

PAGE = (REPOSITORY / "docs" / "spool-volume.md").read_text()
BLOCKS = [
    re.sub(r"^ {4}", "", each, flags=re.MULTILINE)
    for each in re.findall(r"(?:^ {4}.*\n)+", PAGE, re.MULTILINE)
]
VOLUME = {"name": "spool", "persistentVolumeClaim": {"claimName": "spool"}}
MOUNT = {
    "name": "spool",
    "mountPath": image_environment()["METRICS_PIPELINE_STATE_DIR"] + "/spool",
}
WITHOUT = Cluster(render(DOCKER))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """What the manifests make with the component of the page."""
    folder = tmp_path_factory.mktemp("repository")
    copytree(DOCKER, folder / "docker")
    component = folder / "production" / "spool"
    component.mkdir(parents=True)
    kustomization, claim, command = BLOCKS
    (component / "kustomization.yaml").write_text(kustomization)
    (component / "claim.yaml").write_text(claim)
    subprocess.run(["sh", "-euc", command], check=True, cwd=component)
    (line,) = re.findall(r"`(components: .*?)`", PAGE)
    (folder / "production" / "kustomization.yaml").write_text(f"resources: [../docker]\n{line}\n")
    return Cluster(render(folder / "production"))


def launcher_of(cluster: Cluster) -> Mapping[str, Any]:
    instance = yaml.safe_load(cluster.file("dagster-instance", "dagster.yaml"))
    config: Mapping[str, Any] = instance["run_launcher"]["config"]
    return config


def test_many_may_write_to_the_volume_that_is_claimed(cluster: Cluster) -> None:
    claim = cluster.of("PersistentVolumeClaim")["spool"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["namespace"] == "metrics-pipeline"


def test_runs_code_server_and_exporter_have_it_where_the_spool_is(cluster: Cluster) -> None:
    for name in OURS:
        pod, before = cluster.pod(name), WITHOUT.pod(name)
        added = name in ("code-server", "exporter")
        assert pod["volumes"] == [*before["volumes"], *([VOLUME] if added else [])]
        mounts = only_container(pod)["volumeMounts"]
        assert mounts == [*only_container(before)["volumeMounts"], *([MOUNT] if added else [])]
    launcher = launcher_of(cluster)
    assert VOLUME in launcher["volumes"]
    assert MOUNT in launcher["volume_mounts"]


def test_nothing_else_is_changed(cluster: Cluster) -> None:
    def without_spool(config: Mapping[str, Any]) -> dict[str, Any]:
        lists = ("volumes", "volume_mounts")
        kept = {k: [e for e in config[k] if e["name"] != "spool"] for k in lists}
        return {**config, **kept}

    assert without_spool(launcher_of(cluster)) == launcher_of(WITHOUT)
    kinds = [each["kind"] for each in cluster.objects]
    kinds.remove("PersistentVolumeClaim")
    assert sorted(kinds) == sorted(each["kind"] for each in WITHOUT.objects)
    assert WITHOUT.of("PersistentVolumeClaim") == {}
