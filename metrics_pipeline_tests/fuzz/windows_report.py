"""Target: what a Windows host answers over WS-Man: XML, rows, faults, dates."""

from __future__ import annotations

import math

from metrics_pipeline_tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from metrics_pipeline.core.devices import Miss
    from metrics_pipeline.sources.windows_report import (
        ENUMERATION,
        QUERIES,
        SOAP,
        WMI_ERROR,
        WSMAN,
        WSMAN_FAULT,
        XSI,
        NotWsMan,
        Row,
        fault_in,
        parse_safely,
        read_datetime,
        read_page,
    )

PAGE = f"""<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="{SOAP}"
 xmlns:n="{ENUMERATION}" xmlns:w="{WSMAN}" xmlns:i="{XSI}"><s:Body><n:PullResponse>
<n:EnumerationContext>c</n:EnumerationContext><n:Items><r><PercentProcessorTime>7</PercentProcessorTime>
<TotalVisibleMemorySize>9</TotalVisibleMemorySize><FreePhysicalMemory>4</FreePhysicalMemory>
<LastBootUpTime>20260101000000.000000+060</LastBootUpTime><Size>9</Size><FreeSpace>3</FreeSpace>
<LocalDateTime><d>2026-01-02T00:00:00Z</d></LocalDateTime><BytesSentPersec i:nil="true"/>
<Name>eth</Name><BytesReceivedPersec>5</BytesReceivedPersec>
<CurrentTemperature>3012</CurrentTemperature></r></n:Items><w:EndOfSequence/></n:PullResponse>
</s:Body></s:Envelope>"""
FAULT = f"""<s:Envelope xmlns:s="{SOAP}" xmlns:f="{WSMAN_FAULT}" xmlns:m="{WMI_ERROR}"><s:Body>
<s:Fault><s:Reason><s:Text>no</s:Text></s:Reason><s:Detail><f:WSManFault Code="5"><f:Message>no
</f:Message></f:WSManFault><m:error_Code>7</m:error_Code></s:Detail></s:Fault></s:Body>
</s:Envelope>"""
ENCODING = '<?xml version="1.0" encoding="{}"?><s/>'


def check(data: bytes) -> None:
    """Nothing but NotWsMan is raised; each metric of any rows is a sound number or a miss."""
    check_date(data.decode("latin-1"))
    found = read(data)
    if isinstance(found, NotWsMan):
        assert str(found).isprintable()
    else:
        check_rows(found)


def read(data: bytes) -> tuple[Row, ...] | NotWsMan:
    """The rows of a page, or what is wrong with it."""
    try:
        body = parse_safely(data).find(f"{{{SOAP}}}Body")
        fault = fault_in(body)
        assert fault is None or fault.text.isprintable()
        return read_page(body).rows
    except NotWsMan as error:
        return error


def check_date(text: str) -> None:
    """A text is a date or a ValueError."""
    try:
        read_datetime(text)
    except (ValueError, OverflowError):
        return


def check_rows(rows: tuple[Row, ...]) -> None:
    """What is made of rows, whatever class they are of."""
    for query in QUERIES:
        for value in query.read(rows).values():
            assert isinstance(value, Miss) or math.isfinite(value)


def seeds() -> list[bytes]:
    """A page, a fault, dates, and encodings."""
    encodings = [ENCODING.format(name) for name in ("utf-16", "cp1252", "utf-7", "no-such")]
    dates = ["20260102030405.000000-060", "2026-01-02T03:04:05.123456789+01:00"]
    return [text.encode() for text in (PAGE, FAULT, *encodings, *dates)]


if __name__ == "__main__":
    fuzz(check, seeds())
