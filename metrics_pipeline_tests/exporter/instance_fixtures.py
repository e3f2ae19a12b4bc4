"""A real Dagster instance of this test's own, with runs of a job called like ours."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.environment import make_dagster_home
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.storage.operational import OperationalDatabase


class Broken(Exception):
    """What the job raises when it is told to fail."""


@dg.op(config_schema={"fails": dg.Field(bool, default_value=False)})
def count(context: dg.OpExecutionContext) -> None:
    if context.op_config["fails"]:
        raise Broken


@dg.job(name=JOB)
def fleet_counts() -> None:
    count()


@dg.job(name="another_job")
def another_job() -> None:
    count()


LOCATION = RegisteredCodeLocationOrigin("tests")
ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(LOCATION, "__repository__"), JOB)
"""What a run that waits must have: where its code would be."""


class Runs:
    """Makes runs on the instance of DAGSTER_HOME."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def finish(self, *, fails: bool = False, job: dg.JobDefinition = fleet_counts) -> str:
        """Run `job` to its end, and return the run's id."""
        quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
        config = {"ops": {"count": {"config": {"fails": fails}}}, "loggers": quiet}
        result = job.execute_in_process(config, instance=self.instance, raise_on_error=False)
        assert result.success is not fails
        return result.run_id

    def wait_in_queue(self) -> dg.DagsterRun:
        """A run that waits to be started."""
        return self.instance.create_run_for_job(
            fleet_counts, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=ORIGIN
        )

    def cancel(self) -> str:
        """A run that was cancelled while it waited, and its id."""
        run = self.wait_in_queue()
        self.instance.report_run_canceled(run)
        return run.run_id


@pytest.fixture(scope="session")
def dagster_home_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose databases are made, which takes a second; to be copied."""
    home = make_dagster_home(tmp_path_factory.mktemp("template"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        Runs(dg.DagsterInstance.get()).instance.dispose()
    return home


@pytest.fixture
def dagster_home(
    dagster_home_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A home with no run in it, which DAGSTER_HOME names."""
    home = tmp_path / "state" / "dagster"
    shutil.copytree(dagster_home_template, home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    monkeypatch.delenv("DAGSTER_POSTGRES_URL_FILE", raising=False)
    return home


@pytest.fixture
def runs(dagster_home: Path) -> Iterator[Runs]:
    """Runs on that instance."""
    with dg.DagsterInstance.get() as instance:
        yield Runs(instance)


@contextmanager
def open_reader(folder: Path) -> Iterator[InstanceReader]:
    """The exporter's reader, which counts in a database in `folder`."""
    settings = DatabaseSettings(url=f"sqlite:///{folder}/operational.sqlite")
    with (
        closing(OperationalDatabase(settings)) as operational,
        closing(InstanceReader([JOB], operational)) as reader,
    ):
        yield reader


@pytest.fixture
def reader(dagster_home: Path) -> Iterator[InstanceReader]:
    """The exporter's reader of that instance."""
    with open_reader(dagster_home) as opened:
        yield opened
