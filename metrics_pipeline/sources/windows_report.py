"""What a Windows host's WS-Man answers say: pages of CIM rows, faults, and the values in them.

Nothing here touches a network. Where the facts are from: the answer to a WQL filter that names
properties is a list of `XmlFragment` elements whose children have no namespace, dates are a
`Datetime` element inside the property, a missing value is `xsi:nil`, the first answer may hold one
row and a context, and the rest come by Pull (answers of Windows Server 2003, 2008 and 2012 recorded
by Zenoss's txwinrm). Codes of faults: Microsoft's `wsmerror.h` and `wbemcli.h`. Units: Microsoft's
pages on each class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeVar
from xml.etree import ElementTree as ET
from xml.parsers import expat

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DISK_USAGE,
    DISKS,
    INTERFACES,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
    Miss,
    Rows,
)
from metrics_pipeline.core.row_names import distinct_names

SOAP = "http://www.w3.org/2003/05/soap-envelope"
ENUMERATION = "http://schemas.xmlsoap.org/ws/2004/09/enumeration"
WSMAN = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
WSMAN_FAULT = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault"
WMI_ERROR = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/MSFT_WmiError"
XSI = "http://www.w3.org/2001/XMLSchema-instance"

_WMI_ROOT = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root"
CIMV2, WMI = f"{_WMI_ROOT}/cimv2/*", f"{_WMI_ROOT}/wmi/*"
"""Resource URIs of the two WMI namespaces."""

MAX_COUNT = 2**64 - 1
MAX_CELSIUS, MIN_CELSIUS = 150.0, -60.0
ZERO_CELSIUS_KELVIN = 273.15
SHOWN_CHARACTERS = 300

NOT_PHYSICAL = re.compile(
    r"isatap|teredo|6to4|loopback|pseudo-interface|wan miniport|local area connection\*"
    r"|hyper-v virtual (ethernet|switch)|multiplexor",
    re.IGNORECASE,
)
"""Names of interfaces that are tunnels, this machine, or carry again what a physical one did."""

Row = Mapping[str, str]
"""One CIM instance: its properties as text. What is nil is not there."""

T = TypeVar("T")

Found = Mapping[str, float | Miss]
"""By metric: its value, or why there is none."""


class NotWsMan(Exception):
    """An answer that is not what WS-Man promises; the message shows how it begins."""


class _Absent(Exception):
    """A row has no such property, or nothing in it."""


class _Unlikely(Exception):
    """A property holds what cannot be right."""


@dataclass(frozen=True, slots=True)
class Query:
    """One class: where it is, what is asked of it, and the metrics its rows give.

    Where its rows are a table of detail, `table` is which, and `read_table` reads it.
    """

    resource_uri: str
    wql: str
    metrics: tuple[str, ...]
    read: Callable[[Sequence[Row]], Found]
    table: str = ""
    read_table: Callable[[Sequence[Row]], Rows | Miss] | None = None

    @property
    def answers(self) -> tuple[str, ...]:
        """The metrics, and the table if there is one."""
        return (*self.metrics, self.table) if self.table else self.metrics

    @property
    def class_name(self) -> str:
        """The CIM class, for people."""
        return self.wql.partition(" FROM ")[2].partition(" ")[0]


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and what to pull the next ones with; None after the last."""

    rows: tuple[Row, ...]
    context: str | None


@dataclass(frozen=True, slots=True)
class Fault:
    """A SOAP fault: Windows's number (None if it gave none) and its words on one line."""

    code: int | None
    text: str

    @property
    def miss(self) -> Miss:
        """What it means for the values that were asked for."""
        return Miss.REFUSED if self.code is None else MEANINGS.get(self.code, Miss.REFUSED)

    def __str__(self) -> str:
        return self.text if self.code is None else f"{self.text} (code {self.code:#x})"


MEANINGS: Mapping[int, Miss] = {
    0x00000005: Miss.AUTH,  # ERROR_ACCESS_DENIED
    0x80070005: Miss.AUTH,  # E_ACCESSDENIED
    0x80041003: Miss.AUTH,  # WBEM_E_ACCESS_DENIED
    0x80338104: Miss.AUTH,  # ERROR_WSMAN_WMI_SVC_ACCESS_DENIED
    0x80338105: Miss.AUTH,  # ERROR_WSMAN_WMI_PROVIDER_ACCESS_DENIED
    0x80338106: Miss.AUTH,  # ERROR_WSMAN_WMI_CANNOT_CONNECT_ACCESS_DENIED
    # Our queries are valid, so that this one means: no such class or namespace here.
    0x8033801A: Miss.UNSUPPORTED,  # ERROR_WSMAN_ENUMERATE_CANNOT_PROCESS_FILTER
    0x8033803B: Miss.UNSUPPORTED,  # the resource is not in the service's catalogue
    0x80338102: Miss.UNSUPPORTED,  # ERROR_WSMAN_WMI_PROVIDER_NOT_CAPABLE
    0x80041002: Miss.UNSUPPORTED,  # WBEM_E_NOT_FOUND
    0x8004100C: Miss.UNSUPPORTED,  # WBEM_E_NOT_SUPPORTED
    0x8004100E: Miss.UNSUPPORTED,  # WBEM_E_INVALID_NAMESPACE
    0x80041010: Miss.UNSUPPORTED,  # WBEM_E_INVALID_CLASS
    0x8033801C: Miss.TIMEOUT,  # ERROR_WSMAN_ENUMERATE_TIMED_OUT
    0x80338029: Miss.TIMEOUT,  # ERROR_WSMAN_OPERATION_TIMEDOUT
}
"""What a fault's code means; anything else, quotas among them, is a refusal."""


