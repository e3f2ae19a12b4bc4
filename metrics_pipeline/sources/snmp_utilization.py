"""Processor, memory and disk in percent, 0 to 100, from SNMP values: pure functions of cells.

A `pick_…` chooses the rows that count, once, from all that a device has; the formula then works
on those rows at every poll. Rules: CONTRACTS section 2; OIDs and where facts are from:
`snmp_facts`. All raise NoValue.
"""

from __future__ import annotations

import re
from functools import partial

from metrics_pipeline.core.devices import Miss
from metrics_pipeline.sources import snmp_facts as facts
from metrics_pipeline.sources.snmp_cells import (
    COUNTER_32_WRAP,
    Cells,
    NoValueYet,
    count,
    counts,
    has,
    has_scalar,
    highest,
    percent,
    rows,
    scalar,
    take,
    text,
    unreadable,
    unsigned,
    unsupported,
    whole,
)
from metrics_pipeline.sources.snmp_session import Index, Oid

IS_CACHE: Oid = "hrStorage row is a cache"
"""A column of our own: which picked rows of hrStorageTable are to be subtracted."""

_PSEUDO = re.compile(facts.PSEUDO_FILE_SYSTEMS)
_NO_COMPUTER = re.compile(r"\b(fan|sensor)", re.IGNORECASE)


def mean_percent(column: Oid, cells: Cells) -> float:
    """The mean of all rows of a column of percentages."""
    loads = counts(cells, column)
    if not loads:
        raise unsupported(f"there is no row of {column}")
    return sum(percent(load, 100, column) for load in loads) / len(loads)


# --- processor -------------------------------------------------------------------------------


def ucd_busy(cells: Cells) -> float:
    """100 less the idle percentage of the last minute, which snmpd has not in its first one."""
    if has_scalar(cells, facts.UCD_CPU_RAW_IDLE) and not has_scalar(cells, facts.UCD_CPU_IDLE):
        raise NoValueYet(Miss.UNSUPPORTED, "ssCpuIdle is not there; ssCpuRawIdle needs two polls")
    return 100 - percent(scalar(cells, facts.UCD_CPU_IDLE), 100, "ssCpuIdle")


def ucd_busy_between(before: Cells, cells: Cells) -> float:
    """The share of ticks since the last poll that were not idle; waiting for disks is busy."""
    if not scalar(before, facts.UCD_CPU_RAW_IDLE):
        raise unreadable("ssCpuRawIdle was 0: snmpd had just started and not counted yet")
    ticks = partial(_ticks, before, cells)
    idle = ticks(facts.UCD_CPU_RAW_IDLE)
    system = ticks(facts.UCD_CPU_RAW_SYSTEM)
    wait = ticks(facts.UCD_CPU_RAW_WAIT, 0)
    kernel = ticks(facts.UCD_CPU_RAW_KERNEL, 0)
    total = idle + system + ticks(facts.UCD_CPU_RAW_USER) + ticks(facts.UCD_CPU_RAW_NICE)
    total += ticks(facts.UCD_CPU_RAW_STEAL, 0)
    if not kernel:
        total += ticks(facts.UCD_CPU_RAW_INTERRUPT, 0) + ticks(facts.UCD_CPU_RAW_SOFT_IRQ, 0)
    if not kernel or system != wait + kernel:
        total += wait
    return 100 - percent(idle, total, "ssCpuRawIdle since the last poll")


def _ticks(before: Cells, cells: Cells, oid: Oid, absent: int | None = None) -> int:
    """How far a 32-bit counter went, over its wrap if need be."""
    if absent is not None and not has_scalar(cells, oid):
        return absent
    return (scalar(cells, oid) - scalar(before, oid)) % COUNTER_32_WRAP


def pick_juniper_computers(columns: tuple[Oid, ...], cells: Cells) -> Cells:
    """The rows of jnxOperatingTable with memory, and no fans or sensors."""
    return take(
        cells, columns, [i for i in rows(cells, columns[0]) if _is_juniper_computer(cells, i)]
    )


def _is_juniper_computer(cells: Cells, index: Index) -> bool:
    memory = [c for c in (facts.JNX_MEMORY, facts.JNX_DRAM_SIZE) if has(cells, c, index)]
    if not any(count(cells, column, index) for column in memory):
        return False
    return _NO_COMPUTER.search(text(cells, facts.JNX_DESCR, index)) is None


# --- memory ----------------------------------------------------------------------------------


def ucd_memory(cells: Cells) -> float:
    """What memSysAvail leaves of the total; without it, less free memory, buffers and cache."""
    total = scalar(cells, facts.UCD_MEM_TOTAL)
    if total == facts.LATCHED:
        raise unreadable("memTotalReal stands at its end, 2 TB")
    if has_scalar(cells, facts.UCD_MEM_SYS_AVAILABLE):
        return percent(total - scalar(cells, facts.UCD_MEM_SYS_AVAILABLE), total, "memSysAvail")
    caches = (facts.UCD_MEM_BUFFER, facts.UCD_MEM_CACHED)
    free = scalar(cells, facts.UCD_MEM_AVAILABLE)
    free += sum(scalar(cells, oid) for oid in caches if has_scalar(cells, oid))
    return percent(total - free, total, "memTotalReal less memAvailReal, memBuffer, memCached")


