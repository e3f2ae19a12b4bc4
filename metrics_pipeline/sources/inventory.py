"""The inventory database: what the operator says there is (SQLite here, PostgreSQL in production).

Counts rows of `access/inventory_tables.py` with SQLAlchemy Core; creates nothing and changes
nothing. Raises SourceUnreachable when the database does not answer or is locked, SourceRefused
when it lets this user not in or not at the table, and UnexpectedReply never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from pydantic import BaseModel, Field

from metrics_pipeline.access.database import DatabaseSettings, open_engine, reading
from metrics_pipeline.access.inventory_tables import CONCENTRATORS
from metrics_pipeline.core.catalog import CONCENTRATOR_COUNT, FLEET_COUNTS, Metric
from metrics_pipeline.core.errors import (
    ConfigurationError,
    SourceError,
    SourceRefused,
    SourceUnreachable,
)
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sources.spec import SourceSpec

NAME = "inventory"

QUERIES: Mapping[Metric, sa.Select[tuple[int]]] = {
    # Registered means listed, so a disabled concentrator counts as well (CONTRACTS section 1).
    CONCENTRATOR_COUNT: sa.select(sa.func.count()).select_from(CONCENTRATORS),
}


class InventorySettings(BaseModel, frozen=True, extra="forbid"):
    """The database that lists what the operator owns."""

    database: DatabaseSettings = Field(description="Where the inventory is.")


class Inventory:
    """Snapshot source over the inventory's tables."""

    name = NAME

    def __init__(self, settings: InventorySettings) -> None:
        self._engine = open_engine(settings.database)
        self._where = self._engine.url.render_as_string(hide_password=True)

    def read(self, metrics: Sequence[Metric], time_ns: int) -> Reading:
        """One point with one integer field for each of `metrics`."""
        total = Reading(())
        for metric in metrics:
            total += self._read_one(metric, time_ns)
        return total

    def close(self) -> None:
        """Close the pool."""
        self._engine.dispose()

    def _read_one(self, metric: Metric, time_ns: int) -> Reading:
        try:
            with reading(self._engine) as connection:
                count = connection.execute(QUERIES[metric]).scalar_one()
        except ConfigurationError as error:
            return Reading((), (SourceRefused(NAME, metric.field, error.problem, error.fix),))
        except sa.exc.SQLAlchemyError as error:
            return Reading((), (self._translate(error, metric.field),))
        point = Point(FLEET_COUNTS.name, {"provider": NAME}, {metric.field: count}, time_ns)
        return Reading((point,))

    def _translate(self, error: sa.exc.SQLAlchemyError, target: str) -> SourceError:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        problem = f"{self._where} answers: {cause}"
        if _is_missing_table(cause):
            return SourceRefused(
                NAME, target, problem, "Create the table, or name the right database."
            )
        if _is_refusal(cause):
            return SourceRefused(
                NAME, target, problem, "Check user and password, and GRANT SELECT on the table."
            )
        return SourceUnreachable(
            NAME, target, problem, "Check that the database is up and not locked."
        )


def _is_missing_table(cause: str) -> bool:
    return "no such table" in cause or ("relation" in cause and "does not exist" in cause)


def _is_refusal(cause: str) -> bool:
    signs = ("password authentication failed", "permission denied", "not a database", "no password")
    return any(sign in cause for sign in signs) or (
        "does not exist" in cause and ("database" in cause or "role" in cause)
    )


SPEC = SourceSpec(
    name=NAME,
    title="Inventory database",
    kinds=frozenset({"sql"}),
    reads="inventory/concentrators",
    answers=tuple(QUERIES),
    settings_type=InventorySettings,
    build=Inventory,
)
