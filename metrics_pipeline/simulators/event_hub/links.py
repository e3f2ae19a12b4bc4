"""The links of a session: to receivers of events, from senders, and to the nodes for requests."""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from metrics_pipeline.simulators.event_hub.amqp_frames import (
    Frame,
    Performative,
    encode_frame,
)
from metrics_pipeline.simulators.event_hub.amqp_messages import (
    BATCH_FORMAT,
    Message,
    delivery_annotations,
    parse_batch,
    parse_message,
    parse_request,
)
from metrics_pipeline.simulators.event_hub.amqp_types import (
    DecodeError,
    Described,
    Timestamp,
    UByte,
    UInt,
    ULong,
)
from metrics_pipeline.simulators.event_hub.hub import Address
from metrics_pipeline.simulators.event_hub.nodes import CBS
from metrics_pipeline.simulators.event_hub.partition_log import PartitionLog
from metrics_pipeline.simulators.event_hub.refusals import (
    DECODE_ERROR,
    TOO_LARGE,
    Refusal,
    server_busy,
)

if TYPE_CHECKING:
    from metrics_pipeline.simulators.event_hub.session import Session

MAX_MESSAGE_BYTES: Final = 1_048_576
"""Of the standard tier (quotas of Event Hubs)."""

CREDIT: Final = 300
EVENTS_PER_WRITE: Final = 128
SLOW_TICK_SECONDS: Final = 0.05

_ACCEPTED: Final = Described(ULong(0x24), [])
_REJECTED: Final = ULong(0x25)
_SENDER_SETTLES: Final = UByte(1)
_RECEIVER_SETTLES_FIRST: Final = UByte(0)


class Link:
    """One end of a link. The client's handle is used in both directions."""

    carries_events = False

    def __init__(self, session: Session, attach: Frame) -> None:
        self.session = session
        self.name: str = attach.fields[0]
        self.handle: UInt = attach.fields[1]
        self.partition: str | None = None
        """The partition events are read from or sent to; None for no certain one."""
        self.node = ""
        """The node that is asked or answers; empty for links of events."""

    def on_attached(self) -> None:
        """The client has been told that it is attached."""

    def on_flow(self, fields: Sequence[Any]) -> None:
        """Take a flow that names this link."""

    def on_transfer(self, frame: Frame) -> None:
        """Take a part of a message."""

    def on_closed(self) -> None:
        """The link is gone, whoever ended it."""

    def detach(self, refusal: Refusal) -> None:
        """End it, because of `refusal`."""
        self.session.detach(self, refusal)


