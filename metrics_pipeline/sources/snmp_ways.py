"""Which way a device's metric is found: the tables to ask, by vendor, best first.

A Way names the columns that are asked at every poll, those that are read once to choose rows, and
the formula. To teach the product another vendor's table, add its OIDs to `snmp_facts`, a Way here,
and the vendor's sysObjectID to VENDORS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DISK_USAGE,
    DISKS,
    INTERFACES,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
)
from metrics_pipeline.sources import snmp_facts as facts
from metrics_pipeline.sources import snmp_readings as readings
from metrics_pipeline.sources import snmp_utilization as utilization
from metrics_pipeline.sources.snmp_cells import Cells
from metrics_pipeline.sources.snmp_memory import States
from metrics_pipeline.sources.snmp_session import Index, Oid

Between = Callable[[Cells, Cells], float]
"""A formula over the last poll's cells and this one's."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to one metric. `name` is what is remembered of it between polls."""

    name: str
    read: Callable[[Cells], float]
    """The formula: the picked cells in, the value in the metric's unit out, or NoValue."""
    asked: tuple[Oid, ...] = ()
    """Columns whose picked cells are asked at every poll."""
    known: tuple[Oid, ...] = ()
    """Columns read once, when the rows are picked; what `pick` keeps of them is remembered."""
    scalars: tuple[Oid, ...] = ()
    """Scalars, with their `.0`, asked at every poll."""
    pick: Callable[[Cells], Cells] | None = None
    """Chooses the rows that count; without it all of them do."""
    states: Callable[[Cells], Mapping[Oid, States]] | None = None
    """What decides which rows are picked and may change while the device runs."""
    read_between: Between | None = None
    """A better formula where the last poll's scalars are known."""
    read_rows: Callable[[Cells], Mapping[Index, float]] | None = None
    """What `read` sums up, row by row, where rows are things of their own: a table of detail."""
    names: tuple[Oid, ...] = ()
    """Columns with the names of those rows, the best first."""


HR_PROCESSOR = Way(
    "hrProcessorLoad",
    partial(utilization.mean_percent, facts.HR_PROCESSOR_LOAD),
    asked=(facts.HR_PROCESSOR_LOAD,),
)
UCD_PROCESSOR = Way(
    "ssCpu",
    utilization.ucd_busy,
    scalars=(
        facts.UCD_CPU_IDLE,
        facts.UCD_CPU_RAW_USER,
        facts.UCD_CPU_RAW_NICE,
        facts.UCD_CPU_RAW_SYSTEM,
        facts.UCD_CPU_RAW_IDLE,
        facts.UCD_CPU_RAW_WAIT,
        facts.UCD_CPU_RAW_KERNEL,
        facts.UCD_CPU_RAW_INTERRUPT,
        facts.UCD_CPU_RAW_SOFT_IRQ,
        facts.UCD_CPU_RAW_STEAL,
    ),
    read_between=utilization.ucd_busy_between,
)
UCD_MEMORY = Way(
    "memTotalReal",
    utilization.ucd_memory,
    scalars=(
        facts.UCD_MEM_TOTAL,
        facts.UCD_MEM_AVAILABLE,
        facts.UCD_MEM_BUFFER,
        facts.UCD_MEM_CACHED,
        facts.UCD_MEM_SYS_AVAILABLE,
    ),
)
HR_MEMORY = Way(
    "hrStorageRam",
    utilization.storage_memory,
    asked=(facts.HR_STORAGE_UNITS, facts.HR_STORAGE_SIZE, facts.HR_STORAGE_USED),
    known=(facts.HR_STORAGE_TYPE, facts.HR_STORAGE_DESCR),
    pick=utilization.pick_memory,
)
HR_DISK = Way(
    "hrStorageFixedDisk",
    utilization.fullest_storage,
    asked=(facts.HR_STORAGE_SIZE, facts.HR_STORAGE_USED),
    known=(facts.HR_STORAGE_TYPE, facts.HR_STORAGE_DESCR),
    pick=utilization.pick_storage_disks,
    read_rows=utilization.storage_shares,
    names=(facts.HR_STORAGE_DESCR,),
)
UCD_DISK = Way(
    "dskTable",
    utilization.fullest_ucd_disk,
    asked=(
        facts.DSK_TOTAL,
        facts.DSK_AVAILABLE,
        facts.DSK_USED,
        facts.DSK_PERCENT,
        facts.DSK_TOTAL_LOW,
        facts.DSK_TOTAL_HIGH,
        facts.DSK_USED_LOW,
        facts.DSK_USED_HIGH,
    ),
    known=(facts.DSK_PATH, facts.DSK_DEVICE),
    pick=utilization.pick_ucd_disks,
    read_rows=utilization.ucd_disk_shares,
    names=(facts.DSK_PATH,),
)


