"""What counts as lost."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.orchestration.set_back_clock import WAS_OF
from metrics_pipeline_tests.faults.__main__ import (
    BROKEN_OFF,
    all_rows,
    happen,
    main,
    mark,
    show,
    status,
)
from metrics_pipeline_tests.faults.accounting import (
    NEVER,
    Row,
    Tally,
    account_kept,
    account_numbers,
    account_rounds,
    account_slots,
    by_fault_and_kind,
    by_kind,
    table,
    times_doubled,
)
from metrics_pipeline_tests.faults.catalogue import FAULTS, Fault, chosen
from metrics_pipeline_tests.faults.load import Load, Rounds, as_it_was, is_told, minutes
from metrics_pipeline_tests.faults.stage import Stage


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 10), st.integers(10, 25))
def test_numbers_are_stored_missing_or_there_twice(found: list[int], first: int, end: int) -> None:
    tally = account_numbers(found, first, end)
    mine = [number for number in found if first <= number < end]
    assert tally.stored + tally.lost == end - first == tally.sent
    assert tally.stored + tally.doubled == len(mine)


def test_a_dead_letter_is_not_lost() -> None:
    assert account_numbers([0, 1, 3], 0, 4).lost == 1
    assert account_numbers([0, 1, 3], 0, 4, dead_letters=1).lost == 0


def test_what_was_acknowledged_and_is_not_stored_is_lost() -> None:
    assert account_kept(["a", "b", "c"], ["b", "c", "d"]).lost == 1


def test_a_message_that_is_stored_twice_is_doubled() -> None:
    assert account_kept(["a", "b"], ["a", "a", "b", "c", "c"]) == Tally(2, 2, doubled=1)


def test_dead_letters_of_what_is_stored_as_well_are_counted_twice() -> None:
    assert account_numbers([0, 1, 3], 0, 4, dead_letters=3).counted_twice == 2


ASKED = ("sampled", "failed")


def test_a_slot_nobody_speaks_of_is_lost() -> None:
    outcomes = {"sampled": 5, "failed": 1, "missed_stopped": 3}
    assert account_slots(range(9), outcomes, ASKED, range(6), {}) == Tally(9, 6, told=3)
    assert account_slots(range(10), outcomes, ASKED, range(6), {}).lost == 1
    assert account_slots(range(9), outcomes, ASKED, range(5), {}).lost == 1  # said, and not there


def test_slots_that_are_told_of_twice_are_no_excuse_for_those_lost() -> None:
    outcomes = {"sampled": 5, "missed_late": 9}
    tally = account_slots(range(10), outcomes, ASKED, range(5), {})
    assert (tally.lost, tally.counted_twice) == (0, 4)
    assert not Row("store", 10.0, {"samples": tally}, back_seconds=1.0).is_well


def test_of_a_round_what_is_missing_is_told_of_or_lost() -> None:
    stored = {60: 10, 120: 4, 180: 9, 300: 10}
    tally = account_rounds([60, 120, 180, 240], 10, stored, {120, 240}, {120: 2, 300: 1})
    assert tally == Tally(40, 23, told=16, doubled=2)
    assert tally.lost == 1


def test_what_is_there_once_more_within_its_round_is_doubled() -> None:
    stored = [(60, "a"), (60, "b"), (119, "a"), (120, "a"), (61, "a")]
    doubled = times_doubled(stored, 60)
    assert {at: count for at, count in doubled.items() if count} == {60: 2}
    assert account_slots(range(60, 121, 60), {"sampled": 2}, ASKED, [60, 120], doubled).doubled == 2


def test_a_round_is_untold_until_dagster_says_why_it_is_not_whole() -> None:
    tick = {"skipReason": None, "error": None}
    ticks = [{**tick, "timestamp": at, "runIds": [f"{at:g}"]} for at in (60.0, 120.0, 180.0)]
    rounds = Rounds("polls", 2, {60: 2, 120: 1}, ticks, {"120": "STARTED", "180": "FAILURE"})
    assert (rounds.untold, rounds.told) == ([120], {180})


def test_what_one_kind_has_too_many_of_does_not_make_up_for_what_another_has_lost() -> None:
    row = Row("store", 10.0, {"a": Tally(5, 4), "b": Tally(5, 6)}, back_seconds=1.0)
    assert row.lost == 1
    assert not row.is_well


@pytest.mark.parametrize(
    ("tally", "back_seconds", "is_well"),
    [
        (Tally(3, 2, told=1), 1.0, True),
        (Tally(3, 3), None, False),
        (Tally(3, 3, doubled=1), 1.0, False),
        (Tally(3, 3, counted_twice=1), 1.0, False),
        (Tally(3, 2), 1.0, False),
    ],
)
def test_a_row_is_well_where_all_is_there_once_and_goes_on(
    tally: Tally, back_seconds: float | None, is_well: bool
) -> None:
    assert Row("store", 10.0, {"a": tally}, back_seconds).is_well is is_well


def test_the_tables_have_a_line_a_fault_and_a_line_a_kind() -> None:
    tallies = {"a": Tally(5, 3, told=1, dead_letters=1), "b": Tally(2, 2)}
    rows = [Row("store", 10.2, tallies, 3.4, spooled=7), Row("hub", 5.0, tallies)]
    head, rule, first, second = table(rows).splitlines()
    assert head.count("|") == rule.count("|") == first.count("|")
    assert first == "| store | 10 | 7 | 5 | 7 | 1 | 1 | 0 | 0 | 0 | 3 |"
    assert second.endswith(f"| {NEVER} |")
    assert by_kind(rows).splitlines()[2:] == [
        "| a | 10 | 6 | 2 | 2 | 0 | 0 | 0 |",
        "| b | 4 | 4 | 0 | 0 | 0 | 0 | 0 |",
    ]
    assert by_fault_and_kind(rows).splitlines()[2:] == [
        "| store | 5, 3, 1 | 2, 2, 0 |",
        "| hub | 5, 3, 1 | 2, 2, 0 |",
    ]


def test_a_fault_that_was_not_made_is_a_row_and_not_well() -> None:
    well = Row("store", 10.0, {"a": Tally(1, 1)}, back_seconds=1.0)
    rows = all_rows(chosen("store, disk, clock +"), [well], {"disk full": "it takes root"})
    head, _, first, second, third = table(rows).splitlines()
    assert first.startswith("| store | 10 |")
    assert second.startswith("| disk full | not made: it takes root |")
    assert third.startswith(f"| clock +1 h | not made: {BROKEN_OFF} |")
    assert head.count("|") == second.count("|")
    assert [status(found) for found in ([well], rows, [])] == [0, 1, 1]


def test_the_last_line_is_json_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("store", 10.2, {"a": Tally(5, 3, 1, told=1)}, 3.44, spooled=7)]
    show(all_rows(FAULTS[:2], rows, {"PostgreSQL": "it takes root"}), is_json=True)
    first, second = json.loads(capsys.readouterr().out.splitlines()[-1])
    numbers = {"sent": 5, "stored": 3, "spooled": 7, "dead_lettered": 1, "told_as_missed": 1}
    assert first.items() >= {"fault": "store", "lost": 0, "duplicated": 0, **numbers}.items()
    assert (first["recovery_s"], first["not_made"]) == (3.4, None)
    assert first["kinds"] == {"a": {"sent": 5, "stored": 3, "told_as_missed": 1}}
    assert (second["fault"], second["not_made"]) == ("PostgreSQL", "it takes root")


def test_a_fault_too_short_for_a_count_is_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--seconds", "9"])


def test_a_fault_is_begun_just_before_a_full_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [130.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    marked: list[float] = []
    stage = Stage.__new__(Stage)
    stage.load = Load.__new__(Load)
    monkeypatch.setattr(Load, "mark", lambda _: marked.append(clock[0]))
    mark(stage)
    assert marked == [174.0]


def test_faults_are_chosen_by_how_their_names_begin() -> None:
    assert [fault.name for fault in chosen("store, disk")] == ["store", "disk full"]
    assert chosen("") == FAULTS
    with pytest.raises(ValueError, match="No fault is called nothing"):
        chosen("store,nothing")


def test_a_clock_that_leaps_leaves_out_what_it_leapt_over() -> None:
    load = Load.__new__(Load)
    load.leaps = [(100.0, 0), (200.0, 3600), (300.0, 0)]
    assert load.spans(50, 150) == [(50, 100), (100, 150)]
    assert load.spans(150, 250) == [(150, 200), (3800, 3850)]
    assert load.spans(250, 350) == [(3850, 3900), (300, 350)]


def test_a_minute_belongs_to_the_time_in_which_it_begins() -> None:
    assert list(minutes(60, 180)) == [60, 120]
    assert list(minutes(60.1, 180.1)) == [120, 180]


def test_a_tick_is_told_of_by_its_reason_or_by_the_end_of_its_run() -> None:
    tick = {"runIds": ["a"], "skipReason": None, "error": None}
    assert not is_told(tick, {"a": "STARTED"})
    assert not is_told(tick, {"a": "SUCCESS"})  # and the count has to be stored
    assert is_told(tick, {"a": "FAILURE"})
    assert is_told({**tick, "runIds": [], "skipReason": "in flight"}, {})


def test_a_tick_of_a_clock_that_was_ahead_is_of_the_time_that_its_reason_says() -> None:
    moved = f"{WAS_OF} 1970-01-01T01:00:00+00:00."
    tick = {"timestamp": 60.0, "skipReason": moved, "runIds": ["a"], "error": None}
    as_before = as_it_was(tick)
    assert as_before["timestamp"] == 3600
    assert is_told(as_before, {"a": "CANCELED"})
    assert not is_told(as_before, {"a": "SUCCESS"})
    skipped = as_it_was({**tick, "runIds": [], "skipReason": f"{moved} Run a is still queued."})
    assert skipped["skipReason"] == "Run a is still queued."
    assert as_it_was(skipped) == skipped


def test_a_fault_that_is_broken_off_is_mended() -> None:
    def interrupt(_: Stage) -> None:
        raise KeyboardInterrupt

    mended: list[Stage] = []
    stage = Stage.__new__(Stage)
    with pytest.raises(KeyboardInterrupt):
        happen(Fault("store", interrupt, mended.append), stage, 0)
    assert mended == [stage]
