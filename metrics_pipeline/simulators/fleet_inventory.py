"""The simulated concentrators in the inventory database, next to the operator's own."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from metrics_pipeline.access.inventory_tables import CONCENTRATORS
from metrics_pipeline.simulators.fleet import ID_PREFIX, Concentrator


def mirror_concentrators(engine: sa.Engine, concentrators: Sequence[Concentrator]) -> None:
    """Make the simulated rows of the table be `concentrators`; creates the table if need be.

    A row whose id does not begin with `simulated-` is never touched, and one of `concentrators`
    whose EUI such a row has is left out. Raises what SQLAlchemy raises.
    """
    with engine.begin() as connection:
        CONCENTRATORS.create(connection, checkfirst=True)
        present = connection.execute(sa.select(CONCENTRATORS.c.id, CONCENTRATORS.c.eui)).all()
        wanted = {each.id: each for each in concentrators}
        gone = [row.id for row in present if row.id.startswith(ID_PREFIX) and row.id not in wanted]
        if gone:
            connection.execute(sa.delete(CONCENTRATORS).where(CONCENTRATORS.c.id.in_(gone)))
        taken = {row.eui for row in present if row.id not in gone}
        new = [
            {"id": each.id, "name": each.name, "eui": each.eui}
            for each in concentrators
            if each.eui not in taken
        ]
        if new:
            connection.execute(sa.insert(CONCENTRATORS), new)
