"""The rows of the inventory's table `devices`: read, compared with what should be there, changed.

Raises what SQLAlchemy raises.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import NullType

from metrics_pipeline.access.inventory_tables import DEVICES
from metrics_pipeline.core.device_rows import COLUMNS, DeviceRow


@dataclass(frozen=True, slots=True)
class GivenDevice:
    """A device as somebody wants it: of `row`, only the columns in `given` were said."""

    row: DeviceRow
    given: Collection[str]

    def over(self, present: DeviceRow) -> DeviceRow:
        """`present` with what was said."""
        return replace(present, **{column: getattr(self.row, column) for column in self.given})


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes the table hold what it should."""

    inserted: tuple[DeviceRow, ...]
    updated: tuple[tuple[DeviceRow, DeviceRow], ...]
    """As it is, and as it shall be."""
    removed: tuple[DeviceRow, ...]
    unchanged: int


def read_rows(connection: sa.Connection) -> dict[str, DeviceRow]:
    """Every device of the table by its id, in the order of the ids.

    SQLite keeps any value in any column. One that cannot be is given as it is: it differs from
    whatever should be there, so that an import repairs it.
    """
    untyped = (sa.type_coerce(DEVICES.c[name], NullType()).label(name) for name in COLUMNS)
    found = connection.execute(sa.select(*untyped).order_by(DEVICES.c.id)).mappings()
    return {
        row["id"]: DeviceRow(
            **{**row, "enabled": _truth(row["enabled"]), "labels": _labels(row["labels"])}
        )
        for row in found
    }


def _truth(kept: Any) -> Any:
    return bool(kept) if kept in (0, 1) else kept


def _labels(kept: Any) -> Any:
    try:
        return json.loads(kept) if isinstance(kept, str) else kept
    except ValueError:
        return kept


def compare(
    present: Mapping[str, DeviceRow], wanted: Iterable[GivenDevice], *, prune: bool
) -> Changes:
    """What makes `present` be `wanted`; devices that are not wanted go only with `prune`."""
    inserted, updated, seen = [], [], set()
    for device in wanted:
        seen.add(device.row.id)
        before = present.get(device.row.id)
        if before is None:
            inserted.append(device.row)
        elif (after := device.over(before)) != before:
            updated.append((before, after))
    removed = [row for row in present.values() if prune and row.id not in seen]
    unchanged = len(seen) - len(inserted) - len(updated)
    return Changes(tuple(inserted), tuple(updated), tuple(removed), unchanged)


def lock_devices(connection: sa.Connection) -> None:
    """Make others who change the table wait until the end of this transaction; readers do not.

    A transaction on SQLite has the whole file's write lock already.
    """
    if connection.dialect.name == "postgresql":
        name = connection.dialect.identifier_preparer.format_table(DEVICES)
        connection.exec_driver_sql(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE")


def apply_changes(connection: sa.Connection, changes: Changes) -> None:
    """Make `changes`, in the caller's transaction."""
    same_id = DEVICES.c.id == sa.bindparam("id_")
    if changes.removed:
        gone = [{"id_": row.id} for row in changes.removed]
        connection.execute(sa.delete(DEVICES).where(same_id), gone)
    if changes.inserted:
        connection.execute(sa.insert(DEVICES), [asdict(row) for row in changes.inserted])
    if changes.updated:
        columns: dict[str, object] = {name: sa.bindparam(name) for name in COLUMNS if name != "id"}
        update = sa.update(DEVICES).where(same_id)
        connection.execute(
            update.values({**columns, "updated_at": sa.func.current_timestamp()}),
            [{**asdict(after), "id_": after.id} for _, after in changes.updated],
        )
