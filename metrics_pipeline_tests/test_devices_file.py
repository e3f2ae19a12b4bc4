"""Files of devices, in CSV and JSON: what they mean, and where exactly they are wrong."""

from __future__ import annotations

import csv
import io
import json
import re
import string
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metrics_pipeline.core.device_rows import COLUMNS, DeviceRow, check_row
from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.devices_file import DevicesFileError, read_devices_file

PROTOCOLS = ("ping", "snmp", "ssh")
HEAD = "id,ip_address,protocol"


def read(content: str | bytes, name: str = "devices.csv") -> list[DeviceRow]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return [device.row for device in read_devices_file(file, PROTOCOLS)]


def mistakes(content: str | bytes, name: str = "devices.csv") -> list[str]:
    with pytest.raises(DevicesFileError) as raised:
        read(content, name)
    return [str(mistake) for mistake in raised.value.mistakes]


def as_csv(rows: Sequence[DeviceRow], delimiter: str = ",") -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(COLUMNS)
    for row in rows:
        cells = asdict(row) | {"labels": json.dumps(row.labels)}
        writer.writerow(cells[name] for name in COLUMNS)
    return text.getvalue()


# --- what is read ---------------------------------------------------------------------------------

FULL = DeviceRow(
    id="sw-1",
    ip_address="192.0.2.10",
    protocol="snmp",
    hostname="Schrank 7, Keller",
    mac_address="00:00:5e:00:53:01",
    device_type="switch",
    port=1161,
    credential="core",
    enabled=False,
    labels={"site": "berlin", "rack": "7"},
)


def test_a_line_of_csv_is_a_device() -> None:
    text = (
        f"{','.join(COLUMNS)}\n"
        'sw-1,"Schrank 7, Keller",192.0.2.10,00-00-5E-00-53-01,switch,SNMP,1161,core,no,'
        "site=berlin;rack=7\n"
    )
    assert read(text) == [FULL]


def test_an_object_of_json_is_a_device() -> None:
    assert read(json.dumps([asdict(FULL)]), "devices.json") == [FULL]
    cells = asdict(FULL) | {
        "labels": {"site": "berlin", "rack": 7},
        "mac_address": "0000.5e00.5301",
    }
    assert read(json.dumps([cells]), "devices.json") == [FULL]


def test_what_is_left_out_has_its_default() -> None:
    expected = DeviceRow(id="a", ip_address="2001:db8::1", protocol="ping")
    assert read(f"{HEAD}\na,2001:DB8:0::1,ping") == [expected]
    assert read(f"{HEAD},port,labels,enabled\na,2001:db8::1,ping,,,") == [expected]
    assert read('[{"id": "a", "ip_address": "2001:db8::1", "protocol": "ping", "port": null}]', "x")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_spreadsheet_saves_it_with_its_own_characters(delimiter: str, line_end: str) -> None:
    lines = [delimiter.join(line) for line in (HEAD.split(","), ("a", "h.example", "ssh"))]
    text = line_end.join([*lines, delimiter * 2, ""])
    expected = DeviceRow(id="a", ip_address="h.example", protocol="ssh")
    assert read(b"\xef\xbb\xbf" + text.encode()) == [expected]


