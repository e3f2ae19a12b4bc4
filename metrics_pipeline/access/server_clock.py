"""What time it is elsewhere: on a PostgreSQL server, and on one that speaks HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

import sqlalchemy as sa

HTTP_DATE_SECONDS = 1.0
"""The header Date has no parts of a second (RFC 9110, 5.6.7)."""

Skew = tuple[float, float]
"""How far the other clock is ahead, and to what precision that is known; both in seconds."""


def postgresql_skew(connection: sa.Connection, clock: Callable[[], float]) -> Skew:
    """Of the server; `clock` is this machine's, in seconds since the epoch."""
    before = clock()
    query = sa.text("SELECT extract(epoch FROM clock_timestamp())")
    there = float(connection.execute(query).scalar_one())
    return _skew(there, before, clock())


def http_skew(headers: Mapping[str, str], before: float, after: float) -> Skew | None:
    """By the header Date of an answer that came between two moments; None without such a header."""
    try:
        date = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None
    skew, precision = _skew(date + HTTP_DATE_SECONDS / 2, before, after)
    return skew, precision + HTTP_DATE_SECONDS / 2


def _skew(there: float, before: float, after: float) -> Skew:
    return there - (before + after) / 2, (after - before) / 2
