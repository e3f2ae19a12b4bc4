"""Of all processes one samples."""

from __future__ import annotations

import os
from contextlib import closing

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.storage import sampling_lease
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.sampling_lease import Lease
from metrics_pipeline_tests.at_once import at_once

LEASE_NS = 10
NOW_NS = 1_000


def take(
    database: OperationalDatabase, owner: str, now_ns: int = NOW_NS, dead: Lease | None = None
) -> Lease:
    with database.writing() as connection:
        return sampling_lease.take(connection, owner, now_ns, LEASE_NS, dead)


def renew(database: OperationalDatabase, owner: str, now_ns: int) -> bool:
    with database.writing() as connection:
        return sampling_lease.renew(connection, owner, now_ns, LEASE_NS)


def test_who_comes_first_has_it_and_renews_it(operational: OperationalDatabase) -> None:
    assert take(operational, "a") == Lease("a", NOW_NS + LEASE_NS)
    assert take(operational, "b") == Lease("a", NOW_NS + LEASE_NS)
    assert renew(operational, "a", NOW_NS + 5)
    assert take(operational, "b").until_ns == NOW_NS + 5 + LEASE_NS


def test_one_that_nobody_took_is_renewed_although_its_time_is_over(
    operational: OperationalDatabase,
) -> None:
    take(operational, "a")
    assert renew(operational, "a", NOW_NS + 2 * LEASE_NS)


def test_one_that_another_has_had_is_not_renewed(operational: OperationalDatabase) -> None:
    take(operational, "a")
    take(operational, "b", NOW_NS + LEASE_NS)
    assert not renew(operational, "a", NOW_NS + LEASE_NS)
    with operational.writing() as connection:
        sampling_lease.give_back(connection, "b")
    assert not renew(operational, "a", NOW_NS + LEASE_NS)
    assert take(operational, "c").owner == "c"


def test_one_that_was_not_renewed_goes_to_the_next(operational: OperationalDatabase) -> None:
    take(operational, "a")
    assert take(operational, "b", NOW_NS + LEASE_NS).owner == "b"
    assert take(operational, "a", NOW_NS + LEASE_NS).owner == "b"


def test_one_that_was_given_back_is_free_at_once(operational: OperationalDatabase) -> None:
    take(operational, "a")
    with operational.writing() as connection:
        sampling_lease.give_back(connection, "b")
    assert take(operational, "b").owner == "a"
    with operational.writing() as connection:
        sampling_lease.give_back(connection, "a")
    assert take(operational, "b").owner == "b"


def test_one_of_the_future_is_had_by_who_has_watched_it_stand_still(
    operational: OperationalDatabase,
) -> None:
    """A clock that was set back leaves one for hours."""
    left = take(operational, "a", NOW_NS + 3600)
    assert take(operational, "b") == left
    assert take(operational, "b", dead=left).owner == "b"


def test_one_that_was_renewed_meanwhile_is_not_dead(operational: OperationalDatabase) -> None:
    seen = take(operational, "a", NOW_NS)
    take(operational, "a", NOW_NS + 5)
    assert take(operational, "b", NOW_NS + 5, dead=seen).owner == "a"


def test_the_newest_slot_of_each_source_is_kept(operational: OperationalDatabase) -> None:
    for source, slot_ns in (("a", 5), ("b", 5), ("a", 10)):
        with operational.writing() as connection:
            sampling_lease.note_slot(connection, source, slot_ns)
    with operational.reading() as connection:
        assert sampling_lease.last_slots(connection) == {"a": 10, "b": 5}


def test_of_several_processes_that_come_at_once_one_has_it(
    settings: DatabaseSettings, operational: OperationalDatabase
) -> None:
    said = at_once(_take_it, settings)
    assert said.count("it is mine") == 1
    assert len(said) == 6


def _take_it(settings: DatabaseSettings) -> str:

    with closing(OperationalDatabase(settings)) as database:
        mine = str(os.getpid())
        return "it is mine" if take(database, mine).owner == mine else ""