def _sensors(name: str, table: Oid) -> Way:
    kind, scale, precision, value, status = (f"{table}.{column}" for column in range(1, 6))
    return Way(
        name,
        partial(readings.hottest_sensor, table),
        asked=(value, status),
        known=(kind, scale, precision),
        pick=partial(readings.pick_celsius, table),
    )


ENTITY_SENSORS = _sensors("entPhySensor", facts.ENTITY_SENSOR)
CISCO_SENSORS = _sensors("entSensor", facts.CISCO_ENTITY_SENSOR)
LM_SENSORS = Way("lmTempSensors", readings.hottest_lm_sensor, asked=(facts.LM_TEMPERATURE,))
CISCO_ENVMON = Way(
    "ciscoEnvMon",
    readings.hottest_envmon,
    asked=(facts.ENVMON_TEMPERATURE, facts.ENVMON_STATE),
)


def _wide(name: str, wide: Oid) -> Way:
    return Way(
        name,
        partial(readings.octets, (wide,)),
        asked=(wide,),
        known=(facts.IF_TYPE, facts.IF_OPER_STATUS, facts.IF_DESCR),
        pick=partial(readings.pick_wide_counters, wide),
        states=readings.port_states,
        read_rows=partial(readings.octets_by_interface, (wide,)),
        names=(facts.IF_NAME, facts.IF_DESCR),
    )


def _mixed(name: str, wide: Oid, narrow: Oid) -> Way:
    return Way(
        name,
        partial(readings.octets, (wide, narrow)),
        asked=(wide, narrow),
        known=(
            facts.IF_TYPE,
            facts.IF_OPER_STATUS,
            facts.IF_DESCR,
            facts.IF_SPEED,
            facts.IF_HIGH_SPEED,
        ),
        pick=partial(readings.pick_mixed_counters, wide, narrow),
        states=readings.port_states,
        read_rows=partial(readings.octets_by_interface, (wide, narrow)),
        names=(facts.IF_NAME, facts.IF_DESCR),
    )


RECEIVE = (
    _wide("ifHCInOctets", facts.IF_HC_IN_OCTETS),
    _mixed("ifInOctets", facts.IF_HC_IN_OCTETS, facts.IF_IN_OCTETS),
)
TRANSMIT = (
    _wide("ifHCOutOctets", facts.IF_HC_OUT_OCTETS),
    _mixed("ifOutOctets", facts.IF_HC_OUT_OCTETS, facts.IF_OUT_OCTETS),
)


def _cisco_processor(name: str, column: Oid) -> Way:
    return Way(name, partial(utilization.mean_percent, column), asked=(column,))


CISCO_PROCESSORS = (
    _cisco_processor("cpmCPUTotal5minRev", facts.CPM_CPU_5MIN_REV),
    _cisco_processor("cpmCPUTotal5min", facts.CPM_CPU_5MIN),
)


def _pools(name: str, used: Oid, free: Oid) -> Way:
    return Way(name, partial(utilization.pool_memory, used, free), asked=(used, free))


CISCO_MEMORIES = (
    Way(
        "ciscoMemoryPool",
        partial(utilization.pool_memory, facts.MEMORY_POOL_USED, facts.MEMORY_POOL_FREE),
        asked=(facts.MEMORY_POOL_USED, facts.MEMORY_POOL_FREE),
        known=(facts.MEMORY_POOL_VALID,),
        pick=utilization.pick_valid_pools,
    ),
    _pools("cempMemPoolHC", facts.ENHANCED_POOL_HC_USED, facts.ENHANCED_POOL_HC_FREE),
    _pools("cempMemPool", facts.ENHANCED_POOL_USED, facts.ENHANCED_POOL_FREE),
    _pools("cpmCPUMemory", facts.CPM_MEMORY_USED, facts.CPM_MEMORY_FREE),
)