def test_only_the_columns_of_the_file_are_given(tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    file.write_text(f"{HEAD},port\na,h,ssh,22\n")
    (device,) = read_devices_file(file, PROTOCOLS)
    before = DeviceRow(id="a", ip_address="x", protocol="snmp", credential="core", port=161)
    assert device.over(before) == DeviceRow("a", "h", "ssh", credential="core", port=22)


def test_a_file_without_devices_is_one() -> None:
    assert read(HEAD) == []
    assert read("[]", "devices.json") == []


# --- what is wrong --------------------------------------------------------------------------------


def test_every_mistake_is_told_with_line_and_column() -> None:
    text = (
        f"{HEAD},port\n"
        "a,10.0.0.1,snmp,161\n"
        "\n"
        "b,10.0.0.256,telnet,99999\n"
        '"c\n",10.0.0.3,snmp,\n'
        ",10.0.0.4,snmp,x\n"
        "a,10.0.0.5,ssh,\n"
        "d,10.0.0.6\n"
    )
    port = "expected a port from 0 to 65535; 0 is the protocol's usual one"
    assert mistakes(text) == [
        "line 4, column ip_address: expected an IP address or a host name, got '10.0.0.256'",
        f"line 4, column port: {port}, got '99999'",
        "line 4, column protocol: expected one of ping, snmp, ssh, got 'telnet'",
        "line 7, column id: expected a name that no other device has, got nothing",
        f"line 7, column port: {port}, got 'x'",
        "line 8, column id: expected each id once, got 'a' as on line 2",
        "line 9: expected 4 cells, as the first line has, got 2",
    ]


def test_a_mistake_in_json_has_the_line_of_its_key() -> None:
    text = """[
 {"id": "a", "ip_address": "h", "protocol": "snmp"},
 {"id": "b",
  "ip_address": "10.0.0.1", "ip_address": "10.0.0.2",
  "protocol": "snmp",
  "port": true,
  "labels": {"site": ["x"]},
  "hostnme": "x"},
 7, {"id": "a", "ip_address": "h", "protocol": "snmp"}
]"""
    assert mistakes(text, "devices.json") == [
        "line 4, column ip_address: expected each column once, got it twice",
        (
            "line 6, column port: expected a port from 0 to 65535; 0 is the protocol's usual one, "
            "got True"
        ),
        (
            'line 7, column labels: expected labels such as {"site": "berlin"} or '
            "site=berlin;rack=7, of texts and numbers, got {'site': ['x']}"
        ),
        "line 8, column 'hostnme': there is no such column (did you mean 'hostname'?)",
        'line 9: expected a device: {"id": …}',
        "line 9, column id: expected each id once, got 'a' as on line 2",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: expected column names: id, hostname, "),
        ("id,protocol\n", "line 1, column ip_address: expected this column, and it is not there"),
        (f"{HEAD},id\n", "line 1, column id: expected each column once, got it twice"),
        (f"{HEAD},adress\n", "line 1, column 'adress': there is no such column"),
        (f'{HEAD}\na,h,ssh\n"b,h,ssh\n', "line 3: is not CSV from here on: unexpected end of data"),
        (f'{HEAD}\n"a"b,h,ssh\n', "line 2: is not CSV from here on: ',' expected after '\"'"),
        (f"{HEAD}\n{'a' * 200_000},h,ssh\n", "line 2: is not CSV from here on: field larger"),
        (b"id,ip_address,protocol\na,h\xfc,ssh\n", "line 2: expected text in UTF-8; save the file"),
        ("id,ip_address\n".encode("utf-16"), "line 1: expected text in UTF-8"),
        (f"{HEAD}\na\x00,h,ssh\n", "line 2, column id: expected a name that no other device has, "),
        (f"{HEAD}\n{'a' * 129},h,ssh\n", "line 2, column id: expected a name that no other device"),
    ],
)
def test_a_csv_file_that_is_none_says_where(text: str | bytes, expected: str) -> None:
    assert mistakes(text)[0].startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 'line 1: expected a list of devices: [{"id": …}, …]'),
        ('{"devices": []}', "line 1: expected a list of devices"),
        ("[\n{]", "line 2: is not JSON from here on: Expecting value"),
        ('[\n{"id" 1}]', "line 2: is not JSON from here on: expected :, got 1"),
        ('[\n{"id": "a"\n', "line 3: is not JSON from here on: expected , or }, got the end of"),
        ("[]\n[]", "line 2: expected the end of the file after the list"),
        ('[{"id": ' + "[" * 100_000, "line 1: is JSON that cannot be read"),
        ('[{"id": ' + "9" * 10_000 + "}]", "line 1: is JSON that cannot be read"),
        (
            '[{"id": "\\ud800", "ip_address": "h", "protocol": "ssh"}]',
            "line 1, column id: expected",
        ),
        ('[{1: "a"}]', "line 1, column 1: there is no such column"),
    ],
)
def test_a_json_file_that_is_none_says_where(text: str, expected: str) -> None:
    assert mistakes(text, "devices.json")[0].startswith(expected)


