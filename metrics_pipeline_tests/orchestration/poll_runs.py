"""Runs of metrics, in processes that are forked from one that has loaded the definitions.

`python -m metrics_pipeline_tests.orchestration.poll_runs`, with a shard a line on standard input.
As the code server has a process for each run, without what each of them takes to start; threads
would not do, as Dagster changes the filters of warnings while it loads definitions.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.storage.tags import PARTITION_NAME_TAG

from metrics_pipeline.core.device_assets import METRICS_JOB


def main() -> None:
    """Until there are no more lines."""
    repository = ReconstructableRepository.for_module(
        "metrics_pipeline.definitions", "defs", working_directory=str(Path.cwd())
    )
    job = repository.get_reconstructable_job(METRICS_JOB)
    job.get_definition()
    for line in sys.stdin:
        if os.fork() == 0:
            tags = {PARTITION_NAME_TAG: line.strip()}
            with dg.DagsterInstance.get() as instance, dg.execute_job(job, instance, tags=tags):
                sys.exit()


if __name__ == "__main__":
    main()
