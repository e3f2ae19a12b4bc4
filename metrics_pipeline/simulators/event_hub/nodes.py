"""The two nodes that take requests: $cbs for access tokens, $management for what the hub is.

Facts: `cbs.py` and `_client_base.py` of azure-eventhub 5.15 (the fields they read).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from metrics_pipeline.simulators.event_hub.access_tokens import AccessPolicy, expiry_of, hub_of
from metrics_pipeline.simulators.event_hub.amqp_messages import Request, encode_reply
from metrics_pipeline.simulators.event_hub.amqp_types import Array, Int, Timestamp
from metrics_pipeline.simulators.event_hub.hub import Hub
from metrics_pipeline.simulators.event_hub.partition_log import PartitionLog
from metrics_pipeline.simulators.event_hub.refusals import NOT_FOUND, UNAUTHORIZED, Refusal

CBS: Final = "$cbs"
MANAGEMENT: Final = "$management"
NODES: Final = frozenset({CBS, MANAGEMENT})
_STATUSES: Final = {NOT_FOUND: HTTPStatus.NOT_FOUND, UNAUTHORIZED: HTTPStatus.UNAUTHORIZED}


class Nodes:
    """Answers requests for one hub whose tokens `policy` signs."""

    def __init__(self, hub: Hub, policy: AccessPolicy, epoch_seconds: Callable[[], float]) -> None:
        self._hub = hub
        self._policy = policy
        self._epoch_seconds = epoch_seconds

    def token_refusal(self, request: Request) -> Refusal | None:
        """What is wrong with a request to $cbs, if anything is."""
        token = request.value if isinstance(request.value, str) else ""
        if request.properties.get("operation") != "put-token" or not self._policy.is_signed(
            token, self._epoch_seconds()
        ):
            return Refusal(UNAUTHORIZED, "InvalidSignature: The token has an invalid signature.")
        try:
            self._hub.check_name(hub_of(token) or self._hub.name)
        except Refusal as refusal:
            return refusal
        return None

    def token_seconds(self, request: Request) -> float:
        """For how long the token in `request`, which is good, lets its connection in."""
        return max(0.0, expiry_of(str(request.value)) - self._epoch_seconds())

    def token_reply(self, request: Request, refusal: Refusal | None) -> bytes:
        """The reply of $cbs."""
        if refusal is None:
            return _reply(request, HTTPStatus.ACCEPTED, None)
        return _refuse(request, refusal)

    def management_reply(self, request: Request) -> bytes:
        """The reply of $management."""
        asked = request.properties
        try:
            return _reply(request, HTTPStatus.OK, self._read(asked))
        except Refusal as refusal:
            return _refuse(request, refusal)

    def _read(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self._hub.check_name(str(asked.get("name")))
        if asked.get("type") == "com.microsoft:partition":
            partition = str(asked.get("partition"))
            return {
                "name": self._hub.name,
                "type": "com.microsoft:partition",
                "partition": partition,
                **_partition_state(self._hub.log(partition)),
            }
        return {
            "name": self._hub.name,
            "type": "com.microsoft:eventhub",
            "created_at": Timestamp(self._hub.created_ms),
            "partition_count": Int(len(self._hub.partitions)),
            "partition_ids": Array(self._hub.partitions),
        }


def _partition_state(log: PartitionLog) -> dict[str, Any]:
    log.drop_expired()
    return {
        "begin_sequence_number": log.first_sequence_number,
        "last_enqueued_sequence_number": log.last_sequence_number,
        "last_enqueued_offset": log.last_offset,
        "last_enqueued_time_utc": Timestamp(log.last_enqueued_ms),
        "is_partition_empty": len(log) == 0,
    }


def _reply(request: Request, status: HTTPStatus, value: Any, description: str = "") -> bytes:
    properties = {
        "status-code": Int(status.value),
        "status-description": description or status.phrase,
    }
    return encode_reply(request, properties, value)


def _refuse(request: Request, refusal: Refusal) -> bytes:
    status = _STATUSES.get(refusal.condition, HTTPStatus.BAD_REQUEST)
    return _reply(request, status, None, refusal.description)
