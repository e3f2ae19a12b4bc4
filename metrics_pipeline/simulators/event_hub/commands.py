"""What a hub in a process of its own is told: one JSON object a line, on its standard input.

    {"do": "append", "partition": "0", "body": "…$n…", "times": 250000}
    {"do": "detach", "partition": "0", "condition": "amqp:link:detach-forced"}

Each is answered with one line: `{"done": …}` with what the method of `EventHubServer` gives, or
`{"error": "…"}`. But for `append`, the keys are the names of that method's arguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from metrics_pipeline.simulators.event_hub.amqp_messages import Message, make_message
from metrics_pipeline.simulators.event_hub.refusals import Refusal
from metrics_pipeline.simulators.event_hub.server import EventHubServer

COUNTER: Final = b"$n"
"""In a body that is put in many times, this becomes 0, 1, 2 …"""

DEVICE: Final = b"$device"
DEVICES: Final = 1000
"""That becomes the same modulo 1000, as four hexadecimal digits."""

METHODS: Final[Mapping[str, Callable[..., Any]]] = {
    "abort_connections": EventHubServer.abort_connections,
    "add_partition": EventHubServer.add_partition,
    "close_connections": EventHubServer.close_connections,
    "detach": EventHubServer.detach,
    "drop_before": EventHubServer.drop_before,
    "event_counts": EventHubServer.event_counts,
    "freeze": EventHubServer.freeze,
    "receivers": EventHubServer.receivers,
    "restart": EventHubServer.restart,
    "slow": EventHubServer.slow,
    "stall": EventHubServer.stall,
    "throttle": EventHubServer.throttle,
}


def carry_out(hub: EventHubServer, line: str) -> str:
    """Do what `line` says, and give the line that answers it."""
    try:
        asked = json.loads(line)
        name = asked.pop("do")
        if name == "append":
            done: Any = _append(hub, **asked)
        else:
            done = METHODS[name](hub, **asked)
    except (ValueError, TypeError, AttributeError, KeyError, Refusal) as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"})
    return json.dumps({"done": done})


def _append(
    hub: EventHubServer,
    *,
    partition: str,
    body: str,
    times: int = 1,
    properties: Mapping[str, Any] | None = None,
    annotations: Mapping[str, Any] | None = None,
) -> int:
    return hub.append_all(partition, _messages(body.encode(), times, properties, annotations))


def _messages(
    body: bytes,
    times: int,
    properties: Mapping[str, Any] | None,
    annotations: Mapping[str, Any] | None,
) -> Iterator[Message]:
    for number in range(times):
        device = b"%04X" % (number % DEVICES)
        counted = body.replace(COUNTER, str(number).encode()).replace(DEVICE, device)
        yield make_message(counted, properties=properties, annotations=annotations)
