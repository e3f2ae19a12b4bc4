"""A TCP proxy on loopback: a network that resets connections, or lets nothing through any more."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a RST."""

LOOK_SECONDS = 0.05


@dataclass(slots=True)
class CuttingProxy:
    """In front of `port`. While it is silent, what comes waits, as in the buffers of a network."""

    target: int
    listener: socket.socket
    is_cut: bool = False
    passing: threading.Event = field(default_factory=threading.Event)
    ending: threading.Event = field(default_factory=threading.Event)
    pairs: set[tuple[socket.socket, socket.socket]] = field(default_factory=set)
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def port(self) -> int:
        """To connect to."""
        number: int = self.listener.getsockname()[1]
        return number

    def cut(self) -> None:
        """Reset every connection, and each that comes, until `mend`."""
        self.is_cut = True
        for pair in list(self.pairs):
            for each in pair:
                with suppress(OSError):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    each.shutdown(socket.SHUT_RD)  # wakes who waits for it

    def fall_silent(self) -> None:
        """Connections stay, and nothing comes through, until `mend`."""
        self.passing.clear()

    def mend(self) -> None:
        """All is well again; what waited goes on its way."""
        self.is_cut = False
        self.passing.set()

    def serve(self) -> None:
        """Accept until it ends."""
        while not self.ending.is_set():
            if not select.select([self.listener], [], [], LOOK_SECONDS)[0]:
                continue
            client, _ = self.listener.accept()
            thread = threading.Thread(target=self._pass_on, args=(client,), daemon=True)
            thread.start()
            self.threads = [each for each in self.threads if each.is_alive()] + [thread]

    def _pass_on(self, client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        with closing(client), suppress(OSError):
            self._wait()
            if self.is_cut:
                return
            with closing(socket.create_connection((HOST, self.target))) as server:
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pump(client, server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        pair = client, server
        self.pairs.add(pair)
        try:
            while not self.is_cut and not self.ending.is_set():
                for source in select.select(pair, [], [], LOOK_SECONDS)[0]:
                    data = source.recv(CHUNK_BYTES)
                    self._wait()
                    if not data:
                        _close_well(client, well=not self.is_cut)
                        return
                    (server if source is client else client).sendall(data)
        finally:
            self.pairs.discard(pair)

    def _wait(self) -> None:
        while not self.passing.wait(LOOK_SECONDS) and not self.ending.is_set():
            pass


def _close_well(client: socket.socket, *, well: bool) -> None:
    if well:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))


@contextmanager
def cutting_proxy(port: int) -> Iterator[CuttingProxy]:
    """One in front of `port` on loopback; its threads have ended afterwards."""
    with closing(socket.create_server((HOST, 0))) as listener:
        proxy = CuttingProxy(port, listener)
        proxy.passing.set()
        accepting = threading.Thread(target=proxy.serve)
        accepting.start()
        try:
            yield proxy
        finally:
            proxy.ending.set()
            accepting.join()
            for thread in proxy.threads:
                thread.join()
