"""One LoRaWAN uplink: from the network server's JSON object to tags and fields. Pure.

Names, units and what may be missing are from CONTRACTS, section 3: only `eui` is required. What a
known name holds in a form that cannot be used is kept as text under `extra_<name>`, so that an
uplink is never lost for it. The ranges are LoRaWAN's (1.0.4): a port has 8 bits, a frame counter
32, a spreading factor is 5 to 12.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from metrics_pipeline.core.catalog import EXTRA, PAYLOAD
from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.lorawan_payload import Leaves, Limits, finite
from metrics_pipeline.core.points import FieldValue
from metrics_pipeline.core.row_names import MAX_CHARACTERS, clean_name

UNUSABLE = "unusable_field"
"""The word for a known field that is kept as text."""

CONNECTION_DEVICE_ID = "connection_device_id"

SAYS_NOTHING = f"{EXTRA}empty"
"""The one field of an uplink that has but an EUI: a point needs one."""

_EUI = re.compile(r"(?:0x)?(?:[0-9a-f]{2}[-:. ]?){7}[0-9a-f]{2}", re.ASCII | re.IGNORECASE)
_NOT_HEX = re.compile(r"^0[xX]|[-:. ]")
_LONGEST_EUI = 64
_LORA_RATE = re.compile(r"SF(\d{1,2})BW(\d{1,4}(?:\.\d{1,3})?)", re.ASCII)
SPREADING_FACTORS = range(5, 13)
PORTS = range(256)
FRAME_COUNTERS = range(2**32)

_DEVICES = 16_384
_RATES = 256
_GATEWAYS = 4096
_PAYLOAD_PATH, _EXTRA_PATH = (PAYLOAD.rstrip("_"),), (EXTRA.rstrip("_"),)


class Uplink(NamedTuple):
    """Tags and fields of one point, and how often something of it was cut off or unusable."""

    tags: Mapping[str, str]
    fields: Mapping[str, FieldValue]
    altered: Mapping[str, int]


def read_uplink(document: Mapping[str, Any], device_id: str, limits: Limits) -> Uplink:
    """The uplink in `document`, which `json.loads` gave.

    `device_id` is who was connected to the hub, or empty; it is kept where it is not the EUI, for
    then a gateway or a bridge spoke for the device. Raises InvalidPoint: `missing_eui`,
    `invalid_eui`, `not_finite`, `out_of_range`.
    """
    tags = {"device_eui": read_eui(document.get("eui"))}
    fields: dict[str, FieldValue] = {}
    leaves = Leaves(limits)
    leaves.add_value(_PAYLOAD_PATH, document.get("data"))
    if device_id and device_id.upper() != tags["device_eui"]:
        leaves.add_all(_EXTRA_PATH, [(CONNECTION_DEVICE_ID, device_id)])
    leaves.add_all(_EXTRA_PATH, _others(document, _Draft(tags, fields, leaves)).items())
    fields |= leaves.finish()
    return Uplink(tags, fields or {SAYS_NOTHING: True}, leaves.cut)


def read_eui(eui: Any) -> str:
    """16 upper-case hexadecimal digits from any usual way to write an EUI-64.

    `a8404165d1874ee2`, `A8-40-41-65-D1-87-4E-E2`, `a8:40:…`, `0xA840…`, in groups `A840 4165 …`.
    """
    if eui is None or eui == "":
        raise InvalidPoint("missing_eui", "there is no eui")
    if not isinstance(eui, str) or len(eui) > _LONGEST_EUI:
        raise InvalidPoint("invalid_eui", f"eui is a {type(eui).__name__}, or far too long")
    return _normalised(eui)


@lru_cache(_DEVICES)
def _normalised(eui: str) -> str:
    if not _EUI.fullmatch(eui.strip()):
        raise InvalidPoint("invalid_eui", f"eui is {eui!r}, expected 16 hexadecimal digits")
    return _NOT_HEX.sub("", eui.strip()).upper()


def _others(document: Mapping[str, Any], draft: _Draft) -> dict[str, Any]:
    """What is no field of its own, after those that are were put into `draft`."""
    others: dict[str, Any] = {}
    for name, value in document.items():
        read = _READERS.get(name)
        if read is None:
            others[name] = value
        elif value is not None and not read(value, draft):
            others[name] = _as_text(value)
            if name not in _TEXTS:
                draft.leaves.count(UNUSABLE)
    return others


def _as_text(value: Any) -> Any:
    """A scalar as the text that JSON has for it; an object or array as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (float, int)):
        finite(value)
        return str(value)
    return value


# --- the known fields: each reader takes what it can use, and says whether it could ---------------


@dataclass(slots=True)
class _Draft:
    """An uplink that is being read."""

    tags: dict[str, str]
    fields: dict[str, FieldValue]
    leaves: Leaves


_Reader = Callable[[Any, _Draft], bool]


def _number(field: str) -> _Reader:
    def read(value: Any, draft: _Draft) -> bool:
        if type(value) is not float and type(value) is not int:
            return False
        draft.fields[field] = finite(value)
        return True

    return read


def _read_rate(value: Any, draft: _Draft) -> bool:
    rate = _lora_rate(value) if isinstance(value, str) and len(value) < _LONGEST_EUI else None
    if rate is not None:
        draft.fields["spreading_factor"], draft.fields["bandwidth_khz"] = rate
    return rate is not None


@lru_cache(_RATES)
def _lora_rate(text: str) -> tuple[int, float] | None:
    match = _LORA_RATE.fullmatch(text)
    if match is None or int(match[1]) not in SPREADING_FACTORS:
        return None
    return int(match[1]), float(match[2])


def _read_frame_counter(value: Any, draft: _Draft) -> bool:
    number = _whole(value)
    if number not in FRAME_COUNTERS:
        return False
    draft.fields["frame_counter"] = number
    return True


def _read_port(value: Any, draft: _Draft) -> bool:
    number = _whole(value)
    if number not in PORTS:
        return False
    draft.tags["port"] = str(number)
    return True


def _whole(value: Any) -> int:
    """`value` if it is a whole number, also one written `7.0`; -1 for all else."""
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() else -1


def _read_gateway(value: Any, draft: _Draft) -> bool:
    number = _whole(value)
    text = value if isinstance(value, str) else str(number) if number >= 0 else ""
    name = _gateway_name(text) if len(text) <= MAX_CHARACTERS else ""
    if name:
        draft.tags["gateway_id"] = name
    return bool(name)


@lru_cache(_GATEWAYS)
def _gateway_name(text: str) -> str:
    return clean_name(text)


def _is_never_a_field(*_given: object) -> bool:
    return False


def _read_raw_data(value: Any, draft: _Draft) -> bool:
    if not isinstance(value, str):
        return False
    draft.fields["rawdata"] = draft.leaves.as_text(value)
    return True


def _is_read_elsewhere(*_given: object) -> bool:
    return True


_READERS: Mapping[str, _Reader] = {
    "eui": _is_read_elsewhere,
    "data": _is_read_elsewhere,
    "rssi": _number("rssi_dbm"),
    "lsnr": _number("snr_db"),
    "freq": _number("frequency_mhz"),
    "datr": _read_rate,
    "fcnt": _read_frame_counter,
    "port": _read_port,
    "gatewayid": _read_gateway,
    "rawdata": _read_raw_data,
    "time": _is_never_a_field,
}
_TEXTS = frozenset({"time", "datr"})
"""Kept as text where they are no field, and rightly so: `time` is a text in some versions and a
number in others, `datr` a number for FSK and another text for LR-FHSS."""