UNREADABLE_XML = (ET.ParseError, expat.ExpatError, LookupError, ValueError)
"""The last two are for an encoding that Python does not know, or expat cannot do."""


def queries_for(metrics: Collection[str]) -> tuple[Query, ...]:
    """The queries that give `metrics`, of HOST_METRICS and DETAILS, each once."""
    return tuple(query for query in QUERIES if set(query.answers) & set(metrics))


def read_page(body: ET.Element | None) -> Page:
    """The rows of an EnumerateResponse or PullResponse; NotWsMan if it is neither."""
    response = None if body is None else _response_of(body)
    if response is None:
        raise NotWsMan("an answer without an EnumerateResponse or a PullResponse")
    rows = (_read_row(item) for items in _items_of(response) for item in items)
    is_last = any(_is_end(child) for child in response)
    context = (response.findtext(f"{{{ENUMERATION}}}EnumerationContext") or "").strip()
    return Page(tuple(rows), None if is_last or not context else context)


def read_fault(reply: bytes) -> Fault | None:
    """The fault in a reply, or None if there is none. NotWsMan if it is no XML, or has a DTD."""
    return fault_in(parse_safely(reply).find(f"{{{SOAP}}}Body"))


def fault_in(body: ET.Element | None) -> Fault | None:
    """The fault in a SOAP body, or None. Says what Windows's innermost layer said."""
    fault = None if body is None else body.find(f"{{{SOAP}}}Fault")
    if fault is None:
        return None
    innermost = [*fault.iter(f"{{{WSMAN_FAULT}}}WSManFault")]
    codes = [part.get("Code") for part in innermost]
    codes += [part.text for part in fault.iter(f"{{{WMI_ERROR}}}error_Code")]
    texts = [part.text for part in fault.iter(f"{{{SOAP}}}Text")]
    texts += [part.text for part in fault.iter(f"{{{WMI_ERROR}}}Message")]
    texts += [part.text for part in fault.iter(f"{{{WSMAN_FAULT}}}Message")]
    said = [one_line(text) for text in texts if text and text.strip()]
    return Fault(_code_of(codes), said[-1] if said else "a fault without a reason")


def parse_safely(reply: bytes) -> ET.Element:
    """The root of `reply`. NotWsMan for what is no XML and for any DTD, before it has an effect.

    SOAP 1.2 (section 5) forbids a DTD, and only a DTD can define entities that swell or that
    name files.
    """
    refuse_dtd(reply)
    try:
        return ET.fromstring(reply)  # noqa: S314 -- without a DTD there are no entities
    except UNREADABLE_XML as error:
        raise NotWsMan(f"not XML ({error}): {one_line(reply)!r}") from error


def refuse_dtd(reply: bytes) -> None:
    """NotWsMan if `reply` declares a document type; whether it is XML at all is not looked at."""
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(reply, True)
    except UNREADABLE_XML:
        return
    except NotWsMan as error:
        raise NotWsMan(f"{error}: {one_line(reply)!r}") from None


def one_line(text: str | bytes) -> str:
    """The first 300 characters of `text` on one line, only what can be printed."""
    shown = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text
    line = " ".join(shown[: 4 * SHOWN_CHARACTERS].split())
    return "".join(c if c.isprintable() else "�" for c in line)[:SHOWN_CHARACTERS]


def read_datetime(text: str) -> datetime:
    """A CIM date (DSP0004 5.2.4: `yyyymmddHHMMSS.mmmmmmsUUU`) or an XML one; ValueError if not.

    A date without an offset has no time zone in the result.
    """
    match = CIM_DATE.fullmatch(text.strip()) or XML_DATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a date: {text!r}")
    part = match.groupdict()
    names = ("year", "month", "day", "hour", "minute", "second")
    moment = datetime(*(int(part[name]) for name in names))  # type: ignore[arg-type]  # noqa: DTZ001
    fraction = timedelta(microseconds=int((part["fraction"] or "0")[:6].ljust(6, "0")))
    return (moment + fraction).replace(tzinfo=_zone_of(part))


