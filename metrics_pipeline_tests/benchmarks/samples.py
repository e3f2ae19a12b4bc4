"""Slots of 5 s with everything else running: how many are hit, how late, and at what CPU.

    python -m metrics_pipeline_tests.benchmarks.samples [--seconds N | --minutes N] [--json]

The whole stack of `make run` runs, with its simulators: fleet counts, polls of devices, telemetry,
exporter, daemon, webserver. Sampled are its four services, which fall and break, and the SQL sets
of the settings, of which the database is a PostgreSQL here that changes all the time. A slot of a
source is hit if the source was asked within half a second of it and the store has its points.

A sample is all that is asked and stored in 5 s. Its CPU is that of the threads that do so, over the
window; that of all the code server is beside it: its answers to the daemon and the sensor of
telemetry above all.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import sqlalchemy as sa
import yaml

from metrics_pipeline.access.environment import default_settings_file
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.platform_sources import find_sampled
from metrics_pipeline.simulators.platform_database import create_platform, step_platform
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.noted_definitions import NOTES_VARIABLE
from metrics_pipeline_tests.postgresql import PostgresqlDatabase, running_postgresql
from metrics_pipeline_tests.sampled_stack import SampledStack, sampled_stack

MODULE = "metrics_pipeline_tests.benchmarks.noted_definitions"
PASSWORD_VARIABLE = "BENCHMARK_PG_PASS"
EVERY_SECONDS = 5
IN_TIME_NS = NS_PER_SECOND // 2
STEP_SECONDS = 5.0
SETTLE_SECONDS = 30.0
"""From the first sample on; the stack has just started, with three runs at once."""

STORED_WITHIN_SECONDS = 15.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

Note = Mapping[str, Any]
Window = tuple[int, int]
"""From this time on until before that; nanoseconds since the epoch."""


def measure(seconds: float, settle_seconds: float = SETTLE_SECONDS) -> dict[str, Any]:
    """The figures of so many seconds."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        database = opened.enter_context(_changing_database())
        notes = folder / "notes"
        file, document = _settings(folder, database)
        variables = {NOTES_VARIABLE: str(notes), PASSWORD_VARIABLE: database.password}
        os.environ[PASSWORD_VARIABLE] = database.password  # of the settings in this process
        running = sampled_stack(folder, file, document, variables, module=MODULE, say=_say)
        it = opened.enter_context(running)
        while not notes.exists():
            it.stack.pause()
        _run(it, settle_seconds)
        every_ns = EVERY_SECONDS * NS_PER_SECOND
        first_ns = (time.time_ns() // every_ns + 1) * every_ns
        counted, cpu = it.slots(), cpu_seconds(it.code_server.process.pid)
        _run(it, seconds)
        cpu = cpu_seconds(it.code_server.process.pid) - cpu
        window = (first_ns, time.time_ns() // every_ns * every_ns)
        _run(it, STORED_WITHIN_SECONDS)
        missed = Counter(it.slots())
        missed.subtract(counted)
        every = {each.name: int(each.every_seconds) for each in find_sampled(it.stack.settings)}
        return figures(folder, _notes(notes), every, window) | {
            "code_server_cpu_ms_per_sample": round(cpu * 1000 / seconds * EVERY_SECONDS, 1),
            "load_average": round(os.getloadavg()[1], 1),
            "counted": {" ".join(labels): n for labels, n in sorted(missed.items()) if n},
        }


def figures(
    folder: Path, notes: Sequence[Note], every: Mapping[str, int], window: Window
) -> dict[str, Any]:
    """What the notes say and the store has, of the slots in `window`."""
    inside = [note for note in notes if window[0] <= note["slot_ns"] < window[1]]
    stored = _stored(folder, {name for note in inside for name in note["measurements"]}, window)
    slots = {name: range(*window, seconds * NS_PER_SECOND) for name, seconds in every.items()}
    missed = {
        name: _missed([note for note in inside if note["source"] == name], due, stored)
        for name, due in slots.items()
    }
    due = sum(map(len, slots.values()))
    lost = sum(lost.total() for lost in missed.values())
    delays = [(note["asked_ns"] - note["slot_ns"]) / 1e6 for note in inside]
    return {
        "slots": due,
        "slots_hit": due - lost,
        "slots_hit_share": round(1 - lost / due, 5),
        "slots_by_source": {name: len(each) for name, each in slots.items()},
        "missed_by_source": {name: dict(lost) for name, lost in missed.items() if lost},
        "jitter_p50_ms": round(statistics.median(delays), 1),
        "jitter_p99_ms": round(statistics.quantiles(delays, n=100)[98], 1),
        "jitter_max_ms": round(max(delays), 1),
        **_cpu_figures(inside, (window[1] - window[0]) / NS_PER_SECOND),
    }


def _missed(notes: Sequence[Note], due: range, stored: set[tuple[str, int]]) -> Counter[str]:
    """Of the slots `due` of one source, those that are not hit, by what became of them."""
    asked = {note["slot_ns"]: note for note in notes}
    return Counter(filter(None, (_why_missed(asked.get(slot), slot, stored) for slot in due)))


def _why_missed(note: Note | None, slot_ns: int, stored: set[tuple[str, int]]) -> str:
    if note is None:
        return "not asked"
    if note["asked_ns"] - slot_ns > IN_TIME_NS:
        return "late"
    if not note["measurements"]:
        return "failed"
    is_there = all((name, slot_ns) in stored for name in note["measurements"])
    return "" if is_there else "not stored"


def _cpu_figures(notes: Sequence[Note], seconds: float) -> dict[str, Any]:
    """What the threads that sample have used between the first note and the last, for each 5 s."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for note in notes:
        for name, spent in note["threads"].items():
            first.setdefault(name, spent)
            last[name] = spent
    by_name: Counter[str] = Counter()
    for name, spent in last.items():
        by_name[name.rpartition(" ")[0]] += spent - first[name]  # type: ignore[assignment]
    each = {name: round(spent * 1000 / seconds * 5, 1) for name, spent in by_name.items()}
    return {"cpu_ms_per_sample": round(sum(each.values()), 1), "cpu_ms_per_sample_by_thread": each}


def cpu_seconds(pid: int) -> float:
    """What the process has used; proc(5), utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


@contextmanager
def _changing_database() -> Iterator[PostgresqlDatabase]:
    """A PostgreSQL with the tables of a platform, which change."""
    random, stop = Random(1), threading.Event()
    with running_postgresql() as server, server.database() as database:
        engine = sa.create_engine(database.url)
        create_platform(engine, datetime.now(UTC), random)

        def change() -> None:
            while not stop.wait(STEP_SECONDS):
                step_platform(engine, datetime.now(UTC), random)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            yield database
        finally:
            stop.set()
            thread.join()
            engine.dispose()


def _settings(folder: Path, database: PostgresqlDatabase) -> tuple[Path, Mapping[str, Any]]:
    """The settings of `make run`, but for the database that is asked."""
    document = yaml.safe_load(default_settings_file().read_text())
    password = {"env": PASSWORD_VARIABLE}
    document["sql"]["databases"]["platform"] = {"url": database.plain_url, "password": password}
    document["sql"]["sets"]["postgres"] = {"database": "platform"}
    document["simulator"]["platform_database_file"] = None
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(document))
    return file, document


def _notes(file: Path) -> Sequence[Note]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _stored(folder: Path, measurements: set[str], window: Window) -> set[tuple[str, int]]:
    """The measurements and times of which there are points."""
    settings = EmbeddedStoreSettings(path=folder / "embedded.sqlite")
    with closing(EmbeddedStore(settings)) as store:
        return {
            (name, point.time_ns) for name in measurements for point in store.read(name, *window)
        }


def _run(it: SampledStack, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        it.stack.pause()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=0.0, help="how long (600)")
    parser.add_argument("--minutes", type=float, default=0.0, help="how long")
    options = parser.parse_args(arguments)
    found = measure(options.seconds + 60 * options.minutes or 600.0)
    show(found, options)


if __name__ == "__main__":
    main()
