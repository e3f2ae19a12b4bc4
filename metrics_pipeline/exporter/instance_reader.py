"""What Dagster knows of runs, queue and daemons, in a handful of bounded queries.

The only module outside `orchestration/` that imports Dagster. The instance is opened lazily and
again after a failure, so an exporter may start before its database does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

FINISHED: Mapping[dg.DagsterRunStatus, str] = {
    dg.DagsterRunStatus.SUCCESS: "success",
    dg.DagsterRunStatus.FAILURE: "failure",
    dg.DagsterRunStatus.CANCELED: "canceled",
}


WINDOW = 10
"""How many runs are looked at each time: those created last, of the finished ones."""

Finished = Mapping[int, str]
"""Finished runs: what became of them, by their numbers in the order of creation."""


@dataclass(frozen=True, slots=True)
class JobState:
    """One job: how long its last finished run took, and finished runs by status.

    `newest` are the finished runs that were created last, and what the counts were made from.
    """

    newest: Finished
    duration_seconds: float | None
    runs: Mapping[str, int]


NO_RUNS = JobState({}, None, {})


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
            self._known[job] = _read_job(instance, job, self._known.get(job, NO_RUNS))
        heartbeats = instance.get_daemon_heartbeats()
        return InstanceState(
            jobs=dict(self._known),
            heartbeats={name: beat.timestamp for name, beat in heartbeats.items()},
            queue_length=instance.get_runs_count(
                dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
            ),
        )


def _read_job(instance: dg.DagsterInstance, job: str, known: JobState) -> JobState:
    """The job's state; counts again only after another run has finished.

    Ordered by creation, for which Dagster has an index: by time of update the database reads
    every run of the job, and a tag that is added to an old run makes it the newest.
    """
    records = _newest(instance, job)
    newest = _outcomes(records)
    if newest == known.newest:
        return known
    counted = _count_runs(instance, job)
    if _outcomes(_newest(instance, job)) != newest:
        return known  # one finished while they were counted: the next look will be as good
    return JobState(newest, _last_duration(records), advance(known, newest, counted))


def advance(known: JobState, newest: Finished, counted: Mapping[str, int]) -> dict[str, int]:
    """The runs by status, where `counted` are in the database now: never fewer than before.

    A run that was deleted has run nevertheless, and Prometheus takes a counter that falls for one
    that began again at 0. So the runs that finished since are added to what was known.
    """
    # Below a full window are runs that nobody looked at, which a deletion brings into sight.
    oldest = min(known.newest) if len(known.newest) == WINDOW else 0
    new = Counter(
        status for run, status in newest.items() if run > oldest and known.newest.get(run) != status
    )
    return {
        status: max(number, known.runs.get(status, 0) + new[status])
        for status, number in counted.items()
    }


def _newest(instance: dg.DagsterInstance, job: str) -> Sequence[dg.RunRecord]:
    finished = dg.RunsFilter(job_name=job, statuses=list(FINISHED))
    return instance.get_run_records(finished, limit=WINDOW)


def _outcomes(records: Iterable[dg.RunRecord]) -> Finished:
    return {record.storage_id: FINISHED[record.dagster_run.status] for record in records}


def _last_duration(records: Iterable[dg.RunRecord]) -> float | None:
    """From start to end of the run that ended last, in seconds; one that never started has none."""
    spans = [(r.end_time, r.start_time) for r in records if r.end_time and r.start_time]
    end, start = max(spans, default=(None, None))
    return None if end is None or start is None else end - start


def _count_runs(instance: dg.DagsterInstance, job: str) -> Mapping[str, int]:
    return {
        label: instance.get_runs_count(dg.RunsFilter(job_name=job, statuses=[status]))
        for status, label in FINISHED.items()
    }
