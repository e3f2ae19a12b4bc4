"""What Dagster knows of runs, queue and daemons, in a handful of bounded queries.

The only module outside `orchestration/` that imports Dagster. The instance is opened lazily and
again after a failure, so an exporter may start before its database does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic

import dagster as dg

from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.redaction import without_secrets
from metrics_pipeline.run_counting import ENDED, count_runs
from metrics_pipeline.storage.operational import OperationalDatabase

WINDOW = 10
"""How many runs are looked at each time: those created last, of the finished ones."""

LATELY = timedelta(minutes=10)
"""Runs that ended so long ago or less are asked for at each look, by their ids alone."""

JOBS_SECONDS = 60.0
"""So often at least all jobs are looked at, also where no run has ended: runs are deleted."""

MAX_FAILED_STEPS = 5
MAX_FAILURE_CHARACTERS = 600
"""Of one step."""

Ended = frozenset[tuple[str, str]]
"""Ids of runs that have ended, and what became of them."""


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One run: what became of it, and when it ended, in seconds since the epoch, if it says."""

    run_id: str
    status: str
    ended_at_seconds: float | None


@dataclass(frozen=True, slots=True)
class RunFailure:
    """A run that failed, and why, in the words of the steps that failed; without secrets."""

    run: FinishedRun
    text: str


@dataclass(frozen=True, slots=True)
class JobState:
    """One job: how long its last finished run took, and finished runs by status.

    `newest` are the finished runs that were created last; the counts are of all there ever were.
    """

    newest: Ended
    duration_seconds: float | None
    runs: Mapping[str, int]
    last: FinishedRun | None = None
    """Of the finished runs the one that was created last."""
    failure: RunFailure | None = None
    """The last that failed and was seen."""


NO_RUNS = JobState(frozenset(), None, {})


@dataclass(frozen=True, slots=True)
class InstanceState:
    """What was seen of the instance. Heartbeats are in seconds since the epoch."""

    jobs: Mapping[str, JobState]
    heartbeats: Mapping[str, float]
    queue_length: int


class InstanceReader:
    """Reads the instance that DAGSTER_HOME names, and counts its runs in `operational`."""

    def __init__(self, jobs: Sequence[str], operational: OperationalDatabase) -> None:
        self._jobs = jobs
        self._operational = operational
        self._instance: dg.DagsterInstance | None = None
        self._known: dict[str, JobState] = {}
        self._ended: Ended = frozenset()
        self._look_at_jobs_at = -math.inf

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
        ended = _ended_lately(instance)
        if not ended <= self._ended or monotonic() >= self._look_at_jobs_at:
            self._look_at_jobs(instance, ended)
        heartbeats = instance.get_daemon_heartbeats()
        # The database keeps those of daemons that do not run any more.
        required = instance.get_required_daemon_types()
        return InstanceState(
            jobs=dict(self._known),
            heartbeats={
                name: beat.timestamp for name, beat in heartbeats.items() if name in required
            },
            queue_length=instance.get_runs_count(
                dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
            ),
        )

    def _look_at_jobs(self, instance: dg.DagsterInstance, ended: Ended) -> None:
        seen = {job: _read_job(instance, job, self._state(job)) for job in self._jobs}
        changed = any(state.newest != self._state(job).newest for job, state in seen.items())
        # One of many that ended at once may not be among the newest.
        if self._jobs and (changed or not ended <= self._ended):
            try:
                totals = count_runs(instance, self._operational)
            except StoreError:
                # Told by the look at the latest values; the next look at the jobs tries again.
                newest = {job: self._state(job).newest for job in seen}
                self._known = {job: replace(s, newest=newest[job]) for job, s in seen.items()}
                return
            seen = {job: _with_counts(state, totals.get(job)) for job, state in seen.items()}
        self._known, self._ended = seen, ended
        self._look_at_jobs_at = monotonic() + JOBS_SECONDS

    def _state(self, job: str) -> JobState:
        return self._known.get(job, NO_RUNS)


