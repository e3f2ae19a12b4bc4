"""What the status says of what is known: what is stale, what is worst, and that it is bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metrics_pipeline.core.fetches import to_label
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.core.telemetry_assets import LAG, UPLINKS
from metrics_pipeline.exporter.instance_reader import (
    NO_RUNS,
    FinishedRun,
    InstanceState,
    JobState,
)
from metrics_pipeline.exporter.refresher import Known
from metrics_pipeline.exporter.samples import Seen
from metrics_pipeline.exporter.status import MAX_ROWS, Status, take_stock
from metrics_pipeline.exporter.status_page import StatusPage
from metrics_pipeline.storage.snapshots import Snapshot
from metrics_pipeline.storage.spool_state import SpoolState

NOW = 10_000.0
NOTHING_SEEN = Seen({}, {}, None, NOW, 0, "1.0")


def snapshot(
    asset: str, complete: float | None, updated: float | None = None, *points: Point
) -> Snapshot:
    """One that was complete and updated at these seconds."""
    last = complete if updated is None else updated
    complete_ns = None if complete is None else int(complete * 1e9)
    return Snapshot(asset, 1, int((last or 0) * 1e9), complete_ns, points)


def stock(every: dict[str, float] | None = None, *snapshots: Snapshot, **seen: object) -> Status:
    shown = {s.asset: s for s in snapshots}
    found = replace(NOTHING_SEEN, snapshots=shown, every_seconds=every or {}, **seen)  # type: ignore[arg-type]
    return take_stock(Known(found, (), None), NOW)


@pytest.mark.parametrize(
    ("age", "every", "state"),
    [
        (180, 60, "current"),
        (181, 60, "stale"),
        (60, 5, "current"),
        (61, 5, "stale"),
        (-5, 5, "current"),
    ],
)
def test_an_asset_is_stale_after_three_intervals_and_a_minute(
    age: float, every: float, state: str
) -> None:
    status = stock({"a": every}, snapshot("a", NOW - age))
    assert [row.state for row in status.collected.shown] == [state]
    assert status.is_well is (state == "current")


def test_an_asset_that_should_be_there_and_never_was_is_said_first() -> None:
    status = stock({"a": 60, "b": 60, "c": 60}, snapshot("a", NOW), snapshot("b", NOW - 300))
    assert [(row.asset, row.state) for row in status.collected.shown] == [
        ("c", "never collected"),
        ("b", "stale"),
        ("a", "current"),
    ]
    assert status.stale == 2


def test_what_came_in_part_since_is_incomplete() -> None:
    rows = stock(
        {"a": 60, "b": 60, "c": 60},
        snapshot("a", NOW - 30, NOW),
        snapshot("b", NOW - 300, NOW),
        snapshot("c", None, NOW),
    ).collected.shown
    assert {row.asset: row.state for row in rows} == {
        "a": "incomplete",
        "b": "stale, incomplete",
        "c": "incomplete",
    }


def test_a_job_fails_while_its_last_run_failed() -> None:
    def state(status: str) -> JobState:
        return JobState(frozenset(), None, {}, FinishedRun("run", status, NOW))

    jobs = {"a": state("success"), "b": state("failure"), "c": state("canceled"), "d": NO_RUNS}
    status = stock(instance=InstanceState(jobs, {}, 0))
    assert [job.name for job in status.failing_jobs] == ["b"]
    assert [job.name for job in status.jobs or ()] == ["b", "a", "c", "d"]
    assert not status.is_well


def test_a_daemon_is_lost_after_three_heartbeats() -> None:
    beats = {"SENSOR": NOW - 90, "SCHEDULER": NOW - 91, "ASSET": NOW + 5}
    status = stock(instance=InstanceState({}, beats, 0))
    assert [(b.daemon, b.age_seconds, b.is_late) for b in status.heartbeats] == [
        ("SCHEDULER", 91, True),
        ("SENSOR", 90, False),
        ("ASSET", 0, False),
    ]
    assert not status.is_well


def test_the_worst_rows_are_kept_and_the_others_counted() -> None:
    points = tuple(
        Point(LAG, {"partition": str(n)}, {"lag_events": n, "lag_seconds": float(n)}, 1)
        for n in range(MAX_ROWS + 7)
    )
    partitions = stock(None, snapshot(UPLINKS, NOW, None, *points)).partitions
    assert [p.name for p in partitions.shown] == [str(n) for n in range(MAX_ROWS + 6, 6, -1)]
    assert (partitions.total, partitions.hidden) == (MAX_ROWS + 7, 7)


def test_events_are_told_with_those_that_were_lost_by_reason() -> None:
    def page(**totals: dict[str, int]) -> str:
        named = {f"metrics_pipeline_events_{name}_total": of for name, of in totals.items()}
        seen = replace(NOTHING_SEEN, totals=named)
        return StatusPage(clock=lambda: NOW).render(Known(seen, (), None))

    lost = page(published={"": 12_345}, dropped={"closed": 1, "queue_full": 4000, "not_json": 0})
    assert "All is well" in lost
    assert (
        "<p>Others were told of 12 345; "
        '<span class="bad">4 001 were lost</span> (queue_full 4 000, closed 1).</p>'
    ) in lost
    assert '<span class="good">0 were lost</span>.' in page(published={"": 1})
    assert '<h2 id="events">' not in page()


def test_slots_are_told_by_source_with_those_that_were_missed_together() -> None:
    counts = {
        to_label(("good", Outcome.SAMPLED)): 9,
        to_label(("bad", Outcome.SAMPLED)): 3,
        to_label(("bad", Outcome.LATE)): 2,
        to_label(("bad", Outcome.STOPPED)): 1,
        to_label(("bad", Outcome.FAILED)): 4,
        to_label(("bad", Outcome.NOT_STORED)): 5,
    }
    status = stock(totals={"metrics_pipeline_sample_slots_total": counts})
    assert [
        (s.source, s.sampled, s.failed, s.not_stored, s.missed) for s in status.slots.shown
    ] == [
        ("bad", 3, 4, 5, 3),
        ("good", 9, 0, 0, 0),
    ]


def test_the_score_is_the_newest_and_its_components_are_the_worst_first() -> None:
    def component(name: str, value: float, time_ns: int) -> Point:
        return Point("pipeline_health", {"component": name}, {"value": value}, time_ns)

    points = (
        component("score", 70.0, 2),
        component("score", 90.0, 1),
        component("freshness", 100.0, 2),
        component("review", 20.0, 2),
    )
    status = stock(None, snapshot("platform/scrape", NOW, None, *points))
    assert status.score == 70
    assert status.components == [("review", 20), ("freshness", 100)]


@pytest.mark.parametrize(
    ("state", "says", "is_well"),
    [
        (SpoolState(0, 900, 0, None, 0), "Nothing waits for the time-series store", True),
        (SpoolState(90, 900, 7, int((NOW - 60) * 1e9), 0), "7 points wait", True),
        (SpoolState(90, 900, 7, int((NOW - 61) * 1e9), 0), "takes nothing: points wait", False),
        (SpoolState(90, 900, 0, None, 2), "2 damaged pieces were set aside", False),
    ],
)
def test_points_that_wait_in_the_spool_and_what_was_damaged_are_said(
    state: SpoolState, says: str, is_well: bool
) -> None:
    known = Known(replace(NOTHING_SEEN, spool=state), (), None)
    assert take_stock(known, NOW).is_well is is_well
    page = StatusPage(clock=lambda: NOW).render(known)
    assert says in page.replace("</span>", "")
    assert "90 of 900 bytes" in page or "0 of 900 bytes" in page


def test_without_a_spool_nothing_is_said_of_one() -> None:
    page = StatusPage(clock=lambda: NOW).render(Known(NOTHING_SEEN, (), None))
    assert "pool" not in page.replace("Metrics pipeline", "")
