"""Where Dagster keeps its runs, chosen by the environment."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import dagster as dg
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from sqlalchemy.engine import make_url

from metrics_pipeline.access.environment import (
    DAGSTER_POSTGRES_FILE_VARIABLE as FILE_VARIABLE,
)
from metrics_pipeline.access.environment import (
    DAGSTER_POSTGRES_VARIABLE as URL_VARIABLE,
)
from metrics_pipeline.access.environment import (
    make_dagster_home,
)
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.findings import Severity
from metrics_pipeline.orchestration.instance_findings import examine_instance
from metrics_pipeline.orchestration.instance_storage import bounded_url
from metrics_pipeline_tests.orchestration.dagster_instances import storages
from metrics_pipeline_tests.postgresql import PostgresqlDatabase, PostgresqlServer

URL = "postgresql://dagster:secret@db.example.net/dagster"


def test_sqlite_is_one_event_log_for_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_dagster_home(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(home))

    @dg.job
    def nothing() -> None: ...

    with dg.DagsterInstance.get() as instance:
        for _ in range(3):
            assert nothing.execute_in_process(instance=instance).success
        assert isinstance(instance.event_log_storage, ConsolidatedSqliteEventLogStorage)
    assert [file.name for file in (home / "history").rglob("*event_log*.db")] == ["event_log.db"]


STARTING_AT_ONCE = """
import multiprocessing
import dagster
fork = multiprocessing.get_context("fork")
started = [fork.Process(target=lambda: dagster.DagsterInstance.get().get_runs()) for _ in range(3)]
for process in started:
    process.start()
for process in started:
    process.join()
assert [process.exitcode for process in started] == [0, 0, 0]
"""


def test_processes_that_start_at_once_make_the_storage_once(tmp_path: Path) -> None:
    home = make_dagster_home(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", STARTING_AT_ONCE],
        check=False,
        env={"DAGSTER_HOME": str(home)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_tables_are_made_in_files_in_which_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_dagster_home(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    for name in ("history/runs.db", "schedules/schedules.db"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    with dg.DagsterInstance.get() as instance:
        assert (instance.get_runs(), list(instance.all_instigator_state())) == ([], [])


def test_a_storage_that_is_made_is_opened_without_reading_the_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sensor opens it at each of its ticks."""
    monkeypatch.setenv("DAGSTER_HOME", str(make_dagster_home(tmp_path)))

    @dg.job
    def nothing() -> None: ...

    with dg.DagsterInstance.get() as instance:
        run_id = nothing.execute_in_process(instance=instance).run_id

    def read(*_: object) -> None:
        pytest.fail("all of Dagster's migrations are read")

    monkeypatch.setattr(ScriptDirectory, "from_config", read)
    with dg.DagsterInstance.get() as instance:
        assert [run.run_id for run in instance.get_runs()] == [run_id]


def test_more_threads_than_are_usual_may_ask_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(make_dagster_home(tmp_path)))
    threads = 40
    with dg.DagsterInstance.get() as instance, ThreadPoolExecutor(threads) as pool:
        all_have_one = Barrier(threads, timeout=60)

        def ask() -> int:
            with storages(instance)[1].connect() as connection:
                all_have_one.wait()
                return int(connection.scalar(sa.text("SELECT 1")))

        asked = [pool.submit(ask) for _ in range(threads)]
        assert sum(each.result() for each in asked) == threads


def test_runs_and_events_are_in_postgresql_where_the_environment_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql: PostgresqlDatabase
) -> None:
    home = make_dagster_home(tmp_path)
    url = tmp_path / "url"
    url.write_text(postgresql.url)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv(FILE_VARIABLE, str(url))

    @dg.job
    def nothing() -> None: ...

    with dg.DagsterInstance.get() as instance:
        assert nothing.execute_in_process(instance=instance).success
        assert instance.get_runs_count() == 1
    assert not list(home.rglob("*.db"))


def test_what_the_url_says_of_time_outs_is_kept() -> None:
    bounded = make_url(bounded_url(URL + "?connect_timeout=3&options=-c%20search_path%3Ddagster"))
    assert bounded.password == "secret"
    assert bounded.query["connect_timeout"] == "3"
    assert bounded.query["options"] == "-c search_path=dagster -c timezone=UTC"
    assert int(str(bounded.query["tcp_user_timeout"])) > 0


def test_runs_have_their_true_time_whatever_the_database_thinks_the_time_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgresql: PostgresqlDatabase,
    postgresql_server: PostgresqlServer,
) -> None:
    name = make_url(postgresql.url).database
    postgresql_server.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    monkeypatch.setenv("DAGSTER_HOME", str(make_dagster_home(tmp_path)))
    monkeypatch.setenv(URL_VARIABLE, postgresql.url)

    @dg.job
    def nothing() -> None: ...

    with dg.DagsterInstance.get() as instance:
        run = nothing.execute_in_process(instance=instance)
        record = instance.get_run_record_by_id(run.run_id)
    assert record is not None
    assert abs(record.create_timestamp.timestamp() - time.time()) < 600


def test_a_process_that_ends_leaves_its_objects_to_the_system() -> None:
    script = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 50_000))  # called last
import metrics_pipeline.orchestration.instance_storage
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://dagster:open@sesame@127.0.0.1:9/dagster",
        "postgresql://dagster:open@se:same@127.0.0.1:9/dagster",
        "postgres://dagster:opensesame@127.0.0.1:9/dagster",
        "postgresql//dagster:opensesame@127.0.0.1:9/dagster",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_without_a_part_of_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(make_dagster_home(tmp_path)))
    file = tmp_path / "url"
    file.write_text(url)
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    with pytest.raises(ConfigurationError, match="no address of PostgreSQL") as told:
        dg.DagsterInstance.get()
    [found] = examine_instance(tmp_path / "dagster", None, str)
    assert found.severity is Severity.WRONG
    for said in (*map(str, (told.value, told.value.__context__)), found.found):
        assert "same" not in said