def _juniper(name: str, column: Oid) -> Way:
    return Way(
        name,
        partial(utilization.mean_percent, column),
        asked=(column,),
        known=(facts.JNX_MEMORY, facts.JNX_DRAM_SIZE, facts.JNX_DESCR),
        pick=partial(utilization.pick_juniper_computers, (column,)),
    )


JUNIPER_PROCESSOR = _juniper("jnxOperatingCPU", facts.JNX_CPU)
JUNIPER_BUFFER = _juniper("jnxOperatingBuffer", facts.JNX_BUFFER)
JUNIPER_SENSORS = Way(
    "jnxOperatingTemp",
    readings.hottest_juniper,
    asked=(facts.JNX_TEMPERATURE,),
    pick=readings.pick_juniper_sensors,
)

Ways = Mapping[str, tuple[Way, ...]]
"""By metric: the ways to it, best first."""

GENERIC: Ways = {
    CPU_UTILIZATION: (HR_PROCESSOR, UCD_PROCESSOR),
    MEMORY_UTILIZATION: (UCD_MEMORY, HR_MEMORY),
    NETWORK_RECEIVE: RECEIVE,
    NETWORK_TRANSMIT: TRANSMIT,
    DISK_USAGE: (HR_DISK, UCD_DISK),
    TEMPERATURE: (ENTITY_SENSORS, LM_SENSORS),
}
"""Everybody else: Windows, MikroTik, Arista, Palo Alto, AIX, printers, cameras.

In the order in which a new device is asked: what is often slow comes last.
"""

_NET_SNMP: Ways = {
    **GENERIC,
    CPU_UTILIZATION: (UCD_PROCESSOR, HR_PROCESSOR),
    TEMPERATURE: (LM_SENSORS, ENTITY_SENSORS),
}
_CISCO: Ways = {
    **GENERIC,
    CPU_UTILIZATION: (*CISCO_PROCESSORS, *GENERIC[CPU_UTILIZATION]),
    MEMORY_UTILIZATION: (*CISCO_MEMORIES, *GENERIC[MEMORY_UTILIZATION]),
    TEMPERATURE: (CISCO_ENVMON, ENTITY_SENSORS, CISCO_SENSORS),
}
_JUNIPER: Ways = {
    **GENERIC,
    CPU_UTILIZATION: (JUNIPER_PROCESSOR, *GENERIC[CPU_UTILIZATION]),
    MEMORY_UTILIZATION: (JUNIPER_BUFFER, *GENERIC[MEMORY_UTILIZATION]),
    TEMPERATURE: (JUNIPER_SENSORS, ENTITY_SENSORS),
}

VENDORS: Mapping[str, Ways] = {
    facts.CISCO: _CISCO,
    facts.JUNIPER: _JUNIPER,
    facts.NET_SNMP: _NET_SNMP,
    facts.UCD: _NET_SNMP,
}
"""By the beginning of sysObjectID."""

WAYS: Mapping[str, Way] = {
    way.name: way
    for ways in (GENERIC, *VENDORS.values())
    for choices in ways.values()
    for way in choices
}
"""Every way by its name."""

TABLES: Mapping[str, tuple[str, ...]] = {
    INTERFACES: (NETWORK_RECEIVE, NETWORK_TRANSMIT),
    DISKS: (DISK_USAGE,),
}
"""Of each table of detail, the metrics whose ways read its rows."""

SCALARS = tuple(dict.fromkeys(oid for way in WAYS.values() for oid in way.scalars))
"""All scalars of all ways, which one request asks of a new device."""


def ways_of(sys_object_id: object) -> Ways:
    """The ways for a device by its sysObjectID; the generic ones where it says none."""
    told = sys_object_id if isinstance(sys_object_id, str) else ""
    vendor = (ways for prefix, ways in VENDORS.items() if f"{told}.".startswith(prefix))
    return next(vendor, GENERIC)