def pick_memory(cells: Cells) -> Cells:
    """The rows of hrStorageTable that are RAM, and those of caches in it, marked."""
    types = cells.get(facts.HR_STORAGE_TYPE, {})
    names = {i: text(cells, facts.HR_STORAGE_DESCR, i).strip().lower() for i in types}
    caches = {i: 1 for i in types if names[i] in facts.CACHE_NAMES}
    ram = [i for i, kind in types.items() if kind == facts.STORAGE_RAM and i not in caches]
    columns = (facts.HR_STORAGE_UNITS, facts.HR_STORAGE_SIZE, facts.HR_STORAGE_USED)
    return {**take(cells, columns, [*ram, *caches] if ram else []), IS_CACHE: caches}


def storage_memory(cells: Cells) -> float:
    """Used of all RAM, less caches, of the size of all RAM."""
    used = total = 0
    for index in rows(cells, facts.HR_STORAGE_UNITS):
        in_use = _bytes(cells, facts.HR_STORAGE_USED, index)
        if has(cells, IS_CACHE, index):
            used -= in_use
        else:
            used += in_use
            total += _bytes(cells, facts.HR_STORAGE_SIZE, index)
    return percent(used, total, "hrStorage of type RAM")


def _bytes(cells: Cells, column: Oid, index: Index) -> int:
    if not has(cells, column, index):
        raise unreadable(f"row {index} of hrStorage has no {column}")
    return unsigned(cells, column, index) * count(cells, facts.HR_STORAGE_UNITS, index)


def pick_valid_pools(cells: Cells) -> Cells:
    """The rows of ciscoMemoryPoolTable that are valid (1), or do not say."""
    valid = cells.get(facts.MEMORY_POOL_VALID, {})
    pools = [i for i in rows(cells, facts.MEMORY_POOL_USED) if valid.get(i, 1) == 1]
    return take(cells, (facts.MEMORY_POOL_USED, facts.MEMORY_POOL_FREE), pools)


def pool_memory(used: Oid, free: Oid, cells: Cells) -> float:
    """Used of used and free over all pools. A 32-bit gauge at its end says nothing."""
    in_use = counts(cells, used)
    unused = [count(cells, free, index) for index in rows(cells, used)]
    if facts.GAUGE_LATCHED in (*in_use, *unused):
        raise unreadable(f"{used} or {free} stands at its end, 4 GB")
    return percent(sum(in_use), sum(in_use) + sum(unused), used)


# --- disk ------------------------------------------------------------------------------------


def pick_storage_disks(cells: Cells) -> Cells:
    """The rows of hrStorageTable that are real file systems: fixed disks, or else flash."""
    types = cells.get(facts.HR_STORAGE_TYPE, {})
    real = [i for i in types if not _PSEUDO.search(text(cells, facts.HR_STORAGE_DESCR, i))]
    fixed = [i for i in real if types[i] == facts.STORAGE_FIXED_DISK]
    flash = [i for i in real if types[i] == facts.STORAGE_FLASH]
    return take(cells, (facts.HR_STORAGE_SIZE, facts.HR_STORAGE_USED), fixed or flash)


def fullest_storage(cells: Cells) -> float:
    """Used of size of the fullest row."""
    return highest(storage_shares(cells).values(), "no row of hrStorage has a size")


def storage_shares(cells: Cells) -> dict[Index, float]:
    """Used of size of each row; one without a size is an empty drive."""
    sizes = {
        index: unsigned(cells, facts.HR_STORAGE_SIZE, index)
        for index in rows(cells, facts.HR_STORAGE_SIZE)
    }
    used = partial(unsigned, cells, facts.HR_STORAGE_USED)
    return {i: percent(used(i), size, f"hrStorage row {i}") for i, size in sizes.items() if size}


def pick_ucd_disks(cells: Cells) -> Cells:
    """The rows of dskTable that are real file systems."""
    names = (facts.DSK_PATH, facts.DSK_DEVICE)
    real = [
        index
        for index in rows(cells, facts.DSK_PERCENT)
        if not any(_PSEUDO.search(text(cells, name, index)) for name in names)
    ]
    return take(cells, [column for column in cells if column not in names], real)


def fullest_ucd_disk(cells: Cells) -> float:
    """Used of total of the fullest row."""
    return highest(ucd_disk_shares(cells).values(), "no row of dskTable")


def ucd_disk_shares(cells: Cells) -> dict[Index, float]:
    """Used of total of each row; the agent's own percentage where these do not fit."""
    return {index: _ucd_disk(cells, index) for index in rows(cells, facts.DSK_PERCENT)}


def _ucd_disk(cells: Cells, index: Index) -> float:
    total, used = _ucd_kilobytes(cells, index)
    if total > 0 and 0 <= used <= total:
        return percent(used, total, f"dskUsed.{index}")
    return percent(count(cells, facts.DSK_PERCENT, index), 100, f"dskPercent.{index}")


def _ucd_kilobytes(cells: Cells, index: Index) -> tuple[int, int]:
    """Total and used in kB; (0, 0) where they are latched, or not there."""
    wide = (facts.DSK_TOTAL_HIGH, facts.DSK_TOTAL_LOW, facts.DSK_USED_HIGH, facts.DSK_USED_LOW)
    if all(has(cells, column, index) for column in wide):
        high, low, used_high, used_low = (unsigned(cells, column, index) for column in wide)
        return (high << 32) + low, (used_high << 32) + used_low
    narrow = (facts.DSK_TOTAL, facts.DSK_USED, facts.DSK_AVAILABLE)
    if not all(has(cells, column, index) for column in narrow):
        return 0, 0
    total, used, available = (whole(cells, column, index) for column in narrow)
    return (0, 0) if facts.LATCHED in (total, used, available) else (total, used)
