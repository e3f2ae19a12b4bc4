"""Tables in the metadata that the UI shows."""

from collections.abc import Mapping, Sequence

import dagster as dg

Row = Mapping[str, str | int | float]

KINDS = {str: "string", int: "int", float: "float"}


def table(rows: Sequence[Row]) -> dg.MetadataValue:
    """A table whose columns and types are those of its first row."""
    first = rows[0] if rows else {}
    columns = [dg.TableColumn(name, KINDS[type(value)]) for name, value in first.items()]
    records = [dg.TableRecord(dict(row)) for row in rows]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))
