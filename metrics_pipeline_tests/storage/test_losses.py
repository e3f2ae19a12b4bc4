"""What a hub dropped is counted once, whoever notices it and how often."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.telemetry import PartitionKey
from metrics_pipeline.storage import losses, tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.at_once import at_once

KEY = PartitionKey("plant.servicebus.windows.net", "uplinks", "$Default", "0")


def count(database: OperationalDatabase, after: int, events: int, key: PartitionKey = KEY) -> int:
    with database.writing() as connection:
        return losses.count(connection, key, after, events)


def total(database: OperationalDatabase) -> dict[str, int]:
    with database.reading() as connection:
        return tallies.totals(connection).get(losses.LOST_TOTAL, {})


def test_the_same_loss_is_counted_once_and_only_what_is_new_when_it_has_grown(
    operational: OperationalDatabase,
) -> None:
    assert [count(operational, 9, events) for events in (60, 60, 70, 70, 65)] == [60, 0, 10, 0, 0]
    assert total(operational) == {"0": 70}


def test_losses_after_other_events_add_up(operational: OperationalDatabase) -> None:
    assert [count(operational, after, 5) for after in (-1, 10, 20, 20)] == [5, 5, 5, 0]
    assert total(operational) == {"0": 15}


def test_a_loss_is_of_its_partition_hub_and_group_whose_names_have_no_case(
    operational: OperationalDatabase,
) -> None:
    count(operational, 9, 5)
    assert count(operational, 9, 5, replace(KEY, hub="UPLINKS")) == 0
    assert count(operational, 9, 5, replace(KEY, hub="other")) == 5
    assert count(operational, 9, 5, replace(KEY, consumer_group="other")) == 5
    assert count(operational, 9, 5, replace(KEY, partition="1")) == 5
    assert total(operational) == {"0": 15, "1": 5}


def test_a_failed_transaction_counts_nothing(operational: OperationalDatabase) -> None:
    class Died(Exception):
        pass

    try:
        with operational.writing() as connection:
            losses.count(connection, KEY, 9, 5)
            raise Died
    except Died:
        pass
    assert total(operational) == {}
    assert count(operational, 9, 5) == 5


def test_of_several_processes_that_notice_one_loss_one_counts_it(
    settings: DatabaseSettings, operational: OperationalDatabase
) -> None:
    assert at_once(_notice_one, settings) == [""] * 6
    assert total(operational) == {"0": 12}


def _notice_one(settings: DatabaseSettings) -> str:
    with closing(OperationalDatabase(settings)) as database:
        count(database, 9, 12)
    return ""
