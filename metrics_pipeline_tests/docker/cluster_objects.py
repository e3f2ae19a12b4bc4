"""What docker/kustomization.yaml makes, as the tests read it: rendered by the real kubectl."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from metrics_pipeline_tests.docker.container_files import OURS, SERVICES

KUBECTL = Path(sys.executable).with_name("kubectl")
RUN_SECONDS = 60
SECRET_KEYS = sorted({secret for name in OURS for secret in SERVICES[name]["secrets"]})
"""The keys of the Secret: what compose.yaml gives to containers of the image."""


def render(folder: Path) -> Sequence[Mapping[str, Any]]:
    """The objects of a kustomization; CalledProcessError if kubectl refuses it."""
    done = subprocess.run(
        [KUBECTL, "kustomize", folder],
        check=True,
        capture_output=True,
        text=True,
        env={"HOME": "/nonexistent"},
        timeout=RUN_SECONDS,
    )
    return list(yaml.safe_load_all(done.stdout))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Objects by what they are and what they are called."""

    objects: Sequence[Mapping[str, Any]]

    def of(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        """All of a kind, by name."""
        return {o["metadata"]["name"]: o for o in self.objects if o["kind"] == kind}

    def pod(self, name: str) -> Mapping[str, Any]:
        """The specification of the pods of a Deployment."""
        spec: Mapping[str, Any] = self.of("Deployment")[name]["spec"]["template"]["spec"]
        return spec

    def container(self, name: str) -> Mapping[str, Any]:
        """The one container of these pods."""
        return only_container(self.pod(name))

    def file(self, config_map: str, key: str) -> str:
        """What a ConfigMap holds under `key`."""
        return str(self.of("ConfigMap")[config_map]["data"][key])

    def rights(self, account: str) -> set[tuple[str, str, str]]:
        """API group, resource and verb of everything that an account may do."""
        bindings = self.of("RoleBinding").values()
        subject = {"kind": "ServiceAccount", "name": account}
        roles = [
            binding["roleRef"]["name"]
            for binding in bindings
            if any(subject.items() <= each.items() for each in binding["subjects"])
        ]
        rules = [rule for role in roles for rule in self.of("Role")[role]["rules"]]
        return {
            (group, resource, verb)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }


def only_container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container of a pod that has one."""
    (container,) = pod["containers"]
    return dict(container)


def environment(container: Mapping[str, Any]) -> Mapping[str, str]:
    """The variables that a container is given as they stand."""
    return {each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}


def mounted_files(pod: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """By path: kind and name of the object that a file comes from, and its key there.

    Where a whole Secret is mounted, the files are those that docs/production.md puts into it.
    """
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    found: dict[str, tuple[str, str, str]] = {}
    for mount in only_container(pod)["volumeMounts"]:
        volume, path = volumes[mount["name"]], mount["mountPath"]
        if "subPath" in mount:
            found[path] = (*_source(volume), mount["subPath"])
        elif "secret" in volume:
            keys = {each["path"]: each["key"] for each in volume["secret"].get("items", ())}
            for file, key in (keys or {key: key for key in SECRET_KEYS}).items():
                found[f"{path}/{file}"] = (*_source(volume), key)
    return found


def _source(volume: Mapping[str, Any]) -> tuple[str, str]:
    if "secret" in volume:
        return "Secret", volume["secret"]["secretName"]
    return "ConfigMap", volume["configMap"]["name"]
