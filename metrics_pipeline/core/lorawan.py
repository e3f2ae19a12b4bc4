"""LoRaWAN uplinks in the events of a hub: from one event to points, or to a reason. Pure.

An event holds one uplink, or an array of them. What cannot be decoded has one of the reasons in
`Reason`, which are labels; one uplink of an array does not cost the others. Decoding the same event
again gives the same points, and their time comes from the event: what is read twice is stored once.

Of an IoT Hub's events only those of devices are uplinks (`iothub-connection-auth-method`, a JSON
object with a `scope`): modules and the hub itself send, too. The properties are those of
https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from metrics_pipeline.core.catalog import LORAWAN_UPLINK
from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.lorawan_payload import Limits
from metrics_pipeline.core.lorawan_uplink import read_uplink
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import DeadLetter, RawEvent, SystemProperty
from metrics_pipeline.core.validation import check_time

NS_PER_MS = 1_000_000
NS_BETWEEN_UPLINKS = 1000
SEQUENCE_NUMBERS = 1000
SLOTS = 1000

AUTH_METHOD = "iothub-connection-auth-method"
DEVICE_ID = "iothub-connection-device-id"
DEVICE_SCOPE = "device"

_GZIP = b"\x1f\x8b"
_AUTH_METHODS = 256
_LONGEST_AUTH_METHOD = 2000


class Reason(StrEnum):
    """Why an event, or an uplink of it, gave no point."""

    FOREIGN_SCOPE = "foreign_scope"
    """Sent by a module or by the hub itself: no uplink, and no dead letter."""

    INVALID_AUTH_METHOD = "invalid_auth_method"
    """The property that says who sent it is missing or cannot be read."""

    TIME_OUT_OF_RANGE = "time_out_of_range"
    """The hub's time is not one the store takes."""

    TOO_LARGE = "too_large"
    COMPRESSED = "compressed"
    """gzip, which no device of the contract sends."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    TOO_DEEP = "too_deep"
    """More brackets inside each other than Python's parser follows."""

    WRONG_SHAPE = "wrong_shape"
    """JSON, but neither an object nor an array of objects."""

    TOO_MANY = "too_many"
    """An uplink of an array behind the last that has a time of its own."""

    MISSING_EUI = "missing_eui"
    INVALID_EUI = "invalid_eui"
    NOT_FINITE = "not_finite"
    """NaN or Infinity, or a number beyond all floats (`1e400`)."""

    OUT_OF_RANGE = "out_of_range"
    """An integer beyond all floats, or of more digits than Python reads (4,300)."""

    INTERNAL = "internal"
    """Not by `decode`: it failed, which is a defect of the product. An ingestion goes on."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is decoded. `is_iot_hub` is false for an Event Hub that others send to directly.

    There an event need not say who sent it; one that does is judged by it as well.
    """

    is_iot_hub: bool = True
    body_bytes: int = 262_144
    """The largest message a device may send to an IoT Hub."""

    uplinks: int = 1000
    """In one event; of more, the times would run into those of the next millisecond."""

    limits: Limits = field(default_factory=Limits)


class Decoded(NamedTuple):
    """What became of one event: `refused` counts by reason, `altered` what was cut or unusable.

    There is a dead letter if anything was refused, except what is no uplink at all.
    """

    points: Sequence[Point]
    refused: Mapping[str, int]
    altered: Mapping[str, int]
    dead_letter: DeadLetter | None = None


NOTHING: Mapping[str, int] = {}


def decode(event: RawEvent, rules: Rules, now_ns: int) -> Decoded:
    """The points of `event`; raises nothing, whatever the event holds.

    `now_ns` is only compared with the event's time.
    """
    try:
        check_time(event.enqueued_time_ns, LORAWAN_UPLINK, now_ns)
        scope = _sender_scope(event.system_properties, rules)
        if scope != DEVICE_SCOPE:
            return Decoded((), {Reason.FOREIGN_SCOPE.value: 1}, NOTHING)
        documents = _parse(event.body, rules)
    except InvalidPoint as error:
        reason = str(error.reason)
        return Decoded((), {reason: 1}, NOTHING, dead_letter(event, reason, error.detail))
    return _decode_all(event, documents, rules)


def uplink_time_ns(event: RawEvent, place: int = 0) -> int:
    """When the hub accepted `event`, in ms, made distinct: by its number, partition and place.

    In nanoseconds: the sequence number modulo 1000, and 1000 for each partition before this one
    and each uplink before this one in the event's array. So two events of one uplink each give
    points that are different. Two arrays may not: on two partitions, with one device, in one
    millisecond, with numbers that are equal modulo 1000, where the places of the device differ
    by as much as the partitions.
    """
    accepted_ns = event.enqueued_time_ns // NS_PER_MS * NS_PER_MS
    number_ns = event.sequence_number % SEQUENCE_NUMBERS
    return accepted_ns + number_ns + (_slot(event.partition) + place) * NS_BETWEEN_UPLINKS


