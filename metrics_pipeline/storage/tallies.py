"""Totals that only grow and outlive every process: the exporter's counters."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from metrics_pipeline.storage.operational import TALLIES, upsert


def add(connection: sa.Connection, name: str, counts: Mapping[str, int]) -> None:
    """Add `counts`, a number for each label value, to the totals of `name`; in a transaction."""
    # In one order, so that two writers never wait for each other.
    for label, count in sorted(counts.items()):
        upsert(
            connection,
            TALLIES,
            {"name": name, "label": label, "total": count},
            {"total": TALLIES.c.total + count},
        )


def totals(connection: sa.Connection) -> dict[str, dict[str, int]]:
    """Every total: name, label value, number."""
    found: dict[str, dict[str, int]] = {}
    for row in connection.execute(sa.select(TALLIES)):
        found.setdefault(row.name, {})[row.label] = row.total
    return found
