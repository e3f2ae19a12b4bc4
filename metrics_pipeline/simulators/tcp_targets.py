"""Loopback addresses that accept TCP connections and close them at once, or are as if not there."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from metrics_pipeline.simulators.loop_thread import LoopThread
from metrics_pipeline.simulators.loopback_ports import bind_all, silence, unsilence

BACKLOG = 128


class TcpTargets(LoopThread):
    """Listens on `addresses`, one at least, in a thread of its own while it is entered.

    `port` 0 is any that is free. Raises OSError when this machine does not have the
    addresses, or the port is taken.
    """

    def __init__(self, addresses: Sequence[str], port: int = 0) -> None:
        self._listeners = {
            each.getsockname()[0]: each for each in bind_all(addresses, port, socket.SOCK_STREAM)
        }
        for listener in self._listeners.values():
            listener.listen(BACKLOG)
        self.port: int = self._listeners[addresses[0]].getsockname()[1]
        super().__init__("tcp-targets")

    def set_up(self, address: str, is_up: bool) -> None:
        """Let `address` accept connections, or leave them without any answer."""
        (unsilence if is_up else silence)(self._listeners[address])

    async def _serve(self) -> None:
        for listener in self._listeners.values():
            self._loop.add_reader(listener, _turn_away, listener)
        await self._stop.wait()
        for listener in self._listeners.values():
            self._loop.remove_reader(listener)
            listener.close()


def _turn_away(listener: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
        guest, _ = listener.accept()
        guest.close()
