"""What `host_report.sh` says of a host, read: the values, and for each that is missing why.

Pure. The script only quotes the host's own tools; what their words mean is decided here. Where the
facts are from: proc(5) and the kernel's Documentation/ABI/testing (sysfs-class-net, sysfs-class-
thermal, hwmon) on Linux; sysctl(8), netstat(1), ps(1), df(1), top(1) and vm_stat(1) of FreeBSD,
OpenBSD and macOS. Only Linux was at hand: the others were written from their manuals.

- CPU is what was not idle between two samples of ticks. Waiting for a disk is idle time.
- Memory that is used is what the host could not give away: neither free nor a cache. On Linux
  MemAvailable says so; before Linux 3.14, free, buffers, cached and reclaimable less shared memory.
  On FreeBSD free, inactive and cached pages and ZFS's ARC are available; on OpenBSD what top calls
  free and cache; on macOS used is wired, compressed, and anonymous but not purgeable.
- Disk is used / (used + available), as df says it: what is kept for root is not available.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeVar

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DISK_USAGE,
    DISKS,
    HOST_METRICS,
    INTERFACES,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
    Details,
    Miss,
    Rows,
)
from metrics_pipeline.core.row_names import distinct_names

BEGIN = "metrics-pipeline: host report 1 begins"
END = "metrics-pipeline: host report 1 ends"

MAX_NUMBER = 2**64
MAX_LINE_CHARACTERS = 4096
MIN_CELSIUS, MAX_CELSIUS = -40.0, 125.0
"""Beyond these no sensor of a host works: 127 and 128 are what an open input reads as."""

Lines = Sequence[str]
T = TypeVar("T")


class NotAReport(ValueError):
    """There is no beginning of a report in the output."""


class CpuTicks(NamedTuple):
    """Ticks of all processors since the start, of whatever length."""

    idle: int
    total: int


@dataclass(frozen=True, slots=True)
class HostReport:
    """`values` and `misses` by metric name; together they are all of HOST_METRICS.

    Each table of detail that was asked for is in `details` or in `misses`. `ticks` is the last
    sample, for the next poll to start from; `is_whole` is false if the report breaks off.
    """

    values: Mapping[str, float]
    misses: Mapping[str, Miss]
    ticks: CpuTicks | None
    is_whole: bool
    details: Details


class _Absent(Exception):
    """The host has no such value."""


class _Unlikely(Exception):
    """The host says what cannot be right."""


@dataclass(frozen=True, slots=True)
class _Sections:
    """The lines of a report by section without the one it breaks off in, and earlier ticks."""

    lines: Mapping[str, Lines]
    earlier: CpuTicks | None


Ways = Mapping[str, Callable[[_Sections], T]]
"""The sections that can hold something, and how it is read from each; the first that is there."""


def parse_report(
    output: bytes,
    earlier: CpuTicks | None = None,
    if_broken_off: Miss = Miss.PARSE,
    tables: Collection[str] = (),
) -> HostReport:
    """What the last report in `output` says; NotAReport if none begins there.

    With `earlier` ticks of the same host, its CPU is what was used since then. What is missing
    because the report breaks off is missing for `if_broken_off`. `tables` are those of DETAILS that
    are asked for.
    """
    text, is_whole = _cut_out(output)
    sections = _split(text, is_whole, earlier)
    absent = Miss.UNSUPPORTED if is_whole else if_broken_off
    values, no_values = _read_all({name: WAYS[name] for name in HOST_METRICS}, sections, absent)
    details, no_details = _read_all({name: TABLES[name] for name in tables}, sections, absent)
    misses = no_values | no_details
    return HostReport(values, misses, _last_ticks(sections), is_whole, details)


def has_ended(output: bytes) -> bool:
    """Whether a report that began has ended."""
    begin = output.rfind(BEGIN.encode())
    return begin >= 0 and output.find(END.encode(), begin) >= 0


def _cut_out(output: bytes) -> tuple[str, bool]:
    # A start-up file may print anything, in any encoding, before the script does.
    text = output.decode("utf-8", errors="replace")
    _before, begin, after = text.rpartition(BEGIN)
    if not begin:
        raise NotAReport("no report begins in the output")
    report, end, _rest = after.partition(END)
    return report, bool(end)


def _split(text: str, is_whole: bool, earlier: CpuTicks | None) -> _Sections:
    sections: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("@"):
            name = line[1:]
            sections[name] = []
        elif name and len(line) <= MAX_LINE_CHARACTERS:
            sections[name].append(line)
    if not is_whole:
        sections.pop(name, None)
    return _Sections(sections, earlier)


def _read_all(
    asked: Mapping[str, Ways[T]], sections: _Sections, if_no_section: Miss
) -> tuple[dict[str, T], dict[str, Miss]]:
    """What there is of `asked`, and why there is no more."""
    found: dict[str, T] = {}
    misses: dict[str, Miss] = {}
    for name, ways in asked.items():
        read = next((read for section, read in ways.items() if section in sections.lines), None)
        try:
            if read is None:
                misses[name] = if_no_section
            else:
                found[name] = read(sections)
        except _Absent:
            misses[name] = Miss.UNSUPPORTED
        except _Unlikely:
            misses[name] = Miss.PARSE
    return found, misses


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) >= MAX_NUMBER:
        raise _Unlikely
    return int(text)


def _decimal(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", text):
        raise _Unlikely
    return float(text)


def _share(part: int, whole: int) -> float:
    """`part` of `whole` in percent."""
    if not 0 <= part <= whole or whole == 0:
        raise _Unlikely
    return 100.0 * part / whole


def _amounts(lines: Lines) -> dict[str, int]:
    """`name: 12 kB`, `name: 12`, `name=12` and `"name": 12.` as numbers by name."""
    found = {}
    for line in lines:
        match = re.match(r'"?([^:="]{1,80})"?\s?[:=]\s*([0-9]+)', line)
        if match:
            found[match[1].strip()] = _number(match[2])
    return found


# CPU

NUMBERS = re.compile("[0-9]+")


def _ticks_of(line: str) -> CpuTicks:
    """A sample: `cpu` of /proc/stat, or kern.cp_time of a BSD, where the last state is idle."""
    if line.startswith("cpu"):
        # Guests' time, the ninth and tenth, is in user's and nice's already.
        states = [_number(part) for part in line.split()[1:9]]
        idle = sum(states[3:5])
    else:
        states = [
            _number(part)
            for part in NUMBERS.findall(line.partition(":")[2] or line.partition("=")[2])
        ]
        idle = states[-1] if states else 0
    if len(states) < 4 or not any(states):  # noqa: PLR2004 -- user, nice, system, idle
        raise _Unlikely
    return CpuTicks(idle, sum(states))


def _samples(sections: _Sections) -> list[CpuTicks]:
    lines = sections.lines.get("proc_stat") or sections.lines.get("cp_time") or ()
    return [_ticks_of(line) for line in lines if line.strip()]


def _last_ticks(sections: _Sections) -> CpuTicks | None:
    try:
        samples = _samples(sections)
    except _Unlikely:
        return None
    return samples[-1] if samples else None


def _cpu_percent(sections: _Sections) -> float:
    samples = _samples(sections)
    if not samples:
        raise _Absent
    before, now = sections.earlier or samples[0], samples[-1]
    if now.total < before.total:
        # It has started anew since then.
        before = samples[0] if len(samples) > 1 else CpuTicks(0, 0)
    if now.total <= before.total:
        raise _Unlikely
    idle = (now.idle - before.idle) / (now.total - before.total)
    # The kernel corrects its idle time now and then, by a tick or two in either direction.
    return 100.0 * min(1.0, max(0.0, 1.0 - idle))


def _top_cpu_percent(sections: _Sections) -> float:
    found = [re.search(r"([0-9.]+)% idle", line) for line in sections.lines["top_cpu"]]
    idle = [match[1] for match in found if match]
    if not idle:
        raise _Absent
    percent = 100.0 - _decimal(idle[-1])
    if not 0.0 <= percent <= 100.0:  # noqa: PLR2004 -- percent
        raise _Unlikely
    return percent


# Memory


def _linux_memory_percent(sections: _Sections) -> float:
    kilobytes = _amounts(sections.lines["meminfo"])
    if "MemTotal" not in kilobytes or "MemFree" not in kilobytes:
        raise _Absent
    total, available = kilobytes["MemTotal"], kilobytes.get("MemAvailable")
    if available is None:
        caches = ("MemFree", "Buffers", "Cached", "SReclaimable")
        available = sum(kilobytes.get(name, 0) for name in caches) - kilobytes.get("Shmem", 0)
    return _share(total - available, total)


def _freebsd_memory_percent(sections: _Sections) -> float:
    found = _amounts(sections.lines["vm_stats"])
    total, page = found.get("vm.stats.vm.v_page_count"), found.get("hw.pagesize")
    if not total or not page:
        raise _Absent
    pages = [found.get(f"vm.stats.vm.v_{name}_count", 0) for name in ("free", "inactive", "cache")]
    available = sum(pages) + found.get("kstat.zfs.misc.arcstats.size", 0) // page
    return _share(total - available, total)


def _openbsd_memory_percent(sections: _Sections) -> float:
    # Memory: Real: 94M/526M act/tot Free: 1417M Cache: 291M Swap: 0K/1028M
    line = " ".join(sections.lines["top_memory"])
    match = re.search(r"Real: \S+/(\S+) act/tot\s+Free: (\S+)(?:\s+Cache: (\S+))?", line)
    if match is None:
        raise _Absent
    in_use, free, cache = (_size(match[n] or "0K") for n in (1, 2, 3))
    return _share(in_use - cache, in_use + free)


def _size(text: str) -> int:
    """Bytes of `94M`."""
    match = re.fullmatch(r"([0-9]{1,12})(\.[0-9])?([KMGT])", text)
    if match is None:
        raise _Unlikely
    return int(float(match[1] + (match[2] or "")) * 1024 ** ("KMGT".index(match[3]) + 1))


def _macos_memory_percent(sections: _Sections) -> float:
    lines = sections.lines["vm_stat"]
    found = _amounts(lines)
    page = next((m[1] for m in (re.search("page size of ([0-9]+)", n) for n in lines) if m), None)
    names = ("Anonymous pages", "Pages wired down", "Pages occupied by compressor")
    if page is None or "hw.memsize" not in found or any(name not in found for name in names):
        raise _Absent
    used = sum(found[name] for name in names) - found.get("Pages purgeable", 0)
    return _share(used * _number(page), found["hw.memsize"])


# Temperature


def _hottest(celsius: Sequence[float]) -> float:
    if not celsius:
        raise _Absent
    likely = [each for each in celsius if MIN_CELSIUS <= each <= MAX_CELSIUS]
    if not likely:
        raise _Unlikely
    return max(likely)


def _linux_celsius(sections: _Sections) -> float:
    lines = [line.strip() for line in sections.lines["millidegrees"]]
    return _hottest([_decimal(line) / 1000 for line in lines if line])


def _bsd_celsius(sections: _Sections) -> float:
    # hw.acpi.thermal.tz0.temperature: 40.1C     hw.sensors.cpu0.temp0=48.00 degC
    pattern = re.compile(r"[:=]\s*(-?[0-9]+(?:\.[0-9]+)?)\s*(?:deg)?C\b")
    found = [pattern.search(line) for line in sections.lines["degrees"]]
    return _hottest([_decimal(match[1]) for match in found if match])


# Traffic

NOT_PHYSICAL = re.compile(
    r"lo|gif|stf|utun|awdl|llw|anpi|ap\d|bridge|vlan|svlan|vxlan|tun|tap|tpmr|ppp|pppoe|pflog|pfsync"
    r"|enc|wg|carp|lagg|trunk|aggr|vether|epair|pair|vport|veb|ipfw|usbus|gre|egre|mgre|etherip"
    r"|mpe|mpip|mpw|p2p|feth|vmenet|nflog|bpe|sec"
)
"""Beginnings of the names of interfaces of the BSDs and macOS that no wire or radio is behind."""

MIN_NETSTAT_COLUMNS = 6
"""Name, MTU, network, address, and the two counters."""

MAC_ADDRESS = re.compile("[0-9a-f]{1,2}([:-][0-9a-f]{1,2}){5}", re.IGNORECASE)


def _received(sections: _Sections) -> float:
    return _total([row[1] for row in _linux_interfaces(sections)])


def _sent(sections: _Sections) -> float:
    return _total([row[2] for row in _linux_interfaces(sections)])


def _linux_interfaces(sections: _Sections) -> list[list[str]]:
    rows = [line.split() for line in sections.lines["interfaces"]]
    return [row for row in rows if len(row) == 3]  # noqa: PLR2004 -- name, received, sent


def _bsd_received(sections: _Sections) -> float:
    return _total([row["Ibytes"] for row in _bsd_interfaces(sections)])


def _bsd_sent(sections: _Sections) -> float:
    return _total([row["Obytes"] for row in _bsd_interfaces(sections)])


def _bsd_interfaces(sections: _Sections) -> list[dict[str, str]]:
    """The rows of physical interfaces that are up; a star after the name says down.

    Columns are counted from the right, because an interface without an address has one fewer.
    """
    header, *rows = [line.split() for line in sections.lines["netstat"]] or [[]]
    if not {"Ibytes", "Obytes"} <= set(header) or len(header) < MIN_NETSTAT_COLUMNS:
        raise _Absent
    found = {}
    for row in rows:
        if len(row) == len(header) and row[2].startswith("<Link") and MAC_ADDRESS.fullmatch(row[3]):
            cells = dict(zip(reversed(header), reversed(row), strict=True))
            if not row[0].endswith("*") and not NOT_PHYSICAL.match(row[0]):
                found[row[2], row[0]] = {**cells, "Name": row[0]}
    return list(found.values())


def _linux_traffic(sections: _Sections) -> Rows:
    return _traffic([(row[0], row[1], row[2]) for row in _linux_interfaces(sections)])


def _bsd_traffic(sections: _Sections) -> Rows:
    rows = _bsd_interfaces(sections)
    return _traffic([(row["Name"], row["Ibytes"], row["Obytes"]) for row in rows])


def _traffic(interfaces: Sequence[tuple[str, str, str]]) -> Rows:
    """Name, octets received and octets sent of each interface, as a table."""
    names = _names([name for name, _, _ in interfaces])
    return {
        name: {NETWORK_RECEIVE: float(_number(received)), NETWORK_TRANSMIT: float(_number(sent))}
        for name, (_, received, sent) in zip(names, interfaces, strict=True)
    }


def _names(names: Sequence[str]) -> Sequence[str]:
    """Of the rows of a table, no two alike; a host without any has no such table."""
    if not names:
        raise _Absent
    return list(distinct_names({str(n): name for n, name in enumerate(names, start=1)}).values())


def _total(counters: Sequence[str]) -> float:
    if not counters:
        raise _Absent
    return float(sum(_number(each) for each in counters))


# Disks

NOT_A_DISK = re.compile(
    r"(devfs|fdescfs|procfs|linprocfs|linsysfs|tmpfs|mfs|kernfs|ptyfs|map|/dev/(cd|acd|md|iso9660/).*)$"
)
"""Devices that df shows on a BSD although no disk is behind them, or one that is always full."""

NOT_ITS_OWN = re.compile(r"/Volumes/|/System/Volumes/(?!Data$)")
"""Where macOS mounts images (always full), and what it keeps for itself."""


def _fullest_percent(sections: _Sections) -> float:
    shares = [share for _, share in _shares(sections)]
    if not shares:
        raise _Absent
    return max(shares)


def _disks(sections: _Sections) -> Rows:
    shares = _shares(sections)
    names = _names([folder for folder, _ in shares])
    return {name: {DISK_USAGE: share} for name, (_, share) in zip(names, shares, strict=True)}


def _shares(sections: _Sections) -> list[tuple[str, float]]:
    """Folder and use in percent of each real file system."""
    return [
        # Beyond 100 when even what is kept for root is used.
        (folder, min(100.0, 100.0 * used / (used + available)))
        for device, used, available, folder in _file_systems(sections.lines["df"])
        if used + available > 0 and not NOT_A_DISK.match(device) and not NOT_ITS_OWN.match(folder)
    ]


def _file_systems(lines: Lines) -> list[tuple[str, int, int, str]]:
    """Device, used and available kilobytes, and folder. A row that is wrapped is put together."""
    found = []
    words: list[str] = []
    for line in lines:
        if line.startswith("Filesystem"):
            words = []
            continue
        words = (words + line.split())[-MAX_WORDS:]
        row = _file_system(words)
        if row is not None:
            found.append(row)
            words = []
    return found


MAX_WORDS = 200


def _file_system(words: Sequence[str]) -> tuple[str, int, int, str] | None:
    """Device, size, used, available, share, folder; device and folder may have spaces."""
    for at, (share, folder) in enumerate(pairwise(words)):
        if at >= 4 and folder.startswith("/") and re.fullmatch("[0-9]+%|-", share):  # noqa: PLR2004
            _size_kb, used, available = words[at - 3 : at]
            is_negative = available.startswith("-")
            return (
                words[0],
                _number(used),
                -_number(available[1:]) if is_negative else _number(available),
                " ".join(words[at + 1 :]),
            )
    return None


# Uptime


def _linux_uptime_seconds(sections: _Sections) -> float:
    words = " ".join(sections.lines["proc_uptime"]).split()
    if not words:
        raise _Absent
    return _not_negative(_decimal(words[0]))


def _elapsed_seconds(sections: _Sections) -> float:
    """Since process 1 started: `[[days-]hours:]minutes:seconds`, as POSIX has it of ps."""
    text = "".join(sections.lines["etime"]).strip()
    if not text:
        raise _Absent
    match = re.fullmatch(r"(?:(?:(\d{1,6})-)?(\d{1,2}):)?(\d{1,2}):(\d{2})", text, re.ASCII)
    if match is None:
        raise _Unlikely
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _not_negative(number: float) -> float:
    if number < 0:
        raise _Unlikely
    return number


WAYS: Mapping[str, Ways[float]] = {
    CPU_UTILIZATION: {
        "proc_stat": _cpu_percent,
        "cp_time": _cpu_percent,
        "top_cpu": _top_cpu_percent,
    },
    MEMORY_UTILIZATION: {
        "meminfo": _linux_memory_percent,
        "vm_stats": _freebsd_memory_percent,
        "top_memory": _openbsd_memory_percent,
        "vm_stat": _macos_memory_percent,
    },
    TEMPERATURE: {"millidegrees": _linux_celsius, "degrees": _bsd_celsius},
    NETWORK_RECEIVE: {"interfaces": _received, "netstat": _bsd_received},
    NETWORK_TRANSMIT: {"interfaces": _sent, "netstat": _bsd_sent},
    DISK_USAGE: {"df": _fullest_percent},
    UPTIME: {"proc_uptime": _linux_uptime_seconds, "etime": _elapsed_seconds},
}
"""By metric."""

TABLES: Mapping[str, Ways[Rows]] = {
    INTERFACES: {"interfaces": _linux_traffic, "netstat": _bsd_traffic},
    DISKS: {"df": _disks},
}
"""By table of detail: the rows that are summed up above, one by one."""