_CLOCK = r"(?P<hour>[0-9]{2}){0}(?P<minute>[0-9]{2}){0}(?P<second>[0-9]{2})"
_DAY = r"(?P<year>[0-9]{4}){0}(?P<month>[0-9]{2}){0}(?P<day>[0-9]{2})"


def _pattern(day: str, between: str, clock: str, rest: str) -> re.Pattern[str]:
    return re.compile(_DAY.replace("{0}", day) + between + _CLOCK.replace("{0}", clock) + rest)


CIM_DATE = _pattern("", "", "", r"\.(?P<fraction>[0-9]{6})(?P<sign>[+-])(?P<minutes>[0-9]{3})")
XML_DATE = _pattern(
    "-",
    "T",
    ":",
    r"(\.(?P<fraction>[0-9]{1,9}))?"
    r"(?P<zone>Z|(?P<sign>[+-])(?P<hours>[0-9]{2}):(?P<minutes>[0-9]{2}))?",
)


def _zone_of(part: Mapping[str, str | None]) -> timezone | None:
    if part.get("zone") == "Z":
        return UTC
    if part["sign"] is None:
        return None
    minutes = int(part["minutes"] or 0) + 60 * int(part.get("hours") or 0)
    return timezone(timedelta(minutes=-minutes if part["sign"] == "-" else minutes))


def _refuse(*_declaration: object) -> None:
    raise NotWsMan("a document type declaration, which SOAP forbids")


def _response_of(body: ET.Element) -> ET.Element | None:
    for name in ("EnumerateResponse", "PullResponse"):
        response = body.find(f"{{{ENUMERATION}}}{name}")
        if response is not None:
            return response
    return None


def _items_of(response: ET.Element) -> list[ET.Element]:
    # An EnumerateResponse has WS-Man's Items, a PullResponse WS-Enumeration's.
    return [*response.findall(f"{{{WSMAN}}}Items"), *response.findall(f"{{{ENUMERATION}}}Items")]


def _is_end(child: ET.Element) -> bool:
    return child.tag in (f"{{{WSMAN}}}EndOfSequence", f"{{{ENUMERATION}}}EndOfSequence")


def _read_row(item: ET.Element) -> Row:
    row = {}
    for prop in item:
        if prop.get(f"{{{XSI}}}nil") != "true":
            # A date is one element deeper.
            text = "".join(prop.itertext()).strip()
            row[prop.tag.rpartition("}")[2]] = text
    return row


def _code_of(codes: Sequence[str | None]) -> int | None:
    numbers = [int(c) for c in codes if c and re.fullmatch("[0-9]{1,10}", c.strip())]
    return numbers[-1] if numbers else None


def _count(row: Row, name: str) -> int:
    """The unsigned number in property `name`; the far side gives all of them as text."""
    text = row.get(name, "")
    if not text:
        raise _Absent
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) > MAX_COUNT:
        raise _Unlikely
    return int(text)


def _used_share(total: int, free: int) -> float:
    """How much of `total` is not free, in percent."""
    if free > total:
        raise _Unlikely
    return 100.0 * (total - free) / total


def _read_processor(rows: Sequence[Row]) -> Found:
    return {CPU_UTILIZATION: _try(_processor_percent, rows)}


def _processor_percent(rows: Sequence[Row]) -> float:
    percent = _count(_only(rows), "PercentProcessorTime")
    if percent > 100:  # noqa: PLR2004 -- percent
        raise _Unlikely
    return float(percent)


def _read_operating_system(rows: Sequence[Row]) -> Found:
    return {MEMORY_UTILIZATION: _try(_memory_percent, rows), UPTIME: _try(_uptime_seconds, rows)}


def _memory_percent(rows: Sequence[Row]) -> float:
    row = _only(rows)
    total, free = _count(row, "TotalVisibleMemorySize"), _count(row, "FreePhysicalMemory")
    if not total:
        raise _Unlikely
    return _used_share(total, free)


def _uptime_seconds(rows: Sequence[Row]) -> float:
    # Both are the host's own clock, so that it does not matter if that one is wrong.
    row = _only(rows)
    if not (row.get("LocalDateTime") and row.get("LastBootUpTime")):
        raise _Absent
    try:
        up = read_datetime(row["LocalDateTime"]) - read_datetime(row["LastBootUpTime"])
    except (ValueError, TypeError, OverflowError) as error:
        raise _Unlikely from error
    if up < timedelta():
        raise _Unlikely
    return up.total_seconds()


def _read_disks(rows: Sequence[Row]) -> Found:
    return {DISK_USAGE: _try(_fullest_percent, rows)}


