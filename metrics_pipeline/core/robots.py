"""What a robot sends: one JSON object a message, checked field by field, and the point it becomes.

The names are those of docs/gateway.md. Pure: no clock, no network.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from metrics_pipeline.core.catalog import CATALOG, ROBOT_METRIC_LIST, ROBOT_METRICS, Catalog
from metrics_pipeline.core.errors import InvalidMessage, InvalidPoint
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.core.telemetry_assets import GROUP
from metrics_pipeline.core.validation import validate

ASSET = f"{GROUP}/robot_metrics"
"""The asset; also the name of the snapshot in which the gateway says how many are connected."""

LATEST = f"{GROUP}/robots"
"""The snapshot with the latest values of every robot."""

SENSOR = "robot_metrics"
GATEWAY = "robot_gateway"
"""The name of the point in the asset's snapshot, which no time-series store gets."""
CONNECTED = "connected"
"""Its field: how many robots are connected."""

QUIET_SECONDS = 30.0
"""So often the gateway says at least how many robots are connected."""

STORED = "stored"
"""The outcome of a message that is none of the reasons for which one is refused."""

FIELDS = tuple(metric.field for metric in ROBOT_METRIC_LIST)
ID, TIME = "id", "time"
KNOWN = frozenset({ID, TIME, *FIELDS})

UNREADABLE = frozenset({"not_json", "not_an_object"})
"""Reasons for which it is not known what a robot meant to say: its connection is ended."""

ROBOT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
ROBOT_ID_RULE = "1 to 128 ASCII letters, digits and . _ : -, the first a letter or a digit"

MAX_ID_CHARACTERS = 64
MAX_DETAIL_CHARACTERS = 200
LARGEST_ID = 2**53 - 1
"""The largest integer that every reader of JSON keeps (RFC 8259, section 6)."""
LATEST_SECONDS = 10**11
"""In the year 5138: a time above is one in milliseconds."""
MICROSECONDS = 1_000_000
NS_PER_MICROSECOND = 1000

MessageId = int | str | None


@dataclass(frozen=True, slots=True)
class RobotMessage:
    """A message that may be stored. `id` is the robot's own name of it, None if it gave none."""

    id: MessageId
    point: Point


def is_robot_id(text: str) -> bool:
    """Whether a robot may be called `text`."""
    return ROBOT_ID.fullmatch(text) is not None


def is_robot_pattern(text: str) -> bool:
    """Whether `text` is a robot's id, or the beginning of some with a `*` behind it."""
    return text == "*" or is_robot_id(text.removesuffix("*"))


def parse(text: str, robot_id: str, now_ns: int, catalog: Catalog = CATALOG) -> RobotMessage:
    """The message in `text`; without a `time` it is of `now_ns`, nanoseconds since the epoch.

    Raises InvalidMessage.
    """
    content = _object(text)
    message_id = _message_id(content.get(ID))
    try:
        point = Point(
            ROBOT_METRICS.name, {"robot_id": robot_id}, _fields(content), _time_ns(content, now_ns)
        )
        return RobotMessage(message_id, validate(point, catalog, now_ns))
    except InvalidPoint as error:
        raise InvalidMessage(error.reason, error.detail, message_id) from error


def _object(text: str) -> Mapping[str, Any]:
    try:
        content = _decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage("not_json", f"expected one JSON object ({error})") from error
    if not isinstance(content, dict):
        raise InvalidMessage("not_an_object", "expected one JSON object")
    return content


def _decode(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # It may be NaN or Infinity, which many programs write: then one can say which message.
        return json.loads(text)


def _message_id(given: object) -> MessageId:
    if given is None or (type(given) is int and abs(given) <= LARGEST_ID):
        return given
    if isinstance(given, str) and len(given) <= MAX_ID_CHARACTERS and given.isprintable():
        return given
    raise InvalidMessage(
        "wrong_id",
        f"expected an integer below 2^53 or up to {MAX_ID_CHARACTERS} printable characters",
    )


def _fields(content: Mapping[str, Any]) -> dict[str, FieldValue]:
    """Those that are given. null is for what a robot does not have."""
    unknown = sorted(content.keys() - KNOWN)
    if unknown:
        expected = ", ".join(sorted(KNOWN))
        raise InvalidPoint("unknown_field", f"{unknown[0][:64]!r} is none of {expected}")
    given = {name: content[name] for name in FIELDS if content.get(name) is not None}
    for name, value in given.items():
        if type(value) not in (int, float):
            raise InvalidPoint("wrong_type", f"{name} is no number")
    return given


def _time_ns(content: Mapping[str, Any], now_ns: int) -> int:
    """From the message, so that one which is sent again is stored once; whole microseconds."""
    given = content.get(TIME)
    if given is None:
        return now_ns
    if type(given) not in (int, float):
        raise InvalidPoint("wrong_type", "time is no number")
    if not math.isfinite(given) or not 0 <= given < LATEST_SECONDS:
        raise InvalidPoint("time_out_of_range", "expected seconds since the epoch")
    microseconds: int = round(given * MICROSECONDS)
    return microseconds * NS_PER_MICROSECOND


def acknowledgement(message_id: MessageId) -> str:
    """What a robot is told of a message that is stored."""
    return orjson.dumps({"type": "ack", "id": message_id}).decode()


def refusal(error: InvalidMessage) -> str:
    """What a robot is told of a message that will never be stored: not to send it again."""
    content = {
        "type": "refused",
        "id": error.message_id,
        "reason": error.reason,
        "detail": error.detail[:MAX_DETAIL_CHARACTERS],
    }
    return orjson.dumps(content).decode()
