"""What a reply of InfluxDB's write API means: which points were refused, why, and in what words.

Seen on InfluxDB 1.6.7 (the tests run it), and from the documentation and sources of 2.7 and 3:

- 1 and 2 keep the good points of a batch and answer 400 or 422 with `partial write: … dropped=N`.
  Lines that could not be parsed are listed, one `unable to parse` each, and not in N.
- 3 keeps the good lines and answers 400 with `{"error": "partial write of line protocol
  occurred", "data": [{"original_line", "line_number", "error_message"}, …]}`.
- Any other 400 refuses the whole batch. So does that of a proxy or of another kind of server, which
  has not looked at the points: nginx answers 400 to plain HTTP where it expects TLS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from metrics_pipeline.access.http import Reply
from metrics_pipeline.core.errors import excerpt
from metrics_pipeline.core.points import Point

REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
"""Statuses that are about what was sent, not about who sent it or how the server is."""

TYPE_CONFLICT = "field_type_conflict"
TYPE_CONFLICTS = ("field type conflict", "invalid column type")
"""The words of InfluxDB 1 and 2, and of 3."""

_DROPPED = re.compile(r"dropped=(\d+)")
_CONFLICT = re.compile(r'input field "(.+?)" on measurement "(.+?)" is type (\w+), already')
_INFLUX_TYPES: Mapping[type, str] = {
    float: "float",
    int: "integer",
    str: "string",
    bool: "boolean",
}


@dataclass(frozen=True, slots=True)
class PartlyRefused:
    """A reply that says how many points of the batch were refused, by reason.

    `lines` are which, counted from 1, and what it says of each; None where the server does not tell
    (3 does, 1 and 2 do not).
    """

    rejected: Mapping[str, int]
    lines: Mapping[int, str] | None


def is_success(status: int) -> bool:
    """Whether `status` is one of 200 to 299."""
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def is_redirection(status: int) -> bool:
    """Whether `status` is one of 300 to 399."""
    return HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST


def is_for_the_moment(status: int) -> bool:
    """Whether the same request may be answered otherwise later."""
    busy = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT)
    return status in busy or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def partly_refused(reply: Reply) -> PartlyRefused | None:
    """How many points were refused while the others were kept; None if that is not what it says."""
    text = said(reply)
    if reply.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or "partial write" not in text:
        return None
    refused = _refused_lines(reply.body)
    if refused is not None:
        reasons = [reason_in(str(line.get("error_message"))) for line in refused]
        return PartlyRefused(
            {reason: reasons.count(reason) for reason in set(reasons)}, _by_line(refused)
        )
    dropped = _DROPPED.search(text)
    count = int(dropped[1]) if dropped else 0
    return PartlyRefused({reason_in(text): max(1, count + text.count("unable to parse"))}, None)


def in_conflict(reply: Reply, batch: Sequence[Point]) -> frozenset[int] | None:
    """Which points of `batch`, counted from 1, InfluxDB 1 or 2 refused for a field's type.

    It names the first such field and how many points it dropped. If as many have that field in that
    type, it was these; else (None) there was more than one such field.
    """
    text = said(reply)
    conflict, dropped = _CONFLICT.search(text), _DROPPED.search(text)
    if conflict is None or dropped is None or "unable to parse" in text:
        return None
    field, measurement, kind = conflict.groups()
    lines = frozenset(
        number
        for number, point in enumerate(batch, start=1)
        if point.measurement == measurement
        and _INFLUX_TYPES.get(type(point.fields.get(field))) == kind
    )
    return lines if len(lines) == int(dropped[1]) else None


def refusal_reason(reply: Reply) -> str:
    """The label for points of a batch that was refused as a whole."""
    if reply.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return "too_large"
    return reason_in(said(reply))


def is_about_points(reply: Reply) -> bool:
    """Whether a refusal of a whole batch names what is wrong with points."""
    return reason_in(said(reply)) == TYPE_CONFLICT


def is_in_its_form(reply: Reply) -> bool:
    """Whether `reply` is such as InfluxDB itself gives, and not a proxy in front of it."""
    return _message(reply) is not None


def said(reply: Reply) -> str:
    """The server's own words: its JSON `message` or `error`, else the start of the reply."""
    message = _message(reply)
    return excerpt(reply.body) if message is None else message


def _message(reply: Reply) -> str | None:
    document = _json(reply.body)
    if isinstance(document, dict):
        text = document.get("message") or document.get("error")
        if isinstance(text, str):
            return text
    return None


def without_secret(reply: Reply, secret: str | None) -> Reply:
    """`reply` with `secret` made unreadable, should a server or proxy repeat the request."""
    if not secret:
        return reply
    return Reply(reply.status, reply.headers, reply.body.replace(secret.encode(), b"***"))


def _refused_lines(body: bytes) -> list[dict[str, Any]] | None:
    document = _json(body)
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list) or not data:
        return None
    return [line if isinstance(line, dict) else {} for line in data]


def _by_line(refused: list[dict[str, Any]]) -> Mapping[int, str] | None:
    told = [(line.get("line_number"), str(line.get("error_message"))) for line in refused]
    by_line = {number: message for number, message in told if isinstance(number, int)}
    return by_line if len(by_line) == len(told) else None


def reason_in(text: str) -> str:
    """The label for what a server says of a point that it refused."""
    is_conflict = any(words in text for words in TYPE_CONFLICTS)
    return TYPE_CONFLICT if is_conflict else "store_rejected"


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