class SenderLink(Link):
    """Takes what the client sends."""

    def __init__(self, session: Session, attach: Frame) -> None:
        super().__init__(session, attach)
        self._parts: list[bytes] = []
        self._size = 0
        self._first: Frame | None = None
        self._delivery_count = int(attach.fields[9] or 0)

    def on_attached(self) -> None:
        """Let the client send."""
        self._grant()

    def on_transfer(self, frame: Frame) -> None:
        """Take a part of a message, and the message with its last part."""
        first = self._first = self._first or frame
        self._size += len(frame.payload)
        if self._size <= MAX_MESSAGE_BYTES:  # else it will be refused, and is not kept
            self._parts.append(frame.payload)
        if frame.fields[5]:  # more
            return
        payload, self._parts, self._first = b"".join(self._parts), [], None
        size, self._size = self._size, 0
        self._delivery_count += 1
        if self._delivery_count % (CREDIT // 2) == 0:
            self._grant()
        if not frame.fields[9]:  # aborted
            self._settle(first, payload, size)

    def take(self, payload: bytes, message_format: int) -> None:
        """Do with a whole message what the link is for. Raises Refusal."""
        raise NotImplementedError

    def _settle(self, first: Frame, payload: bytes, size: int) -> None:
        delivery_id, message_format, is_settled = first.fields[1], first.fields[3], first.fields[4]
        state = _ACCEPTED
        try:
            if size > MAX_MESSAGE_BYTES:
                raise _too_large(delivery_id, size)
            self.take(payload, message_format or 0)
        except Refusal as refusal:
            state = Described(_REJECTED, [refusal.error])
        except DecodeError as error:
            state = Described(_REJECTED, [Refusal(DECODE_ERROR, str(error)).error])
        if not is_settled:
            self.session.send(Performative.DISPOSITION, [True, delivery_id, None, True, state])

    def _grant(self) -> None:
        self.session.send_flow(self.handle, self._delivery_count, CREDIT)


def _too_large(delivery_id: int, size: int) -> Refusal:
    return Refusal(
        TOO_LARGE,
        f"The received message (delivery-id:{delivery_id}, size:{size} bytes) exceeds the limit "
        f"({MAX_MESSAGE_BYTES} bytes) currently allowed on the link.",
    )


class EventSenderLink(SenderLink):
    """Takes events, for one partition or for whichever is right."""

    carries_events = True

    def __init__(self, session: Session, attach: Frame, address: Address) -> None:
        super().__init__(session, attach)
        self.partition = address.partition
        self._broker = session.broker
        self._broker.hub.check_name(address.hub)
        if address.partition is not None:
            self._broker.hub.log(address.partition)

    def take(self, payload: bytes, message_format: int) -> None:
        """Keep one message, or those of a batch, which stay together."""
        outer = parse_message(payload)
        messages = parse_batch(payload) if message_format == BATCH_FORMAT else [outer]
        partition_key = outer.partition_key or _first_key(messages)
        partition = self.partition or self._broker.hub.partition_for(partition_key)
        if self._broker.faults.is_throttled(partition):
            raise server_busy()
        self._broker.hub.append(partition, messages, partition_key)


def _first_key(messages: Sequence[Message]) -> str | None:
    return next((each.partition_key for each in messages if each.partition_key), None)


class RequestLink(SenderLink):
    """Takes requests to a node."""

    def __init__(self, session: Session, attach: Frame, node: str) -> None:
        super().__init__(session, attach)
        self.node = node

    def take(self, payload: bytes, message_format: int) -> None:  # noqa: ARG002
        """Answer over the session's reply link of the same node."""
        request = parse_request(payload)
        nodes = self.session.broker.nodes
        if self.node == CBS:
            refusal = nodes.token_refusal(request)
            if refusal is None:
                self.session.authorize(nodes.token_seconds(request))
            reply = nodes.token_reply(request, refusal)
        else:
            reply = nodes.management_reply(request)
        self.session.reply(self.node, reply)


class ReceiverLink(Link):
    """Delivers to the client, as far as its credit and the session's window go."""

    def __init__(self, session: Session, attach: Frame) -> None:
        super().__init__(session, attach)
        self._credit = 0
        self._delivery_count = 0
        self._drains = False
        self._unsent: deque[bytes] = deque()
        """Frames of a message that was begun when the window closed."""

    def on_flow(self, fields: Sequence[Any]) -> None:
        """Take the credit the client gives."""
        delivery_count = int(fields[5] or 0)
        self._credit = max(0, delivery_count + int(fields[6] or 0) - self._delivery_count)
        self._drains = bool(fields[8])
        if fields[9]:  # echo
            self._say_flow()
        self.wake()

    def wake(self) -> None:
        """There may be something to deliver."""

    def _say_flow(self) -> None:
        self.session.send_flow(self.handle, self._delivery_count, self._credit, self._drains)

    def _end_drain(self) -> None:
        """Give back the credit there is nothing for."""
        if self._drains and not self._unsent:
            self._delivery_count += self._credit
            self._credit = 0
            self._say_flow()
            self._drains = False

    def _deliver(self, payloads: Sequence[bytes], prefix: bytes = b"") -> None:
        """Send whole messages, settled. Begins no message once the window is closed."""
        self._credit -= len(payloads)
        self._delivery_count += len(payloads)
        session = self.session
        frames = _Transfers(session.channel, self.handle, session.max_frame_bytes)
        parts, unsent = frames.encode(payloads, prefix, session.next_delivery_id, session.window)
        session.next_delivery_id += len(payloads)
        session.send_transfers(parts, frames.count)
        self._unsent.extend(unsent)

    def _flush_unsent(self) -> bool:
        """Send frames that had to wait; false while there are more than the window lets through."""
        count = min(len(self._unsent), self.session.window)
        if count:
            self.session.send_transfers([self._unsent.popleft() for _ in range(count)], count)
        return not self._unsent


class ReplyLink(ReceiverLink):
    """Delivers the replies of a node."""

    def __init__(self, session: Session, attach: Frame, node: str) -> None:
        super().__init__(session, attach)
        self.node = node
        self._waiting: deque[bytes] = deque()

    def put(self, reply: bytes) -> None:
        """Deliver `reply` when there is credit for it."""
        self._waiting.append(reply)
        self.wake()

    def wake(self) -> None:
        """Deliver the replies there is credit for."""
        while self._waiting and self._credit and self.session.window:
            self._deliver([self._waiting.popleft()])
        self._end_drain()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a receiver asked for, and where it begins."""

    log: PartitionLog
    group: str
    partition: str
    epoch: int | None
    sequence_number: int
    wants_metrics: bool


class EventReceiverLink(ReceiverLink):
    """Delivers the events of one partition, from a position on, for ever."""

    carries_events = True

    def __init__(self, session: Session, attach: Frame, reading: Reading) -> None:
        super().__init__(session, attach)
        self.partition = reading.partition
        self.epoch = reading.epoch
        self._reading = reading
        self._next = reading.sequence_number
        self._broker = session.broker
        self._is_due = False
        self._is_open = True

    def on_attached(self) -> None:
        """Take part in what comes."""
        self._reading.log.readers.add(self.wake)

    def on_closed(self) -> None:
        """Take no part any more."""
        self._is_open = False
        self._reading.log.readers.discard(self.wake)
        self._broker.hub.leave(self._reading.group, self._reading.partition, self)

    def wake(self) -> None:
        """Deliver in the next turn of the loop."""
        if not self._is_due:
            self._is_due = True
            self._broker.loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._is_due = False
        if not self._is_open or self._broker.faults.is_stalled(self._reading.partition):
            return
        if not self._flush_unsent() or not self.session.can_write:
            return
        log = self._reading.log
        self._next = max(self._next, log.first_sequence_number)
        rate = self._broker.faults.events_per_second(self._reading.partition)
        count = min(self._credit, log.last_sequence_number + 1 - self._next, _per_write(rate))
        if count > 0 and self.session.window > 0:
            payloads = log.payloads(self._next, min(count, self.session.window))
            self._next += len(payloads)
            self._deliver(payloads, self._metrics())
            self._come_again(rate, len(payloads))
        else:
            self._end_drain()

    def _come_again(self, rate: float | None, sent: int) -> None:
        if rate is None:
            self.wake()
        else:
            self._is_due = True
            self._broker.loop.call_later(sent / rate, self._pump)

    def _metrics(self) -> bytes:
        """How far the partition is, for receivers that track it."""
        if not self._reading.wants_metrics:
            return b""
        log = self._reading.log
        return delivery_annotations(
            {
                "last_enqueued_sequence_number": log.last_sequence_number,
                "last_enqueued_offset": log.last_offset,
                "last_enqueued_time_utc": Timestamp(log.last_enqueued_ms),
                "runtime_info_retrieval_time_utc": Timestamp(time.time_ns() // 1_000_000),
            }
        )


def _per_write(rate: float | None) -> int:
    return EVENTS_PER_WRITE if rate is None else max(1, int(rate * SLOW_TICK_SECONDS))


_TRANSFER: Final = struct.Struct(">IBBH6sBIBI2sI8s")
_TRANSFER_BEGINS: Final = bytes((0x00, 0x53, Performative.TRANSFER, 0xC0, 25, 11))
_LAST: Final = b"\x43\x41\x42" + b"\x40" * 5  # message format 0, settled, no more, nulls
_MORE: Final = b"\x43\x41\x41" + b"\x40" * 5


class _Transfers:
    """Transfer frames in bulk: what `encode_frame` would make, forty times as fast."""

    def __init__(self, channel: int, handle: int, max_frame_bytes: int) -> None:
        self._channel = channel
        self._handle = handle
        self._room = max_frame_bytes - _TRANSFER.size
        self.count = 0
        """Frames made so far that fit the window."""

    def encode(
        self, payloads: Sequence[bytes], prefix: bytes, delivery_id: int, window: int
    ) -> tuple[list[bytes], list[bytes]]:
        """The bytes to send now, and whole frames that have to wait for the window.

        There are no more `payloads` than the `window` has frames. Each is preceded by `prefix`.
        """
        parts: list[bytes] = []
        unsent: list[bytes] = []
        append, head, room, extra = parts.append, self._head, self._room, len(prefix)
        for payload in payloads:
            size = len(payload) + extra
            if size <= room and self.count < window:
                append(head(size, delivery_id, _LAST))
                if extra:
                    append(prefix)
                append(payload)
                self.count += 1
            else:
                for frame in self._split(prefix + payload, delivery_id):
                    (parts if self.count < window else unsent).append(frame)
                    self.count += self.count < window
            delivery_id += 1
        return parts, unsent

    def _head(self, size: int, delivery_id: int, end: bytes) -> bytes:
        return _TRANSFER.pack(
            _TRANSFER.size + size,
            2,
            0,
            self._channel,
            _TRANSFER_BEGINS,
            0x70,
            self._handle,
            0x70,
            delivery_id,
            b"\xa0\x04",
            delivery_id,
            end,
        )

    def _split(self, payload: bytes, delivery_id: int) -> Iterator[bytes]:
        for start in range(0, len(payload), self._room):
            piece = payload[start : start + self._room]
            is_last = start + self._room >= len(payload)
            yield self._head(len(piece), delivery_id, _LAST if is_last else _MORE) + piece


def attach_reply(attach: Frame) -> bytes:
    """What says to the client that its link is attached."""
    name, handle, is_receiver = attach.fields[:3]
    settles = _SENDER_SETTLES if is_receiver else attach.fields[3]
    return encode_frame(
        Performative.ATTACH,
        [
            name,
            handle,
            not is_receiver,
            settles,
            _RECEIVER_SETTLES_FIRST,
            attach.fields[5],
            attach.fields[6],
            None,
            None,
            UInt(0) if is_receiver else None,
            ULong(MAX_MESSAGE_BYTES),
        ],
        attach.channel,
    )


def attach_refused(attach: Frame, refusal: Refusal) -> bytes:
    """What the service says instead: a link without ends, and its end at once.

    Fact: the trace in iothub-explorer, issue 57.
    """
    name, handle, is_receiver = attach.fields[:3]
    no_ends = encode_frame(Performative.ATTACH, [name, handle, not is_receiver], attach.channel)
    return no_ends + detached(attach.channel, handle, refusal)


def detached(channel: int, handle: int, refusal: Refusal) -> bytes:
    """The end of a link, because of `refusal`."""
    return encode_frame(Performative.DETACH, [UInt(handle), True, refusal.error], channel)
