"""Which texts are hosts, and which hosts are this machine."""

from __future__ import annotations

import pytest

from metrics_pipeline.access.hosts import is_host, is_loopback


@pytest.mark.parametrize(
    "text", ["h", "hub.azure-devices.net", "127.0.0.1:8080", "localhost:65535", "a1-b2"]
)
def test_names_and_addresses_with_or_without_a_port_are_hosts(text: str) -> None:
    assert is_host(text)


@pytest.mark.parametrize(
    "text",
    ["", "https://h", "h/x", "h:", "h:99999", "h:123456", "user@h", "-h", "h.", "h h", "h\n", "hé"],
)
def test_anything_more_or_less_is_no_host(text: str) -> None:
    assert not is_host(text)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "localhost.example", "127.0.0.1.example", "10.0.0.1", "0.0.0.0", "::", "2130706433"],
)
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)
