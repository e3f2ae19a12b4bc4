"""Finding a loopback port, while others search and others connect."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.stack import ports
from metrics_pipeline.stack.ports import LOOPBACK, find_free_port, require_free_port

FEW = range(31_000, 31_030)


def test_a_taken_port_is_an_error_that_names_the_option() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} is taken.*--exporter-port"):
            require_free_port(port, "--exporter-port")


def test_a_free_port_is_free() -> None:
    require_free_port(find_free_port(), "--webserver-port")


def test_no_outgoing_connection_takes_a_port_that_was_found() -> None:
    first, _last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert find_free_port() < int(first)


def test_two_searches_never_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_PORTS", FEW)
    with running_search() as theirs:
        ours = [find_free_port() for _ in range(10)]
    assert not set(ours) & theirs
    assert len(set(ours)) == len(ours)


@contextmanager
def running_search() -> Iterator[set[int]]:
    """Another process that has found ten of the few ports, and lives on."""
    program = (
        "from metrics_pipeline.stack import ports\n"
        f"ports._PORTS = {FEW!r}\n"
        "print(*(ports.find_free_port() for _ in range(10)), flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        yield {int(port) for port in other.stdout.readline().split()}
        other.stdin.write("\n")
        other.stdin.flush()


def test_where_all_are_taken_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_PORTS", range(port, port + 1))
        with pytest.raises(ConfigurationError, match=f"none of {port} to {port} is free"):
            find_free_port()
