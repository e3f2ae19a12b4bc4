"""Asking for a TCP connection: who accepts or refuses is up, who is silent is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterator

import pytest

from metrics_pipeline.access import host_addresses
from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DETAILS,
    PING_METRICS,
    PING_RTT,
    PING_STATUS,
    Device,
    DeviceReading,
    Miss,
)
from metrics_pipeline.sources.tcp_connect import TcpConnect, TcpConnectSettings

QUICK = TcpConnectSettings(timeout_seconds=0.2)


@pytest.fixture
def accepting_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """A port that is taken, so that no other test gets it, but on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server whose queue is full: the kernel drops whatever asks for a connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            yield port


def polled(
    device: Device,
    settings: TcpConnectSettings = QUICK,
    metrics: Collection[str] = PING_METRICS,
    told: list[str] | None = None,
) -> DeviceReading:
    async def scenario() -> DeviceReading:
        async with TcpConnect(settings) as probe:
            return await probe.poll(device, metrics, None if told is None else told.append)

    return asyncio.run(scenario())


def device(address: str, port: int = 0) -> Device:
    return Device(address, "host", address, "router", "tcp", port)


def test_a_host_that_accepts_is_up_and_has_the_kernels_time(accepting_port: int) -> None:
    reading = polled(device("127.0.0.1", accepting_port))
    assert reading.is_up
    assert reading.values[PING_STATUS] == 1.0
    assert reading.values[PING_RTT] > 0
    assert reading.misses == {}


def test_a_host_that_refuses_is_up_for_it_answers(refusing_port: int) -> None:
    told: list[str] = []
    reading = polled(device("127.0.0.1", refusing_port), told=told)
    assert reading.is_up
    assert reading.reason is None
    assert reading.values[PING_RTT] > 0
    assert told == [f"127.0.0.1 port {refusing_port} refuses: it is up"]


def test_a_host_that_is_silent_is_down_after_all_its_tries(silent_port: int) -> None:
    told: list[str] = []
    settings = TcpConnectSettings(timeout_seconds=0.05, tries=3)
    reading = polled(device("127.0.0.1", silent_port), settings, told=told)
    assert not reading.is_up
    assert reading.reason is Miss.TIMEOUT
    assert reading.values == {PING_STATUS: 0.0}
    assert reading.misses == {PING_RTT: Miss.TIMEOUT}
    assert told == [f"127.0.0.1 port {silent_port} does not answer within 0.05 s"] * 3


def test_the_settings_port_is_for_devices_that_name_none(accepting_port: int) -> None:
    told: list[str] = []
    settings = TcpConnectSettings(port=accepting_port)
    assert polled(device("127.0.0.1"), settings, told=told).is_up
    assert told == [f"127.0.0.1 port {accepting_port} accepts"]


def test_the_living_do_not_wait_for_the_silent(accepting_port: int, silent_port: int) -> None:
    async def scenario() -> list[str]:
        order: list[str] = []

        async def poll(port: int, what: str) -> None:
            await probe.poll(device("127.0.0.1", port), PING_METRICS)
            order.append(what)

        async with TcpConnect(QUICK) as probe:
            silent = [poll(silent_port, "silent") for _ in range(50)]
            await asyncio.gather(*silent, *(poll(accepting_port, "up") for _ in range(5)))
        return order

    assert asyncio.run(scenario())[:5] == ["up"] * 5


def test_an_address_that_cannot_be_reached_says_why() -> None:
    reading = polled(device("127.255.255.255", 22))  # the broadcast address of loopback
    assert not reading.is_up
    assert reading.reason in {Miss.REFUSED, Miss.TIMEOUT}
    assert reading.detail.startswith("127.255.255.255 port 22: ")


# Names that no resolver is asked for: nothing leaves this machine.
@pytest.mark.parametrize("name", ["", "a" * 64, "x\0y"])
def test_a_name_without_an_address_has_no_status(name: str) -> None:
    reading = polled(device(name, 22))
    assert reading.reason is Miss.RESOLVE
    assert reading.values == {}
    assert reading.misses == dict.fromkeys(PING_METRICS, Miss.RESOLVE)


def test_of_a_name_with_two_addresses_the_first_is_asked(
    accepting_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuple(map(host_addresses.literal_address, ("127.0.0.1", "127.255.255.255")))
    monkeypatch.setattr(host_addresses, "_look_up", lambda _: found)
    assert polled(device("two.example", accepting_port)).is_up
    monkeypatch.setattr(host_addresses, "_look_up", lambda _: found[::-1])
    reading = polled(device("two.example", accepting_port))
    assert not reading.is_up
    assert reading.detail.startswith("127.255.255.255 port ")


def test_ipv6_is_asked_as_well() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert polled(device("::1", server.getsockname()[1])).is_up


def test_what_is_not_a_connections_to_know_is_unsupported(accepting_port: int) -> None:
    reading = polled(device("127.0.0.1", accepting_port), metrics=[CPU_UTILIZATION, *DETAILS])
    assert (reading.values, reading.details) == ({}, {})
    assert reading.misses == dict.fromkeys([CPU_UTILIZATION, *DETAILS], Miss.UNSUPPORTED)


def test_a_cancelled_poll_closes_its_connection(silent_port: int) -> None:
    # filterwarnings = error: a socket that is left open would fail this test.
    async def scenario() -> None:
        async with TcpConnect(TcpConnectSettings(timeout_seconds=60)) as probe:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await probe.poll(device("127.0.0.1", silent_port), PING_METRICS)

    asyncio.run(scenario())
