"""Tables of detail from SNMP values: what a sum was made of, row by row, and the rows' names. Pure.

The cells are those that the sum was made of, so a table costs no request but for its names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from metrics_pipeline.core.devices import Rows
from metrics_pipeline.core.row_names import clean_name, distinct_names
from metrics_pipeline.sources.snmp_cells import Cells, text
from metrics_pipeline.sources.snmp_session import Index, Oid
from metrics_pipeline.sources.snmp_ways import Way

Columns = Mapping[str, Mapping[Index, float]]
"""By metric, the values of its rows."""


def read_columns(used: Mapping[str, tuple[Way, Cells]]) -> Columns:
    """The rows of each metric by the way that gave it, from the cells it was given. NoValue."""
    return {
        metric: way.read_rows(cells)
        for metric, (way, cells) in used.items()
        if way.read_rows is not None
    }


def name_columns(ways: Iterable[Way]) -> list[Oid]:
    """Where the names of the rows are, the best first."""
    return list(dict.fromkeys(column for way in ways for column in way.names))


def name_rows(cells: Cells, columns: Sequence[Oid], indexes: Iterable[Index]) -> dict[Index, str]:
    """Of each row the first name that says anything, else its index; no two alike.

    Rows that are not asked for count as well, or a name would change when its like goes down.
    """
    wanted = list(indexes)

    def name(index: Index) -> str:
        told = (text(cells, column, index) for column in columns)
        return next((name for name in told if clean_name(name)), "")

    named = (index for column in columns for index in cells.get(column, {}))
    names = distinct_names({index: name(index) for index in dict.fromkeys((*wanted, *named))})
    return {index: names[index] for index in wanted}


def join(columns: Columns, names: Mapping[Index, str]) -> Rows:
    """The rows by name. `names` may have more of them."""
    rows: dict[str, dict[str, float]] = {}
    for metric, values in columns.items():
        for index, value in values.items():
            rows.setdefault(names[index], {})[metric] = value
    return rows
