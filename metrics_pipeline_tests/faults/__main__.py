"""Breaks the product piece by piece while it works, and accounts for every point.

    make faults ARGS="--only store,disk --seconds 20"

Status 1 if anything is lost, is there twice, or does not come back. Takes 10 to 20 minutes; after
Ctrl-C the table has what was done before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from metrics_pipeline_tests.faults.accounting import Row, by_kind, table
from metrics_pipeline_tests.faults.catalogue import Fault, chosen
from metrics_pipeline_tests.faults.load import Mark
from metrics_pipeline_tests.faults.stage import Stage, opened

LOOK_SECONDS = 0.5
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
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each lasts (20)")
    options = parser.parse_args(arguments)
    try:
        faults = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's account passes through it
        rows = run(Path(folder) / "stage", faults, options.seconds)
    print(f"\n{table(rows)}\n\n{by_kind(rows)}")
    for row in rows:
        for remark in row.remarks:
            print(f"{row.fault}: {remark}")
    return 0 if all(row.is_well for row in rows) else 1


def run(folder: Path, faults: Sequence[Fault], seconds: float) -> list[Row]:
    """Each fault in turn, on one stage."""
    folder.mkdir()
    seen: list[Seen] = []
    with opened(folder, progress) as stage:
        marks = [stage.load.mark()]
        for fault in faults:
            if missing := fault.missing(stage):
                progress(f"{fault.name}: left out, {missing}")
                continue
            try:
                seen.append(happen(fault, stage, seconds))
                marks.append(stage.load.mark())
            except KeyboardInterrupt:
                progress(f"{fault.name}: broken off; accounting for what was done before")
                break
        return account(stage, seen[: len(marks) - 1], marks)


def happen(fault: Fault, stage: Stage, seconds: float) -> Seen:
    """Break, wait, restore, and wait until all goes on."""
    progress(f"{fault.name}: broken for {seconds:g} s ({fault.expected})")
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
