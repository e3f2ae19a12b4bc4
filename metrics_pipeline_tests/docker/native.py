"""Containers of compose.yaml as processes of this machine.

Each "container" has a folder for its file system, with only what compose.yaml gives it: its own
secrets, its mounts, and what the image puts there. Its environment is the image's and the
service's, nothing of ours. Names of hosts, ports and paths are replaced by what they are here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metrics_pipeline.stack.processes import Child
from metrics_pipeline_tests.docker.container_files import (
    REPOSITORY,
    SERVICES,
    bind_mounts,
    image_environment,
    named_volumes,
)

INSIDE = re.compile(r"(?<![\w/.])/(etc|var|run)/")  # absolute paths of the container
BINARIES = Path(sys.executable).parent
HEALTH_CHECK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Stands for the container engine. `here` is what each host, port and URL is on this machine."""

    folder: Path
    secrets: Path
    here: Mapping[str, str]

    def create(self, name: str) -> Container:
        """The container of one service, not started."""
        container = Container(name, SERVICES[name], self.folder / name, self.here)
        container.root.mkdir()
        (container.root / "tmp").mkdir()
        for inside, outside in bind_mounts(container.service).items():
            container.put(inside, outside)
        for secret in container.service.get("secrets", ()):
            container.put(f"/run/secrets/{secret}", self.secrets / secret)
        home = image_environment()["DAGSTER_HOME"]
        container.put(f"{home}/dagster.yaml", REPOSITORY / "metrics_pipeline" / "dagster.yaml")
        for inside, volume in named_volumes(container.service).items():
            (self.folder / "volumes" / volume).mkdir(parents=True, exist_ok=True)
            container.path(inside).symlink_to(self.folder / "volumes" / volume)
        return container


@dataclass(frozen=True, slots=True)
class Container:
    """One service of compose.yaml on this machine."""

    name: str
    service: Mapping[str, Any]
    root: Path
    here: Mapping[str, str]

    def path(self, inside: str) -> Path:
        """Where a path of the container is here."""
        return self.root / inside.lstrip("/")

    def translate(self, text: str) -> str:
        """`text` with hosts, ports and paths of the container replaced by those here."""
        for pattern, replacement in self.here.items():
            text = re.sub(pattern, replacement, text)
        return INSIDE.sub(lambda found: f"{self.root}{found.group()}", text)

    def put(self, inside: str, source: Path) -> None:
        """Put a translated copy of a file into it."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.translate(source.read_text()))

    def environment(self) -> Mapping[str, str]:
        """What its processes see."""
        declared = {**image_environment(), **self.service.get("environment", {})}
        return {
            **{name: self.translate(value) for name, value in declared.items()},
            "PATH": f"{BINARIES}:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "TMPDIR": str(self.root / "tmp"),
        }

    def command(self) -> Sequence[str]:
        """What it runs."""
        return self._natively(self.service["command"])

    def start(self, log_dir: Path) -> Child:
        """Start it."""
        return Child.start(self.name, self.command(), self.environment(), log_dir)

    def is_healthy(self) -> bool:
        """What its health check says."""
        check = subprocess.run(
            self._natively(self.service["healthcheck"]["test"][1:]),
            check=False,
            capture_output=True,
            env=dict(self.environment()),
            cwd=self.root / "tmp",
            timeout=HEALTH_CHECK_SECONDS,
        )
        return check.returncode == 0

    def written(self) -> set[str]:
        """Files that are in it now, outside of its volumes and what is made of memory."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        inside = {f"/{path.relative_to(self.root)}" for path in files}
        return {path for path in inside if not path.startswith("/tmp/")}

    def _natively(self, command: Sequence[str]) -> Sequence[str]:
        program, *arguments = (self.translate(word) for word in command)
        return [str(BINARIES / program), *arguments]
