"""How a robot's connection ends: the code of the close frame, and the reason in the event.

Codes below 4000 are of RFC 6455, section 7.4.1; the others are ours (docs/gateway.md).
"""

from __future__ import annotations

from dataclasses import dataclass

CLIENT_DISCONNECT = "client_disconnect"
TIMEOUT = "timeout"
PROTOCOL_ERROR = "protocol_error"
SERVER_SHUTDOWN = "server_shutdown"
POLICY = "policy"
SERVER_ERROR = "server_error"
REASONS = (
    CLIENT_DISCONNECT,
    TIMEOUT,
    PROTOCOL_ERROR,
    SERVER_SHUTDOWN,
    POLICY,
    SERVER_ERROR,
)


@dataclass(frozen=True, slots=True)
class Ending:
    """`text` is told to the robot with the code; `reason` is what events and counters say.

    Where it is `orderly`, what is being stored is acknowledged first.
    """

    code: int
    reason: str
    text: str = ""
    orderly: bool = False


CLIENT_LEFT = Ending(1000, CLIENT_DISCONNECT)
GOING_AWAY = Ending(1001, SERVER_SHUTDOWN, "the gateway ends; come again", orderly=True)
NOT_TEXT = Ending(1003, PROTOCOL_ERROR, "expected text, got a binary message", orderly=True)
NOT_JSON = Ending(1007, PROTOCOL_ERROR, "expected one JSON object a message", orderly=True)
TOO_SLOW = Ending(1008, POLICY, "acknowledgements are not read")
TOO_LARGE = Ending(1009, POLICY)
SILENT = Ending(1011, TIMEOUT, "keepalive ping timeout")
FAILED = Ending(1011, SERVER_ERROR, "a bug of the gateway; come again")
NOT_ALLOWED = Ending(4401, POLICY, "the token has expired, or is withdrawn", orderly=True)
REPLACED = Ending(4409, POLICY, "the robot has connected again")

_BY_WIRE = {each.code: each for each in (GOING_AWAY, SILENT, TOO_LARGE)}


def ending_of(code: int) -> Ending:
    """The ending that `wire.py` decided: it has sent the close frame already."""
    return _BY_WIRE.get(code, Ending(code, PROTOCOL_ERROR))
