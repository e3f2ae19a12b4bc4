"""What a soak says of cycles, slots and growth."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metrics_pipeline.stack.ports import find_free_port
from metrics_pipeline_tests.running_stack import RunningStack
from metrics_pipeline_tests.soak.__main__ import (
    Report,
    Watched,
    cadences,
    report_of,
    trends,
)
from metrics_pipeline_tests.soak.cycles import Cycles, all_cycles, due_times, outcome
from metrics_pipeline_tests.soak.sample_slots import SlotsOfSource, outcomes_on, slots_between
from metrics_pipeline_tests.soak.trend import Trend
from metrics_pipeline_tests.soak.watching import (
    OTHER,
    RUN,
    TEMPLATE,
    Footprint,
    descendants,
    file_sizes,
    footprint,
    footprints,
    kind_of,
)

FORKING = """
import multiprocessing, sys, time
run = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(3600,))
run.start()
print("it runs", flush=True)
sys.stdin.readline()
run.kill()
run.join()
"""


def tick(at: int, *runs: str, **more: Any) -> dict[str, Any]:
    return {"timestamp": at, "runIds": runs, "skipReason": None, "error": None, **more}


def test_the_times_of_a_schedule_are_those_of_cron() -> None:
    assert due_times("*/5 * * * *", 1, 901) == [300, 600, 900]
    assert due_times("*/1 * * * *", 60, 180) == [60, 120]
    assert due_times("37 * * * *", 0, 7200) == [2220, 5820]
    with pytest.raises(ValueError, match="not understood"):
        due_times("@daily", 0, 1)


def test_what_was_due_and_what_became_of_it() -> None:
    ticks = [tick(300, "a"), tick(600, skipReason="in flight"), tick(900, "b"), tick(1200, "c")]
    state = {"status": "RUNNING", "ticks": ticks}
    on = {"name": "on", "cronSchedule": "*/5 * * * *", "scheduleState": state}
    off = {**on, "scheduleState": {**state, "status": "STOPPED"}}
    runs = [{"runId": "a", "status": "SUCCESS"}, {"runId": "b", "status": "FAILURE"}]
    runs += [{"runId": "c", "status": "STARTED"}]
    (found,) = all_cycles([on, off], runs, 1, 1501)
    expected = {"done": 1, "skipped": 1, "failed": 1, "on its way": 1, "absent": 1}
    assert found == Cycles("on", 5, expected)
    assert found.missed == 3


def test_a_run_that_was_purged_had_ended() -> None:
    assert outcome(tick(0, "a"), {}) == "done"
    assert outcome(tick(0, error={"message": "broken"}), {}) == "failed"


def test_slots_are_read_off_the_page_by_source() -> None:
    name = "metrics_pipeline_sample_slots_total"
    page = (
        f'{name}{{source="a",outcome="sampled"}} 5.0\n{name}{{source="b",outcome="sampled"}} 2.0\n'
        f'{name}{{source="b",outcome="missed_late"}} 1.0\nother{{outcome="sampled"}} 9\n'
    )
    assert outcomes_on(page) == {"a": {"sampled": 5}, "b": {"sampled": 2, "missed_late": 1}}


def test_slots_are_due_by_the_clock_whatever_the_page_says() -> None:
    every = {"a": 5.0, "b": 10.0}
    before = {"a": {"sampled": 10}, "b": {"sampled": 5}}
    after = {"a": {"sampled": 128, "missed_late": 1}, "b": {"sampled": 65}}
    a, b = slots_between(every, before, after, 600.0)
    assert (a.due, a.missed, a.told) == (120, 1, "1 missed_late, 118 sampled")
    assert (b.due, b.missed) == (60, 0)
    no_page = slots_between(every, before, {}, 600.0)
    assert [each.missed for each in no_page] == [120, 60]
    stopped, twice = slots_between(
        every, before, {"a": {"sampled": 70}, "b": {"sampled": 125}}, 600.0
    )
    assert (stopped.missed, stopped.told) == (60, "60 sampled, 60 unexplained")
    assert twice.missed == 60


def test_what_make_run_samples_has_cadences() -> None:
    assert cadences() == {"service_health": 5, "platform": 5, "scrape_pipeline": 10}


def report(hours: float, slope: float, **outcomes: int) -> Report:
    watched = {"daemon": Footprint(1, 150.0, 110.0, 100.0, 20, 7)}
    trend = {"daemon": Trend(100.0, 101.0, slope, 0.1)}
    cycles = [Cycles("fleet", 2, {"done": 2})]
    slots = [SlotsOfSource("service_health", 5.0, sum(outcomes.values()), outcomes)]
    return Report(hours, cycles, slots, trend, {"store": trend["daemon"]}, watched, 180.0)


def test_missed_slots_are_missed() -> None:
    assert report(2, 0, sampled=5, failed=1).missed == 0
    assert report(2, 0, sampled=5, missed_late=1, not_stored=2).missed == 3


def test_a_soak_that_shows_nothing_does_not_pass() -> None:
    well = report(2, 0, sampled=5)
    assert well.problems(2.0) == []
    (no_cycles,) = replace(well, cycles=[]).problems(2.0)
    assert "No cycle was due" in no_cycles
    (no_slots,) = replace(well, slots=[]).problems(2.0)
    assert "No slot" in no_slots
    (missed,) = report(2, 0, sampled=5, missed_late=1).problems(2.0)
    assert missed == "1 cycles and slots missed."
    (grows,) = report(2, 2.5, sampled=5).problems(2.0)
    assert grows.endswith("daemon.")


def test_who_is_gone_at_the_end_is_a_problem() -> None:
    with subprocess.Popen(["true"], text=True) as process:
        stack = RunningStack(process, find_free_port(), find_free_port())
    told = report_of(stack, Watched(), time.time() - 60, {}, {"platform": 5.0}).problems(2.0)
    assert [each.partition(": ")[2].partition(":")[0] for each in told[1:3]] == [
        "exporter",
        "webserver",
    ]
    assert "12 cycles and slots missed" in told[0]


def test_memory_is_judged_once_it_was_watched_for_an_hour() -> None:
    assert report(2, 2.5).growing(2.0) == ["daemon"]
    assert report(2, 2.1).growing(2.0) == []  # not for certain
    assert report(0.2, 50).growing(2.0) == []
    simulators = {"simulators": report(2, 50).memory["daemon"]}
    assert replace(report(2, 0), memory=simulators).growing(2.0) == []  # they are not deployed


def test_the_report_has_a_line_for_each() -> None:
    text = report(2, 1.0, sampled=5, missed_late=1).text()
    assert "| fleet | 2 | 0 | 2 done |" in text
    assert "| slots of service_health, every 5 s | 6 | 1 | 1 missed_late, 5 sampled |" in text
    assert "| daemon | 150 | 110 | 100 | 20 | 7 | +1.00 ± 0.10 | 8,760 |" in text
    assert "| store | 100.00 | +1.00 ± 0.10 | 8,760 |" in text
    assert "| store | 100.00 | +1.00 ± 0.10 | ? |" in report(0.2, 1.0).text()


def test_the_warm_up_is_left_out_and_runs_have_no_trend(tmp_path: Path) -> None:
    watched = Watched()
    for at in range(8):
        memory = 100.0 if at >= 2 else 50.0
        processes = {"daemon": Footprint(1, 1, memory, memory), RUN: Footprint(2, 1, 10.0 * at)}
        watched.look(at * 10.0, processes, tmp_path)
    assert watched.runs_mb == 70
    (trend,) = trends(watched.anonymous_mb).values()
    assert trend.an_hour == pytest.approx(0, abs=1e-6)


def test_who_was_seen_too_seldom_for_a_trend_has_a_line_all_the_same(tmp_path: Path) -> None:
    watched = Watched()
    for at in range(2):
        watched.look(at * 10.0, {"gateway": Footprint(1, 80.0, 70.0, 60.0, 9, 3)}, tmp_path)
    trend = trends(watched.anonymous_mb)
    assert trend == {}
    seldom = replace(report(2, 0), memory=trend, last=watched.last)
    assert "| gateway | 80 | 70 | 60 | 9 | 3 | ? | ? |" in seldom.text()


def test_what_runs_are_forked_from_has_a_trend_of_its_own(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        found = footprints(parent.pid)
        parent.communicate("\n")
    assert {kind: each.processes for kind, each in found.items()} == {TEMPLATE: 1, RUN: 1}
    watched = Watched()
    watched.look(0.0, found, tmp_path)
    assert list(watched.anonymous_mb) == [TEMPLATE]


def test_a_process_and_its_files_are_measured(tmp_path: Path) -> None:
    mine = footprint(os.getpid())
    assert mine.processes == 1
    assert 1 < mine.anonymous_mb < mine.pss_mb <= mine.rss_mb
    assert mine.files > 2
    assert mine.threads >= 1
    assert os.getpid() in descendants(os.getppid())
    (tmp_path / "embedded.sqlite-wal").write_bytes(bytes(2_000_000))
    (tmp_path / "secret").write_bytes(bytes(1_000_000))
    sizes = file_sizes(tmp_path)
    assert (sizes["store"], sizes[OTHER], sizes["spool"]) == (2, 1, 0)


def test_processes_are_told_apart_by_their_command_lines() -> None:
    assert kind_of("/x/python -m metrics_pipeline code-server --port 1") == "code server"
    assert kind_of("/x/python -c from multiprocessing.forkserver import main") == RUN
    assert kind_of("/usr/bin/other") is None
