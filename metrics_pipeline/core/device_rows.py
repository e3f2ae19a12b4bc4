"""What a row of the table `devices` may hold, whether a file, an option or a database gives it.

Each column has one function that makes its value out of what was given, or says what it expects.
Addresses and host names: RFC 1123 section 2.1, RFC 4291; a name whose last label is a number is a
mistyped address (RFC 3696 section 2).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from metrics_pipeline.core.devices import Device

MAX_PORT = 65535
UNKNOWN_TYPE = "unknown"
SHOWN_CHARACTERS = 40
YES = ("true", "t", "yes", "y", "on", "1")
NO = ("false", "f", "no", "n", "off", "0")

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_MAC = re.compile(
    r"(?:[0-9A-Fa-f]{2}([:-]?)){5}[0-9A-Fa-f]{2}|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}"
)


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device of the inventory. `ip_address` may be a host name, `port` 0 is the usual one."""

    id: str
    ip_address: str
    protocol: str
    hostname: str = ""
    mac_address: str = ""
    device_type: str = UNKNOWN_TYPE
    port: int = 0
    credential: str = ""
    enabled: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_device(self) -> Device:
        """As it is polled."""
        return Device(
            id=self.id,
            hostname=self.hostname,
            address=self.ip_address,
            device_type=self.device_type,
            protocol=self.protocol,
            port=self.port,
            credential=self.credential,
            labels=self.labels,
        )


@dataclass(frozen=True, slots=True)
class WrongCell:
    """A column of a row that cannot be used. `reason` is short and of few values: a label."""

    column: str
    expected: str
    given: object

    @property
    def reason(self) -> str:
        """`missing_id`, `invalid_port` and so on."""
        return f"{'missing' if is_absent(self.given) else 'invalid'}_{self.column}"

    def __str__(self) -> str:
        return f"expected {self.expected}, got {self._shown()}"

    def _shown(self) -> str:
        if is_absent(self.given):
            return "nothing"
        if self.column == "credential":  # it may be the secret itself, in the wrong place
            return "something else"
        shown = repr(self.given)
        return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}…"


def check_row(
    given: Mapping[str, object], protocols: Collection[str] = ()
) -> tuple[DeviceRow | None, tuple[WrongCell, ...]]:
    """The row that `given` means, or everything that is wrong with it.

    A column that is not given, or empty, has its default; the first three of DeviceRow have none.
    A protocol must be one of `protocols`, if there are any.
    """
    values: dict[str, object] = {}
    wrong = []
    for column, parse in COLUMNS.items():
        cell = given.get(column)
        if is_absent(cell) and column not in REQUIRED:
            continue
        try:
            values[column] = parse(cell)
        except ValueError as error:
            wrong.append(WrongCell(column, str(error), cell))
    protocol = values.get("protocol")
    if protocol is not None and protocols and protocol not in protocols:
        wrong.append(WrongCell("protocol", f"one of {', '.join(protocols)}", protocol))
    return (None if wrong else DeviceRow(**values)), tuple(wrong)  # type: ignore[arg-type]


def is_absent(cell: object) -> bool:
    """Whether nothing is there: white space is nothing."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _text(expected: str, max_characters: int) -> Callable[[object], str]:
    def parse(cell: object) -> str:
        if is_absent(cell) or isinstance(cell, bool | float | bytes | list | dict | memoryview):
            raise ValueError(expected)
        text = str(cell).strip()
        if len(text) > max_characters:
            raise ValueError(f"{expected}, of at most {max_characters} characters")
        if not text.isprintable():
            raise ValueError(f"{expected}, of printable characters")
        return text

    return parse


def _lower_case(parse: Callable[[object], str]) -> Callable[[object], str]:
    return lambda cell: parse(cell).lower()


def _address(cell: object) -> str:
    expected = "an IP address or a host name"
    text = _text(expected, 255)(cell)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _host_name(text, expected)
    if address.is_multicast or address.is_unspecified:
        raise ValueError(f"{expected} of one device")
    return str(address)


def _host_name(text: str, expected: str) -> str:
    labels = text.rstrip(".").split(".")
    if labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(expected)
    return text


def _mac_address(cell: object) -> str:
    """In lower case with colons, as `ip link` writes it."""
    expected = "a MAC address such as 00:00:5e:00:53:01"
    text = _text(expected, 17)(cell).lower()
    if not _MAC.fullmatch(text):
        raise ValueError(expected)
    digits = re.sub(r"[^0-9a-f]", "", text)
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def _port(cell: object) -> int:
    expected = f"a port from 0 to {MAX_PORT}; 0 is the protocol's usual one"
    text = _text(expected, SHOWN_CHARACTERS)(cell)
    if not (text.isascii() and text.isdigit()) or int(text) > MAX_PORT:
        raise ValueError(expected)
    return int(text)


def _truth(cell: object) -> bool:
    text = str(cell).strip().lower()
    if text not in (*YES, *NO):
        raise ValueError("true or false")
    return text in YES


def _labels(cell: object) -> Mapping[str, str]:
    expected = 'labels such as {"site": "berlin"} or site=berlin;rack=7'
    if not isinstance(cell, Mapping | str):
        raise ValueError(expected)
    pairs = cell if isinstance(cell, Mapping) else _read_labels(cell.strip(), expected)
    labels = {}
    for name, value in pairs.items():
        if is_absent(name) or not str(name).isprintable():
            raise ValueError(expected)
        if value is None:
            continue
        if isinstance(value, Mapping | list) or not str(value).isprintable():
            raise ValueError(f"{expected}, of texts and numbers")
        labels[str(name).strip()] = _written(value)
    return labels


def _read_labels(text: str, expected: str) -> Mapping[object, object]:
    if not text.startswith("{"):
        pairs = [pair.partition("=") for pair in text.split(";") if pair.strip()]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError(expected)
        return {name.strip(): value.strip() for name, _, value in pairs}
    try:
        read: Mapping[object, object] = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(expected) from None
    return read


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


COLUMNS: Mapping[str, Callable[[object], object]] = {
    "id": _text("a name that no other device has", 128),
    "hostname": _text("a host name", 255),
    "ip_address": _address,
    "mac_address": _mac_address,
    "device_type": _text("a type of your choice, such as switch", 64),
    "protocol": _lower_case(_text("the name of a protocol", 32)),
    "port": _port,
    "credential": _text("the name of a credential in the settings", 128),
    "enabled": _truth,
    "labels": _labels,
}
"""Every column an operator gives, in the order of the table, and how it is read."""

REQUIRED = ("id", "ip_address", "protocol")
