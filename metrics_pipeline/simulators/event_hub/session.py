"""A session of a connection: its links, and the window the client left open."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from metrics_pipeline.simulators.event_hub.amqp_frames import (
    Frame,
    Performative,
    encode_frame,
)
from metrics_pipeline.simulators.event_hub.amqp_types import Described, UInt, UShort
from metrics_pipeline.simulators.event_hub.faults import Faults
from metrics_pipeline.simulators.event_hub.hub import Hub, parse_address
from metrics_pipeline.simulators.event_hub.links import (
    EventReceiverLink,
    EventSenderLink,
    Link,
    Reading,
    ReceiverLink,
    ReplyLink,
    RequestLink,
    attach_refused,
    attach_reply,
    detached,
)
from metrics_pipeline.simulators.event_hub.nodes import CBS, NODES, Nodes
from metrics_pipeline.simulators.event_hub.positions import PositionError, first_sequence_number
from metrics_pipeline.simulators.event_hub.refusals import (
    ARGUMENT_ERROR,
    EXPIRED,
    NOT_FOUND,
    UNAUTHORIZED,
    Refusal,
    server_busy,
)

WINDOW: Final = 5000
HANDLE_MAX: Final = 255
FIRST_TRANSFER_ID: Final = 1
EPOCH: Final = "com.microsoft:epoch"
RUNTIME_METRIC: Final = "com.microsoft:enable-receiver-runtime-metric"
SELECTOR_FILTER: Final = "apache.org:selector-filter:string"


@dataclass(frozen=True, slots=True)
class Broker:
    """What all connections of one server share."""

    hub: Hub
    nodes: Nodes
    faults: Faults
    loop: asyncio.AbstractEventLoop
    idle_seconds: float


class Wire(Protocol):
    """The connection, as its sessions see it."""

    broker: Broker
    can_write: bool
    max_frame_bytes: int
    is_authorized: bool

    def write(self, data: bytes) -> None:
        """Send whole frames."""

    def authorize(self, seconds: float) -> None:
        """Let the client in for so long."""


class Session:
    """Answers on the channel the client chose."""

    def __init__(self, wire: Wire, begin: Frame) -> None:
        self._wire = wire
        self.broker = wire.broker
        self.channel = begin.channel
        self.links: dict[int, Link] = {}
        self.window = int(begin.fields[2])
        """How many transfer frames the client takes before it says more."""
        self.next_delivery_id = 0
        self._next_transfer_id = FIRST_TRANSFER_ID
        self._next_incoming_id = int(begin.fields[1])
        self.send(
            Performative.BEGIN,
            [
                UShort(begin.channel),
                UInt(FIRST_TRANSFER_ID),
                UInt(WINDOW),
                UInt(WINDOW),
                UInt(HANDLE_MAX),
            ],
        )

    @property
    def can_write(self) -> bool:
        """Whether the client reads as fast as it is written to."""
        return self._wire.can_write

    @property
    def max_frame_bytes(self) -> int:
        """The largest frame both sides take."""
        return self._wire.max_frame_bytes

    @property
    def is_authorized(self) -> bool:
        """Whether a good token came on this connection."""
        return self._wire.is_authorized

    def authorize(self, seconds: float) -> None:
        """A good token has come, and is good for so long."""
        self._wire.authorize(seconds)

    def shut_out(self) -> None:
        """End all links but those to $cbs: the token has expired, and no other has come."""
        for link in list(self.links.values()):
            if link.node != CBS:
                link.detach(Refusal(UNAUTHORIZED, EXPIRED))

    def on_frame(self, frame: Frame) -> None:
        """Take any frame of this channel but its begin and its end."""
        match frame.performative:
            case Performative.ATTACH:
                self._attach(frame)
            case Performative.FLOW:
                self._on_flow(frame.fields)
            case Performative.TRANSFER:
                self._on_transfer(frame)
            case Performative.DETACH:
                self._on_detach(frame)
            case _:
                pass  # dispositions: what was delivered is settled already

    def close(self) -> None:
        """All links are gone."""
        for link in self.links.values():
            link.on_closed()
        self.links.clear()

    def wake(self) -> None:
        """There may be room to write."""
        for link in self.links.values():
            if isinstance(link, ReceiverLink):
                link.wake()

    def send(self, performative: Performative, fields: Sequence[Any]) -> None:
        """Send one frame on this channel."""
        self._wire.write(encode_frame(performative, fields, self.channel))

    def send_transfers(self, parts: Sequence[bytes], frame_count: int) -> None:
        """Send `parts`, which are `frame_count` transfers."""
        self.window -= frame_count
        self._next_transfer_id += frame_count
        self._wire.write(b"".join(parts))

    def send_flow(
        self, handle: int, delivery_count: int, credit: int, drains: bool = False
    ) -> None:
        """Say how far a link and this session are."""
        self.send(
            Performative.FLOW,
            [
                UInt(self._next_incoming_id),
                UInt(WINDOW),
                UInt(self._next_transfer_id),
                UInt(WINDOW),
                UInt(handle),
                UInt(delivery_count),
                UInt(credit),
                None,
                drains,
            ],
        )

    def detach(self, link: Link, refusal: Refusal) -> None:
        """End `link`, because of `refusal`."""
        if self.links.pop(link.handle, None) is not None:
            link.on_closed()
            self._wire.write(detached(self.channel, link.handle, refusal))

    def reply(self, node: str, payload: bytes) -> None:
        """Deliver a reply of `node`, if the client attached a link for them."""
        for link in self.links.values():
            if isinstance(link, ReplyLink) and link.node == node:
                link.put(payload)
                return

    def _attach(self, attach: Frame) -> None:
        try:
            link = self._make_link(attach)
        except Refusal as refusal:
            self._wire.write(attach_refused(attach, refusal))
            return
        self.links[link.handle] = link
        self._wire.write(attach_reply(attach))
        link.on_attached()

    def _make_link(self, attach: Frame) -> Link:
        is_receiver = attach.fields[2]
        end = attach.fields[5 if is_receiver else 6]
        text = str(end.value[0]) if isinstance(end, Described) and end.value else ""
        if text in NODES:
            return (ReplyLink if is_receiver else RequestLink)(self, attach, text)
        address = parse_address(text)
        if address is None:
            raise Refusal(NOT_FOUND, f"The messaging entity '{text}' could not be found.")
        if not self.is_authorized:
            raise Refusal(UNAUTHORIZED, f"Unauthorized access to '{text}': no token was put.")
        if not is_receiver:
            return EventSenderLink(self, attach, address)
        self.broker.hub.check_name(address.hub)
        return self._make_receiver(attach, address.group or "", address.partition or "")

    def _make_receiver(self, attach: Frame, group: str, partition: str) -> EventReceiverLink:
        hub = self.broker.hub
        hub.check_group(group)
        log = hub.log(partition)
        if self.broker.faults.is_throttled(partition):
            raise server_busy()
        log.drop_expired()
        try:
            sequence_number = first_sequence_number(log, _selector(attach.fields[5]))
        except PositionError as error:
            raise Refusal(ARGUMENT_ERROR, str(error)) from error
        epoch = _mapping(attach.fields[13]).get(EPOCH)
        wants_metrics = RUNTIME_METRIC in _names(attach.fields[12])
        reading = Reading(log, group, partition, epoch, sequence_number, wants_metrics)
        link = EventReceiverLink(self, attach, reading)
        hub.admit(group, partition, link)
        return link

    def _on_flow(self, fields: Sequence[Any]) -> None:
        next_incoming_id = FIRST_TRANSFER_ID if fields[0] is None else int(fields[0])
        self.window = next_incoming_id + int(fields[1]) - self._next_transfer_id
        link = None if fields[4] is None else self.links.get(fields[4])
        if link is not None:
            link.on_flow(fields)
        else:
            self.wake()

    def _on_transfer(self, frame: Frame) -> None:
        self._next_incoming_id += 1
        link = self.links.get(frame.fields[0])
        if link is not None:  # else it was detached while this was on its way
            link.on_transfer(frame)

    def _on_detach(self, frame: Frame) -> None:
        link = self.links.pop(frame.fields[0], None)
        if link is not None:
            link.on_closed()
            self.send(Performative.DETACH, [UInt(frame.fields[0]), bool(frame.fields[1])])


def _selector(source: Described) -> str | None:
    """The text of the selector filter of `source`, if it has one."""
    filters = _mapping(source.value[7] if len(source.value) > 7 else None)  # noqa: PLR2004
    selector = filters.get(SELECTOR_FILTER)
    text = selector.value if isinstance(selector, Described) else selector
    if isinstance(text, bytes):
        text = text.decode()
    return None if text is None else str(text)


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: Any) -> Sequence[Any]:
    """What may be one name or an array of them."""
    return value if isinstance(value, list) else [value]
