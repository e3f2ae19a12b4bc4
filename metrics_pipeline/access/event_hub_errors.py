"""What the failures of an event hub, and of the engine that talks to it, mean for who reads.

Facts: "AMQP errors in Azure Service Bus" and "Azure Event Hubs quotas", learn.microsoft.com (the
conditions); `error.py` in `azure.eventhub._pyamqp` 5.15.1 (what is raised).
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from azure.eventhub._pyamqp.error import (
    AMQPException,
    AuthenticationException,
    TokenAuthFailure,
)

from metrics_pipeline.access.event_hub_connection import Hub
from metrics_pipeline.access.one_line import one_line
from metrics_pipeline.core.errors import (
    CredentialRefused,
    PartitionTaken,
    SourceError,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)

BUSY_SECONDS = 4.0
"""What a hub that throttles asks for: "Please wait 4 seconds and try again"."""


BROKEN = (AMQPException, OSError, ValueError, LookupError, TypeError, AttributeError, struct.error)
"""What the engine raises: its own errors, those of a socket, and those of replies that are none."""


class UnexpectedFrames(UnexpectedReply):
    """What came is not AMQP as it should be, or no event; the engine keeps no bytes to show."""

    def __init__(self, source: str, target: str, problem: str) -> None:
        fix = "Check that the host and the port are those of an event hub."
        SourceError.__init__(self, source, target, problem, fix)


_Refusal = Callable[[Hub, str, str], SourceError]


def _taken(hub: Hub, target: str, problem: str) -> SourceError:
    fix = "Let this reader end; if nobody should read there, find out who does."
    return PartitionTaken(hub.source, target, f"another reader has taken it ({problem})", fix)


def _not_let_in(hub: Hub, target: str, problem: str) -> SourceError:
    return CredentialRefused(hub.source, target, problem, hub.credential.fix())


def _not_there(hub: Hub, target: str, problem: str) -> SourceError:
    fix = "Check the names of namespace, hub and consumer group in the settings."
    return SourceRefused(hub.source, target, problem, fix)


def _not_taken(hub: Hub, target: str, problem: str) -> SourceError:
    fix = "If the hub was made anew, its checkpoints are of another: rewind or remove them."
    return SourceRefused(hub.source, target, problem, fix)


def _busy(hub: Hub, target: str, problem: str) -> SourceError:
    fix = "Give the namespace more throughput units, or ask for less."
    return SourceThrottled(hub.source, target, problem, fix, BUSY_SECONDS)


def _unreachable(hub: Hub, target: str, problem: str) -> SourceError:
    return SourceUnreachable(hub.source, target, problem, "Check the network to the hub.")


_CONDITIONS: Mapping[str, _Refusal] = {
    "amqp:link:stolen": _taken,
    "amqp:unauthorized-access": _not_let_in,
    "amqp:not-found": _not_there,
    "com.microsoft:argument-error": _not_taken,
    "com.microsoft:argument-out-of-range": _not_taken,
    "com.microsoft:server-busy": _busy,
    "amqp:resource-limit-exceeded": _busy,  # readers of a group, or connections
}


def translated(error: Exception, hub: Hub, target: str) -> SourceError:
    """`error` of the engine, as what it means for reading `target` of `hub`."""
    if isinstance(error, AMQPException):
        return _of_amqp(error, hub, target)
    if isinstance(error, OSError):
        return _unreachable(hub, target, one_line(error) or error.__class__.__name__)
    if isinstance(error, AttributeError | TypeError):
        # The engine goes on for a moment with a connection that it has given up.
        return _unreachable(hub, target, f"the connection broke ({one_line(error)})")
    problem = f"what came back is not AMQP as it should be ({one_line(error)})"
    return UnexpectedFrames(hub.source, target, problem)


def _of_amqp(error: AMQPException, hub: Hub, target: str) -> SourceError:
    if isinstance(error, TokenAuthFailure) and error.status_code:
        return refused(error.status_code, text(error.status_description), hub, target)
    if isinstance(error, AuthenticationException):
        return _not_let_in(hub, target, one_line(error))
    if isinstance(error.inner_error, ssl.SSLCertVerificationError):
        return _not_trusted(error.inner_error, hub, target)
    condition = error.condition.decode(errors="replace")
    told = text(error.description) or one_line(error)
    return _CONDITIONS.get(condition, _unreachable)(hub, target, f"{condition}: {told}")


def _not_trusted(error: ssl.SSLCertVerificationError, hub: Hub, target: str) -> SourceError:
    problem = f"its certificate is not to be trusted ({error.verify_message})"
    return SourceRefused(hub.source, target, problem, "Check the host, or name its CA in ca_file.")


def refused(status: int, description: str, hub: Hub, target: str) -> SourceError:
    """What a reply of `$cbs` or `$management` with this status means."""
    problem = f"status {status} {description}".strip()
    kind = {
        HTTPStatus.UNAUTHORIZED: _not_let_in,
        HTTPStatus.FORBIDDEN: _not_let_in,
        HTTPStatus.NOT_FOUND: _not_there,
        HTTPStatus.TOO_MANY_REQUESTS: _busy,
    }.get(HTTPStatus(status) if status in set(HTTPStatus) else HTTPStatus.OK)
    if kind is not None:
        return kind(hub, target, problem)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unreachable(hub, target, problem)
    return _not_taken(hub, target, problem)


def no_answer(hub: Hub, target: str) -> SourceError:
    """The hub took its time, or said nothing at all."""
    problem = f"no answer within {hub.timeout_seconds:g} s"
    return SourceUnreachable(hub.source, target, problem, "Check the network to the hub.")


def shut_out(refusal: CredentialRefused) -> SourceUnreachable:
    """What `refusal` means for a link that had been let in: most likely, its token has expired.

    That is so when nobody looked at the link while a new token was due, or when none was given out
    just then. If the credential itself is good no more, whoever comes again with a new token is
    told so.
    """
    problem = f"what the hub had let in has no good token any more ({refusal.problem})"
    fix = "Come again with a new token; if this is seen often, check this machine's clock."
    return SourceUnreachable(refusal.source, refusal.target, problem, fix)


def text(value: Any) -> str:
    """What the hub says, on one line, without the full stop that it mostly has at its end."""
    said = value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
    return one_line(said).rstrip(".")
