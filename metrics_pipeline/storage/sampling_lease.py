"""Who samples, and how far: one row for the process that may, one row a source for its last slot.

Of processes that want to sample, one has the lease, and renews it for as long as it does. All
functions are to be called in a transaction; times are nanoseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from metrics_pipeline.storage.operational import (
    SAMPLED_SLOTS,
    SAMPLING_LEASE,
    insert_if_absent,
)

NOTE = sa.text(
    f"INSERT INTO {SAMPLED_SLOTS.name} (source, slot_ns) VALUES (:source, :slot_ns) "  # noqa: S608
    "ON CONFLICT (source) DO UPDATE SET slot_ns = excluded.slot_ns"
)
"""As text, since SQLAlchemy compiles an insert with ON CONFLICT anew each time."""

NAME = "platform"
NOBODY = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who has it, and until when unless it is renewed."""

    owner: str
    until_ns: int


def take(
    connection: sa.Connection, owner: str, now_ns: int, lease_ns: int, dead: Lease | None = None
) -> Lease:
    """The lease as it is after `owner` has tried to take it.

    It is had by nobody, by `owner`, or its time is over; or it is still the one that the caller
    calls `dead`, having watched it for so long that it would have been renewed, whatever the clocks
    of two machines say.
    """
    mine = Lease(owner, now_ns + lease_ns)
    row = {"name": NAME, "owner": mine.owner, "until_ns": mine.until_ns}
    if insert_if_absent(connection, SAMPLING_LEASE, row):
        return mine
    there = _locked(connection)
    if there.owner not in (NOBODY, owner) and there.until_ns > now_ns and there != dead:
        return there
    _set(connection, mine)
    return mine


def renew(connection: sa.Connection, owner: str, now_ns: int, lease_ns: int) -> bool:
    """Prolong the lease if `owner` has it, though its time be over; gives whether it had it.

    One that another took meanwhile is lost, also where that one has given it back: it has accounted
    for the slots until then.
    """
    if not has(connection, owner):
        return False
    _set(connection, Lease(owner, now_ns + lease_ns))
    return True


def give_back(connection: sa.Connection, owner: str) -> None:
    """Let the next one have it at once, if `owner` has it."""
    if has(connection, owner):
        _set(connection, Lease(NOBODY, 0))


def has(connection: sa.Connection, owner: str) -> bool:
    """Whether `owner` has it, which stays so until the transaction ends."""
    here = sa.select(SAMPLING_LEASE.c.owner).where(SAMPLING_LEASE.c.name == NAME).with_for_update()
    return connection.execute(here).scalar_one_or_none() == owner


def find_end_ns(connection: sa.Connection) -> int | None:
    """Until when somebody has it unless it is renewed; 0 if given back, None if never taken."""
    end = sa.select(SAMPLING_LEASE.c.until_ns).where(SAMPLING_LEASE.c.name == NAME)
    return connection.execute(end).scalar_one_or_none()


def last_slots(connection: sa.Connection) -> Mapping[str, int]:
    """Of each source the newest slot that is accounted for."""
    rows = connection.execute(sa.select(SAMPLED_SLOTS))
    return {row.source: row.slot_ns for row in rows}


def note_slot(connection: sa.Connection, source: str, slot_ns: int) -> None:
    """All slots of `source` up to `slot_ns` are accounted for."""
    connection.execute(NOTE, {"source": source, "slot_ns": slot_ns})


def _locked(connection: sa.Connection) -> Lease:
    here = sa.select(SAMPLING_LEASE).where(SAMPLING_LEASE.c.name == NAME).with_for_update()
    row = connection.execute(here).one()
    return Lease(row.owner, row.until_ns)


def _set(connection: sa.Connection, lease: Lease) -> None:
    update = sa.update(SAMPLING_LEASE).where(SAMPLING_LEASE.c.name == NAME)
    connection.execute(update.values(owner=lease.owner, until_ns=lease.until_ns))
