"""Runs `make run` for hours, and says which cycles were missed and what grows.

    make soak ARGS="--hours 8"

Nothing is compressed in time: cadences are those of `make run`. Status 1 if a cycle or a slot is
missed, if none was due, if exporter or webserver do not answer at the end, or if memory of what is
deployed grows by more than `--mb-an-hour` for certain in a soak of an hour or more: in shorter ones
what was imported, cached and fragmented late looks like growth. How many slots are due is told by
the clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

from metrics_pipeline.platform_sources import find_sampled
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline_tests.running_stack import (
    READY,
    RunningStack,
    running_stack,
)
from metrics_pipeline_tests.soak.cycles import RUNS, SCHEDULES, Cycles, all_cycles
from metrics_pipeline_tests.soak.sample_slots import (
    Outcomes,
    SlotsOfSource,
    outcomes_on,
    slots_between,
)
from metrics_pipeline_tests.soak.trend import (
    SAMPLES_OF_TREND,
    SECONDS_PER_HOUR,
    Trend,
    trend_of,
)
from metrics_pipeline_tests.soak.watching import RUN, Footprint, file_sizes, footprints

LOOK_SECONDS = 10.0
TELL_EVERY_LOOKS = 30
WARM_UP_SHARE = 0.25
JUDGED_FROM_HOURS = 1.0
T = TypeVar("T")

UNKNOWN = "?"
NOT_DEPLOYED = "simulators"
"""Their hub keeps half an hour of messages in memory, so they grow until it is full."""


@dataclass(slots=True)
class Watched:
    """What was seen: for each name its samples of (seconds, value)."""

    anonymous_mb: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    files_mb: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    last: dict[str, Footprint] = field(default_factory=dict)
    runs_mb: float = 0.0

    def look(self, at: float, processes: Mapping[str, Footprint], state: Path) -> None:
        """Take a sample."""
        for kind, each in processes.items():
            if kind == RUN:
                self.runs_mb = max(self.runs_mb, each.pss_mb)
            else:
                self.anonymous_mb.setdefault(kind, []).append((at, each.anonymous_mb))
                self.last[kind] = each
        for kind, size_mb in file_sizes(state).items():
            self.files_mb.setdefault(kind, []).append((at, size_mb))


@dataclass(frozen=True, slots=True)
class Report:
    """Of the whole soak."""

    hours: float
    cycles: Sequence[Cycles]
    slots: Sequence[SlotsOfSource]
    memory: Mapping[str, Trend]
    files: Mapping[str, Trend]
    last: Mapping[str, Footprint]
    runs_mb: float
    unanswered: Sequence[str] = ()
    """Who did not say at the end what became of slots and cycles, and why."""

    @property
    def missed(self) -> int:
        """Cycles and slots."""
        return sum(each.missed for each in self.cycles) + sum(each.missed for each in self.slots)

    def problems(self, mb_an_hour: float) -> list[str]:
        """Why the soak has not passed, a sentence each."""
        found = [f"{self.missed} cycles and slots missed."] if self.missed else []
        found += [f"At the end there was no answer: {each}" for each in self.unanswered]
        if not sum(each.due for each in self.cycles):
            found.append("No cycle was due: nothing is shown. Run it for longer.")
        if not sum(each.due for each in self.slots):
            found.append("No slot of a sample was due: nothing is shown. Run it for longer.")
        if growing := self.growing(mb_an_hour):
            found.append(
                f"Memory grows by more than {mb_an_hour:g} MB an hour: {', '.join(growing)}."
            )
        return found

    def growing(self, mb_an_hour: float) -> list[str]:
        """What is deployed and whose memory grows faster, for certain; of a long soak."""
        if self.hours < JUDGED_FROM_HOURS:
            return []
        return [
            kind
            for kind, trend in self.memory.items()
            if kind != NOT_DEPLOYED and trend.at_least > mb_an_hour
        ]

    def text(self) -> str:
        """In Markdown."""
        return f"{self._cycles()}\n\n{self._memory()}\n\n{self._files()}"

    def _cycles(self) -> str:
        lines = [("cycles", "due", "missed", "what became of them")]
        for each in self.cycles:
            told = ", ".join(f"{n} {what}" for what, n in sorted(each.outcomes.items()))
            lines.append((each.schedule, str(each.due), str(each.missed), told))
        for slots in self.slots:
            name = f"slots of {slots.source}, every {slots.every_seconds:g} s"
            lines.append((name, str(slots.due), str(slots.missed), slots.told))
        return _table(lines)

    def _memory(self) -> str:
        sizes = ("RSS MB", "PSS MB", "of no file MB")
        lines = [["process", *sizes, "files", "threads", "MB an hour", "MB in a year"]]
        for kind, at_end in self.last.items():
            sizes_mb = (at_end.rss_mb, at_end.pss_mb, at_end.anonymous_mb)
            counts = str(at_end.files), str(at_end.threads)
            trend = self.memory.get(kind)
            slope = (_slope(trend), self._year(trend)) if trend else (UNKNOWN, UNKNOWN)
            lines.append([kind, *(f"{size:.0f}" for size in sizes_mb), *counts, *slope])
        return _table(lines) + f"\n\nRuns, all at once: {self.runs_mb:.0f} MB PSS at most."

    def _year(self, trend: Trend) -> str:
        """What is added in one; of less than an hour nobody can tell."""
        return f"{trend.in_a_year:,.0f}" if self.hours >= JUDGED_FROM_HOURS else UNKNOWN

    def _files(self) -> str:
        lines = [("files", "MB", "MB an hour", "MB in a year, if nothing were purged")]
        for kind, trend in self.files.items():
            lines.append((kind, f"{trend.last:.2f}", _slope(trend), self._year(trend)))
        return _table(lines)


def _slope(trend: Trend) -> str:
    return f"{trend.an_hour:+.2f} ± {trend.error:.2f}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    ruled = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--mb-an-hour", type=float, default=2.0, help="of memory, at most (2)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        report = soak(Path(folder), options.hours)
    print(report.text())
    problems = report.problems(options.mb_an_hour)
    print("", *problems or ["No cycle and no slot missed; no memory grows."], sep="\n")
    if options.hours < JUDGED_FROM_HOURS:
        print("Growth is not judged, nor is a year: that takes an hour.")
    return 1 if problems else 0


def soak(folder: Path, hours: float) -> Report:
    """Start it in `folder`, watch it, end it."""
    state = folder / "state"
    run = f"exec {sys.executable} -m metrics_pipeline run --state-dir {state} PORTS"
    with running_stack(["sh", "-c", run], folder, {}) as stack:
        stack.wait_until(lambda: READY in stack.output, "it is ready")
        print(f"It runs, for {hours:g} hours.", flush=True)
        every = cadences()
        sampled = every.keys()
        stack.wait_until(lambda: sampled <= outcomes_on(stack.page()).keys(), "all is sampled")
        begin, before, watched = time.time(), outcomes_on(stack.page()), Watched()
        watch(stack, state, watched, hours)
        return report_of(stack, watched, begin, before, every)


def cadences() -> Mapping[str, float]:
    """Seconds from sample to sample, by source, as the settings say that `make run` has as well."""
    return {each.name: each.every_seconds for each in find_sampled(load_settings())}


def watch(stack: RunningStack, state: Path, watched: Watched, hours: float) -> None:
    """Look again and again."""
    begin = time.monotonic()
    looks = 0
    while (at := time.monotonic() - begin) < hours * SECONDS_PER_HOUR:
        watched.look(at, footprints(stack.process.pid), state)
        looks += 1
        if looks % TELL_EVERY_LOOKS == 1:
            pss_mb = sum(each.pss_mb for each in watched.last.values())
            print(f"{at / 60:6.1f} min: {pss_mb:.0f} MB of memory", flush=True)
        assert stack.process.poll() is None, stack.output
        time.sleep(LOOK_SECONDS)


def answer_of(whom: str, ask: Callable[[], T], unanswered: list[str]) -> T | None:
    """What it says; None if it says nothing, and then why is added to `unanswered`."""
    try:
        return ask()
    except httpx.HTTPError as error:
        unanswered.append(f"{whom}: {type(error).__name__}: {error}")
        return None


def cycles_on(stack: RunningStack, begin: float, end: float) -> Sequence[Cycles]:
    """What the webserver says of the time between."""
    schedules = stack.ask(SCHEDULES)["schedulesOrError"]["results"]
    runs = stack.ask(RUNS)["runsOrError"]["results"]
    return all_cycles(schedules, runs, begin, end)


def report_of(
    stack: RunningStack,
    watched: Watched,
    begin: float,
    before: Outcomes,
    every_seconds: Mapping[str, float],
) -> Report:
    """While it still runs."""
    end = time.time()
    unanswered: list[str] = []
    after = answer_of("exporter", lambda: outcomes_on(stack.page()), unanswered)
    cycles = answer_of("webserver", lambda: cycles_on(stack, begin, end), unanswered)
    return Report(
        (end - begin) / SECONDS_PER_HOUR,
        cycles or [],
        slots_between(every_seconds, before, after or {}, end - begin),
        trends(watched.anonymous_mb),
        trends(watched.files_mb),
        watched.last,
        watched.runs_mb,
        unanswered,
    )


def trends(samples: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Trend]:
    """After the warm-up; none of what was seen too seldom, as one that was only just started."""
    warm = {kind: each[int(len(each) * WARM_UP_SHARE) :] for kind, each in samples.items()}
    return {kind: trend_of(each) for kind, each in warm.items() if len(each) >= SAMPLES_OF_TREND}


if __name__ == "__main__":
    sys.exit(main())
