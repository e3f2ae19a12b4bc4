"""What one device answered in one poll: each thing is asked once, and silence is respected."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

from metrics_pipeline.sources.snmp_cells import Cells, NoValue
from metrics_pipeline.sources.snmp_memory import Indexes, Plan
from metrics_pipeline.sources.snmp_session import (
    Index,
    Oid,
    SnmpFailure,
    SnmpSession,
    SnmpTimeout,
    SnmpValue,
)
from metrics_pipeline.sources.snmp_ways import Way


def as_cells(scalars: Mapping[Oid, SnmpValue]) -> Cells:
    """Scalars, by OID with `.0`, as the cells that formulas read."""
    return {oid.removesuffix(".0"): {"0": value} for oid, value in scalars.items()}


REMEMBERED_COLUMNS, REMEMBERED_ROWS = 256, 4096
"""Columns, and rows of each, whose instances are kept in their written form."""
REMEMBERED_TABLES = 4096
"""Columns with certain rows of which all instances are kept together: devices are alike."""


class _Column(dict[Index, Oid]):
    """The instances of a column by index, written once: a fleet repeats them."""

    def __init__(self, column: Oid) -> None:
        super().__init__()
        self._column = column

    def __missing__(self, index: Index) -> Oid:
        instance = f"{self._column}.{index}"
        if len(self) < REMEMBERED_ROWS:
            self[index] = instance
        return instance


_column = lru_cache(REMEMBERED_COLUMNS)(_Column)


@lru_cache(REMEMBERED_TABLES)
def split_indexes(rows: Indexes) -> tuple[Index, ...]:
    """The single rows."""
    return tuple(rows.split())


@lru_cache(REMEMBERED_TABLES)
def instances(column: Oid, rows: Indexes) -> tuple[Oid, ...]:
    """The OIDs of the cells of `rows` in `column`."""
    return tuple(map(_column(column).__getitem__, split_indexes(rows)))


class Answers:
    """The variables and tables of a device, as far as they were asked for."""

    def __init__(self, session: SnmpSession) -> None:
        self.variables: dict[Oid, SnmpValue] = {}
        self.silence: SnmpFailure | None = None
        """Why nothing more is asked in this poll: the device stopped answering."""
        self._session = session
        self._asked: set[Oid] = set()
        self._tables: dict[Oid, Mapping[Index, SnmpValue]] = {}
        self._failed: dict[Oid, SnmpFailure] = {}

    async def ask(self, oids: Collection[Oid]) -> None:
        """Ask for instances that were not asked for yet. Raises SnmpFailure, keeping a part."""
        missing = [oid for oid in oids if oid not in self._asked] if self._asked else list(oids)
        self._asked.update(missing)
        if not missing:
            return
        try:
            self.variables.update(await self._session.get(missing))
        except SnmpFailure as failure:
            self.variables.update(failure.answered)
            self.silence = failure
            raise

    def scalars(self, oids: Collection[Oid]) -> Cells:
        """Those of `oids` that were answered."""
        return as_cells({oid: self.variables[oid] for oid in oids if oid in self.variables})

    def planned(self, plan: Plan) -> Cells:
        """The cells of `plan` that were answered, and what is known of them."""
        asked = {column: self._cells(column, rows) for column, rows in plan.asked.items()}
        return {**plan.known, **asked}

    def _cells(self, column: Oid, rows: Indexes) -> Mapping[Index, SnmpValue]:
        values = list(map(self.variables.get, instances(column, rows)))
        cells = zip(split_indexes(rows), values, strict=True)
        if None in values:
            return {index: value for index, value in cells if value is not None}
        return dict(cells)  # type: ignore[arg-type]  # the usual one, without a loop of ours

    async def cells_of(self, way: Way) -> Cells:
        """All cells of the way's scalars and columns. Raises NoValue when they cannot be had."""
        columns = await self.columns((*way.known, *way.asked), way.scalars)
        return {**self.scalars(way.scalars), **columns}

    async def columns(self, columns: Collection[Oid], scalars: Collection[Oid] = ()) -> Cells:
        """All cells of `columns`, once `scalars` were asked. NoValue when they cannot be had."""
        if self.silence:
            raise NoValue(self.silence.miss, str(self.silence))
        try:
            await self.ask(scalars)
            await self._walk(columns)
        except SnmpFailure as failure:
            raise NoValue(failure.miss, str(failure)) from failure
        return {column: self._tables[column] for column in columns}

    async def _walk(self, columns: Collection[Oid]) -> None:
        """Walk those of `columns` that were not; one that failed fails again without asking."""
        for column in columns:
            if column in self._failed:
                raise self._failed[column]
        missing = [column for column in columns if column not in self._tables]
        if not missing:
            return
        try:
            found = await self._session.walk(missing)
        except SnmpFailure as failure:
            self._failed.update(dict.fromkeys(missing, failure))
            if isinstance(failure, SnmpTimeout):
                self.silence = failure
            raise
        self._tables.update({column: found.get(column, {}) for column in missing})
