"""What Windows's answers mean: rows to values, dates, faults, and XML that is out to hurt."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime, timedelta, timezone
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DETAILS,
    DISK_USAGE,
    DISKS,
    HOST_METRICS,
    INTERFACES,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
    Miss,
    Rows,
)
from metrics_pipeline.sources.windows_report import (
    MEANINGS,
    QUERIES,
    Fault,
    Found,
    NotWsMan,
    Query,
    Row,
    one_line,
    parse_safely,
    queries_for,
    read_datetime,
    read_fault,
    read_page,
    refuse_dtd,
)

SOAP = "http://www.w3.org/2003/05/soap-envelope"
NAMESPACES = (
    f'xmlns:s="{SOAP}" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration"'
    ' xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
FIRST = datetime(1, 1, 3, tzinfo=UTC).replace(tzinfo=None)
LAST = datetime(9999, 12, 29, tzinfo=UTC).replace(tzinfo=None)
FAULT = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault"


def query(metric: str) -> Query:
    (found,) = queries_for([metric])
    return found


def found(metric: str, *rows: Row) -> Found:
    return query(metric).read(rows)


def body(inner: str) -> ET.Element:
    return ET.fromstring(f"<s:Body {NAMESPACES}>{inner}</s:Body>")


def disk(size: str, free: str) -> Row:
    return {"DeviceID": "C:", "Size": size, "FreeSpace": free}


def interface(name: str, received: object, sent: object = 0) -> Row:
    return {"Name": name, "BytesReceivedPersec": str(received), "BytesSentPersec": str(sent)}


def uptime(boot: str, now: str) -> float | Miss:
    return found(UPTIME, {"LastBootUpTime": boot, "LocalDateTime": now})[UPTIME]


def test_every_metric_of_a_host_comes_from_one_query() -> None:
    asked = [metric for each in QUERIES for metric in each.metrics]
    assert sorted(asked) == sorted(HOST_METRICS)


def table(name: str, *given: Row) -> Rows | Miss:
    read = query(name).read_table
    assert read is not None
    return read(given)


def test_every_table_of_detail_comes_from_the_query_of_its_metrics() -> None:
    assert sorted(each.table for each in QUERIES if each.table) == sorted(DETAILS)
    assert queries_for([DISKS]) == queries_for([DISK_USAGE])
    assert queries_for([INTERFACES]) == queries_for([NETWORK_RECEIVE])


def test_disks_are_named_by_their_letters() -> None:
    rows = [disk("200", "150"), {"DeviceID": "D:", "Size": "1000", "FreeSpace": "100"}]
    rows += [{"DeviceID": "E:"}]
    assert table(DISKS, *rows) == {"C:": {DISK_USAGE: 25.0}, "D:": {DISK_USAGE: 90.0}}


def test_interfaces_that_are_not_physical_are_no_rows() -> None:
    rows = [interface("isatap.example.org", 1, 1), interface("Ethernet _2", 7, 9)]
    assert table(INTERFACES, *rows) == {
        "Ethernet _2": {NETWORK_RECEIVE: 7.0, NETWORK_TRANSMIT: 9.0}
    }


def test_interfaces_of_one_name_or_none_are_told_apart_by_their_place() -> None:
    rows = [interface("a", 1), interface("a", 2), interface("", 3)]
    found = table(INTERFACES, *rows)
    assert not isinstance(found, Miss)
    assert {name: row[NETWORK_RECEIVE] for name, row in found.items()} == {
        "a#1": 1,
        "a#2": 2,
        "3": 3,
    }


@pytest.mark.parametrize(
    ("name", "row", "miss"),
    [
        (DISKS, {"DeviceID": "E:"}, Miss.UNSUPPORTED),
        (DISKS, {"DeviceID": "C:", "Size": "1", "FreeSpace": "2"}, Miss.PARSE),
        (INTERFACES, {"Name": "isatap.x", "BytesReceivedPersec": "1"}, Miss.UNSUPPORTED),
        (INTERFACES, {"Name": "a", "BytesReceivedPersec": "1"}, Miss.UNSUPPORTED),
        (INTERFACES, {"Name": "a", "BytesReceivedPersec": "-1"}, Miss.PARSE),
    ],
)
def test_a_table_that_cannot_be_given_has_its_reason(name: str, row: Row, miss: Miss) -> None:
    assert table(name, row) is miss


def test_no_more_classes_are_asked_than_the_metrics_need() -> None:
    assert [q.class_name for q in queries_for([MEMORY_UTILIZATION, UPTIME])] == [
        "Win32_OperatingSystem"
    ]
    assert queries_for(["ping_status"]) == ()


def test_the_processor_says_percent_itself() -> None:
    assert found(CPU_UTILIZATION, {"PercentProcessorTime": "37"}) == {CPU_UTILIZATION: 37.0}


def test_memory_that_windows_calls_free_is_not_used() -> None:
    row = {"TotalVisibleMemorySize": "629364", "FreePhysicalMemory": "135224"}
    share = found(MEMORY_UTILIZATION, row)[MEMORY_UTILIZATION]
    assert share == pytest.approx(78.514, abs=0.001)


def test_the_fullest_disk_counts_and_a_locked_one_does_not() -> None:
    rows = [disk("200", "150"), disk("1000", "100"), {"DeviceID": "E:"}, disk("0", "0")]
    assert found(DISK_USAGE, *rows) == {DISK_USAGE: 90.0}


@pytest.mark.parametrize(
    "name",
    [
        "isatap.example.org",
        "Teredo Tunneling Pseudo-Interface",
        "6TO4 Adapter",
        "MS TCP Loopback interface",
        "Local Area Connection* 11",
        "Hyper-V Virtual Ethernet Adapter _2",
        "Microsoft Network Adapter Multiplexor Driver",
        "WAN Miniport [IP]",
    ],
)
def test_an_interface_that_is_not_physical_is_left_out(name: str) -> None:
    rows = [interface("Citrix PV Ethernet Adapter _0", 7, 9), interface(name, 100, 100)]
    assert found(NETWORK_RECEIVE, *rows) == {NETWORK_RECEIVE: 7.0, NETWORK_TRANSMIT: 9.0}


def test_the_network_card_of_a_hyper_v_guest_is_its_physical_one() -> None:
    row = interface("Microsoft Hyper-V Network Adapter", 5, 6)
    assert found(NETWORK_RECEIVE, row) == {NETWORK_RECEIVE: 5.0, NETWORK_TRANSMIT: 6.0}


def test_counters_are_64_bits_wide() -> None:
    row = interface("a", 2**64 - 1, 2**40)
    assert found(NETWORK_RECEIVE, row)[NETWORK_RECEIVE] == float(2**64 - 1)


def test_the_hottest_zone_counts_and_one_that_says_zero_does_not() -> None:
    rows = [{"CurrentTemperature": t} for t in ("3012", "0", "3182")]
    assert found(TEMPERATURE, *rows)[TEMPERATURE] == pytest.approx(45.05)


def test_a_wrong_clock_does_not_matter_for_the_uptime() -> None:
    assert uptime("2031-01-01T00:00:00Z", "2031-01-01T00:01:00.5Z") == 60.5


def test_offsets_of_both_dates_are_heeded() -> None:
    boot, now = "20260328120000.000000+060", "20260329130000.000000+120"
    assert uptime(boot, now) == timedelta(days=1).total_seconds()


@pytest.mark.parametrize(
    ("metric", "row"),
    [
        (CPU_UTILIZATION, {"PercentProcessorTime": "101"}),
        (CPU_UTILIZATION, {"PercentProcessorTime": "12,5"}),
        (CPU_UTILIZATION, {"PercentProcessorTime": "-1"}),
        (CPU_UTILIZATION, {"PercentProcessorTime": "٣"}),
        (MEMORY_UTILIZATION, {"TotalVisibleMemorySize": "0", "FreePhysicalMemory": "0"}),
        (MEMORY_UTILIZATION, {"TotalVisibleMemorySize": "10", "FreePhysicalMemory": "11"}),
        (DISK_USAGE, disk("100", "101")),
        (NETWORK_RECEIVE, interface("a", 2**64)),
        (NETWORK_RECEIVE, interface("a", "9" * 5000)),
        (TEMPERATURE, {"CurrentTemperature": "99999"}),
        (TEMPERATURE, {"CurrentTemperature": "1"}),
        (UPTIME, {"LastBootUpTime": "soon", "LocalDateTime": "2026-01-01T00:00:00Z"}),
        (
            UPTIME,
            {"LastBootUpTime": "2026-01-02T00:00:00Z", "LocalDateTime": "2026-01-01T00:00:00Z"},
        ),
        (
            UPTIME,
            {"LastBootUpTime": "2026-01-01T00:00:00", "LocalDateTime": "2026-01-01T00:00:00Z"},
        ),
    ],
)
def test_what_cannot_be_right_is_no_value(metric: str, row: Row) -> None:
    assert found(metric, row)[metric] is Miss.PARSE


@pytest.mark.parametrize("metric", HOST_METRICS)
@pytest.mark.parametrize("rows", [[], [{}], [{"Name": ""}]])
def test_what_is_not_there_is_unsupported(metric: str, rows: list[Row]) -> None:
    assert found(metric, *rows)[metric] is Miss.UNSUPPORTED


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                [
                    "Name",
                    "PercentProcessorTime",
                    "TotalVisibleMemorySize",
                    "FreePhysicalMemory",
                    "LastBootUpTime",
                    "LocalDateTime",
                    "Size",
                    "FreeSpace",
                    "BytesReceivedPersec",
                    "BytesSentPersec",
                    "CurrentTemperature",
                ]
            ),
            st.text() | st.integers().map(str) | st.datetimes().map(datetime.isoformat),
        ),
        max_size=4,
    )
)
def test_whatever_the_rows_hold_each_metric_is_a_sound_number_or_a_reason(rows: list[Row]) -> None:
    for each in QUERIES:
        values = each.read(rows)
        assert set(values) == set(each.metrics)
        for value in values.values():
            assert isinstance(value, Miss) or math.isfinite(value)


@given(
    st.datetimes(min_value=FIRST, max_value=LAST),
    st.integers(min_value=-999, max_value=999),
)
def test_a_cim_date_is_read_as_it_was_written(moment: datetime, minutes: int) -> None:
    text = f"{moment:%m%d%H%M%S.%f}{'-' if minutes < 0 else '+'}{abs(minutes):03}"
    written = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert read_datetime(f"{moment.year:04}{text}") == written


@given(
    st.datetimes(
        min_value=FIRST,
        max_value=LAST,
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=-30))]),
    )
)
def test_an_xml_date_is_read_as_it_was_written(moment: datetime) -> None:
    assert read_datetime(moment.isoformat()) == moment


@given(st.text(alphabet="0123456789-+:.TZ* ", max_size=40) | st.text())
def test_what_is_no_date_is_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read_datetime(text), datetime)


@pytest.mark.parametrize(
    "text",
    [
        "20260101000000.******+000",
        "20260101000000.000000",
        "00000005102030.000000:000",
        "2026-13-01T00:00:00Z",
        "2026-01-01",
        "2026-01-01T00:00:60Z",
        "20260101000000.000000+***",
    ],
)
def test_intervals_and_dates_with_gaps_are_not_dates(text: str) -> None:
    with pytest.raises(ValueError, match=r"date|day|month|hour|minute|second"):
        read_datetime(text)


def test_a_date_of_fewer_digits_after_the_point_is_read_in_full() -> None:
    moment = read_datetime("2013-04-10T16:18:55.48634Z")
    assert moment == datetime(2013, 4, 10, 16, 18, 55, 486340, UTC)


def test_the_first_page_has_rows_and_a_context() -> None:
    page = read_page(
        body(
            "<n:EnumerateResponse><n:EnumerationContext>uuid:1</n:EnumerationContext><w:Items>"
            '<w:XmlFragment><Size>5</Size><FreeSpace xsi:nil="true"/>'
            "<At><Datetime>2013-04-10T16:17:16Z</Datetime></At></w:XmlFragment>"
            "</w:Items></n:EnumerateResponse>"
        )
    )
    assert page.rows == ({"Size": "5", "At": "2013-04-10T16:17:16Z"},)
    assert page.context == "uuid:1"


def test_whole_instances_are_read_like_fragments() -> None:
    page = read_page(
        body(
            "<n:EnumerateResponse><n:EnumerationContext/><w:Items>"
            '<p:Win32_X xmlns:p="urn:x" xmlns:c="urn:c"><p:Size>5</p:Size>'
            "<p:At><c:Datetime>2013-04-10T16:17:16Z</c:Datetime></p:At></p:Win32_X>"
            "</w:Items><w:EndOfSequence/></n:EnumerateResponse>"
        )
    )
    assert page.rows == ({"Size": "5", "At": "2013-04-10T16:17:16Z"},)
    assert page.context is None


def test_the_last_pull_ends_even_if_it_names_a_context() -> None:
    page = read_page(
        body(
            "<n:PullResponse><n:EnumerationContext>uuid:1</n:EnumerationContext><n:Items>"
            "<w:XmlFragment/></n:Items><n:EndOfSequence/></n:PullResponse>"
        )
    )
    assert page.rows == ({},)
    assert page.context is None


@pytest.mark.parametrize("inner", ["", "<other/>", "<n:Enumerate/>"])
def test_an_answer_to_something_else_is_no_page(inner: str) -> None:
    with pytest.raises(NotWsMan, match="without an EnumerateResponse"):
        read_page(body(inner))
    with pytest.raises(NotWsMan):
        read_page(None)


def fault(detail: str, subcode: str = "w:InternalError") -> Fault | None:
    return read_fault(
        f"<s:Envelope {NAMESPACES}><s:Body><s:Fault><s:Code><s:Value>s:Sender</s:Value>"
        f"<s:Subcode><s:Value>{subcode}</s:Value></s:Subcode></s:Code>"
        f"<s:Reason><s:Text>The outer words. </s:Text></s:Reason><s:Detail>{detail}</s:Detail>"
        "</s:Fault></s:Body></s:Envelope>".encode()
    )


def test_a_fault_says_what_the_innermost_layer_said() -> None:
    inner = f'<f:WSManFault xmlns:f="{FAULT}" Code="2150858778" Machine="m">'
    read = fault(
        f'{inner}<f:Message><f:ProviderFault provider="WMI Provider">{inner}'
        "<f:Message>The specified class\n does not exist. </f:Message></f:WSManFault>"
        "</f:ProviderFault></f:Message></f:WSManFault>",
        "n:CannotProcessFilter",
    )
    assert read == Fault(2150858778, "The specified class does not exist.")
    assert read.miss is Miss.UNSUPPORTED
    assert str(read) == "The specified class does not exist. (code 0x8033801a)"


def test_a_fault_of_the_newer_kind_is_read_too() -> None:
    schema = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/MSFT_WmiError"
    read = fault(
        f'<p:MSFT_WmiError xmlns:p="{schema}"><p:Message>30 operations at most.</p:Message>'
        "<p:error_Code>2150859174</p:error_Code></p:MSFT_WmiError>",
        "w:QuotaLimit",
    )
    assert read == Fault(2150859174, "30 operations at most.")
    assert read.miss is Miss.REFUSED


@pytest.mark.parametrize("code", ["", "x", "-5", "٣", "9" * 40])
def test_a_fault_without_a_sound_code_is_a_refusal(code: str) -> None:
    read = fault(f'<f:WSManFault xmlns:f="{FAULT}" Code="{code}"/>')
    assert read == Fault(None, "The outer words.")
    assert read.miss is Miss.REFUSED


@pytest.mark.parametrize("code", [5, 2150859012, 2147749891])
def test_access_denied_has_many_codes(code: int) -> None:
    assert MEANINGS[code] is Miss.AUTH


def test_an_answer_without_a_fault_has_none() -> None:
    assert read_fault(f"<s:Envelope {NAMESPACES}><s:Body/></s:Envelope>".encode()) is None


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY a{i} "{f"&a{i - 1 if i else str()};" * 10}">' for i in range(12))
    + "]><l>&a11;</l>"
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        "<!DOCTYPE html><html/>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused_before_it_has_an_effect(text: str, encoding: str) -> None:
    with pytest.raises(NotWsMan, match="document type declaration, which SOAP forbids"):
        parse_safely(text.encode(encoding))


@pytest.mark.parametrize("text", [b"", b"<html><br></html>", b"<s:Envelope", b"\x00\xff", b"{}"])
def test_what_is_no_xml_is_shown_as_it_begins(text: bytes) -> None:
    with pytest.raises(NotWsMan, match="not XML"):
        parse_safely(text)


@pytest.mark.parametrize("encoding", ["no-such", "utf-7", "base64", "idna", "punycode"])
def test_an_encoding_that_cannot_be_read_is_not_ws_man(encoding: str) -> None:
    reply = f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode()
    refuse_dtd(reply)
    with pytest.raises(NotWsMan, match="not XML"):
        parse_safely(reply)


@given(st.binary(max_size=300) | st.text(alphabet="<>/!s:Envelop&;[]\"' ").map(str.encode))
def test_any_bytes_are_xml_or_not_ws_man(reply: bytes) -> None:
    with contextlib.suppress(NotWsMan):
        read_fault(reply)


def test_words_for_people_are_one_line_of_what_can_be_printed() -> None:
    shown = one_line("a\r\n  b\x1b[31m\u202e" + "c" * 1000)
    assert shown.startswith("a b\ufffd[31m\ufffdccc")
    assert len(shown) == 300
