"""Totals that only grow and outlive every process: the exporter's counters."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from metrics_pipeline.storage.operational import TALLIES

# As text, of which the compiled form is kept: SQLAlchemy compiles its own ON CONFLICT each time.
ADD = sa.text(
    f"INSERT INTO {TALLIES.name} (name, label, total) VALUES (:name, :label, :total) "  # noqa: S608
    f"ON CONFLICT (name, label) DO UPDATE SET total = {TALLIES.name}.total + excluded.total"
)


class CountOnce:
    """Adds `counts` to the totals, at most once however often it is tried; in a transaction.

    Whether a commit whose answer was lost is done cannot be known: the counts may then be missing,
    but are never there twice.
    """

    def __init__(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        self._counts = counts
        self._is_sent = False

    @property
    def is_sent(self) -> bool:
        """Whether they were sent, whatever became of the transaction."""
        return self._is_sent

    def __call__(self, connection: sa.Connection) -> None:
        """Add them, unless that was done before."""
        if not self._is_sent:
            add_all(connection, self._counts)
            self._is_sent = True


def add(connection: sa.Connection, name: str, counts: Mapping[str, int]) -> None:
    """Add `counts`, a number for each label value, to the totals of `name`; in a transaction."""
    add_all(connection, {name: counts})


def add_all(connection: sa.Connection, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Add `counts`, by name and label, to the totals; in a transaction."""
    rows = [
        {"name": name, "label": label, "total": count}
        for name, of_name in counts.items()
        for label, count in of_name.items()
    ]
    if rows:
        # In one order, so that two writers never wait for each other.
        rows.sort(key=lambda row: (row["name"], row["label"]))
        connection.execute(ADD, rows)


def totals(connection: sa.Connection) -> dict[str, dict[str, int]]:
    """Every total: name, label value, number."""
    found: dict[str, dict[str, int]] = {}
    for row in connection.execute(sa.select(TALLIES)):
        found.setdefault(row.name, {})[row.label] = row.total
    return found


def totals_of(connection: sa.Connection, name: str) -> dict[str, int]:
    """The totals of `name`, by label value."""
    rows = connection.execute(sa.select(TALLIES).where(TALLIES.c.name == name))
    return {row.label: row.total for row in rows}
