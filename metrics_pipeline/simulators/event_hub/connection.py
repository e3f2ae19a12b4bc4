"""One connection of a client: the handshake, its sessions, its life signs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from metrics_pipeline.simulators.event_hub.amqp_frames import (
    AMQP_HEADER,
    EMPTY_FRAME,
    MAX_FRAME_BYTES,
    SASL_HEADER,
    Frame,
    FrameReader,
    Performative,
    encode_frame,
)
from metrics_pipeline.simulators.event_hub.amqp_types import (
    Array,
    DecodeError,
    Symbol,
    UByte,
    UInt,
    UShort,
)
from metrics_pipeline.simulators.event_hub.refusals import (
    CONNECTION_FORCED,
    FRAMING_ERROR,
    Refusal,
)
from metrics_pipeline.simulators.event_hub.session import Broker, Session

CHANNEL_MAX: Final = 4999
WRITE_BUFFER_BYTES: Final = 65_536
SEND_BUFFER_BYTES: Final = 1_000_000
"""What the kernel is asked to take at once (it may take less): what does not fit is moved about."""

_ANONYMOUS: Final = Array([Symbol("ANONYMOUS")])


class Connection(asyncio.Protocol):
    """Tells `on_lost` when it is over."""

    def __init__(self, broker: Broker, on_lost: Callable[[Connection], None]) -> None:
        self.broker = broker
        self.sessions: dict[int, Session] = {}
        self.can_write = True
        self.is_authorized = False
        self.max_frame_bytes = MAX_FRAME_BYTES
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._last_read_seconds = broker.loop.time()
        self._timers: set[asyncio.TimerHandle] = set()
        self._expiry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        client = transport.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._transport = transport
        self._every(self.broker.idle_seconds / 2, self._check_idle)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Forget the client."""
        self._transport = None
        for timer in self._timers:
            timer.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        for session in self.sessions.values():
            session.close()
        self.sessions.clear()
        self._on_lost(self)

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.can_write = False

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.can_write = True
        for session in self.sessions.values():
            session.wake()

    def data_received(self, data: bytes) -> None:
        """Take bytes as they come."""
        if self.broker.faults.is_frozen:
            return
        self._last_read_seconds = self.broker.loop.time()
        try:
            for piece in self._reader.feed(data):
                if isinstance(piece, Frame):
                    self._on_frame(piece)
                else:
                    self._on_header(piece)
        except DecodeError as error:
            self.close(Refusal(FRAMING_ERROR, str(error)))

    def write(self, data: bytes) -> None:
        """Send whole frames, if the client is there still."""
        if self._transport is not None and not self.broker.faults.is_frozen:
            self._transport.write(data)

    def authorize(self, seconds: float) -> None:
        """Let the client in until the token that has just come expires."""
        if self._expiry is not None:
            self._expiry.cancel()
        self.is_authorized = True
        self._expiry = self.broker.loop.call_later(seconds, self._shut_out)

    def close(self, refusal: Refusal) -> None:
        """End it properly, because of `refusal`."""
        self.write(encode_frame(Performative.CLOSE, [refusal.error]))
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it without a word."""
        if self._transport is not None:
            self._transport.abort()

    def _on_header(self, header: bytes) -> None:
        if header not in (AMQP_HEADER, SASL_HEADER):
            raise DecodeError(f"no protocol of this server begins with {header!r}")
        self.write(header)
        if header == SASL_HEADER:
            self.write(encode_frame(Performative.SASL_MECHANISMS, [_ANONYMOUS]))

    def _on_frame(self, frame: Frame) -> None:
        match frame.performative:
            case Performative.SASL_INIT:
                self.write(encode_frame(Performative.SASL_OUTCOME, [UByte(0)]))
            case Performative.OPEN:
                self._open(frame)
            case Performative.BEGIN:
                self.sessions[frame.channel] = Session(self, frame)
            case Performative.END:
                self._end(frame.channel)
            case Performative.CLOSE:
                self.write(encode_frame(Performative.CLOSE, []))
                if self._transport is not None:
                    self._transport.close()
            case _ if frame.channel in self.sessions:
                self.sessions[frame.channel].on_frame(frame)
            case _:
                raise DecodeError(f"there is no session on channel {frame.channel}")

    def _open(self, frame: Frame) -> None:
        if frame.fields[2]:
            self.max_frame_bytes = min(int(frame.fields[2]), MAX_FRAME_BYTES)
        if frame.fields[4]:
            # Half of what the client waits, so that it never does.
            self._every(int(frame.fields[4]) / 2000, lambda: self.write(EMPTY_FRAME))
        idle_ms = UInt(int(self.broker.idle_seconds * 1000))
        fields = [uuid4().hex, None, UInt(MAX_FRAME_BYTES), UShort(CHANNEL_MAX), idle_ms]
        self.write(encode_frame(Performative.OPEN, fields))

    def _end(self, channel: int) -> None:
        session = self.sessions.pop(channel, None)
        if session is not None:
            session.close()
            session.send(Performative.END, [])

    def _shut_out(self) -> None:
        self.is_authorized = False
        for session in self.sessions.values():
            session.shut_out()

    def _check_idle(self) -> None:
        silence_seconds = self.broker.loop.time() - self._last_read_seconds
        if silence_seconds >= self.broker.idle_seconds:
            self.close(
                Refusal(
                    CONNECTION_FORCED,
                    "The connection was inactive for more than the allowed "
                    f"{int(self.broker.idle_seconds * 1000)} milliseconds and is closed.",
                )
            )

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            act()
            if self._transport is not None:
                self._every(seconds, act)

        timer = self.broker.loop.call_later(seconds, run)
        self._timers.add(timer)
