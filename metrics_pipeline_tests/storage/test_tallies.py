"""Totals only grow, whoever adds to them."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.at_once import at_once

ROUNDS = 10
PROCESSES = 4
COUNTS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**9), max_size=3)


def totals(database: OperationalDatabase) -> dict[str, dict[str, int]]:
    with database.reading() as connection:
        return tallies.totals(connection)


def add(database: OperationalDatabase, name: str, counts: dict[str, int]) -> None:
    with database.writing() as connection:
        tallies.add(connection, name, counts)


def test_there_are_no_totals_at_first(operational: OperationalDatabase) -> None:
    assert totals(operational) == {}


def test_totals_of_each_name_and_label_grow_by_themselves(
    operational: OperationalDatabase,
) -> None:
    add(operational, "written", {"fleet_counts": 5, "polls": 0})
    add(operational, "written", {"fleet_counts": 2})
    add(operational, "rejected", {"fleet_counts": 1})
    add(operational, "rejected", {})
    assert totals(operational) == {
        "written": {"fleet_counts": 7, "polls": 0},
        "rejected": {"fleet_counts": 1},
    }


def test_a_total_outgrows_32_bits(operational: OperationalDatabase) -> None:
    add(operational, "written", {"polls": 2**40})
    add(operational, "written", {"polls": 2**40})
    assert totals(operational) == {"written": {"polls": 2**41}}


@hypothesis_settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(COUNTS, max_size=4))
def test_a_total_is_the_sum_of_what_was_added(
    operational: OperationalDatabase, added: list[dict[str, int]]
) -> None:
    before = totals(operational).get("n", {})
    for counts in added:
        add(operational, "n", counts)
    labels = {label for counts in (before, *added) for label in counts}
    expected = {label: sum(counts.get(label, 0) for counts in (before, *added)) for label in labels}
    assert totals(operational).get("n", {}) == expected


def test_a_transaction_that_fails_adds_nothing(operational: OperationalDatabase) -> None:
    with pytest.raises(ZeroDivisionError):
        _add_and_fail(operational)
    assert totals(operational) == {}


def _add_and_fail(database: OperationalDatabase) -> None:
    with database.writing() as connection:
        tallies.add(connection, "written", {"polls": 1})
        raise ZeroDivisionError


def _add_often(given: DatabaseSettings, labels: list[str]) -> str:
    with closing(OperationalDatabase(given)) as database:
        for n in range(ROUNDS):
            ordered = labels if n % 2 else labels[::-1]
            add(database, "written", dict.fromkeys(ordered, 1))
    return ""


def test_several_processes_lose_no_count_and_never_block_each_other_for_good(
    settings: DatabaseSettings, operational: OperationalDatabase
) -> None:
    labels = ["a", "b", "c"]
    assert at_once(_add_often, settings, labels, processes=PROCESSES) == [""] * PROCESSES
    assert totals(operational) == {"written": dict.fromkeys(labels, PROCESSES * ROUNDS)}


def test_what_is_tried_again_after_a_commit_that_nobody_answered_is_there_once(
    operational: OperationalDatabase,
) -> None:
    once = tallies.CountOnce({"a": {"x": 2, "y": 1}, "b": {"x": 5}})
    for _ in range(3):
        with operational.writing() as connection:
            once(connection)
    assert totals(operational) == {"a": {"x": 2, "y": 1}, "b": {"x": 5}}
