"""Tables in the metadata that the UI shows."""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

Row = Mapping[str, str | int | float]

Metadata = Mapping[str, dg.MetadataValue]
"""Of a materialization, by the names that the UI shows."""

KINDS = {str: "string", int: "int", float: "float"}


def table(rows: Sequence[Row]) -> dg.MetadataValue:
    """A table whose columns and types are those of its first row."""
    first = rows[0] if rows else {}
    columns = [dg.TableColumn(name, KINDS[type(value)]) for name, value in first.items()]
    records = [dg.TableRecord(dict(row)) for row in rows]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))


def table_of_counts(name: str, column: str, counts: Iterable[tuple[str, int]]) -> Metadata:
    """As `name` a table of what was counted, in `column`, and its count; nothing without counts."""
    rows: list[Row] = [{column: what, "count": number} for what, number in counts]
    return {name: table(rows)} if rows else {}
