"""The two nodes that take requests: $cbs for access tokens, $management for what the hub is.

Facts: `cbs.py` and `_client_base.py` of azure-eventhub 5.15 (the fields they read).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from metrics_pipeline.simulators.event_hub.access_tokens import AccessPolicy
from metrics_pipeline.simulators.event_hub.amqp_messages import Request, encode_reply
from metrics_pipeline.simulators.event_hub.amqp_types import Array, Int, Timestamp
from metrics_pipeline.simulators.event_hub.hub import Hub
from metrics_pipeline.simulators.event_hub.partition_log import PartitionLog
from metrics_pipeline.simulators.event_hub.refusals import NOT_FOUND, Refusal

CBS: Final = "$cbs"
MANAGEMENT: Final = "$management"
NODES: Final = frozenset({CBS, MANAGEMENT})


class Nodes:
    """Answers requests for one hub whose tokens `policy` signs."""

    def __init__(self, hub: Hub, policy: AccessPolicy, epoch_seconds: Callable[[], float]) -> None:
        self._hub = hub
        self._policy = policy
        self._epoch_seconds = epoch_seconds

    def is_granted(self, request: Request) -> bool:
        """Whether the token of a request to $cbs is good."""
        return (
            request.properties.get("operation") == "put-token"
            and isinstance(request.value, str)
            and self._policy.is_signed(request.value, self._hub.name, self._epoch_seconds)
        )

    def token_reply(self, request: Request, is_granted: bool) -> bytes:
        """The reply of $cbs."""
        if is_granted:
            return _reply(request, HTTPStatus.ACCEPTED, None)
        return _reply(
            request,
            HTTPStatus.UNAUTHORIZED,
            None,
            "InvalidSignature: The token has an "
            "invalid signature, is for another hub, or has expired.",
        )

    def management_reply(self, request: Request) -> bytes:
        """The reply of $management."""
        asked = request.properties
        try:
            return _reply(request, HTTPStatus.OK, self._read(asked))
        except Refusal as refusal:
            status = (
                HTTPStatus.NOT_FOUND if refusal.condition == NOT_FOUND else HTTPStatus.BAD_REQUEST
            )
            return _reply(request, status, None, refusal.description)

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
