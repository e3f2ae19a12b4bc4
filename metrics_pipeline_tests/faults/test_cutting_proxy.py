"""The network that faults are made with."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from metrics_pipeline_tests.faults.cutting_proxy import HOST, CuttingProxy, cutting_proxy
from metrics_pipeline_tests.patience import PATIENCE_SECONDS


@contextmanager
def echoing() -> Iterator[int]:
    """A port at which everything is said twice."""
    with closing(socket.create_server((HOST, 0))) as listener:

        def echo() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with closing(peer):
                    while data := receive(peer):
                        peer.sendall(data + data)

        thread = threading.Thread(target=echo)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def receive(peer: socket.socket) -> bytes:
    try:
        return peer.recv(100)
    except OSError:
        return b""


@pytest.fixture
def proxy() -> Iterator[CuttingProxy]:
    with echoing() as port, cutting_proxy(port) as found:
        yield found


def connect(proxy: CuttingProxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=PATIENCE_SECONDS)


def say_and_hear(proxy: CuttingProxy) -> bytes:
    with connect(proxy) as client:
        client.sendall(b"b")
        return client.recv(1) or pytest.fail("it was closed politely")


def test_it_passes_on_what_both_sides_say(proxy: CuttingProxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(2, socket.MSG_WAITALL) == b"aa"


def test_what_is_cut_is_reset_and_who_comes_as_well(proxy: CuttingProxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(2, socket.MSG_WAITALL) == b"aa"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionError):
        say_and_hear(proxy)
    proxy.mend()
    with connect(proxy) as client:
        client.sendall(b"b")
        assert client.recv(2, socket.MSG_WAITALL) == b"bb"


def test_while_it_is_silent_everything_waits(proxy: CuttingProxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(2, socket.MSG_WAITALL) == b"aa"
        proxy.fall_silent()
        client.sendall(b"b")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE_SECONDS)
        proxy.mend()
        assert client.recv(2, socket.MSG_WAITALL) == b"bb"
