"""What a device answered, and how its cells are read: every type and range is checked here, once.

A cell that is not there, is of the wrong type or cannot be right ends in NoValue, never in a
number. The formulas (`snmp_utilization`, `snmp_readings`) are written upon these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from metrics_pipeline.core.devices import Miss
from metrics_pipeline.sources.snmp_session import Index, Oid, SnmpValue

Cells = Mapping[Oid, Mapping[Index, SnmpValue]]
"""By column, by index. A scalar's column is its OID without the `.0`, its index `0`."""

COUNTER_32_WRAP = 2**32
COUNTER_64_WRAP = 2**64


class NoValue(Exception):
    """There is no number to give; `miss` is why, the text what was seen."""

    def __init__(self, miss: Miss, seen: str) -> None:
        super().__init__(seen)
        self.miss = miss


class NoValueYet(NoValue):
    """There is no number at this poll, but there may be one at the next."""


def unsupported(seen: str) -> NoValue:
    """The device has no such thing."""
    return NoValue(Miss.UNSUPPORTED, seen)


def unreadable(seen: str) -> NoValue:
    """It has it, and what it says cannot be right."""
    return NoValue(Miss.PARSE, seen)


def has(cells: Cells, column: Oid, index: Index) -> bool:
    """Whether there is such a cell."""
    return index in cells.get(column, {})


def has_scalar(cells: Cells, oid: Oid) -> bool:
    """Whether there is such a scalar; `oid` ends in `.0`."""
    return has(cells, oid[:-2], "0")


def rows(cells: Cells, column: Oid) -> Iterable[Index]:
    """The indexes of a column, which must have some."""
    indexes = cells.get(column)
    if not indexes:
        raise unsupported(f"there is no row of {column}")
    return indexes


def whole(cells: Cells, column: Oid, index: Index) -> int:
    """The integer in a cell, of at most 64 bits."""
    value = cells.get(column, {}).get(index)
    if value is None:
        raise unsupported(f"there is no {column}.{index}")
    if type(value) is not int or not -COUNTER_64_WRAP < value < COUNTER_64_WRAP:
        raise unreadable(f"{column}.{index} is {str(value)[:40]}")
    return value


def count(cells: Cells, column: Oid, index: Index) -> int:
    """The integer in a cell that is 0 or more."""
    value = whole(cells, column, index)
    if value < 0:
        raise unreadable(f"{column}.{index} is {value}")
    return value


def counts(cells: Cells, column: Oid) -> list[int]:
    """The integers of a column, all 0 or more; none for a column that is not there."""
    found = cells.get(column, {})
    numbers = [v for v in found.values() if type(v) is int and 0 <= v < COUNTER_64_WRAP]
    # The long way only where something is wrong, to say what: this is the hot path.
    return numbers if len(numbers) == len(found) else [count(cells, column, i) for i in found]


def unsigned(cells: Cells, column: Oid, index: Index) -> int:
    """The integer in a cell, read as 32 bits without a sign, whatever the MIB says."""
    value = whole(cells, column, index)
    if not -(COUNTER_32_WRAP // 2) <= value < COUNTER_32_WRAP:
        raise unreadable(f"{column}.{index} is {value}")
    return value % COUNTER_32_WRAP


def scalar(cells: Cells, oid: Oid) -> int:
    """The integer of a scalar, 0 or more; `oid` ends in `.0`."""
    return count(cells, oid[:-2], "0")


def text(cells: Cells, column: Oid, index: Index) -> str:
    """The text in a cell; empty where there is none, since names only ever exclude."""
    value = cells.get(column, {}).get(index, b"")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def percent(part: float, total: float, of: str) -> float:
    """`part` of `total` in percent, which must be 0 to 100."""
    if total <= 0 or not 0 <= part <= total:
        raise unreadable(f"{of}: {part} of {total}")
    return 100 * part / total


def highest(values: Iterable[float], otherwise: str) -> float:
    """The highest of `values`; without any, the device has none."""
    found = list(values)
    if not found:
        raise unsupported(otherwise)
    return max(found)


def take(
    cells: Cells, columns: Iterable[Oid], indexes: Iterable[Index]
) -> dict[Oid, dict[Index, SnmpValue]]:
    """Only these rows of these columns; a cell that is not there is not there."""
    wanted = list(indexes)
    return {
        column: {i: cells[column][i] for i in wanted if i in cells[column]}
        for column in columns
        if column in cells
    }
