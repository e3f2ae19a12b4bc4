"""Which cycles were due, and what became of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MINUTE_SECONDS = 60
HOUR_MINUTES = 60
EVERY = re.compile(r"^\*/(\d+) \* \* \* \*$")
HOURLY = re.compile(r"^(\d+) \* \* \* \*$")

SCHEDULES = """{ schedulesOrError(repositorySelector: {
    repositoryLocationName: "metrics_pipeline", repositoryName: "__repository__"}) {
  ... on Schedules { results { name cronSchedule scheduleState { status ticks {
    timestamp status skipReason runIds error { message } } } } } } }"""
RUNS = "{ runsOrError { ... on Runs { results { runId status } } } }"


@dataclass(frozen=True, slots=True)
class Cycles:
    """Of one schedule. Skipped, failed and absent ones are missed, those on their way are not."""

    schedule: str
    due: int
    outcomes: Mapping[str, int]

    @property
    def missed(self) -> int:
        """Of those due."""
        return sum(n for what, n in self.outcomes.items() if what not in ("done", "on its way"))


def due_times(cron: str, begin: float, end: float) -> list[int]:
    """The times of `*/n * * * *` or `n * * * *` in this time, in seconds since the epoch."""
    every, hourly = EVERY.match(cron), HOURLY.match(cron)
    if every is None and hourly is None:
        raise ValueError(f"This cron schedule is not understood here: {cron}")
    first = -int(-begin // MINUTE_SECONDS)
    minutes = range(first, -int(-end // MINUTE_SECONDS))
    if every is not None:
        found = [m for m in minutes if m % HOUR_MINUTES % int(every[1]) == 0]
    else:
        assert hourly is not None
        found = [m for m in minutes if m % HOUR_MINUTES == int(hourly[1])]
    return [minute * MINUTE_SECONDS for minute in found]


def outcome(tick: Mapping[str, Any] | None, statuses: Mapping[str, str]) -> str:
    """`done`, `on its way`, `skipped`, `failed`, or `absent` where there was no tick."""
    if tick is None:
        return "absent"
    if not tick["runIds"]:
        return "skipped" if tick["skipReason"] else "failed"
    ended = {statuses.get(run, "purged") for run in tick["runIds"]}
    if ended & {"FAILURE", "CANCELED"}:
        return "failed"
    return "done" if ended <= {"SUCCESS", "purged"} else "on its way"


def cycles_of(
    schedule: Mapping[str, Any], statuses: Mapping[str, str], begin: float, end: float
) -> Cycles:
    """From what the webserver says of a schedule."""
    ticks = {round(tick["timestamp"]): tick for tick in schedule["scheduleState"]["ticks"]}
    due = due_times(schedule["cronSchedule"], begin, end)
    outcomes = Counter(outcome(ticks.get(at), statuses) for at in due)
    return Cycles(schedule["name"], len(due), dict(outcomes))


def all_cycles(
    schedules: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    begin: float,
    end: float,
) -> list[Cycles]:
    """Of all schedules that are on."""
    statuses = {run["runId"]: run["status"] for run in runs}
    is_on = [each for each in schedules if each["scheduleState"]["status"] == "RUNNING"]
    return [cycles_of(each, statuses, begin, end) for each in is_on]
