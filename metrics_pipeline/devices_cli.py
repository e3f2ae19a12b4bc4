"""The options of `metrics-pipeline devices`; what they do is in `devices_commands.py`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from metrics_pipeline.core.device_rows import COLUMNS, REQUIRED

MAX_PORT = 65535
SNMP_ENGINES = ("reference", "fast")


class AddParser(Protocol):
    """Adds a command with the options that every command has, and gives its parser."""

    def __call__(
        self, commands: Any, name: str, what: str, example: str, *, below: bool = False
    ) -> argparse.ArgumentParser:
        """`below` is for a command of a command."""
        ...


def add_devices(commands: Any, add: AddParser) -> None:
    """Add `devices` and everything below it to `commands`."""
    parser = add(
        commands,
        "devices",
        "List, change and try the devices that are polled.",
        "devices import devices.csv",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_import(actions, add)
    _add_list(actions, add)
    _add_add(actions, add)
    _add_remove(actions, add)
    _add_probe(actions, add)


def _add_import(actions: Any, add: AddParser) -> None:
    parser = add(
        actions,
        "import",
        "Make the inventory have the devices of a file. Nothing is written if any line is wrong.",
        "devices import devices.csv --dry-run",
        below=True,
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help=f"CSV with a header, or a JSON list of objects, with {', '.join(REQUIRED)}, and where "
        f"needed {', '.join(name for name in COLUMNS if name not in REQUIRED)}; labels as "
        "site=berlin;rack=7, enabled as true or false",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would change")
    parser.add_argument(
        "--prune", action="store_true", help="remove the devices that are not in FILE"
    )
    parser.set_defaults(command=_later("import_file"))


def _add_list(actions: Any, add: AddParser) -> None:
    parser = add(
        actions, "list", "List the devices of the inventory.", "devices list --json", below=True
    )
    parser.add_argument("--json", action="store_true", help="as JSON that `import` takes")
    parser.set_defaults(command=_later("list_devices"))


def _add_add(actions: Any, add: AddParser) -> None:
    parser = add(
        actions,
        "add",
        "Add one device.",
        "devices add sw-1 192.0.2.10 --protocol snmp --credential core --label site=berlin",
        below=True,
    )
    parser.add_argument("id", metavar="ID", help="a name that no other device has")
    parser.add_argument("ip_address", metavar="ADDRESS", help="an IP address or a host name")
    parser.add_argument("--protocol", required=True, help="how it is polled, such as snmp")
    parser.add_argument("--hostname", metavar="NAME", help="what people call it")
    parser.add_argument("--mac-address", metavar="MAC")
    parser.add_argument("--device-type", metavar="TYPE", help="such as switch")
    parser.add_argument("--port", type=_port, help="default: the protocol's usual one")
    parser.add_argument("--credential", metavar="NAME", help="one of the settings")
    parser.add_argument(
        "--label", action="append", type=_label, default=[], metavar="NAME=VALUE", dest="labels"
    )
    parser.add_argument("--disabled", action="store_true", help="do not poll it yet")
    parser.set_defaults(command=_later("add_device"))


def _add_remove(actions: Any, add: AddParser) -> None:
    parser = add(
        actions, "remove", "Remove devices from the inventory.", "devices remove sw-1", below=True
    )
    parser.add_argument("ids", nargs="+", metavar="ID")
    parser.set_defaults(command=_later("remove_devices"))


def _add_probe(actions: Any, add: AddParser) -> None:
    parser = add(
        actions,
        "probe",
        "Poll one device now, and say what was asked and what came back. Nothing is stored.",
        "devices probe 192.0.2.10 --protocol snmp --credential core",
        below=True,
    )
    parser.add_argument(
        "host", metavar="HOST", help="an address, or the id or host name of one in the inventory"
    )
    parser.add_argument("--protocol", help="default: the inventory's")
    parser.add_argument("--port", type=_port, help="default: the inventory's or the usual one")
    parser.add_argument("--credential", metavar="NAME", help="default: the inventory's")
    parser.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="for all of it (10)"
    )
    parser.add_argument(
        "--engine",
        choices=SNMP_ENGINES,
        default=SNMP_ENGINES[0],
        help="of SNMP: reference (default) is pysnmp, for a second opinion; fast is what sweeps "
        "use unless the settings say otherwise",
    )
    parser.set_defaults(command=_later("probe_device"))


def _later(name: str) -> Callable[[argparse.Namespace], int]:
    """The command called `name`, whose module is heavy: `--help` should answer at once."""

    def run(options: argparse.Namespace) -> int:
        from metrics_pipeline import devices_commands  # noqa: PLC0415

        status: int = getattr(devices_commands, name)(options)
        return status

    return run


def _port(given: str) -> int:
    if given.isascii() and given.isdigit() and int(given) <= MAX_PORT:
        return int(given)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to {MAX_PORT}, got {given!r}")


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if 0 < seconds < float("inf"):
        return seconds
    raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {given!r}")


def _label(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if name.strip() and equals:
        return name.strip(), value.strip()
    raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {given!r}")
