"""Which failures of runs others were told of, so that each is told once, whoever tells it.

All functions are to be called in a transaction; times are nanoseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from metrics_pipeline.core.validation import NS_PER_DAY
from metrics_pipeline.storage.operational import TOLD_FAILURES, insert_if_absent

KEPT_DAYS = 30


def note(connection: sa.Connection, run_ids: Collection[str], now_ns: int) -> None:
    """These were told; forgets those that were a month ago."""
    for run_id in run_ids:
        insert_if_absent(connection, TOLD_FAILURES, {"run_id": run_id, "told_at_ns": now_ns})
    oldest_ns = now_ns - KEPT_DAYS * NS_PER_DAY
    connection.execute(sa.delete(TOLD_FAILURES).where(TOLD_FAILURES.c.told_at_ns < oldest_ns))


def find_told(connection: sa.Connection, run_ids: Collection[str]) -> set[str]:
    """Those of `run_ids` that were told."""
    ids = TOLD_FAILURES.c.run_id
    return set(connection.execute(sa.select(ids).where(ids.in_(run_ids))).scalars())
