"""What could not be decoded is there once, with its beginning, until the table is full."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.errors import StoreUnavailable
from metrics_pipeline.core.telemetry import DeadLetter
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.dead_letters import (
    BODY_BYTES,
    DROPPED_TOTAL,
    KEPT_TOTAL,
    ROW_BYTES,
    DeadLetters,
    DeadLetterSettings,
    KeptDeadLetter,
    Selection,
    delete_before,
)
from metrics_pipeline.storage.operational import (
    DEAD_LETTER_SIZE,
    DEAD_LETTERS,
    TALLIES,
    OperationalDatabase,
)
from metrics_pipeline_tests.at_once import at_once, last_word_of_the_killed

HUB = ("plant.servicebus.windows.net", "uplinks", "$Default")
PROCESSES = 4
NOW_NS = 1_700_000_000_000_000_000

TEXTS = st.text(st.characters(codec=None), max_size=40)
INT64 = st.integers(-(2**63), 2**63 - 1)
LETTERS = st.builds(
    DeadLetter,
    partition=st.sampled_from("01"),
    sequence_number=INT64,
    offset=TEXTS,
    enqueued_time_ns=st.integers(-(2**70), 2**70),
    reason=TEXTS,
    detail=TEXTS,
    body=st.binary(max_size=2 * BODY_BYTES),
    index=st.integers(0, 2**31),
)

Make = Callable[..., DeadLetters]


def letter(
    sequence_number: int, reason: str = "not_json", body: bytes = b"{", **changes: Any
) -> DeadLetter:
    first = DeadLetter(
        partition="0",
        sequence_number=sequence_number,
        offset=str(sequence_number * 48),
        enqueued_time_ns=NOW_NS + sequence_number,
        reason=reason,
        detail=f"of event {sequence_number}",
        body=body,
    )
    return replace(first, **changes)


def letters(numbers: Iterable[int], **changes: Any) -> list[DeadLetter]:
    return [letter(n, **changes) for n in numbers]


@pytest.fixture
def make(operational: OperationalDatabase) -> Make:
    def make(hub: tuple[str, str, str] = HUB, now_ns: int = NOW_NS, **bounds: int) -> DeadLetters:
        settings = DeadLetterSettings(**bounds)
        return DeadLetters(operational, settings, *hub, clock_ns=lambda: now_ns)

    return make


def totals(database: OperationalDatabase) -> dict[str, dict[str, int]]:
    with database.reading() as connection:
        found = tallies.totals(connection)
    return {"kept": found.get(KEPT_TOTAL, {}), "dropped": found.get(DROPPED_TOTAL, {})}


def assert_size_is_true(database: OperationalDatabase) -> None:
    """What is noted of the table is what is in it."""
    counted = sa.select(
        sa.func.count(), sa.func.coalesce(sa.func.sum(DEAD_LETTERS.c.size_bytes), 0)
    )
    noted = sa.select(DEAD_LETTER_SIZE.c.row_count, DEAD_LETTER_SIZE.c.size_bytes)
    with database.reading() as connection:
        assert tuple(connection.execute(noted).one()) == tuple(connection.execute(counted).one())


def numbers(found: Iterable[KeptDeadLetter]) -> list[int]:
    return [each.letter.sequence_number for each in found]


# --- what is kept ---------------------------------------------------------------------------------


def test_what_is_kept_is_found_as_it_was(make: Make) -> None:
    dead_letters = make()
    given = [letter(1), letter(2, "not_utf8", b"\xff\x00\xfe"), letter(3, index=7)]
    report = dead_letters.keep(given)
    assert (report.kept, report.dropped) == ({"not_json": 2, "not_utf8": 1}, {})
    found = dead_letters.find()
    assert [each.letter for each in found] == given
    assert {each.kept_at_ns for each in found} == {NOW_NS}
    assert [each.body_bytes for each in found] == [1, 3, 1]


def test_nothing_to_keep_is_nothing_done(make: Make, operational: OperationalDatabase) -> None:
    assert make().keep([]).kept == {}
    assert make().find() == []
    assert make().counts() == {}


def test_of_a_long_body_the_first_kilobyte_is_kept_and_its_length(make: Make) -> None:
    body = os.urandom(BODY_BYTES) + b"\0" * (2**20 - BODY_BYTES)
    make().keep([letter(1, body=body), letter(2, body=b""), letter(3, body=body[:BODY_BYTES])])
    found = make().find()
    assert [each.letter.body for each in found] == [body[:1024], b"", body[:1024]]
    assert [each.body_bytes for each in found] == [2**20, 0, 1024]


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(LETTERS)
def test_whatever_is_in_a_letter_it_can_be_kept(make: Make, odd: DeadLetter) -> None:
    dead_letters = make()
    dead_letters.remove([each.id for each in dead_letters.find()])
    dead_letters.keep([odd])
    (found,) = dead_letters.find()
    assert found.letter.body == odd.body[:BODY_BYTES]
    assert found.letter.sequence_number == odd.sequence_number
    assert found.letter.index == odd.index
    assert found.body_bytes == len(odd.body)
    if odd.detail.isprintable():
        assert found.letter.detail == odd.detail


def test_nul_and_halves_of_characters_are_written_out(make: Make) -> None:
    make().keep([letter(1, detail="a\0b\ud800c", reason="x" * 300)])
    (found,) = make().find()
    assert found.letter.detail == "a\\x00b\\ud800c"
    assert found.letter.reason == "x" * 64


def test_what_is_read_twice_is_there_once_and_counted_once(
    make: Make, operational: OperationalDatabase
) -> None:
    make().keep(letters(range(5)))
    report = make(now_ns=NOW_NS + 1).keep([*letters(range(3, 8)), letter(7, "wrong_shape")])
    assert report.kept == {"not_json": 3}
    assert numbers(make().find()) == list(range(8))
    assert totals(operational) == {"kept": {"not_json": 8}, "dropped": {}}
    assert_size_is_true(operational)


def test_two_uplinks_of_one_event_are_two_letters(make: Make) -> None:
    assert make().keep([letter(1, index=0), letter(1, index=1)]).kept == {"not_json": 2}


@pytest.mark.parametrize("part", [0, 1, 2])
def test_another_hub_or_group_has_letters_of_its_own(make: Make, part: int) -> None:
    other = tuple("other" if n == part else name for n, name in enumerate(HUB))
    make().keep([letter(1)])
    make(other).keep([letter(1, "not_utf8")])
    assert make().counts() == {"not_json": 1}
    assert make(other).counts() == {"not_utf8": 1}
    (theirs,) = make(other).find()
    assert make().remove([theirs.id]) == 0
    shouted = (HUB[0].upper(), "UPLINKS", "$default")
    assert make(shouted).counts() == {"not_json": 1}


def test_the_same_number_on_another_partition_is_another_letter(make: Make) -> None:
    assert make().keep([letter(1), letter(1, partition="1")]).kept == {"not_json": 2}


def test_the_same_number_at_another_time_is_another_letter(
    make: Make, operational: OperationalDatabase
) -> None:
    """As in a hub that was made anew under its old name."""
    make().keep(letters(range(3)))
    anew = letters(range(2), enqueued_time_ns=NOW_NS + 10**9)
    for expected in ({"not_json": 2}, {}):
        assert make().keep(anew).kept == expected
    assert numbers(make().find()) == [0, 1, 2, 0, 1]
    assert totals(operational)["kept"] == {"not_json": 5}


def test_a_time_that_no_column_holds_is_the_same_when_it_comes_again(make: Make) -> None:
    for expected in ({"not_json": 1}, {}):
        assert make().keep([letter(1, enqueued_time_ns=2**70)]).kept == expected


# --- looking, and removing ------------------------------------------------------------------------


def test_letters_are_found_by_what_they_are(make: Make) -> None:
    make().keep([*letters(range(4)), letter(4, "not_utf8"), letter(5, partition="1")])
    make(now_ns=NOW_NS + 10).keep([letter(6)])
    ids = [kept.id for kept in make().find()]
    selections = {
        Selection(): [0, 1, 2, 3, 4, 5, 6],
        Selection(reason="not_utf8"): [4],
        Selection(reason="nothing"): [],
        Selection(partition="1"): [5],
        Selection(kept_since_ns=NOW_NS + 10): [6],
        Selection(kept_since_ns=NOW_NS): [0, 1, 2, 3, 4, 5, 6],
        Selection(kept_before_ns=NOW_NS + 10): [0, 1, 2, 3, 4, 5],
        Selection(id=ids[3]): [3],
        Selection(after_id=ids[3]): [4, 5, 6],
        Selection(first_sequence_number=2, last_sequence_number=4): [2, 3, 4],
        Selection(reason="not_json", partition="0", first_sequence_number=3): [3, 6],
    }
    for wanted, expected in selections.items():
        assert numbers(make().find(wanted)) == expected, wanted
        assert sum(make().counts(wanted).values()) == len(expected), wanted
    assert numbers(make().find(limit=2)) == [0, 1]
    assert make().counts() == {"not_json": 6, "not_utf8": 1}


def test_what_was_replayed_is_removed(make: Make, operational: OperationalDatabase) -> None:
    make().keep(letters(range(1200)))
    ids = [each.id for each in make().find(limit=1100)]
    assert make().remove(ids) == 1100
    assert make().remove(ids) == 0
    assert make().remove([]) == 0
    assert numbers(make().find()) == list(range(1100, 1200))
    assert_size_is_true(operational)
    assert totals(operational)["dropped"] == {}


def test_an_id_is_never_given_again(make: Make) -> None:
    make().keep(letters([1]))
    (first,) = make().find()
    make().remove([first.id])
    make().keep(letters([2]))
    (second,) = make().find()
    assert second.id > first.id


# --- the bounds -----------------------------------------------------------------------------------


def test_a_full_table_drops_the_oldest_counts_them_and_says_so_once(
    make: Make, operational: OperationalDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    make(max_rows=5).keep([letter(0, "not_utf8"), *letters(range(1, 4))])
    assert caplog.records == []
    report = make(max_rows=5).keep(letters(range(4, 8)))
    assert report.kept == {"not_json": 4}
    assert report.dropped == {"not_json": 2, "not_utf8": 1}
    assert numbers(make().find()) == [3, 4, 5, 6, 7]
    assert totals(operational) == {
        "kept": {"not_json": 7, "not_utf8": 1},
        "dropped": {"not_json": 2, "not_utf8": 1},
    }
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "(5 rows or 100000000 bytes)" in warning.getMessage()
    assert "the oldest 3 were dropped (2 not_json, 1 not_utf8)" in warning.getMessage()
    assert_size_is_true(operational)


def test_bytes_bound_it_too(make: Make, operational: OperationalDatabase) -> None:
    of_one = ROW_BYTES + len("not_json" + "of event 30" + "1440") + BODY_BYTES
    numbers_given = range(30, 50)
    make(max_bytes=of_one * 10).keep(letters(numbers_given, body=b"x" * 5000))
    kept = numbers(make().find())
    assert kept == list(range(40, 50))
    make(max_bytes=of_one * 10).keep(letters([1], body=b""))
    assert len(make().find()) == 10
    assert_size_is_true(operational)


def test_bounds_that_were_lowered_hold_from_the_next_letter_on(
    make: Make, operational: OperationalDatabase
) -> None:
    make().keep(letters(range(2500)))
    assert make(max_rows=10).keep([letter(2500)]).dropped == {"not_json": 2491}
    assert numbers(make().find()) == list(range(2491, 2501))
    assert_size_is_true(operational)


def test_of_more_at_once_than_there_is_room_for_the_newest_stay(make: Make) -> None:
    report = make(max_rows=3).keep(letters(range(2000)))
    assert (report.kept, report.dropped) == ({"not_json": 2000}, {"not_json": 1997})
    assert numbers(make().find()) == [1997, 1998, 1999]


def test_the_bounds_are_of_the_whole_table(make: Make) -> None:
    make(("other", "hub", "group"), max_rows=2).keep(letters([1, 2]))
    make(max_rows=2).keep([letter(3)])
    assert numbers(make(("other", "hub", "group")).find()) == [2]


def test_those_that_are_too_old_go_in_batches_whatever_their_hub_and_are_not_dropped(
    operational: OperationalDatabase,
) -> None:
    for day, count in ((0, 700), (1, 1)):
        for hub in ("uplinks", "other"):
            of_that_day = DeadLetters(
                operational,
                DeadLetterSettings(),
                *("plant", hub, "$Default"),
                clock_ns=lambda day=day: NOW_NS + day,  # type: ignore[misc]
            )
            of_that_day.keep(letters(range(day * 1000, day * 1000 + count)))
    deleted = list(iter(lambda: delete_before(operational, NOW_NS + 1), 0))
    assert deleted == [500, 500, 400]
    assert numbers(of_that_day.find()) == [1000]
    assert_size_is_true(operational)
    assert DROPPED_TOTAL not in totals(operational)


def test_rows_that_somebody_deleted_by_hand_make_room(
    make: Make, operational: OperationalDatabase
) -> None:
    make(max_rows=5).keep(letters(range(5)))
    with operational.writing() as connection:
        connection.execute(sa.delete(DEAD_LETTERS).where(DEAD_LETTERS.c.sequence_number < 4))
    assert make(max_rows=5).keep(letters(range(5, 8))).dropped == {}
    assert numbers(make().find()) == [4, 5, 6, 7]
    assert_size_is_true(operational)


@pytest.mark.parametrize("bounds", [{"max_rows": 0}, {"max_bytes": 100}])
def test_bounds_too_small_for_a_letter_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        DeadLetterSettings(**bounds)


# --- many -----------------------------------------------------------------------------------------


def test_ten_thousand_at_once_are_kept(make: Make, operational: OperationalDatabase) -> None:
    given = letters(range(10_000), body=b"\0\xff" * 4096)
    assert make().keep(given).kept == {"not_json": 10_000}
    assert make().keep(given).kept == {}
    assert make().counts() == {"not_json": 10_000}
    assert_size_is_true(operational)


def _keep_all(given: DatabaseSettings, count: int, max_rows: int) -> tuple[int, int]:
    """Keep the same letters as the others, a few at a time; how many were new, and dropped."""
    bounds = DeadLetterSettings(max_rows=max_rows)
    kept = dropped = 0
    with closing(OperationalDatabase(given)) as database:
        dead_letters = DeadLetters(database, bounds, *HUB)
        for first in range(0, count, 10):
            report = dead_letters.keep(letters(range(first, first + 10)))
            kept += sum(report.kept.values())
            dropped += sum(report.dropped.values())
    return kept, dropped


def test_several_processes_keep_each_letter_once(
    settings: DatabaseSettings, make: Make, operational: OperationalDatabase
) -> None:
    done = at_once(_keep_all, settings, 200, 100_000, processes=PROCESSES)
    assert (sum(kept for kept, _ in done), sum(dropped for _, dropped in done)) == (200, 0)
    assert sorted(numbers(make().find(limit=1000))) == list(range(200))
    assert_size_is_true(operational)


def test_several_processes_keep_the_bounds_and_the_counts(
    settings: DatabaseSettings, make: Make, operational: OperationalDatabase
) -> None:
    done = at_once(_keep_all, settings, 200, 30, processes=PROCESSES)
    kept, dropped = (sum(column) for column in zip(*done, strict=True))
    assert len(make().find(limit=1000)) == kept - dropped == 30
    assert totals(operational) == {"kept": {"not_json": kept}, "dropped": {"not_json": dropped}}
    assert_size_is_true(operational)


def _keep_for_ever(given: DatabaseSettings, first: int, tell: Callable[[int], None]) -> None:
    with closing(OperationalDatabase(given)) as database:
        dead_letters = DeadLetters(database, DeadLetterSettings(max_rows=50), *HUB)
        while True:
            dead_letters.keep(letters(range(first, first + 7)))
            first += 7
            tell(first)


def test_a_process_that_is_killed_leaves_what_it_kept_and_no_half_of_anything(
    settings: DatabaseSettings, make: Make, operational: OperationalDatabase
) -> None:
    first = 0
    for _ in range(3):
        told = last_word_of_the_killed(_keep_for_ever, settings, first)
        make().remove([])  # waits until the server has done with what the killed one sent
        found = numbers(make().find())
        first = found[-1] + 1
        assert first in (told, told + 7)
        assert found == list(range(max(0, first - 50), first))
        assert_size_is_true(operational)
        counted = totals(operational)
        assert counted["kept"] == {"not_json": first}
        assert first - counted["dropped"].get("not_json", 0) == len(found)


def test_a_database_that_fails_keeps_none_of_them(
    make: Make, operational: OperationalDatabase
) -> None:
    make().keep([letter(1)])
    with operational.writing() as connection:
        connection.execute(sa.schema.DropTable(TALLIES))
    with pytest.raises(StoreUnavailable):
        make().keep([letter(2)])
    assert numbers(make().find()) == [1]
    assert_size_is_true(operational)
    make().keep([letter(2)])
    assert numbers(make().find()) == [1, 2]
