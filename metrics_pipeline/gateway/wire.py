"""uvicorn's two protocols, bounded: what a peer may send before it is somebody, and how it goes.

uvicorn's classes are no public interface, so its version is pinned to one minor release
(pyproject.toml). What is changed, and why:

- A request has to come in whole in some seconds and some kilobytes: uvicorn waits for ever.
- A pong that is late is no reason while we do not read (the store is slow), or while anything else
  comes: uvicorn would send away everybody a slow store makes wait.
- A close frame reaches who is still sending a message that is too large: uvicorn closes the socket
  with data unread, which resets the connection and takes the frame with it.
- A peer that reads nothing is let go: uvicorn waits until its buffer is flushed, so for ever.
  Of its pings only the newest is answered: uvicorn would keep an answer to each.
- A shutdown is told to the application, which says what is stored before it ends.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEAD_BYTES = 16_384
"""A request of ours has no body, so it is a head."""
LINGER_SECONDS = 2.0
"""What a peer has for reading the close frame."""
CONNECTION = "metrics_pipeline.connection"
"""The extension of the ASGI scope that is the protocol itself."""
DISCONNECT = "websocket.disconnect"
IS_OURS = "is_ours"
"""The key of a disconnect that this side decided."""
PONG = b"\x8a"
"""How a frame that is a pong begins (RFC 6455, section 5.2)."""


class BoundedHttp(HttpToolsProtocol):
    """A request that dawdles, or is too long, is not waited for."""

    request_seconds = 10.0
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._forget_deadline()
            self.transport.abort()
            return
        self._await_request()
        super().data_received(data)

    def on_message_complete(self) -> None:
        """A request is there whole."""
        self._forget_deadline()
        self._head_bytes = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """A request that is a handshake is there whole."""
        self._forget_deadline()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._forget_deadline()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.request_seconds, self.transport.abort)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class RobotProtocol(WebSocketsSansIOProtocol):
    """A WebSocket of which the application knows why it ended."""

    _heard_at = 0.0
    _owed_pong = b""
    _abort_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Whatever it is, the peer is alive. What came whole before a broken frame counts."""
        self._heard_at = self.loop.time()
        self.conn.receive_data(data)
        self.handle_events()
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            self.transport.abort()  # too many headers: uvicorn would never answer
        elif self.conn.parser_exc is not None and not self.close_sent:
            self.handle_parser_exception()

    def handle_connect(self, event: Any) -> None:
        """Give the application a way to this protocol."""
        super().handle_connect(event)
        if self.response.status_code == 101:  # noqa: PLR2004 (switching protocols)
            extensions = cast("dict[str, Any]", self.scope["extensions"])
            extensions[CONNECTION] = self

    def handle_parser_exception(self) -> None:
        """Say with which code its frames were refused, and read on until that has arrived."""
        sent = self.conn.close_sent
        assert sent is not None
        self._tell_end(sent.code)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def handle_ping(self) -> None:
        """Answer; of pings that come while nothing is read the newest (RFC 6455, section 5.5.3)."""
        frames = self.conn.data_to_send()
        if not self.writable.is_set():
            self._owed_pong = [b"", *filter(_is_pong, frames)][-1] or self._owed_pong
            frames = [frame for frame in frames if not _is_pong(frame)]
        self.transport.write(b"".join(frames))

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        owed, self._owed_pong = self._owed_pong, b""
        if owed and not self.close_sent and not self.transport.is_closing():
            self.transport.write(owed)

    def keepalive_timeout(self) -> None:
        """No pong came. Only who is silent although we listen is gone."""
        if self.read_paused or self._heard_at > self.ping_sent_at:
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
            return
        self._tell_end(1011)
        super().keepalive_timeout()
        self._abort_later()

    def shutdown(self) -> None:
        """Let the application end it, which may have something to acknowledge yet."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()
            return
        while not self.queue.empty():
            self.queue.get_nowait()  # not acknowledged, so it will be sent again
        self._tell_end(1001)

    async def send(self, message: ASGISendEvent) -> None:
        """As uvicorn does; a close frame that nobody reads is not waited for."""
        await super().send(message)
        if message["type"] == "websocket.close" and self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)
            self._abort_later()

    def give_up(self, code: int, text: str) -> None:
        """Close although the peer does not read; the frame arrives only if it begins to."""
        if not self.close_sent:
            self.conn.send_close(code, text)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        self.transport.close()
        self._abort_later()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application has ended it: what the peer does not read is not waited for."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._abort_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is to be done."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        super().connection_lost(exc)

    def _tell_end(self, code: int) -> None:
        event = {"type": DISCONNECT, "code": code, "reason": "", IS_OURS: True}
        self.queue.put_nowait(cast("Any", event))

    def _abort_later(self) -> None:
        if self._abort_timer is None:
            self._abort_timer = self.loop.call_later(2 * LINGER_SECONDS, self.transport.abort)


def _is_pong(frame: bytes) -> bool:
    return frame[:1] == PONG
