"""The inventory database: what the operator says there is (SQLite here, PostgreSQL in production).

Counts rows of `access/inventory_tables.py` with SQLAlchemy Core; creates nothing and changes
nothing. The failures of a reading are SourceUnreachable when the database does not answer in time
or is locked, CredentialRefused when it does not let this user in, and SourceRefused when the table
is not there or not for this user. Codes of PostgreSQL: appendix A of its manual.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from pydantic import BaseModel, Field

from metrics_pipeline.access.database import (
    DatabaseSettings,
    cause_of,
    open_foreign_engine,
    reading,
)
from metrics_pipeline.access.inventory_tables import CONCENTRATORS
from metrics_pipeline.core.catalog import CONCENTRATOR_COUNT, Metric
from metrics_pipeline.core.errors import (
    CredentialRefused,
    SourceError,
    SourceRefused,
    SourceUnreachable,
)
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sources.counting import read_counts
from metrics_pipeline.sources.spec import SourceSpec

NAME = "inventory"

QUERIES: Mapping[Metric, sa.Select[tuple[int]]] = {
    # Registered means listed, so a disabled concentrator counts as well (CONTRACTS section 1).
    CONCENTRATOR_COUNT: sa.select(sa.func.count()).select_from(CONCENTRATORS),
}

MEANINGS: Mapping[str, tuple[type[SourceError], str]] = {
    "no such table|42P01": (SourceRefused, "Create the table, or name the right database."),
    "not a database": (SourceRefused, "Name a file that SQLite has made."),
    "database .* does not exist": (SourceRefused, "Create the database, or name the right one."),
    "password authentication|no password|role .* does not exist|pg_hba": (
        CredentialRefused,
        "Check user and password.",
    ),
    "permission denied|42501": (SourceRefused, "GRANT SELECT on the table to this user."),
    "unable to open": (SourceUnreachable, "Check that the file is there and may be read."),
}
"""What a database's words or code mean (the first that is found), and what to do."""

OTHERWISE = (SourceUnreachable, "Check that the database is up and not locked.")


class InventorySettings(BaseModel, frozen=True, extra="forbid"):
    """The database that lists what the operator owns."""

    database: DatabaseSettings = Field(description="Where the inventory is.")


class Inventory:
    """Snapshot source over the inventory's tables."""

    name = NAME

    def __init__(self, settings: InventorySettings) -> None:
        self._engine = open_foreign_engine(settings.database)
        self._where = self._engine.url.render_as_string(hide_password=True)

    def read(self, metrics: Sequence[Metric], time_ns: int) -> Reading:
        """One point with one integer field for each of `metrics`; what fails is a failure."""
        return read_counts(NAME, tuple(QUERIES), self._count, metrics, time_ns)

    def close(self) -> None:
        """Close the pool."""
        self._engine.dispose()

    def _count(self, metric: Metric) -> int:
        try:
            with reading(self._engine) as connection:
                return connection.execute(QUERIES[metric]).scalar_one()
        except sa.exc.SQLAlchemyError as error:
            raise self._translate(error) from error

    def _translate(self, error: sa.exc.SQLAlchemyError) -> SourceError:
        cause = cause_of(error)
        code = getattr(getattr(error, "orig", None), "pgcode", None)
        meanings = (m for signs, m in MEANINGS.items() if re.search(signs, f"{cause} {code}"))
        kind, fix = next(meanings, OTHERWISE)
        return kind(NAME, self._where, cause, fix)


SPEC = SourceSpec(
    name=NAME,
    title="Inventory database",
    kinds=frozenset({"sql"}),
    reads="inventory/concentrators",
    answers=tuple(QUERIES),
    settings_type=InventorySettings,
    build=Inventory,
)
