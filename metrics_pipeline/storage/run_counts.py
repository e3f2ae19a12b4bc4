"""How many runs have ended, and how: counted once each, whoever deletes them afterwards.

Dagster numbers its runs. Up to a mark every run is in the totals, but for those that had not ended,
which are listed; beyond it those are listed that are. So what is listed stays short, and a run is
counted once however many processes count, and whichever of them dies.

The mark stays behind the newest run: SQLite gives the number of the newest run to the next one if
it is deleted, and PostgreSQL shows runs a moment after it has numbered them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from metrics_pipeline.core import catalog
from metrics_pipeline.core.fetches import from_label, to_label
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.operational import (
    COUNTED_RUNS,
    RUN_MARKS,
    OperationalDatabase,
    insert_if_absent,
)

RUNS_TOTAL = catalog.RUNS.name
"""The tally, by job and status."""

MARK_BEHIND = 100
"""So many numbers the mark stays behind the newest run."""


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A run of Dagster; `status` is None while it has not ended."""

    number: int
    run_id: str
    job: str
    status: str | None


Listed = Mapping[str, SeenRun]
"""The runs that are listed, by id, as they were counted; of them the job is not kept."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far is counted: every run up to the number `mark`, but for what is listed."""

    mark: int
    listed: Listed

    @property
    def waited_for(self) -> list[str]:
        """The runs up to the mark that had not ended, by id."""
        return sorted(run_id for run_id, run in self.listed.items() if run.status is None)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look at the runs changes: the mark, the totals, and what is listed."""

    mark: int
    counts: Mapping[str, int]
    listed: Sequence[SeenRun]
    unlisted: Collection[str]


class RunCounts:
    """Totals of the runs in one of Dagster's databases, which its id tells apart.

    May be used by many processes at once. Every method raises StoreUnavailable when the operational
    database fails.
    """

    def __init__(self, database: OperationalDatabase, dagster_id: str) -> None:
        self._database = database
        self._id = dagster_id

    def progress(self) -> Progress:
        """How far is counted now."""
        with self._database.reading() as connection:
            return self._progress(connection)

    def count(self, seen: Collection[SeenRun], looked: Progress) -> None:
        """Add those of `seen` that have ended and are not counted yet.

        `seen` is what Dagster had after `looked` was read: every run beyond that mark, the newest
        run there is, and those that are waited for.
        """
        with self._database.reading() as connection:
            now = self._progress(connection)
        if _is_unchanged(now, find_changes(now, seen, looked)):
            return
        with self._database.writing() as connection:
            insert_if_absent(connection, RUN_MARKS, {"dagster_id": self._id, "number": 0})
            mine = RUN_MARKS.c.dagster_id == self._id
            connection.execute(sa.select(RUN_MARKS).where(mine).with_for_update()).one()
            self._save(connection, find_changes(self._progress(connection), seen, looked))

    def totals(self) -> dict[str, dict[str, int]]:
        """By job and status, of all databases of Dagster that there ever were."""
        with self._database.reading() as connection:
            found = tallies.totals_of(connection, RUNS_TOTAL)
        by_job: dict[str, dict[str, int]] = {}
        for label, total in found.items():
            job, status = from_label(label)
            by_job.setdefault(job, {})[status] = total
        return by_job

    def _progress(self, connection: sa.Connection) -> Progress:
        marks = sa.select(RUN_MARKS.c.number).where(RUN_MARKS.c.dagster_id == self._id)
        listed = sa.select(COUNTED_RUNS).where(COUNTED_RUNS.c.dagster_id == self._id)
        # The list first: a mark that moves meanwhile has its runs counted, and leaves the rest.
        rows = connection.execute(listed).all()
        mark = connection.execute(marks).scalar_one_or_none() or 0
        runs = (SeenRun(row.number, row.run_id, "", row.status) for row in rows)
        return Progress(mark, {run.run_id: run for run in runs})

    def _save(self, connection: sa.Connection, changes: Changes) -> None:
        tallies.add(connection, RUNS_TOTAL, changes.counts)
        mine = COUNTED_RUNS.c.dagster_id == self._id
        gone = {*changes.unlisted, *(run.run_id for run in changes.listed)}
        if gone:
            each = sa.delete(COUNTED_RUNS).where(mine, COUNTED_RUNS.c.run_id == sa.bindparam("run"))
            connection.execute(each, [{"run": run_id} for run_id in sorted(gone)])
        if changes.listed:
            rows = [
                {
                    "dagster_id": self._id,
                    "run_id": run.run_id,
                    "number": run.number,
                    "status": run.status,
                }
                for run in changes.listed
            ]
            connection.execute(sa.insert(COUNTED_RUNS), rows)
        moved = sa.update(RUN_MARKS).where(RUN_MARKS.c.dagster_id == self._id)
        connection.execute(moved.values(number=changes.mark))


def find_changes(now: Progress, seen: Collection[SeenRun], looked: Progress) -> Changes:
    """What is new in `seen`, as of `RunCounts.count`, where it is counted as far as `now` says."""
    mark = _next_mark(now, max((run.number for run in seen), default=0), looked)
    counts = Counter(to_label((run.job, str(run.status))) for run in seen if _is_new(now, run))
    listed = [
        replace(run, job="")
        for run in seen
        if _is_listed(now, run, mark) and not _is_told(now, run)
    ]
    there = {run.run_id: run for run in seen}
    # Who is waited for since the look may be there. Who is counted stays until the mark has passed,
    # there or not: an older look may still come.
    gone = set(looked.waited_for) - there.keys()
    done = {
        run_id
        for run_id, run in now.listed.items()
        if run.number <= mark and there.get(run_id, run).status is not None
    }
    return Changes(mark, counts, listed, gone | done)


def _next_mark(now: Progress, newest: int, looked: Progress) -> int:
    forward = max(now.mark, newest - MARK_BEHIND)
    # A newest run below the mark: the newer ones are deleted, or a backup has come back. Unless
    # somebody has moved the mark since the look, which is then an old one.
    return min(forward, newest) if now.mark == looked.mark else forward


def _is_new(progress: Progress, run: SeenRun) -> bool:
    """Whether it has ended and is not counted, or was counted as something else."""
    if run.status is None:
        return False
    if run.run_id in progress.listed:
        return progress.listed[run.run_id].status != run.status
    return run.number > progress.mark


def _is_listed(progress: Progress, run: SeenRun, mark: int) -> bool:
    """Whether it is an exception to the `mark` that will be."""
    if run.status is not None:
        return run.number > mark
    # One up to the mark of before that is not listed was counted, and has begun again.
    is_counted = run.number <= progress.mark and run.run_id not in progress.listed
    return run.number <= mark and not is_counted


def _is_told(progress: Progress, run: SeenRun) -> bool:
    listed = progress.listed.get(run.run_id)
    return listed is not None and listed.status == run.status


def _is_unchanged(now: Progress, changes: Changes) -> bool:
    same_mark = changes.mark == now.mark
    return same_mark and not (changes.counts or changes.listed or changes.unlisted)