@lru_cache(SLOTS)
def _slot(partition: str) -> int:
    """A number below SLOTS that stays this partition's: hubs number theirs from 0."""
    if partition.isascii() and partition.isdigit():
        return int(partition[-3:])  # of a number however long, the remainder of SLOTS
    return crc32(partition.encode(errors="backslashreplace")) % SLOTS


def _decode_all(event: RawEvent, documents: Sequence[Any], rules: Rules) -> Decoded:
    points: list[Point] = []
    errors: list[InvalidPoint] = []
    altered: Mapping[str, int] = NOTHING
    device_id = _device_id(event.system_properties)
    for place, document in enumerate(documents[: rules.uplinks]):
        try:
            uplink = read_uplink(_as_object(document), device_id, rules.limits)
        except InvalidPoint as error:
            errors.append(error)
            continue
        time_ns = uplink_time_ns(event, place)
        points.append(Point(LORAWAN_UPLINK.name, uplink.tags, uplink.fields, time_ns))
        if uplink.altered:
            altered = Counter(altered) + Counter(uplink.altered)
    if len(points) < len(documents):
        return _refused(event, len(documents), errors, Decoded(points, NOTHING, altered))
    return Decoded(points, NOTHING, altered)


def _as_object(document: Any) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise InvalidPoint(Reason.WRONG_SHAPE, f"expected an object, not {type(document).__name__}")
    return document


def _refused(
    event: RawEvent, count: int, errors: Sequence[InvalidPoint], decoded: Decoded
) -> Decoded:
    """`decoded`, which lacks some of `count` uplinks; the dead letter tells the first error."""
    refused = Counter(str(error.reason) for error in errors)
    missing = count - len(decoded.points)
    if missing > len(errors):
        refused[Reason.TOO_MANY.value] = missing - len(errors)
    reason = next(iter(refused))
    told = errors[0].detail if errors else "an array holds too many"
    detail = f"{missing} of {count} uplinks refused: {told}"
    letter = dead_letter(event, reason, detail)
    return decoded._replace(refused=refused, dead_letter=letter)


def dead_letter(event: RawEvent, reason: str, detail: str) -> DeadLetter:
    """`event`, of which something could not be used."""
    return DeadLetter(
        partition=event.partition,
        sequence_number=event.sequence_number,
        offset=event.offset,
        enqueued_time_ns=event.enqueued_time_ns,
        reason=reason,
        detail=detail,
        body=event.body,
    )


# --- who sent it ----------------------------------------------------------------------------------


def _sender_scope(properties: Mapping[str, SystemProperty], rules: Rules) -> str:
    """`device`, or what else sent the event."""
    given = properties.get(AUTH_METHOD)
    if given is None and not rules.is_iot_hub:
        return DEVICE_SCOPE
    scope = _scope(given) if isinstance(given, str) else None
    if scope is None:
        raise InvalidPoint(
            Reason.INVALID_AUTH_METHOD,
            f"{AUTH_METHOD} is {repr(given)[:200]}, expected a JSON object with a scope",
        )
    return scope


@lru_cache(_AUTH_METHODS)
def _scope(auth_method: str) -> str | None:
    if len(auth_method) > _LONGEST_AUTH_METHOD:
        return None
    try:
        document = json.loads(auth_method)
    except (ValueError, RecursionError):
        return None
    scope = document.get("scope") if isinstance(document, dict) else None
    return scope if isinstance(scope, str) else None


def _device_id(properties: Mapping[str, SystemProperty]) -> str:
    device_id = properties.get(DEVICE_ID)
    return device_id if isinstance(device_id, str) else ""


# --- what it holds --------------------------------------------------------------------------------


def _parse(body: bytes, rules: Rules) -> Sequence[Any]:
    """The JSON values in `body` that should be uplinks."""
    if len(body) > rules.body_bytes:
        problem = f"{len(body)} bytes, expected at most {rules.body_bytes}"
        raise InvalidPoint(Reason.TOO_LARGE, problem)
    if body.startswith(_GZIP):
        raise InvalidPoint(Reason.COMPRESSED, "the body is gzip, expected JSON as it is")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _parse_slowly(body)
    return value if isinstance(value, list) else (value,)


def _parse_slowly(body: bytes) -> Any:
    """The same, and what is wrong; also of what only Python's own parser takes.

    A byte order mark, half characters, and the NaN that is refused where it stands.
    """
    try:
        return json.loads(body.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        raise InvalidPoint(Reason.NOT_UTF8, f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidPoint(Reason.NOT_JSON, f"{error.msg} at character {error.pos}") from None
    except ValueError:
        raise InvalidPoint(Reason.OUT_OF_RANGE, "an integer has thousands of digits") from None
    except RecursionError:
        raise InvalidPoint(Reason.TOO_DEEP, "brackets are nested a thousand deep") from None
