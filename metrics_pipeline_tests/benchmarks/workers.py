"""What handing a poll to a worker of Celery costs, beside the poll: `python -m … --runs 6 --json`.

Each run is a process, as the code server starts them, and the worker is warm: the first run is not
counted. The devices are few and answer at once, so that what is left is the way there and back.
Memory is the share that is a process's own, and its part of what several have (Pss of
`/proc/PID/smaps_rollup`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dagster._core.storage.tags import PARTITION_NAME_TAG

from metrics_pipeline.core.device_assets import METRICS_JOB
from metrics_pipeline_tests.orchestration.poll_workers import Site, children_of, site
from metrics_pipeline_tests.servers import wait_until

WORKER = "measured"
MIB = 1024
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
RUN = [sys.executable, "-m", "dagster", "job", "execute", "-m", "metrics_pipeline.definitions"]


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the runs; CPU in ms, memory in MiB."""

    runs: int
    run_cpu_ms: float
    """Of the process of a run, start and all, which waits while its step is polled."""
    worker_cpu_ms: float
    """Of the worker and its child, for one step of a few devices."""
    run_mib: float
    """Of the process of a run, while it waits."""
    worker_mib: float
    """Of the worker's main process."""
    child_mib: float
    """Of the process in which it polls."""
    load: float


def measure(folder: Path, runs: int) -> Figures:
    """One worker, one run after the other."""
    with site(folder) as it:
        it.start_worker(WORKER)
        _run(it)
        worker = it.workers[WORKER]
        pids = [worker.process.pid, *children_of(worker)]
        before = sum(map(_cpu_ms, pids))
        measured = [_run(it) for _ in range(runs)]
        spent = sum(map(_cpu_ms, pids)) - before
        return Figures(
            runs,
            round(statistics.median(cpu for cpu, _ in measured)),
            round(spent / runs),
            round(statistics.median(mib for _, mib in measured)),
            round(_mib(pids[0])),
            round(statistics.median(map(_mib, pids[1:]))),
            round(os.getloadavg()[0], 1),
        )


def _run(it: Site) -> tuple[float, float]:
    """CPU and memory of the process of one run; the memory while its step is held up."""
    it.hold_up()
    tags = json.dumps({PARTITION_NAME_TAG: "1"})
    with (it.folder / "run.log").open("ab") as log:
        process = subprocess.Popen(
            [*RUN, "-j", METRICS_JOB, "--tags", tags], stdout=log, stderr=log
        )
    wait_until(lambda: it.is_polled("1"), "the shard is polled", process)
    memory = _mib(process.pid)
    it.go_on()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return 1000 * (used.ru_utime + used.ru_stime), memory


def _cpu_ms(pid: int) -> float:
    """Used so far (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _mib(pid: int) -> float:
    found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert found is not None
    return int(found[1]) / MIB


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = asdict(measure(Path(folder), options.runs))
    for name, value in figures.items():
        print(f"{name:<14} {value}")
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