def test_a_secret_in_the_place_of_a_credentials_name_is_not_shown() -> None:
    (said,) = mistakes(f"{HEAD},credential\na,h,ssh,{'s3cret' * 30}\n")
    assert "s3cret" not in said
    assert "column credential: expected the name of a credential in the settings" in said


def test_of_very_many_mistakes_the_first_are_shown() -> None:
    with pytest.raises(DevicesFileError) as raised:
        read(f"{HEAD}\n" + ",,\na,,\n" * 100)
    assert len(raised.value.mistakes) == 200
    assert len(str(raised.value).splitlines()) == 51
    assert str(raised.value).endswith("and 150 more mistakes")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MetricsPipelineError, match=r"none\.csv: cannot be read"):
        read_devices_file(tmp_path / "none.csv", PROTOCOLS)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0",
        "10.0.0.256",
        "010.0.0.1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "10.0.0.1/24",
        "http://host",
        "host:22",
        "a b",
        "-a",
        "a..b",
        "ä.example",
        "x" * 64,
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    _, wrong = check_row({"id": "a", "ip_address": address, "protocol": "snmp"})
    assert [cell.reason for cell in wrong] == ["invalid_ip_address"]


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "fe80::1%eth0", "host", "sw-1.example.net.", "my_host", "7.example"]
)
def test_what_is_an_address_is_kept(address: str) -> None:
    row, wrong = check_row({"id": "a", "ip_address": address, "protocol": "snmp"})
    assert (row and row.ip_address, wrong) == (address, ())


# --- any file -------------------------------------------------------------------------------------

PRINTABLE = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=20
).map(str.strip)
NAMES = PRINTABLE.filter(bool)
ROWS = st.lists(
    st.builds(
        DeviceRow,
        id=NAMES,
        ip_address=st.ip_addresses(v=4, network="10.0.0.0/8").map(str)
        | st.ip_addresses(v=6, network="2001:db8::/32").map(str)
        | st.text(string.ascii_lowercase, min_size=1, max_size=20),
        protocol=st.sampled_from(PROTOCOLS),
        hostname=PRINTABLE,
        device_type=NAMES,
        port=st.integers(0, 65535),
        credential=PRINTABLE,
        enabled=st.booleans(),
        labels=st.dictionaries(NAMES, PRINTABLE, max_size=3),
    ),
    max_size=5,
    unique_by=lambda row: row.id,
)


@given(ROWS, st.sampled_from(",;\t"))
def test_whatever_devices_are_written_as_csv_are_read_again(
    rows: list[DeviceRow], delimiter: str
) -> None:
    assert read(as_csv(rows, delimiter)) == rows


@given(ROWS, st.sampled_from([None, 1]))
def test_whatever_devices_are_written_as_json_are_read_again(
    rows: list[DeviceRow], indent: int | None
) -> None:
    text = json.dumps([asdict(row) for row in rows], indent=indent)
    assert read(text, "devices.json") == rows


def lines_of_mistakes(content: bytes, name: str) -> list[int]:
    try:
        read(content, name)
    except DevicesFileError as error:
        return [mistake.line for mistake in error.mistakes]
    return []


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode(errors="replace")))
@example(b"\r\r\r")
@example(b'"')
def test_any_bytes_are_devices_or_mistakes_on_lines_that_exist(content: bytes) -> None:
    for head, name in ((b"", "x"), (HEAD.encode() + b"\n", "x.csv"), (b'[{"id":', "x.json")):
        lines = len(re.split(b"\r\n|\r|\n", head + content))
        assert set(lines_of_mistakes(head + content, name)) <= set(range(1, lines + 1))


@given(
    st.dictionaries(
        st.sampled_from([*COLUMNS]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_any_cells_are_a_row_or_say_what_was_expected(cells: dict[str, object]) -> None:
    row, wrong = check_row(cells, PROTOCOLS)
    assert (row is None) == bool(wrong)
    assert all(str(cell).startswith("expected ") and "\n" not in str(cell) for cell in wrong)
    assert row is None or check_row(asdict(row), PROTOCOLS) == (row, ())
