"""What the whole stack of `make run` takes of the machine while nobody asks it for anything.

    python -m metrics_pipeline_tests.benchmarks.idle [--seconds S] [--warm-up S] [--json]

It is started as `make run` does, with its simulators, on free ports and in a temporary state.

| key | |
|---|---|
| `KIND_percent` | CPU of the processes of one kind, in percent of one core |
| `runs_starting_percent` | of runs, in the first `STARTING_SECONDS` of their processes |
| `runs_going_on_percent` | of runs, after that: sweeps and windows of telemetry |
| `KIND_pss_mb` | memory at the end, that which is shared being shared out, in MB |
| `created_to_started_p50_s`, `_max_s` | of all runs that were created meanwhile |
| `cpu_share_of_one_core` | of all processes: 1 is one core |
| `rss_mb_by_process` | resident memory at the end, by kind, in MB; what several share is in each |
| `run_create_to_start_s` | the median, as above; null where no run was created |
| `bytes_per_day` | by how much the files of Dagster's event log grew, taken for a day |

The files of an event log grow in steps, as SQLite writes to a log of its own first, and in minutes
nothing is purged: `bytes_per_day` is rough, and `event_log_day` tells it better.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.figures import percentile
from metrics_pipeline_tests.running_stack import (
    READY,
    RunningStack,
    running_stack,
)
from metrics_pipeline_tests.soak.watching import (
    EVENT_LOG,
    MB,
    RUN,
    Footprint,
    command_of,
    descendants,
    file_sizes,
    footprints,
    kind_of,
)

COMMAND = f"exec {sys.executable} -m metrics_pipeline run PORTS --state-dir"
OTHER = "other"
SECONDS_PER_DAY = 86_400
LOOK_SECONDS = 0.5
STARTING_SECONDS = 10.0
TICKS = os.sysconf("SC_CLK_TCK")
RUNS = """{ runsOrError { ... on Runs { results { creationTime startTime } } } }"""


@dataclass(slots=True)
class Watch:
    """CPU seconds since the process group was first looked at; runs that end are not lost."""

    leader: int
    used: dict[str, float] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    going_on: float = 0.0
    _seen: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        """Read /proc once. What ended since is in what its parent says of its children."""
        used: dict[str, float] = {}
        seen: dict[int, float] = {}
        for pid in descendants(self.leader):
            with suppress(OSError):  # it has ended meanwhile
                kind = kind_of(command_of(pid)) or OTHER
                own, of_children, age = _times(pid)
                used[kind] = used.get(kind, 0.0) + own
                used[RUN] = used.get(RUN, 0.0) + of_children
                if kind == RUN:
                    seen[pid] = own
                    if age > STARTING_SECONDS and pid in self._seen:
                        self.going_on += own - self._seen[pid]
        if not self.first:
            self.first = used
        self.used, self._seen = used, seen

    def spent(self) -> Mapping[str, float]:
        """By kind, between the first look and the last."""
        return {kind: seconds - self.first.get(kind, 0.0) for kind, seconds in self.used.items()}


def _times(pid: int) -> tuple[float, float, float]:
    """CPU of a process, CPU of its children that have ended, and its age: seconds, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(each) / TICKS for each in fields[11:15])
    up_seconds = float(Path("/proc/uptime").read_text().split()[0])
    return user + system, children_user + children_system, up_seconds - int(fields[19]) / TICKS


def starts(stack: RunningStack, since: float) -> Sequence[float]:
    """Seconds from creating each run after `since` to its start."""
    found = stack.ask(RUNS)["runsOrError"]["results"]
    return [
        run["startTime"] - run["creationTime"]
        for run in found
        if run["creationTime"] >= since and run["startTime"] is not None
    ]


def promised(
    watched: float,
    spent: Mapping[str, float],
    memory: Mapping[str, Footprint],
    started: Sequence[float],
    event_log_grew_mb: float,
) -> dict[str, object]:
    """The figures that others rely on, of `watched` seconds; CPU `spent` in seconds, by kind."""
    return {
        "cpu_share_of_one_core": round(sum(spent.values()) / watched, 4),
        "rss_mb_by_process": {kind: round(each.rss_mb, 1) for kind, each in sorted(memory.items())},
        "run_create_to_start_s": round(statistics.median(started), 2) if started else None,
        "bytes_per_day": round(event_log_grew_mb * MB / watched * SECONDS_PER_DAY),
    }


def measure(folder: Path, seconds: float, warm_up: float) -> dict[str, object]:
    """Start the stack, let it warm up, and watch it for `seconds`."""
    with running_stack(["sh", "-c", f"{COMMAND} {folder}"], folder, {}) as stack:
        stack.wait_until(lambda: READY in stack.output, "it is ready")
        time.sleep(warm_up)
        watch, since = Watch(stack.process.pid), time.time()
        event_log_mb = file_sizes(folder)[EVENT_LOG]
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            watch.look()
            time.sleep(LOOK_SECONDS)
        watch.look()
        watched = time.monotonic() - began
        started = starts(stack, since)
        memory = footprints(stack.process.pid)
        event_log_grew_mb = file_sizes(folder)[EVENT_LOG] - event_log_mb
    used_seconds = watch.spent()
    spent = {kind: 100 * used / watched for kind, used in used_seconds.items()}
    going_on = 100 * watch.going_on / watched
    figures = {
        "seconds": watched,
        "all_percent": sum(spent.values()),
        **{f"{_key(kind)}_percent": share for kind, share in sorted(spent.items())},
        "runs_starting_percent": spent.get(RUN, 0.0) - going_on,
        "runs_going_on_percent": going_on,
        **{f"{_key(kind)}_pss_mb": each.pss_mb for kind, each in sorted(memory.items())},
        **{f"{_key(kind)}_processes": each.processes for kind, each in sorted(memory.items())},
        "all_pss_mb": sum(each.pss_mb for each in memory.values()),
        "runs_started": len(started),
        **_starts_seconds(started),
        "load": os.getloadavg()[0],
    }
    return {
        **{name: round(value, 2) for name, value in figures.items()},
        **promised(watched, used_seconds, memory, started, event_log_grew_mb),
    }


def _starts_seconds(started: Sequence[float]) -> Mapping[str, float]:
    """Of a time too short for any run there are none."""
    if not started:
        return {}
    return {
        "created_to_started_p50_s": percentile(started, 0.5),
        "created_to_started_max_s": max(started),
    }


def _key(kind: str) -> str:
    return "runs" if kind == RUN else kind.replace(" ", "_")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="default 300, one cycle")
    parser.add_argument("--warm-up", type=float, default=60.0, help="before that; default 60 s")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        show(measure(Path(name), options.seconds, options.warm_up), options)


if __name__ == "__main__":
    main()
