"""Temperature, traffic and uptime from SNMP values: pure functions of cells.

Units: degrees Celsius, octets (bytes) since some start, seconds. Rules: CONTRACTS section 2; OIDs
and where facts are from: `snmp_facts`. All raise NoValue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from metrics_pipeline.sources import snmp_facts as facts
from metrics_pipeline.sources.snmp_cells import (
    COUNTER_32_WRAP,
    Cells,
    NoValue,
    count,
    counts,
    has,
    has_scalar,
    rows,
    scalar,
    take,
    text,
    unreadable,
    unsigned,
    unsupported,
    whole,
)
from metrics_pipeline.sources.snmp_memory import States, join_indexes
from metrics_pipeline.sources.snmp_session import Index, Oid

COLDEST_CELSIUS, HOTTEST_CELSIUS = -100, 300
"""Beyond these a sensor is broken, or not one of temperature."""
LONGEST_UPTIME_SECONDS = 30 * 365 * 86400
"""What has been up for longer has a clock for a counter."""

_VIRTUAL = re.compile(facts.VIRTUAL_NAMES)


# --- temperature -----------------------------------------------------------------------------


def sensor_column(table: Oid, column: int) -> Oid:
    """A column of ENTITY-SENSOR-MIB's table, or of Cisco's, which are numbered alike."""
    return f"{table}.{column}"


def pick_celsius(table: Oid, cells: Cells) -> Cells:
    """The rows of a sensor table that are temperatures."""
    types = cells.get(sensor_column(table, facts.SENSOR_TYPE), {})
    columns = [sensor_column(table, n) for n in range(facts.SENSOR_SCALE, facts.SENSOR_STATUS + 1)]
    return take(cells, columns, [i for i, kind in types.items() if kind == facts.SENSOR_CELSIUS])


def hottest_sensor(table: Oid, cells: Cells) -> float:
    """The highest value of the sensors that are in order: value x 10^(3(scale-9)-precision)."""

    def celsius(index: Index) -> float:
        if count(cells, sensor_column(table, facts.SENSOR_STATUS), index) != facts.SENSOR_OK:
            raise unsupported(f"sensor {index} is out of order")
        value = whole(cells, sensor_column(table, facts.SENSOR_VALUE), index)
        scale = whole(cells, sensor_column(table, facts.SENSOR_SCALE), index)
        places = whole(cells, sensor_column(table, facts.SENSOR_PRECISION), index)
        if scale not in facts.SENSOR_SCALES or places not in facts.SENSOR_PRECISIONS:
            raise unreadable(f"sensor {index} has scale {scale} and precision {places}")
        exponent = 3 * (scale - 9) - places
        return float(value * 10**exponent if exponent >= 0 else value / 10**-exponent)

    return _hottest(rows(cells, sensor_column(table, facts.SENSOR_VALUE)), celsius)


def hottest_lm_sensor(cells: Cells) -> float:
    """The highest of LM-SENSORS' thousandths of a degree."""

    def celsius(index: Index) -> float:
        value = unsigned(cells, facts.LM_TEMPERATURE, index)
        return (value - (COUNTER_32_WRAP if value > facts.LATCHED else 0)) / 1000

    return _hottest(rows(cells, facts.LM_TEMPERATURE), celsius)


def hottest_envmon(cells: Cells) -> float:
    """The highest of CISCO-ENVMON's sensors that are there and work."""

    def celsius(index: Index) -> float:
        if has(cells, facts.ENVMON_STATE, index):
            state = count(cells, facts.ENVMON_STATE, index)
            if state in facts.ENVMON_ABSENT:
                raise unsupported(f"sensor {index} is in state {state}")
        return float(whole(cells, facts.ENVMON_TEMPERATURE, index))

    return _hottest(rows(cells, facts.ENVMON_TEMPERATURE), celsius)


def pick_juniper_sensors(cells: Cells) -> Cells:
    """The rows of jnxOperatingTable with a temperature: 0 is none."""
    temperatures = cells.get(facts.JNX_TEMPERATURE, {})
    return take(cells, [facts.JNX_TEMPERATURE], [i for i, v in temperatures.items() if v != 0])


def hottest_juniper(cells: Cells) -> float:
    """The highest jnxOperatingTemp; 0 is no sensor."""

    def celsius(index: Index) -> float:
        value = whole(cells, facts.JNX_TEMPERATURE, index)
        if value == 0:
            raise unsupported(f"{index} has no sensor")
        return float(value)

    return _hottest(rows(cells, facts.JNX_TEMPERATURE), celsius)


