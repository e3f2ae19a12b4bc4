"""Breaks the product piece by piece while it works, and accounts for every point.

    make faults ARGS="--only store,disk --seconds 20"

Status 1 if anything is lost, is there or counted twice, or does not come back, and if a fault could
not be made here. Each begins just before a full minute, so that a count and a poll are due in it.
Takes 15 to 25 minutes; after Ctrl-C the table has what was done before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from metrics_pipeline_tests.faults.accounting import (
    Row,
    by_fault_and_kind,
    by_kind,
    table,
)
from metrics_pipeline_tests.faults.catalogue import Fault, chosen
from metrics_pipeline_tests.faults.load import MINUTE_SECONDS, Mark
from metrics_pipeline_tests.faults.stage import Stage, opened

LOOK_SECONDS = 0.5
BEGINS = (54, 57)
"""Seconds of a minute in which a fault begins: what is due each minute falls into it."""
LEAST_SECONDS = 10.0
BROKEN_OFF = "broken off before"
BEGAN = time.monotonic()


@dataclass(slots=True)
class Seen:
    """Of one fault, before it is accounted for."""

    fault: Fault
    away_seconds: float
    back_seconds: float | None
    remarks: list[str] = field(default_factory=list)


def progress(text: str) -> None:
    """Tell how far it is."""
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {text}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="names of faults, divided by commas")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="how long each lasts (20; 10 at least)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list as the last line")
    options = parser.parse_args(arguments)
    if options.seconds < LEAST_SECONDS:
        parser.error(
            f"--seconds {options.seconds:g}: nothing that is due each minute falls into it"
        )
    try:
        faults = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's account passes through it
        rows = run(Path(folder) / "stage", faults, options.seconds)
    show(rows, is_json=options.json)
    return status(rows)


def show(rows: Sequence[Row], *, is_json: bool) -> None:
    """Print the tables and remarks, and at last the same as one line of JSON if asked for."""
    print(f"\n{table(rows)}\n\n{by_fault_and_kind(rows)}\n\n{by_kind(rows)}")
    for row in rows:
        for remark in row.remarks:
            print(f"{row.fault}: {remark}")
    if is_json:
        print(json.dumps([row.as_json() for row in rows]))


def status(rows: Sequence[Row]) -> int:
    """The exit status: nothing tried is nothing shown."""
    return 0 if rows and all(row.is_well for row in rows) else 1


def run(folder: Path, faults: Sequence[Fault], seconds: float) -> list[Row]:
    """Each fault in turn, on one stage."""
    folder.mkdir()
    seen: list[Seen] = []
    with opened(folder, progress) as stage:
        not_made = {fault.name: why for fault in faults if (why := fault.missing(stage))}
        for name, why in not_made.items():
            progress(f"{name}: not made, {why}")
        marks: list[Mark] = []
        try:
            marks.append(mark(stage))
            for fault in faults:
                if fault.name not in not_made:
                    seen.append(happen(fault, stage, seconds))
                    marks.append(mark(stage))
        except KeyboardInterrupt:
            progress("broken off; accounting for what was done before")
        made = seen[: max(0, len(marks) - 1)]
        return all_rows(faults, account(stage, made, marks) if made else [], not_made)


def all_rows(
    faults: Sequence[Fault], made: Sequence[Row], not_made: Mapping[str, str]
) -> list[Row]:
    """One for each fault, also for those that were not made, with the reason."""
    rows = {row.fault: row for row in made}
    for fault in faults:
        why = not_made.get(fault.name, BROKEN_OFF)
        rows.setdefault(fault.name, Row(fault.name, 0.0, {}, not_made=why))
    return [rows[fault.name] for fault in faults]


def mark(stage: Stage) -> Mark:
    """Just before a full minute."""
    while not BEGINS[0] <= time.time() % MINUTE_SECONDS < BEGINS[1]:
        time.sleep(LOOK_SECONDS)
    return stage.load.mark()


def happen(fault: Fault, stage: Stage, seconds: float) -> Seen:
    """Break, wait, restore, and wait until all goes on."""
    progress(f"{fault.name}: broken for {seconds:g} s")
    began = ended = time.monotonic()
    try:
        try:
            fault.break_(stage)
            time.sleep(seconds)
        finally:  # also after Ctrl-C: what was done before is accounted for
            ended = time.monotonic()
            fault.restore(stage)
        await_recovery(stage)
    except pytest.fail.Exception as failure:
        progress(f"{fault.name}: {failure}")
        return Seen(fault, ended - began, None, [str(failure).splitlines()[0]])
    back = time.monotonic() - ended
    progress(f"{fault.name}: all goes on {back:.0f} s after its end")
    return Seen(fault, ended - began, back)


def await_recovery(stage: Stage) -> None:
    """Return once what comes from now on is stored, and nothing waits."""
    it, load = stage.it, stage.load
    sent, acknowledged = it.sending.count, load.acknowledged()
    it.wait_until(lambda: it.uplink_count() >= sent, "the uplinks are stored")
    sampled = load.sampled()
    it.wait_until(lambda: load.sampled() > sampled, "the service is sampled")
    it.wait_until(lambda: load.acknowledged() > acknowledged, "robots are answered")
    it.wait_until(lambda: stage.waiting_points() == 0, "the spool is empty")
    it.wait_until(it.webserver.is_up, "the webserver is up")
    it.wait_until(lambda: it.value('up{job="metrics_pipeline"}') == 1, "the exporter is scraped")


def account(stage: Stage, seen: Sequence[Seen], marks: Sequence[Mark]) -> list[Row]:
    """Once all that is on its way has arrived."""
    progress("accounting: runs that were killed end within minutes")
    it, load = stage.it, stage.load
    it.sending.stop()
    remarks = []
    try:
        it.wait_until(lambda: it.uplink_count() >= it.sending.count, "the last uplink is stored")
        it.wait_until(lambda: load.untold() == [], "each count is stored, or told of")
    except pytest.fail.Exception as failure:
        remarks.append(str(failure).splitlines()[0])
    found = load.tallies(marks)
    return [
        Row(
            *(each.fault.name, each.away_seconds, tallies, each.back_seconds),
            *(end.spooled - begin.spooled, [*each.remarks, *remarks]),
        )
        for each, tallies, (begin, end) in zip(seen, found, pairwise(marks), strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
