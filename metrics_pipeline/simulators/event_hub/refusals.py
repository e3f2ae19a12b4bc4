"""What the service refuses, by the names it has for it.

Facts: OASIS AMQP 1.0, part 2, 2.8.15 to 2.8.19; the conditions of Event Hubs and their sentences as
seen in azure-sdk-for-java (issues 10215, 12483, 26583), azure-event-hubs-go (181),
azure-event-hubs-python (106) and azure-event-hubs-node (186: links whose token was not renewed).
"""

from __future__ import annotations

from typing import Final

from metrics_pipeline.simulators.event_hub.amqp_frames import error_of
from metrics_pipeline.simulators.event_hub.amqp_types import Described

NOT_FOUND: Final = "amqp:not-found"
UNAUTHORIZED: Final = "amqp:unauthorized-access"
STOLEN: Final = "amqp:link:stolen"
RESOURCE_LIMIT: Final = "amqp:resource-limit-exceeded"
TOO_LARGE: Final = "amqp:link:message-size-exceeded"
DETACH_FORCED: Final = "amqp:link:detach-forced"
CONNECTION_FORCED: Final = "amqp:connection:forced"
FRAMING_ERROR: Final = "amqp:connection:framing-error"
DECODE_ERROR: Final = "amqp:decode-error"
SERVER_BUSY: Final = "com.microsoft:server-busy"
ARGUMENT_ERROR: Final = "com.microsoft:argument-error"
OUT_OF_RANGE: Final = "com.microsoft:argument-out-of-range"

EXPIRED: Final = "Unauthorized access. 'Listen' claim(s) are required to perform this operation"
"""What a link is told that was let in, once its token has expired."""


class Refusal(Exception):
    """The service does not do what it was asked to."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = condition
        self.description = description

    @property
    def error(self) -> Described:
        """As the protocol has it."""
        return error_of(self.condition, self.description)


def server_busy() -> Refusal:
    """Throttling, as the service says it."""
    return Refusal(
        SERVER_BUSY,
        "The request was terminated because the entity is being throttled. Error code : 50002. "
        "Please wait 4 seconds and try again.",
    )
