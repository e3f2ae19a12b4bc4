"""Each run is counted once, in whatever order runs end, vanish and are looked at."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from contextlib import closing

import pytest

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.run_counts import MARK_BEHIND, Progress, RunCounts, SeenRun
from metrics_pipeline_tests.at_once import at_once

ENDS = ("success", "failure", "canceled")


class Runs:
    """What Dagster has: runs in the order of their numbers."""

    def __init__(self) -> None:
        self.there: dict[int, SeenRun] = {}
        self.last = 0

    def begin(self) -> int:
        self.last += 1
        self.there[self.last] = SeenRun(self.last, f"run-{self.last}", "fleet_counts", None)
        return self.last

    def end(self, number: int, status: str = "success") -> None:
        run = self.there[number]
        self.there[number] = SeenRun(number, run.run_id, run.job, status)

    def look(self, progress: Progress) -> Collection[SeenRun]:
        newest = max(self.there, default=0)
        wanted = set(progress.waited_for)
        return [
            run
            for run in self.there.values()
            if run.number > progress.mark or run.number == newest or run.run_id in wanted
        ]


@pytest.fixture
def counts(operational: OperationalDatabase) -> RunCounts:
    return RunCounts(operational, "one")


def count(counts: RunCounts, runs: Runs) -> dict[str, int]:
    looked = counts.progress()
    counts.count(runs.look(looked), looked)
    return counts.totals().get("fleet_counts", {})


def test_nothing_is_counted_where_nothing_has_run(counts: RunCounts) -> None:
    assert count(counts, Runs()) == {}


def test_a_run_is_counted_when_it_has_ended(counts: RunCounts) -> None:
    runs = Runs()
    number = runs.begin()
    assert count(counts, runs) == {}
    runs.end(number, "failure")
    assert count(counts, runs) == count(counts, runs) == {"failure": 1}


def test_what_is_deleted_stays_counted_even_by_a_look_from_before(counts: RunCounts) -> None:
    runs = Runs()
    for _ in range(3):
        runs.end(runs.begin())
    looked = counts.progress()
    old = runs.look(looked)
    assert count(counts, runs) == {"success": 3}
    del runs.there[1], runs.there[2]
    assert count(counts, runs) == {"success": 3}
    counts.count(old, looked)
    assert count(counts, runs) == {"success": 3}


def test_a_run_that_stays_in_the_queue_while_hundreds_pass_is_counted_at_last(
    counts: RunCounts,
) -> None:
    runs = Runs()
    waiting, deleted = runs.begin(), runs.begin()
    for _ in range(3 * MARK_BEHIND):
        runs.end(runs.begin())
        if runs.last % 50 == 0:
            count(counts, runs)
    assert counts.progress().waited_for == ["run-1", "run-2"]
    runs.end(waiting, "canceled")
    del runs.there[deleted]
    assert count(counts, runs) == {"success": 3 * MARK_BEHIND, "canceled": 1}
    assert counts.progress().waited_for == []


def test_what_is_listed_stays_short(counts: RunCounts) -> None:
    runs = Runs()
    for _ in range(5 * MARK_BEHIND):
        runs.end(runs.begin())
    count(counts, runs)
    assert len(counts.progress().listed) == MARK_BEHIND


def test_a_number_that_is_given_again_after_a_deletion_is_another_run(counts: RunCounts) -> None:
    runs = Runs()
    for _ in range(MARK_BEHIND + 20):
        runs.end(runs.begin())
    count(counts, runs)
    for number in range(runs.last - 9, runs.last + 1):
        del runs.there[number]
    count(counts, runs)
    for number in range(runs.last - 9, runs.last + 1):
        runs.there[number] = SeenRun(number, f"again-{number}", "fleet_counts", "success")
    assert count(counts, runs) == {"success": MARK_BEHIND + 30}


def test_a_backup_that_came_back_counts_on_from_where_it_is(counts: RunCounts) -> None:
    runs = Runs()
    for _ in range(3 * MARK_BEHIND):
        runs.end(runs.begin())
    count(counts, runs)
    runs.there = {n: run for n, run in runs.there.items() if n <= MARK_BEHIND}
    count(counts, runs)
    runs.there[MARK_BEHIND + 1] = SeenRun(MARK_BEHIND + 1, "new", "fleet_counts", "success")
    assert count(counts, runs) == {"success": 3 * MARK_BEHIND + 1}


def test_another_database_of_dagster_counts_from_its_first_run(
    operational: OperationalDatabase,
) -> None:
    for name in ("one", "other"):
        runs = Runs()
        runs.end(runs.begin())
        total = count(RunCounts(operational, name), runs)
    assert total == {"success": 2}


def test_an_old_look_counts_nothing_twice_and_takes_nothing_back(counts: RunCounts) -> None:
    runs = Runs()
    runs.end(runs.begin())
    looked = counts.progress()
    old = runs.look(looked)
    for _ in range(2 * MARK_BEHIND):
        runs.end(runs.begin())
    expected = count(counts, runs)
    progress = counts.progress()
    counts.count(old, looked)
    assert counts.progress() == progress
    assert count(counts, runs) == expected == {"success": 2 * MARK_BEHIND + 1}


@pytest.mark.parametrize("seed", range(5))
def test_each_run_is_counted_once_whatever_happens(counts: RunCounts, seed: int) -> None:
    chance = random.Random(seed)
    runs, ended = Runs(), Counter[str]()
    open_runs: set[int] = set()
    old = [(counts.progress(), runs.look(counts.progress()))]
    for _ in range(25):
        open_runs |= {runs.begin() for _ in range(chance.randrange(30))}
        for number in [n for n in open_runs if chance.random() < 0.5]:
            open_runs.remove(number)
            runs.end(number, status := chance.choice(ENDS))
            ended[status] += 1
        if chance.random() < 0.5:
            stale = counts.progress()
            old.append((stale, runs.look(stale)))
        assert count(counts, runs) == dict(ended)
        looked, seen = chance.choice(old)
        counts.count(seen, looked)
        for number in [n for n in runs.there if n not in open_runs and chance.random() < 0.1]:
            del runs.there[number]
    assert count(counts, runs) == dict(ended)


def _count_often(given: DatabaseSettings) -> str:
    runs = Runs()
    for _ in range(200):
        runs.begin()
    with closing(OperationalDatabase(given)) as database:
        counts = RunCounts(database, "one")
        for number in range(1, 201):
            runs.end(number)
            if number % 20 == 0:
                count(counts, runs)
    return ""


def test_several_processes_that_count_the_same_runs_count_each_once(
    settings: DatabaseSettings, operational: OperationalDatabase
) -> None:
    assert at_once(_count_often, settings, processes=3) == [""] * 3
    assert RunCounts(operational, "one").totals() == {"fleet_counts": {"success": 200}}