def _ended_lately(instance: dg.DagsterInstance) -> Ended:
    """By their ids alone, for which Dagster has an index: by job it reads whole runs."""
    since = datetime.now(UTC) - LATELY
    return frozenset(
        (run_id, word)
        for status, word in ENDED.items()
        for run_id in instance.get_run_ids(dg.RunsFilter(statuses=[status], updated_after=since))
    )


def _with_counts(state: JobState, counts: Mapping[str, int] | None) -> JobState:
    """As it is where no run of the job was ever counted."""
    if counts is None:
        return state
    return replace(state, runs={**dict.fromkeys(ENDED.values(), 0), **counts})


def _read_job(instance: dg.DagsterInstance, job: str, known: JobState) -> JobState:
    """The job's state, with the counts that were known.

    Ordered by creation, for which Dagster has an index: by time of update the database reads
    every run of the job, and a tag that is added to an old run makes it the newest.
    """
    records = _newest(instance, job)
    newest = _outcomes(records)
    if newest == known.newest:
        return known
    return JobState(
        newest,
        _last_duration(records),
        known.runs,
        _finished(records[0]) if records else known.last,
        _last_failure(instance, records, known.failure),
    )


def _newest(instance: dg.DagsterInstance, job: str) -> Sequence[dg.RunRecord]:
    finished = dg.RunsFilter(job_name=job, statuses=list(ENDED))
    return instance.get_run_records(finished, limit=WINDOW)


def _outcomes(records: Iterable[dg.RunRecord]) -> Ended:
    runs = (record.dagster_run for record in records)
    return frozenset((run.run_id, ENDED[run.status]) for run in runs)


def _last_duration(records: Iterable[dg.RunRecord]) -> float | None:
    """From start to end of the run that ended last, in seconds; one that never started has none."""
    spans = [(r.end_time, r.start_time) for r in records if r.end_time and r.start_time]
    end, start = max(spans, default=(None, None))
    return None if end is None or start is None else end - start


def _finished(record: dg.RunRecord) -> FinishedRun:
    run = record.dagster_run
    return FinishedRun(run.run_id, ENDED[run.status], record.end_time)


def _last_failure(
    instance: dg.DagsterInstance, records: Iterable[dg.RunRecord], known: RunFailure | None
) -> RunFailure | None:
    """The failure of the newest run that failed; asks for it once."""
    finished = (_finished(record) for record in records)
    failed = next((run for run in finished if run.status == "failure"), None)
    if failed is None or (known is not None and known.run.run_id == failed.run_id):
        return known
    return RunFailure(failed, _failure_text(instance, failed.run_id))


def _failure_text(instance: dg.DagsterInstance, run_id: str) -> str:
    """What the steps that failed said; of a run without such a step, what Dagster says of it."""
    found = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=MAX_FAILED_STEPS
    )
    texts = [_step_text(record.event_log_entry) for record in found.records]
    if not texts:
        found = instance.get_records_for_run(
            run_id, of_type=dg.DagsterEventType.RUN_FAILURE, limit=1
        )
        texts = [_event_text(record.event_log_entry) for record in found.records]
    return "\n".join(texts) or "The run failed, and its log does not say why."


def _step_text(entry: dg.EventLogEntry) -> str:
    event = entry.get_dagster_event()
    failure = event.step_failure_data
    said = failure.user_failure_data
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause  # what was raised; around it is which step Dagster ran
    text = (said.description if said else None) or (error.message if error else "no message")
    return f"{event.step_key}: {_shortened(text)}"


def _event_text(entry: dg.EventLogEntry) -> str:
    return _shortened(entry.get_dagster_event().message or "no message")


def _shortened(text: str) -> str:
    """Without secrets, and only then cut, lest half of one be left."""
    whole = without_secrets(text).strip()
    return f"{whole[:MAX_FAILURE_CHARACTERS]}…" if len(whole) > MAX_FAILURE_CHARACTERS else whole