def _fullest_percent(rows: Sequence[Row]) -> float:
    return max(_disk_percent(row) for row in _sized(rows))


def _disk_percent(row: Row) -> float:
    return _used_share(_count(row, "Size"), _count(row, "FreeSpace"))


def _sized(rows: Sequence[Row]) -> Sequence[Row]:
    # A volume that is locked or not formatted has no size.
    sized = [row for row in rows if row.get("Size", "") not in ("", "0")]
    if not sized:
        raise _Absent
    return sized


def _read_disk_table(rows: Sequence[Row]) -> Rows | Miss:
    return _try(lambda rows: _table(_sized(rows), "DeviceID", {DISK_USAGE: _disk_percent}), rows)


def _physical(rows: Sequence[Row]) -> Sequence[Row]:
    return [row for row in rows if not NOT_PHYSICAL.search(row.get("Name", ""))]


def _read_interface_table(rows: Sequence[Row]) -> Rows | Miss:
    columns = {
        NETWORK_RECEIVE: lambda row: float(_count(row, "BytesReceivedPersec")),
        NETWORK_TRANSMIT: lambda row: float(_count(row, "BytesSentPersec")),
    }
    return _try(lambda rows: _table(rows, "Name", columns), _physical(rows))


def _table(rows: Sequence[Row], name: str, columns: Mapping[str, Callable[[Row], float]]) -> Rows:
    """All `columns` of all rows, by what the property `name` calls them."""
    if not rows:
        raise _Absent
    names = distinct_names({str(n): row.get(name, "") for n, row in enumerate(rows, start=1)})
    return {
        called: {metric: read(row) for metric, read in columns.items()}
        for called, row in zip(names.values(), rows, strict=True)
    }


def _read_interfaces(rows: Sequence[Row]) -> Found:
    physical = _physical(rows)
    return {
        NETWORK_RECEIVE: _try(lambda rows: _sum(rows, "BytesReceivedPersec"), physical),
        NETWORK_TRANSMIT: _try(lambda rows: _sum(rows, "BytesSentPersec"), physical),
    }


def _sum(rows: Sequence[Row], name: str) -> float:
    # The raw class counts bytes since the start; only the formatted one divides by seconds.
    if not rows:
        raise _Absent
    return float(sum(_count(row, name) for row in rows))


def _read_thermal_zones(rows: Sequence[Row]) -> Found:
    return {TEMPERATURE: _try(_hottest_celsius, rows)}


def _hottest_celsius(rows: Sequence[Row]) -> float:
    tenths = [_count(row, "CurrentTemperature") for row in rows]
    # A zone that measures nothing says 0, and absolute zero is no temperature of a server.
    if not any(tenths):
        raise _Absent
    celsius = max(tenths) / 10 - ZERO_CELSIUS_KELVIN
    if not MIN_CELSIUS <= celsius <= MAX_CELSIUS:
        raise _Unlikely
    return round(celsius, 2)


def _only(rows: Sequence[Row]) -> Row:
    if not rows:
        raise _Absent
    return rows[0]


def _try(read: Callable[[Sequence[Row]], T], rows: Sequence[Row]) -> T | Miss:
    try:
        return read(rows)
    except _Absent:
        return Miss.UNSUPPORTED
    except _Unlikely:
        return Miss.PARSE


QUERIES = (
    Query(
        CIMV2,
        "SELECT PercentProcessorTime FROM Win32_PerfFormattedData_PerfOS_Processor"
        " WHERE Name = '_Total'",
        (CPU_UTILIZATION,),
        _read_processor,
    ),
    Query(
        CIMV2,
        "SELECT TotalVisibleMemorySize, FreePhysicalMemory, LastBootUpTime, LocalDateTime"
        " FROM Win32_OperatingSystem",
        (MEMORY_UTILIZATION, UPTIME),
        _read_operating_system,
    ),
    Query(
        CIMV2,
        "SELECT DeviceID, Size, FreeSpace FROM Win32_LogicalDisk WHERE DriveType = 3",
        (DISK_USAGE,),
        _read_disks,
        DISKS,
        _read_disk_table,
    ),
    Query(
        CIMV2,
        "SELECT Name, BytesReceivedPersec, BytesSentPersec"
        " FROM Win32_PerfRawData_Tcpip_NetworkInterface",
        (NETWORK_RECEIVE, NETWORK_TRANSMIT),
        _read_interfaces,
        INTERFACES,
        _read_interface_table,
    ),
    Query(
        WMI,
        "SELECT CurrentTemperature FROM MSAcpi_ThermalZoneTemperature",
        (TEMPERATURE,),
        _read_thermal_zones,
    ),
)
"""In the order they are asked: the one that is most often refused comes last."""
