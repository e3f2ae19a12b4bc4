"""Many runs over a PostgreSQL that lets in few: none is lost, and none holds what it needs not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from metrics_pipeline.access import sparing_connections
from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.stack.ports import LOOPBACK
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.orchestration.crowd_of_runs import COUNTED, JOB
from metrics_pipeline_tests.orchestration.dagster_instances import opened
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.postgresql import (
    PostgresqlDatabase,
    PostgresqlServer,
    running_postgresql,
)
from metrics_pipeline_tests.servers import wait_until

RUNS, ROOM, RESERVED = 6, 3, 3
CONNECTIONS = """
SELECT (SELECT sessions FROM pg_stat_database WHERE datname = :name) AS made,
       (SELECT count(*) FROM pg_stat_activity WHERE datname = :name) AS there
"""
CROWD = [sys.executable, "-m", "metrics_pipeline_tests.orchestration.crowd_of_runs"]


@pytest.fixture
def small() -> Iterator[PostgresqlServer]:
    """A server that lets in `ROOM` connections of a role that is no superuser."""
    with running_postgresql(max_connections=f"{ROOM + RESERVED}") as server:
        server.execute(f"CREATE ROLE metrics LOGIN PASSWORD '{server.password}'")
        server.execute("CREATE DATABASE metrics OWNER metrics")
        yield server


def test_more_runs_at_once_than_the_server_has_connections_all_succeed(
    tmp_path: Path, small: PostgresqlServer
) -> None:
    place = f"@{LOOPBACK}:{small.port}/metrics"
    (tmp_path / "password").write_text(small.password)
    settings = DatabaseSettings(
        url=f"postgresql://metrics{place}",
        password=SecretReference(file=tmp_path / "password"),
    )
    with opened(tmp_path, f"postgresql://metrics:{small.password}{place}") as instance:
        with closing(OperationalDatabase(settings)) as database, database.writing():
            pass
        command = [*CROWD, f"{RUNS}", settings.url, str(tmp_path / "password")]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert any(words in small.log.read_text() for words in sparing_connections.TURNED_AWAY)
        runs = instance.get_runs(dg.RunsFilter(job_name=JOB))
        assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * RUNS
        for run in runs:
            told = [e.dagster_event_type for e in instance.all_logs(run.run_id)]
            assert told.count(dg.DagsterEventType.RUN_SUCCESS) == 1
    with closing(OperationalDatabase(settings)) as database, database.reading() as connection:
        assert tallies.totals(connection)[COUNTED] == {"": RUNS}


def connections(server: PostgresqlServer, database: PostgresqlDatabase) -> tuple[int, int]:
    """To `database`: how many were ever made, and how many there are."""
    engine = sa.create_engine(server.url("postgres", server.password), poolclass=sa.NullPool)
    with engine.connect() as connection:
        name = {"name": sa.make_url(database.url).database}
        found = connection.execute(sa.text(CONNECTIONS), name).one()
    return found.made, found.there


def test_a_process_asks_all_its_questions_over_one_connection(
    tmp_path: Path,
    postgresql: PostgresqlDatabase,
    postgresql_server: PostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dg.asset(code_version="1")
    def something() -> None: ...

    monkeypatch.setattr(sparing_connections, "KEPT_SECONDS", PATIENCE_SECONDS)
    with opened(tmp_path, postgresql.url) as instance:
        made, _ = connections(postgresql_server, postgresql)
        assert dg.materialize([something], instance=instance).success
        assert instance.get_latest_materialization_event(something.key) is not None
        with dg.DagsterInstance.get() as another:
            assert another.get_runs_count() == 1
        assert connections(postgresql_server, postgresql) == (made, 1)


def test_a_process_that_asks_nothing_has_no_connection(
    tmp_path: Path,
    postgresql: PostgresqlDatabase,
    postgresql_server: PostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sparing_connections, "KEPT_SECONDS", 0.1)

    def has_none() -> bool:
        return connections(postgresql_server, postgresql)[1] == 0

    with opened(tmp_path, postgresql.url) as instance:
        for _ in range(2):
            assert instance.get_runs_count() == 0
            wait_until(has_none, "it is closed, being idle")