def _hottest(indexes: Iterable[Index], celsius: Callable[[Index], float]) -> float:
    """The highest of the sensors that can be read; one broken sensor does not hide the others."""
    seen: list[float] = []
    trouble = unsupported("there is no temperature sensor")
    for index in indexes:
        try:
            value = celsius(index)
            if not COLDEST_CELSIUS <= value <= HOTTEST_CELSIUS:
                raise unreadable(f"sensor {index} says {value} degrees")
            seen.append(value)
        except NoValue as why:
            trouble = why
    if not seen:
        raise trouble
    return max(seen)


# --- traffic ---------------------------------------------------------------------------------


def pick_wide_counters(wide: Oid, cells: Cells) -> Cells:
    """The 64-bit counters of the physical interfaces that are up, which all must have one."""
    ports = _physical_ports(cells)
    lacking = [index for index in ports if not has(cells, wide, index)]
    if lacking:
        raise unsupported(f"interface {lacking[0]} has no {wide}")
    return take(cells, [wide], ports)


def pick_mixed_counters(wide: Oid, narrow: Oid, cells: Cells) -> Cells:
    """64-bit counters where there are some, 32-bit ones of slow interfaces where there are none."""
    ports = _physical_ports(cells)
    lacking = [index for index in ports if not has(cells, wide, index)]
    for index in lacking:
        speed = _bits_per_second(cells, index)
        if not 0 < speed <= facts.NARROW_COUNTER_LIMIT_BITS_PER_SECOND:
            raise unsupported(f"interface {index} at {speed} bit/s has a 32-bit counter only")
    return {**take(cells, [wide], ports), **take(cells, [narrow], lacking)}


def octets(columns: tuple[Oid, ...], cells: Cells) -> float:
    """The sum of all picked counters."""
    counters = [counter for column in columns for counter in counts(cells, column)]
    if not counters:
        raise unsupported("there is no physical interface that is up")
    return float(sum(counters))


def octets_by_interface(columns: tuple[Oid, ...], cells: Cells) -> dict[Index, float]:
    """The picked counter of each interface."""
    return {
        index: float(count(cells, column, index))
        for column in columns
        for index in cells.get(column, {})
    }


def port_states(cells: Cells) -> dict[Oid, States]:
    """Which physical interfaces are up, and which are not."""
    told = cells.get(facts.IF_OPER_STATUS, {})
    states = {i: state for i in _ports(cells) if type(state := told.get(i)) is int}
    return {facts.IF_OPER_STATUS: (join_indexes(states), list(states.values()))}


def _physical_ports(cells: Cells) -> list[Index]:
    """The physical interfaces that are up."""
    states = cells.get(facts.IF_OPER_STATUS, {})
    return [index for index in _ports(cells) if states.get(index) == facts.IF_UP]


def _ports(cells: Cells) -> list[Index]:
    """The interfaces with a plug or an antenna."""
    return [
        index
        for index, kind in cells.get(facts.IF_TYPE, {}).items()
        if kind in facts.PHYSICAL_TYPES
        and not _VIRTUAL.search(text(cells, facts.IF_DESCR, index).rstrip("\0"))
    ]


def _bits_per_second(cells: Cells, index: Index) -> int:
    if has(cells, facts.IF_HIGH_SPEED, index):
        speed = count(cells, facts.IF_HIGH_SPEED, index) * 1_000_000
        if speed:
            return speed
    return count(cells, facts.IF_SPEED, index)


# --- uptime ----------------------------------------------------------------------------------


def uptime_seconds(cells: Cells, wraps: Mapping[Oid, int]) -> float:
    """The longest of host, engine and agent: none outlives its host, and some have wrapped.

    `wraps` says how often each counter went back to 0 while we watched.
    """
    found: list[float] = []
    troubles = [unsupported("there is no sysUpTime")]
    for oid, ticks_per_second in facts.CLOCKS.items():
        if not has_scalar(cells, oid):
            continue
        try:
            ticks = scalar(cells, oid) + wraps.get(oid, 0) * facts.TICKS_WRAP
            if ticks > LONGEST_UPTIME_SECONDS * ticks_per_second:
                raise unreadable(f"{oid} is {ticks}")
            found.append(ticks / ticks_per_second)
        except NoValue as why:
            troubles.append(why)
    if not found:
        raise troubles[-1]
    return max(found)
