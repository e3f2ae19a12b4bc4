"""One poll of one device over SNMP: as few requests as can be, values in their metrics' units.

The first poll asks who the device is, walks the tables its vendor has, and remembers which cells
the metrics need. Later polls are one `get` of those cells, with a few that tell whether the
memory still holds: a cell that is gone, a table that changed its size, another sysObjectID or a
restart have the metrics concerned discovered anew, and so has every REDISCOVER_AFTER-th poll.
Which interfaces are up is looked at in between, at every LOOK_AFTER-th. Both are counted from where
the memory's count began, whatever has been discovered since.

Traffic is the sum over the physical interfaces that were up when they were last looked at: one that
goes down keeps its counter in the sum until then, since a sum that falls looks like a reset.

A table of detail is what those sums are made of, row by row, so it costs no request but for the
names of its rows, which are read when the rows are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DETAILS,
    DISK_USAGE,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
    Miss,
    Rows,
)
from metrics_pipeline.core.ports import Trace
from metrics_pipeline.sources import snmp_facts as facts
from metrics_pipeline.sources import snmp_tables as tables
from metrics_pipeline.sources.snmp_answers import Answers, as_cells, instances, split_indexes
from metrics_pipeline.sources.snmp_cells import (
    Cells,
    NoValue,
    NoValueYet,
    unreadable,
    unsupported,
)
from metrics_pipeline.sources.snmp_memory import DeviceMemory, Findings, Plan, join_indexes
from metrics_pipeline.sources.snmp_readings import (
    COLDEST_CELSIUS,
    HOTTEST_CELSIUS,
    uptime_seconds,
)
from metrics_pipeline.sources.snmp_session import Oid, SnmpFailure, SnmpSession
from metrics_pipeline.sources.snmp_ways import (
    GENERIC,
    SCALARS,
    TABLES,
    WAYS,
    Between,
    Way,
    ways_of,
)

REDISCOVER_AFTER = 72
"""Polls: every 6 hours at 5 minutes each, as LibreNMS does it unless told otherwise."""
LOOK_AFTER = 12
"""Polls: once an hour at 5 minutes each, for a third of the requests that a discovery takes."""
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
    facts.IF_OPER_STATUS: (NETWORK_RECEIVE, NETWORK_TRANSMIT),
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
    """What a poll gave: each metric and each table that was asked for is in one of the three."""

    values: dict[str, float]
    misses: dict[str, Miss]
    details: dict[str, Rows]


async def poll_values(
    session: SnmpSession,
    metrics: Collection[str],
    memory: DeviceMemory,
    trace: Trace | None = None,
) -> Polled:
    """Read `metrics` of the device behind `session`, and update `memory`.

    They are of HOST_METRICS and DETAILS.
    Raises SnmpFailure if the device answers nothing at all; what fails later is a miss. `trace`
    is told of each metric which way gave it, or what was seen instead.
    """
    poll = _Poll(session, memory, trace or _nobody)
    wanted = [table for table in DETAILS if table in metrics]
    summed = (metric for table in wanted for metric in TABLES[table])
    needed = [name for name in dict.fromkeys((*metrics, *summed)) if name not in wanted]
    await poll.ask(needed)
    polled = await poll.read(needed, wanted)
    return _only(metrics, polled)


def _nobody(_line: str) -> None:
    """Nobody listens."""


class _Poll:
    """One poll: what is asked, whether the memory still holds, and the values."""

    def __init__(self, session: SnmpSession, memory: DeviceMemory, trace: Trace) -> None:
        self._answers = Answers(session)
        self._memory = memory
        self._trace = trace
        self._read: dict[str, tuple[Way, Cells]] = {}
        """By metric that was read, from which cells."""

    async def ask(self, metrics: Collection[str]) -> None:
        """The one request (or few) for all that is known to be needed."""
        if self._memory.polls % REDISCOVER_AFTER == 0:
            self._memory.forget()
        try:
            await self._answers.ask(self._questions(metrics))
        except SnmpFailure as failure:
            if not failure.answered:
                raise
        self._notice_changes()

    async def read(self, metrics: Collection[str], wanted: Collection[str]) -> Polled:
        """A value or a miss for each of `metrics`; what is slow to discover comes last.

        Then the rows of each table that is `wanted`, or a miss.
        """
        polled = Polled({}, {}, {})
        for metric in sorted(metrics, key=_place):
            try:
                polled.values[metric] = _within_range(metric, await self._value(metric))
            except NoValue as why:
                polled.misses[metric] = why.miss
                self._trace(f"{metric}: {why.miss}: {why}")
        for table in wanted:
            try:
                polled.details[table] = await self._rows(table, polled.misses)
            except NoValue as why:
                polled.misses[table] = why.miss
                self._trace(f"{table}: {why.miss}: {why}")
        self._memory.polls += 1
        return polled

    def _questions(self, metrics: Collection[str]) -> Sequence[Oid]:
        memory = self._memory
        looks, watched = self._looks_at_states(), tuple(memory.watched)
        key, known = (looks, watched, *metrics), memory.kind.questions
        if key not in known:
            known[key] = _questions(memory.found, metrics, watched, looks=looks)
        return known[key]

    def _looks_at_states(self) -> bool:
        return self._memory.polls % LOOK_AFTER == 0

    # --- whether the memory still holds ---

    def _notice_changes(self) -> None:
        memory = self._memory
        then, now = memory.watched, self._answers.variables
        changed = {oid for oid in then if oid in now and now[oid] != then[oid]}
        if facts.SYS_OBJECT_ID in changed:
            memory.wraps = {}
            memory.forget()
        for oid in changed.intersection((facts.SYS_UPTIME, facts.HR_SYSTEM_UPTIME)):
            self._notice_restart(oid, then[oid], now[oid])
        changed |= self._changed_states()
        concerned = {metric for oid in changed for metric in CHANGES.get(oid, ())}
        if concerned:
            memory.unlearn(concerned)
        seen = {oid: value for oid in WATCHED if isinstance(value := now.get(oid), int | str)}
        memory.watched = {**then, **seen} if self._answers.silence else seen

    def _changed_states(self) -> set[Oid]:
        """The columns of which a cell is not what it was when the rows were chosen."""
        if not self._looks_at_states() or self._answers.silence:
            return set()
        now = self._answers.variables.get
        states = self._memory.found.states
        return {
            column
            for column, (rows, then) in states.items()
            if list(map(now, instances(column, rows))) != then
        }

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
        memory, answers = self._memory, self._answers
        if metric == UPTIME:
            return uptime_seconds(answers.scalars(facts.CLOCKS), memory.wraps)
        found = memory.found
        if metric in found.without:
            raise NoValue(found.without[metric], "so it was when last discovered")
        plan = found.plans.get(metric)
        if plan is None or plan.way not in WAYS:
            return await self._discover(metric)
        cells = answers.planned(plan)
        if all(len(cells[c]) == len(split_indexes(rows)) for c, rows in plan.asked.items()):
            return self._apply(metric, WAYS[plan.way], cells)
        if answers.silence:
            raise NoValue(answers.silence.miss, str(answers.silence))
        self._trace(f"{metric}: instances of {plan.way} are gone")
        return await self._discover(metric)

    def _apply(self, metric: str, way: Way, cells: Cells) -> float:
        """The value by the better formula if the last poll is known, else by the plain one."""
        value = None
        if way.read_between:
            value = self._since_last(metric, way.read_between, cells)
            values = {oid: self._answers.variables.get(oid) for oid in way.scalars}
            self._memory.before = {oid: v for oid, v in values.items() if isinstance(v, int)}
        value = way.read(cells) if value is None else value
        if self._trace is not _nobody:  # writing a number costs as much as the formula
            self._trace(f"{metric}: {value} by {way.name}")
        self._read[metric] = way, cells
        return value

    def _since_last(self, metric: str, formula: Between, cells: Cells) -> float | None:
        if not self._memory.before:
            return None
        try:
            return formula(as_cells(self._memory.before), cells)
        except NoValue as why:
            self._trace(f"{metric}: not since the last poll: {why}")
            return None

    async def _discover(self, metric: str) -> float:
        """The value by the first way that gives one, which is remembered."""
        tables_of = [table for table, metrics in TABLES.items() if metric in metrics]
        self._memory.unlearn([metric], tables_of)
        troubles = [unsupported("nobody knows a way to it over SNMP")]
        for way in ways_of(self._answers.variables.get(facts.SYS_OBJECT_ID)).get(metric, ()):
            try:
                cells = await self._answers.cells_of(way)
                picked = way.pick(cells) if way.pick else cells
                value = self._apply(metric, way, picked)
            except NoValue as why:
                self._trace(f"{metric}: not by {way.name}: {why}")
                troubles.append(why)
                continue
            states = way.states(cells) if way.states else {}
            self._memory.learn(metric, _plan(way, picked), states)
            return value
        passing = [why for why in troubles if _may_pass(why)]
        if not passing:
            self._memory.learn_miss(metric, Miss.UNSUPPORTED)
        raise (passing or troubles)[-1]

    # --- tables of detail ---

    async def _rows(self, table: str, misses: Mapping[str, Miss]) -> Rows:
        """What the sums were made of, by name; without any, it is missing for the same reason."""
        used = {metric: self._read[metric] for metric in TABLES[table] if metric not in misses}
        if not used:
            raise NoValue(misses[TABLES[table][0]], "so are all metrics that it is made of")
        columns = tables.read_columns(used)
        indexes = {index for values in columns.values() for index in values}
        names = self._memory.found.names.get(table, {})
        if not names.keys() >= indexes:
            asked = tables.name_columns(way for way, _ in used.values())
            names = tables.name_rows(await self._answers.columns(asked), asked, indexes)
            self._memory.learn_names(table, names)
        return tables.join(columns, names)


def _questions(
    found: Findings, metrics: Collection[str], watched: Sequence[Oid], *, looks: bool
) -> tuple[Oid, ...]:
    """What to ask for `metrics`; everything that tells a kind of device if it is not known."""
    plans = [found.plans[metric] for metric in metrics if metric in found.plans]
    asked = (column for plan in plans for column in plan.asked.items())
    cells = [oid for column, rows in asked for oid in instances(column, rows)]
    if looks:
        cells += [oid for of, (rows, _) in found.states.items() for oid in instances(of, rows)]
    settled = {*found.plans, *found.without, UPTIME}
    if watched and settled.issuperset(metrics):
        return tuple(dict.fromkeys((*ALWAYS, *watched, *cells)))
    return tuple(dict.fromkeys((*WATCHED, *SCALARS, *cells)))


def _only(asked: Collection[str], polled: Polled) -> Polled:
    """Less the metrics that only a table was read from."""
    values = {name: value for name, value in polled.values.items() if name in asked}
    misses = {name: miss for name, miss in polled.misses.items() if name in asked}
    return Polled(values, misses, polled.details)


def _place(metric: str) -> int:
    """Where a metric comes in a poll; one nobody knows comes last."""
    return ORDER.index(metric) if metric in ORDER else len(ORDER)


def _may_pass(why: NoValue) -> bool:
    """Whether to try again at the next poll, not only at the next discovery."""
    return why.miss is not Miss.UNSUPPORTED or isinstance(why, NoValueYet)


def _plan(way: Way, cells: Cells) -> Plan:
    asked = (*way.asked, *(oid.removesuffix(".0") for oid in way.scalars))
    return Plan(
        way=way.name,
        asked={column: join_indexes(cells[column]) for column in asked if cells.get(column)},
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
