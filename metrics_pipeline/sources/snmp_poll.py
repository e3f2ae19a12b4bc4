"""One poll of one device over SNMP: as few requests as can be, values in their metrics' units.

The first poll asks who the device is, walks the tables its vendor has, and remembers which cells
the metrics need. Later polls are one `get` of those cells, with a few that tell whether the
memory still holds: a cell that is gone, a table that changed its size, another sysObjectID or a
restart have the metrics concerned discovered anew, and so has every REDISCOVER_AFTER-th poll.

Traffic is the sum over the physical interfaces that were up when they were discovered: one that
goes down keeps its counter in the sum until then, since a sum that falls looks like a reset.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DISK_USAGE,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
    Miss,
)
from metrics_pipeline.core.ports import Trace
from metrics_pipeline.sources import snmp_facts as facts
from metrics_pipeline.sources.snmp_cells import Cells, NoValue, unreadable, unsupported
from metrics_pipeline.sources.snmp_memory import DeviceMemory, Plan
from metrics_pipeline.sources.snmp_readings import (
    COLDEST_CELSIUS,
    HOTTEST_CELSIUS,
    uptime_seconds,
)
from metrics_pipeline.sources.snmp_session import (
    Index,
    Oid,
    SnmpFailure,
    SnmpSession,
    SnmpTimeout,
    SnmpValue,
)
from metrics_pipeline.sources.snmp_ways import GENERIC, SCALARS, WAYS, Way, ways_of

REDISCOVER_AFTER = 12
"""Polls: once an hour at 5 minutes each."""
WRAP_WINDOW_TICKS = 3600 * 100
"""A clock that falls from within an hour of its end to within an hour of 0 has wrapped."""

WATCHED = (
    facts.SYS_OBJECT_ID,
    facts.SYS_UPTIME,
    facts.HR_SYSTEM_UPTIME,
    facts.SNMP_ENGINE_TIME,
    facts.IF_NUMBER,
    facts.ENT_LAST_CHANGE_TIME,
)
"""Asked of a new device, then as far as it has them."""
ALWAYS = (facts.SYS_OBJECT_ID, facts.SYS_UPTIME)
"""Asked at every poll, so that there is always something to answer."""
CHANGES = {
    facts.IF_NUMBER: (NETWORK_RECEIVE, NETWORK_TRANSMIT),
    facts.ENT_LAST_CHANGE_TIME: (TEMPERATURE,),
}
"""Whose change has which metrics discovered anew."""
ORDER = (UPTIME, *GENERIC)
"""In which metrics are read."""
RANGES = {
    CPU_UTILIZATION: (0.0, 100.0),
    MEMORY_UTILIZATION: (0.0, 100.0),
    DISK_USAGE: (0.0, 100.0),
    TEMPERATURE: (float(COLDEST_CELSIUS), float(HOTTEST_CELSIUS)),
    NETWORK_RECEIVE: (0.0, math.inf),
    NETWORK_TRANSMIT: (0.0, math.inf),
    UPTIME: (0.0, math.inf),
}
"""Between which a value must be, whatever formula it came from."""


class Polled(NamedTuple):
    """What a poll gave: each metric that was asked for is in one of the two."""

    values: dict[str, float]
    misses: dict[str, Miss]


async def poll_values(
    session: SnmpSession,
    metrics: Collection[str],
    memory: DeviceMemory,
    trace: Trace | None = None,
) -> Polled:
    """Read `metrics` (of HOST_METRICS) of the device behind `session`, and update `memory`.

    Raises SnmpFailure if the device answers nothing at all; what fails later is a miss. `trace`
    is told of each metric which way gave it, or what was seen instead.
    """
    poll = _Poll(session, memory, trace or _nobody)
    await poll.ask(metrics)
    return await poll.read(metrics)


def _nobody(_line: str) -> None:
    """Nobody listens."""


class _Poll:
    """The state of one poll: what was asked, answered and walked, and what failed."""

    def __init__(self, session: SnmpSession, memory: DeviceMemory, trace: Trace) -> None:
        self._session = session
        self._memory = memory
        self._trace = trace
        self._asked: set[Oid] = set()
        self._answered: dict[Oid, SnmpValue] = {}
        self._walked: dict[Oid, Mapping[Index, SnmpValue] | SnmpFailure] = {}
        self._silence: SnmpFailure | None = None
        """After the device stopped answering, nothing more is asked of it in this poll."""

    async def ask(self, metrics: Collection[str]) -> None:
        """The one request (or few) for all that is known to be needed."""
        if self._memory.polls >= REDISCOVER_AFTER:
            self._memory.forget()
        try:
            await self._get(self._questions(metrics))
        except SnmpFailure as failure:
            if not failure.answered:
                raise
            self._silence = failure
        self._notice_changes()

    async def read(self, metrics: Collection[str]) -> Polled:
        """A value or a miss for each of `metrics`; what is slow to discover comes last."""
        polled = Polled({}, {})
        for metric in sorted(metrics, key=_place):
            try:
                polled.values[metric] = _within_range(metric, await self._value(metric))
            except NoValue as why:
                polled.misses[metric] = why.miss
                self._trace(f"{metric}: {why.miss}: {why}")
        self._memory.polls += 1
        return polled

    # --- what is asked ---

    def _questions(self, metrics: Collection[str]) -> list[Oid]:
        memory = self._memory
        plans = [memory.plans[metric] for metric in metrics if metric in memory.plans]
        cells = (f"{oid}.{i}" for plan in plans for oid, rows in plan.asked.items() for i in rows)
        told = {*memory.plans, *memory.without, UPTIME}
        if memory.watched and told.issuperset(metrics):
            return list(dict.fromkeys((*ALWAYS, *memory.watched, *cells)))
        return list(dict.fromkeys((*WATCHED, *SCALARS, *cells)))

    async def _get(self, oids: Collection[Oid]) -> None:
        missing = [oid for oid in oids if oid not in self._asked]
        self._asked.update(missing)
        try:
            self._answered.update(await self._session.get(missing) if missing else {})
        except SnmpFailure as failure:
            self._answered.update(failure.answered)
            raise

    # --- whether the memory still holds ---

    def _notice_changes(self) -> None:
        memory = self._memory
        then, now = memory.watched, self._answered
        changed = {oid for oid in then if oid in now and now[oid] != then[oid]}
        if facts.SYS_OBJECT_ID in changed:
            memory.wraps = {}
            memory.forget()
        for oid in changed.intersection((facts.SYS_UPTIME, facts.HR_SYSTEM_UPTIME)):
            self._notice_restart(oid, then[oid], now[oid])
        for metric in (metric for oid in changed for metric in CHANGES.get(oid, ())):
            memory.plans.pop(metric, None)
            memory.without.pop(metric, None)
        seen = {oid: value for oid in WATCHED if isinstance(value := now.get(oid), int | str)}
        memory.watched = {**then, **seen} if self._silence else seen

    def _notice_restart(self, clock: Oid, then: object, now: object) -> None:
        """A clock that went back has wrapped if it was at its end, else the device restarted."""
        if not (isinstance(then, int) and isinstance(now, int)) or now > then:
            return
        if then > facts.TICKS_WRAP - WRAP_WINDOW_TICKS and 0 <= now < WRAP_WINDOW_TICKS:
            self._memory.wraps[clock] = self._memory.wraps.get(clock, 0) + 1
        else:
            self._memory.wraps.pop(clock, None)
            self._memory.forget()

    # --- values ---

    async def _value(self, metric: str) -> float:
        if metric == UPTIME:
            return uptime_seconds(self._scalars(facts.CLOCKS), self._memory.wraps)
        plan = self._memory.plans.get(metric)
        if metric in self._memory.without:
            raise NoValue(self._memory.without[metric], "so it was when last discovered")
        if plan is not None and plan.way in WAYS:
            cells = self._planned(plan)
            if all(len(cells[column]) == len(rows) for column, rows in plan.asked.items()):
                return self._apply(metric, WAYS[plan.way], cells)
            self._trace(f"{metric}: instances of {plan.way} are gone")
        return await self._discover(metric)

    def _apply(self, metric: str, way: Way, cells: Cells) -> float:
        """The value by the better formula if the last poll is known, else by the plain one."""
        value = None
        if way.read_between:
            try:
                value = way.read_between(_as_cells(self._memory.before), cells)
            except NoValue as why:
                self._trace(f"{metric}: not from the last poll: {why}")
            self._remember_for_next(way)
        value = way.read(cells) if value is None else value
        self._trace(f"{metric}: {value} by {way.name}")
        return value

    def _remember_for_next(self, way: Way) -> None:
        values = {oid: self._answered.get(oid) for oid in way.scalars}
        self._memory.before.update({o: v for o, v in values.items() if isinstance(v, int)})

    def _planned(self, plan: Plan) -> Cells:
        """The cells of `plan`, as far as they were answered, with what is known of them."""
        answered = self._answered
        asked = {
            column: {i: answered[oid] for i in rows if (oid := f"{column}.{i}") in answered}
            for column, rows in plan.asked.items()
        }
        return {**plan.known, **asked}

    def _scalars(self, oids: Collection[Oid]) -> Cells:
        return _as_cells({o: self._answered[o] for o in oids if o in self._answered})

    # --- discovery ---

    async def _discover(self, metric: str) -> float:
        """The value by the first way that gives one, which is remembered."""
        self._memory.plans.pop(metric, None)
        trouble = unsupported("nobody knows a way to it over SNMP")
        for way in ways_of(self._answered.get(facts.SYS_OBJECT_ID)).get(metric, ()):
            try:
                cells = await self._cells(way)
                cells = way.pick(cells) if way.pick else cells
                value = self._apply(metric, way, cells)
            except NoValue as why:
                trouble = trouble if why.miss is Miss.UNSUPPORTED else why
                continue
            self._memory.plans[metric] = _plan(way, cells)
            return value
        if trouble.miss is Miss.UNSUPPORTED:
            self._memory.without[metric] = trouble.miss
        raise trouble

    async def _cells(self, way: Way) -> Cells:
        """All cells of the way's scalars and columns: asked or walked now, unless they were."""
        columns = (*way.known, *way.asked)
        try:
            self._stop_if_silent()
            await self._get(way.scalars)
            await self._walk([column for column in columns if column not in self._walked])
        except SnmpTimeout as failure:
            self._silence = failure
            raise NoValue(failure.miss, str(failure)) from failure
        except SnmpFailure as failure:
            raise NoValue(failure.miss, str(failure)) from failure
        return {**self._scalars(way.scalars), **self._tables(columns)}

    def _stop_if_silent(self) -> None:
        if self._silence:
            raise NoValue(self._silence.miss, str(self._silence))

    async def _walk(self, columns: list[Oid]) -> None:
        if not columns:
            return
        try:
            found = await self._session.walk(columns)
        except SnmpFailure as failure:
            self._walked.update(dict.fromkeys(columns, failure))
            raise
        self._walked.update({column: found.get(column, {}) for column in columns})

    def _tables(self, columns: Collection[Oid]) -> Cells:
        tables = {column: self._walked[column] for column in columns}
        for rows in tables.values():
            if isinstance(rows, SnmpFailure):
                raise NoValue(rows.miss, str(rows))
        return {
            column: rows for column, rows in tables.items() if not isinstance(rows, SnmpFailure)
        }


def _place(metric: str) -> int:
    """Where a metric comes in a poll; one nobody knows comes last."""
    return ORDER.index(metric) if metric in ORDER else len(ORDER)


def _as_cells(scalars: Mapping[Oid, SnmpValue]) -> Cells:
    return {oid.removesuffix(".0"): {"0": value} for oid, value in scalars.items()}


def _plan(way: Way, cells: Cells) -> Plan:
    asked = (*way.asked, *(oid.removesuffix(".0") for oid in way.scalars))
    return Plan(
        way=way.name,
        asked={column: list(cells[column]) for column in asked if cells.get(column)},
        known={
            column: {i: v for i, v in rows.items() if type(v) is int}
            for column, rows in cells.items()
            if column not in asked
        },
    )


def _within_range(metric: str, value: float) -> float:
    lowest, highest = RANGES.get(metric, (-math.inf, math.inf))
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise unreadable(f"the value is {value}")
    return value
