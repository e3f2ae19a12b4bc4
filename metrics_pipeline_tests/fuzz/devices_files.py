"""Target: an operator's list of devices. The first byte chooses the file's suffix."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from metrics_pipeline_tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from metrics_pipeline.access.inventory_devices import GivenDevice
    from metrics_pipeline.devices_file import DevicesFileError, read_devices_file

PROTOCOLS = ("snmp", "ssh")
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-devices-"))
FILES = [FOLDER / name for name in ("devices.csv", "devices.json", "devices")]
CSV = """id;ip_address;protocol;port;labels;enabled;mac_address
a;192.0.2.1;snmp;161;"site=berlin;rack=7";yes;00-00-5E-00-53-01
"b ""2"" c";host.example;ssh;0;"{""site"": 1}";no;0000.5e00.5301
"""
JSON = """[
 {"id": "a", "ip_address": "2001:db8::1", "protocol": "snmp", "port": 161, "enabled": true,
  "labels": {"site": "berlin", "floor": 2}, "mac_address": null},
 {"id": 7, "ip_address": "host.example.", "protocol": "SSH", "labels": "a=b", "hostname": "x"}]
"""


def check(data: bytes) -> None:
    """A file is devices, or mistakes on lines that there are; what was read is read again."""
    if not data:
        return
    file = FILES[data[0] % len(FILES)]
    file.write_bytes(data[1:])
    found = read(file)
    if isinstance(found, DevicesFileError):
        last = data.count(b"\n") + data.count(b"\r") + 1
        assert found.mistakes
        assert all(1 <= mistake.line <= last for mistake in found.mistakes)
        str(found).encode()
    else:
        check_again(found)


def read(file: Path) -> list[GivenDevice] | DevicesFileError:
    """The devices, or what is wrong with them."""
    try:
        return read_devices_file(file, PROTOCOLS)
    except DevicesFileError as error:
        return error


def check_again(devices: list[GivenDevice]) -> None:
    """Written as JSON, `devices` are the same devices."""
    rows = [asdict(each.row) for each in devices]
    FILES[1].write_text(json.dumps(rows))
    assert [asdict(each.row) for each in read_devices_file(FILES[1], PROTOCOLS)] == rows


if __name__ == "__main__":
    fuzz(check, [b"\x00" + CSV.encode(), b"\x01" + JSON.encode(), b"\x02" + JSON.encode()])
