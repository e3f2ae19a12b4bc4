"""Runs at the same moment, in processes that are forked from one that has connections open.

`python -m metrics_pipeline_tests.orchestration.crowd_of_runs RUNS OPERATIONAL_URL PASSWORD_FILE`,
with DAGSTER_HOME and Dagster's URL in the environment. Each run counts itself in the operational
database. The exit status is how many processes failed. On a slow machine they wait for longer than
they should have to.
"""

import os
import sys
from contextlib import closing
from pathlib import Path

import dagster as dg

from metrics_pipeline.access import sparing_connections
from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

COUNTED = "runs_of_the_crowd"
JOB = "is_counted"


def count(settings: DatabaseSettings) -> None:
    """One more."""
    with closing(OperationalDatabase(settings)) as database, database.writing() as connection:
        tallies.add(connection, COUNTED, {"": 1})


def main(runs: int, settings: DatabaseSettings) -> int:
    """Start all of them, and wait for their ends."""

    @dg.asset(code_version="1")
    def crowd() -> None:
        count(settings)

    job = dg.Definitions([crowd], jobs=[dg.define_asset_job(JOB)]).resolve_job_def(JOB)
    sparing_connections.ROOM_SECONDS = PATIENCE_SECONDS
    sparing_connections.KEPT_SECONDS = 1.0
    with dg.DagsterInstance.get() as instance:
        instance.get_runs_count()
        children = []
        for _ in range(runs):
            if (pid := os.fork()) == 0:
                with dg.DagsterInstance.get() as own:
                    is_done = job.execute_in_process(instance=own, raise_on_error=False).success
                os._exit(0 if is_done else 1)
            children.append(pid)
        ends = [os.waitpid(pid, 0)[1] for pid in children]
        instance.get_runs_count()  # over the connection from before, which none of them has closed
    return sum(end != 0 for end in ends)


if __name__ == "__main__":
    number, url, password = sys.argv[1:]
    reference = SecretReference(file=Path(password))
    sys.exit(main(int(number), DatabaseSettings(url=url, password=reference)))
