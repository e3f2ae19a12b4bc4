"""What Dagster knows of runs, queue and daemons, in a handful of bounded queries.

The only module outside `orchestration/` that imports Dagster. The instance is opened lazily and
again after a failure, so an exporter may start before its database does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

FINISHED: Mapping[dg.DagsterRunStatus, str] = {
    dg.DagsterRunStatus.SUCCESS: "success",
    dg.DagsterRunStatus.FAILURE: "failure",
    dg.DagsterRunStatus.CANCELED: "canceled",
}


@dataclass(frozen=True, slots=True)
class JobState:
    """One job: its newest finished run, how long that took, and finished runs by status."""

    newest_run_id: str | None
    duration_seconds: float | None
    runs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class InstanceState:
    """What was seen of the instance. Heartbeats are in seconds since the epoch."""

    jobs: Mapping[str, JobState]
    heartbeats: Mapping[str, float]
    queue_length: int


class InstanceReader:
    """Reads the instance that DAGSTER_HOME names."""

    def __init__(self, jobs: Sequence[str]) -> None:
        self._jobs = jobs
        self._instance: dg.DagsterInstance | None = None
        self._known: dict[str, JobState] = {}

    def read(self) -> InstanceState:
        """The state now. Whatever goes wrong comes as an exception; the next call opens anew."""
        try:
            return self._read(self._open())
        except BaseException:
            self.close()
            raise

    @property
    def where(self) -> str:
        """The instance's folder and the kind of its storage, for people."""
        instance = self._open()
        storage = type(instance.event_log_storage).__name__.removesuffix("EventLogStorage")
        return f"{instance.root_directory} ({storage})"

    def close(self) -> None:
        """Give back the connections."""
        if self._instance is not None:
            self._instance.dispose()
            self._instance = None

    def _open(self) -> dg.DagsterInstance:
        if self._instance is None:
            self._instance = dg.DagsterInstance.get()
        return self._instance

    def _read(self, instance: dg.DagsterInstance) -> InstanceState:
        for job in self._jobs:
            self._known[job] = _read_job(instance, job, self._known.get(job))
        heartbeats = instance.get_daemon_heartbeats()
        return InstanceState(
            jobs=dict(self._known),
            heartbeats={name: beat.timestamp for name, beat in heartbeats.items()},
            queue_length=instance.get_runs_count(
                dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
            ),
        )


def _read_job(instance: dg.DagsterInstance, job: str, known: JobState | None) -> JobState:
    """The job's state; counts again only after another run has finished."""
    finished = dg.RunsFilter(job_name=job, statuses=list(FINISHED))
    records = instance.get_run_records(finished, limit=1, order_by="update_timestamp")
    if not records:
        return JobState(None, None, {})
    newest = records[0]
    if known is not None and known.newest_run_id == newest.dagster_run.run_id:
        return known
    duration = None
    if newest.start_time is not None and newest.end_time is not None:
        duration = newest.end_time - newest.start_time
    return JobState(newest.dagster_run.run_id, duration, _count_runs(instance, job))


def _count_runs(instance: dg.DagsterInstance, job: str) -> Mapping[str, int]:
    return {
        label: instance.get_runs_count(dg.RunsFilter(job_name=job, statuses=[status]))
        for status, label in FINISHED.items()
    }
