"""Containers of compose.yaml as processes of this machine.

Each "container" has a folder for its file system, with only the secrets and files compose.yaml
gives it; what the image itself has below /var/lib, and the volumes there, is at one path for all,
as in containers (a run is told by the daemon where to write). Its environment is the image's and
the service's, nothing of ours. Hosts, ports and paths are replaced by what they are here.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from shutil import copy
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.access.inventory_tables import CONCENTRATORS
from metrics_pipeline.stack.ports import LOOPBACK
from metrics_pipeline.stack.processes import Child
from metrics_pipeline_tests.docker.container_files import (
    DOCKER,
    OURS,
    REPOSITORY,
    SERVICES,
    bind_mounts,
    image_environment,
    last_stage,
    named_volumes,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.postgresql import SUPERUSER, PostgresqlServer

OWN = re.compile(r"(?<![\w/.])/(etc|run)/")
OF_THE_IMAGE = re.compile(r"(?<![\w/.])/var/lib/")
BINARIES = Path(sys.executable).parent
HEALTH_CHECK_SECONDS = 60.0
PASSWORDS = {"metrics": "postgres_password", "metrics_monitor": "postgres_monitor_password"}
CONCENTRATOR_EUI = "00800000A0001234"


@dataclass(frozen=True, slots=True)
class Machine:
    """Stands for the container engine. `here`: patterns of hosts, ports and URLs, and what they
    are on this machine.
    """

    folder: Path
    secrets: Path
    here: Mapping[str, str]

    @property
    def image(self) -> Path:
        """Where what the image has below /var/lib is."""
        return self.folder / "image"

    def build(self) -> None:
        """Make what the image has there."""
        home = self.image / image_environment()["DAGSTER_HOME"].lstrip("/")
        home.mkdir(parents=True)
        copy(REPOSITORY / "metrics_pipeline" / "dagster.yaml", home)

    def create(self, name: str) -> Container:
        """The container of one service, not started."""
        container = Container(name, SERVICES[name], self.folder / name, self.image, self.here)
        (container.root / "tmp").mkdir(parents=True)
        for inside, outside in bind_mounts(container.service).items():
            container.put(inside, outside)
        for secret in container.service.get("secrets", ()):
            container.put(f"/run/secrets/{secret}", self.secrets / secret)
        return container

    def written(self) -> set[str]:
        """Files of the containers that came after they were made, outside of volumes and /tmp."""
        volumes = {path for name in OURS for path in named_volumes(SERVICES[name])}
        files = (path for path in self.image.rglob("*") if path.is_file())
        inside = {f"/{path.relative_to(self.image)}" for path in files}
        return {path for path in inside if not any(path.startswith(v) for v in volumes)}


@dataclass(frozen=True, slots=True)
class Container:
    """One service of compose.yaml on this machine."""

    name: str
    service: Mapping[str, Any]
    root: Path
    image: Path
    here: Mapping[str, str]

    def translate(self, text: str) -> str:
        """`text` with hosts, ports and paths of the container replaced by those here."""
        for pattern, replacement in self.here.items():
            text = re.sub(pattern, replacement, text)
        text = OF_THE_IMAGE.sub(lambda found: f"{self.image}{found.group()}", text)
        return OWN.sub(lambda found: f"{self.root}{found.group()}", text)

    def put(self, inside: str, source: Path) -> None:
        """Put a translated copy of a file into it, or of every file of a folder."""
        if source.is_dir():
            for file in source.iterdir():
                self.put(f"{inside}/{file.name}", file)
            return
        target = self.root / inside.lstrip("/")
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
        """What it runs, in the working directory of the image."""
        (directory,) = next(words for name, words in last_stage() if name == "WORKDIR")
        in_directory = ["env", "--chdir", self.translate(f"{directory}/")]
        return [*in_directory, *self._natively(self.service["command"])]

    def start(self) -> Child:
        """Start it; its log is beside its folder."""
        return Child.start(self.name, self.command(), self.environment(), self.root.parent)

    def is_healthy(self) -> bool:
        """What its health check says, after the time between two checks of one that starts.

        As in an engine: a check is a process that takes as much CPU as the start it waits for.
        """
        time.sleep(float(self.service["healthcheck"]["start_interval"].removesuffix("s")))
        check = subprocess.run(
            self._natively(self.service["healthcheck"]["test"][1:]),
            check=False,
            capture_output=True,
            env=dict(self.environment()),
            cwd=self.root / "tmp",
            timeout=HEALTH_CHECK_SECONDS,
        )
        return check.returncode == 0

    def _natively(self, command: Sequence[str]) -> Sequence[str]:
        program, *arguments = (self.translate(word) for word in command)
        return [str(BINARIES / program), *arguments]


def make_secrets(folder: Path, **known: str) -> Path:
    """As docker/make-secrets does. `known` are there before: what only the operator has."""
    folder.mkdir()
    for name, secret in known.items():
        (folder / name).write_text(secret)
    subprocess.run([DOCKER / "make-secrets", folder], check=True, capture_output=True)
    return folder


def prepare_postgresql(server: PostgresqlServer, secrets: Path) -> None:
    """What the image of PostgreSQL does on an empty volume, and one concentrator."""
    server.execute("CREATE DATABASE metrics")
    text = (DOCKER / "postgres" / "role.sql").read_text()
    files = {name: str(path) for name, path in bind_mounts(SERVICES["postgres"]).items()}
    mounted = {"/run/secrets/": f"{secrets}/"} | {n: p for n, p in files.items() if "/etc/" in n}
    for there, here in mounted.items():
        assert there in text
        text = text.replace(there, here)
    command = [str(server.binaries / "psql"), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]
    address = ["--host", LOOPBACK, "--port", str(server.port), "--dbname", "metrics"]
    subprocess.run(
        [*command, *address, "--username", SUPERUSER],
        input=text,
        text=True,
        env={
            "PGPASSWORD": server.password,
            "POSTGRES_MONITOR_PASSWORD_FILE": str(secrets / "postgres_monitor_password"),
        },
        check=True,
    )
    engine = sa.create_engine(url_of(server, secrets))
    with engine.begin() as connection:
        connection.execute(CONCENTRATORS.insert().values(id="a", name="Roof", eui=CONCENTRATOR_EUI))
    engine.dispose()


def url_of(server: PostgresqlServer, secrets: Path, role: str = "metrics") -> sa.URL:
    """The product's database, by one of the roles that are prepared."""
    password = (secrets / PASSWORDS[role]).read_text()
    return sa.URL.create("postgresql", role, password, LOOPBACK, server.port, "metrics")


def start_in_order(containers: Mapping[str, Container], children: dict[str, Child]) -> None:
    """Start each as soon as the ones of ours that it waits for are well."""
    needs = {name: set(SERVICES[name].get("depends_on", ())) & set(OURS) for name in containers}
    order = TopologicalSorter(needs)
    order.prepare()
    while order.is_active():
        names = order.get_ready()
        for name in names:
            children[name] = containers[name].start()
        for name in names:
            children[name].wait_until(containers[name].is_healthy, PATIENCE_SECONDS)
            order.done(name)
