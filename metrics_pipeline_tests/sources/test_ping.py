"""Ping over the kernel's own ICMP: loopback answers, and hosts that do what the test says."""

from __future__ import annotations

import asyncio
import logging
import socket
import statistics
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from metrics_pipeline.access import echo_requests, icmp_socket
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
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.sources.ping import Ping, PingSettings
from metrics_pipeline_tests.private_network import (
    Behaviour,
    Request,
    ScriptedHosts,
    echo_reply,
    icmp,
    icmp_error,
    run_in_private_network,
)

QUICK = PingSettings(timeout_seconds=0.1)
HOST = "127.9.0.1"
BUDGET_SECONDS = 60.0


def device(address: str) -> Device:
    return Device(address, "host", address, "router", "ping")


def devices(count: int) -> list[Device]:
    """One on each of so many loopback addresses, all of which the kernel answers for."""
    return [device(f"127.1.{i // 250}.{i % 250 + 1}") for i in range(count)]


async def swept(
    ping: Ping, polled: Sequence[Device], budget_seconds: float = BUDGET_SECONDS
) -> dict[str, DeviceReading]:
    readings = [reading async for reading in ping.sweep(polled, PING_METRICS, budget_seconds)]
    assert len(readings) == len(polled)
    return {reading.device_id: reading for reading in readings}


def sweep_alive(count: int, settings: PingSettings) -> dict[str, DeviceReading]:
    async def scenario() -> dict[str, DeviceReading]:
        async with Ping(settings) as ping:
            return await swept(ping, devices(count))

    return run_in_private_network(scenario)


def ping_scripted(
    behaviour: dict[str, Behaviour],
    settings: PingSettings = QUICK,
    also: Callable[[ScriptedHosts, Ping], Coroutine[Any, Any, None]] | None = None,
    budget_seconds: float = BUDGET_SECONDS,
) -> tuple[dict[str, DeviceReading], ScriptedHosts]:
    """One sweep of the hosts of `behaviour`, after what `also` does."""

    async def scenario() -> tuple[dict[str, DeviceReading], ScriptedHosts]:
        hosts = ScriptedHosts()
        hosts.behaviour.update(behaviour)
        with hosts.listening():
            async with Ping(settings) as ping:
                if also is not None:
                    await also(hosts, ping)
                polled = [device(address) for address in behaviour]
                return await swept(ping, polled, budget_seconds), hosts

    return run_in_private_network(scenario, ScriptedHosts.SYSCTLS)


def one(behaviour: Behaviour, settings: PingSettings = QUICK) -> DeviceReading:
    return ping_scripted({HOST: behaviour}, settings)[0][HOST]


def in_turn(*answers: Callable[[Request], Sequence[bytes]]) -> Behaviour:
    """The first request gets the first, and so on."""
    left = iter(answers)

    def behave(request: Request) -> Sequence[bytes]:
        return next(left)(request)

    return behave


def answer(request: Request) -> Sequence[bytes]:
    return [echo_reply(request)]


def nothing(request: Request) -> Sequence[bytes]:
    return []


def test_every_one_of_3000_hosts_answers_with_a_time_of_its_own() -> None:
    readings = sweep_alive(3000, PingSettings())
    assert all(reading.is_up and reading.reason is None for reading in readings.values())
    assert all(reading.values[PING_STATUS] == 1.0 for reading in readings.values())
    assert all(reading.values[PING_RTT] > 0 for reading in readings.values())


def test_a_poll_of_each_gives_what_a_sweep_gives() -> None:
    async def scenario() -> list[DeviceReading]:
        async with Ping(PingSettings()) as ping:
            return await asyncio.gather(*(ping.poll(each, PING_METRICS) for each in devices(500)))

    readings = run_in_private_network(scenario)
    assert [reading.device_id for reading in readings] == [each.id for each in devices(500)]
    assert all(set(reading.values) == set(PING_METRICS) for reading in readings)


def test_a_dead_host_is_down_after_all_its_tries_and_has_no_time() -> None:
    readings, hosts = ping_scripted({HOST: nothing}, PingSettings(timeout_seconds=0.05, tries=3))
    reading = readings[HOST]
    assert not reading.is_up
    assert reading.reason is Miss.TIMEOUT
    assert reading.values == {PING_STATUS: 0.0}
    assert reading.misses == {PING_RTT: Miss.TIMEOUT}
    assert reading.detail == f"no reply from {HOST} to 3 requests"
    assert len(hosts.requests[HOST]) == 3


def test_hundreds_of_dead_hosts_wait_side_by_side_and_the_living_do_not_wait_for_them() -> None:
    dead = {f"127.9.1.{i}": nothing for i in range(1, 250)}
    started = time.monotonic()
    readings, _ = ping_scripted({**dead, HOST: answer}, PingSettings(timeout_seconds=0.5, tries=1))
    assert time.monotonic() - started < 0.5 * len(dead) / 10
    assert next(iter(readings)) == HOST
    assert [reading.device_id for reading in readings.values() if reading.is_up] == [HOST]


def test_the_first_request_is_lost_and_the_second_answered() -> None:
    reading = one(in_turn(nothing, answer))
    assert reading.is_up
    assert reading.values[PING_STATUS] == 1.0


def test_one_of_three_packets_is_lost() -> None:
    settings = PingSettings(timeout_seconds=0.1, packets=3)
    readings, hosts = ping_scripted({HOST: in_turn(answer, nothing, answer)}, settings)
    assert readings[HOST].is_up
    assert readings[HOST].values[PING_RTT] > 0
    assert len(hosts.requests[HOST]) == 3


def test_a_reply_that_comes_twice_counts_once() -> None:
    settings = PingSettings(timeout_seconds=0.1, packets=2)
    twice_then_never = in_turn(lambda request: [echo_reply(request)] * 2, answer)
    readings, hosts = ping_scripted({HOST: twice_then_never}, settings)
    assert readings[HOST].is_up
    assert len(hosts.requests[HOST]) == 2


def test_a_late_reply_to_an_earlier_sweep_is_ignored() -> None:
    async def an_earlier_sweep(hosts: ScriptedHosts, _ping: Ping) -> None:
        async with Ping(QUICK) as earlier:
            await swept(earlier, [device(HOST)])
        late = hosts.requests[HOST][0]
        # It even has this sweep's identifier, as one in 65,536 has by chance.
        hosts.behaviour[HOST] = lambda request: [
            echo_reply(late),
            echo_reply(late, identifier=request.identifier),
        ]

    readings, _ = ping_scripted({HOST: nothing}, QUICK, an_earlier_sweep)
    assert readings[HOST].reason is Miss.TIMEOUT


def test_a_reply_after_its_time_does_not_count() -> None:
    def late(hosts: ScriptedHosts) -> Behaviour:
        def send_later(request: Request) -> Sequence[bytes]:
            asyncio.get_running_loop().call_later(0.15, hosts.send, echo_reply(request))
            return []

        return send_later

    async def be_late(hosts: ScriptedHosts, _ping: Ping) -> None:
        hosts.behaviour[HOST] = late(hosts)

    settings = PingSettings(timeout_seconds=0.1, tries=2)
    readings, _ = ping_scripted({HOST: nothing}, settings, be_late)
    assert not readings[HOST].is_up


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(lambda r: echo_reply(r, source="127.9.0.2"), id="from another host"),
        pytest.param(lambda r: echo_reply(r, identifier=r.identifier ^ 1), id="to another pinger"),
        pytest.param(
            lambda r: echo_reply(r, payload=bytes(8) + r.payload[8:]), id="another cookie"
        ),
        pytest.param(
            lambda r: echo_reply(r, payload=r.payload[:8] + bytes(8) + r.payload[16:]),
            id="another number",
        ),
        pytest.param(lambda r: echo_reply(r, payload=r.payload[:20]), id="cut off"),
        pytest.param(lambda r: echo_reply(r, payload=r.payload + bytes(900)), id="too long"),
        pytest.param(lambda r: echo_reply(r, payload=b""), id="empty"),
        pytest.param(lambda r: icmp(HOST, b"\0\0\0\0"), id="less than a header"),
        pytest.param(lambda r: icmp(HOST, b"\x03\x01\0\0\0\0\0\0\x45"), id="an error of nothing"),
        pytest.param(lambda r: icmp(HOST, bytes(range(256)) * 4), id="noise"),
    ],
)
def test_what_is_not_the_reply_is_ignored_and_the_reply_after_it_counts(
    reply: Callable[[Request], bytes],
) -> None:
    settings = PingSettings(timeout_seconds=0.1, tries=1)
    assert one(lambda request: [reply(request)], settings).reason is Miss.TIMEOUT
    assert one(lambda request: [reply(request), echo_reply(request)], settings).is_up


@pytest.mark.parametrize(
    ("kind", "code", "reason", "meaning"),
    [
        (3, 0, Miss.TIMEOUT, "network unreachable"),
        (3, 1, Miss.TIMEOUT, "host unreachable"),
        (3, 10, Miss.REFUSED, "host prohibited"),
        (3, 13, Miss.REFUSED, "prohibited by a filter"),
        (3, 99, Miss.TIMEOUT, "unreachable, code 99"),
        (11, 0, Miss.TIMEOUT, "time to live exceeded"),
    ],
)
def test_what_a_router_says_is_the_reason(kind: int, code: int, reason: Miss, meaning: str) -> None:
    reading = one(lambda request: [icmp_error(request, kind, code)])
    assert not reading.is_up
    assert reading.reason is reason
    assert reading.misses == {PING_RTT: reason}
    assert reading.detail == f"127.200.0.1 says of {HOST}: {meaning}"


def test_a_reply_counts_whatever_a_router_says() -> None:
    assert one(lambda request: [icmp_error(request, 3, 1), echo_reply(request)]).is_up


def test_a_routers_word_about_another_pingers_request_is_not_about_ours() -> None:
    def about_another(request: Request) -> Sequence[bytes]:
        foreign = request.packet[:24] + b"\xff\xff" + request.packet[26:]
        other_host = request.packet[:16] + b"\x7f\x01\x01\x01" + request.packet[20:]
        quotes = (foreign, other_host, request.packet[:19], request.packet[:27])
        head = b"\x03\x0d" + bytes(6)
        return [icmp("127.200.0.1", head + quote) for quote in quotes]

    assert one(about_another).reason is Miss.TIMEOUT


def test_an_address_that_cannot_be_sent_to_is_refused_at_once() -> None:
    async def scenario() -> DeviceReading:
        async with Ping(PingSettings(timeout_seconds=60)) as ping:
            return await ping.poll(device("127.255.255.255"), PING_METRICS)

    reading = run_in_private_network(scenario)
    assert reading.reason is Miss.REFUSED
    assert "127.255.255.255" in reading.detail
    assert "Permission denied" in reading.detail


def test_times_are_the_networks_and_not_the_wait_of_a_busy_poller() -> None:
    async def scenario() -> list[float]:
        async with Ping(PingSettings()) as ping:
            polls = [asyncio.create_task(ping.poll(each, PING_METRICS)) for each in devices(20)]
            while not ping._requests._in_flight:
                await asyncio.sleep(0)
            time.sleep(0.3)
            return [(await poll).values[PING_RTT] for poll in polls]

    # Linux's loopback has answered before the send returns.
    assert statistics.median(run_in_private_network(scenario)) < 150


def test_who_answered_in_time_is_up_even_if_the_poller_was_busy_until_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(echo_requests, "READ_LIMIT", 3)  # not all is read before time is over

    async def scenario() -> list[DeviceReading]:
        async with Ping(PingSettings(timeout_seconds=0.1, tries=1)) as ping:
            polls = [asyncio.create_task(ping.poll(each, PING_METRICS)) for each in devices(20)]
            while not ping._requests._in_flight:
                await asyncio.sleep(0)
            time.sleep(0.3)
            return await asyncio.gather(*polls)

    assert all(reading.is_up for reading in run_in_private_network(scenario))


def test_a_name_is_resolved_once_a_sweep_and_its_first_address_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def look_up(host: str, *_arguments: object, **_options: object) -> list[Any]:
        asked.append(host)
        two = ("127.9.0.7", "127.9.0.8")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in two]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    polled = [Device(str(i), "host", "two.example", "router", "ping") for i in range(50)]

    async def scenario() -> tuple[dict[str, DeviceReading], ScriptedHosts]:
        hosts = ScriptedHosts()
        hosts.behaviour["127.9.0.7"] = answer
        with hosts.listening():
            async with Ping(QUICK) as ping:
                return await swept(ping, polled), hosts

    readings, hosts = run_in_private_network(scenario, ScriptedHosts.SYSCTLS)
    assert asked == ["two.example"]
    assert all(reading.is_up for reading in readings.values())
    assert set(hosts.requests) == {"127.9.0.7"}


@pytest.mark.parametrize("name", ["", "no such host", "a" * 64, "x\0y", "::1::2"])
def test_a_name_without_an_address_has_no_status(name: str) -> None:
    async def scenario() -> DeviceReading:
        async with Ping(QUICK) as ping:
            polled = await ping.poll(device(name), PING_METRICS)
            assert (await swept(ping, [device(name)]))[name] == polled
            return polled

    reading = run_in_private_network(scenario)
    assert not reading.is_up
    assert reading.reason is Miss.RESOLVE
    assert reading.values == {}
    assert reading.misses == dict.fromkeys(PING_METRICS, Miss.RESOLVE)
    assert "has no address: " in reading.detail


@pytest.mark.parametrize("address", ["::1", "0:0:0:0:0:0:0:1", "localhost", "127.0.0.1"])
def test_ipv6_and_ipv4_and_a_name_in_one_sweep(address: str) -> None:
    async def scenario() -> DeviceReading:
        async with Ping(QUICK) as ping:
            return (await swept(ping, [device(address), device("127.0.0.2")]))[address]

    assert run_in_private_network(scenario).is_up


def test_a_process_without_rights_pings_where_the_kernel_allows_it() -> None:
    async def scenario() -> tuple[list[bool], dict[str, DeviceReading]]:
        async with Ping(PingSettings()) as ping:
            kinds = [each.is_raw for each in ping._sockets.values()]
            return kinds, await swept(ping, [*devices(300), device("::1")])

    allowed = (("ipv4/ping_group_range", "0 0"),)
    kinds, readings = run_in_private_network(scenario, allowed, is_privileged=False)
    assert kinds == [False, False]
    assert all(reading.is_up for reading in readings.values())


def test_a_process_without_rights_sees_who_is_dead_as_well() -> None:
    async def scenario() -> DeviceReading:
        async with Ping(QUICK) as ping:
            return await ping.poll(device(HOST), PING_METRICS)

    sysctls = (("ipv4/ping_group_range", "0 0"), *ScriptedHosts.SYSCTLS)
    reading = run_in_private_network(scenario, sysctls, is_privileged=False)
    assert reading.reason is Miss.TIMEOUT


def test_a_process_that_may_not_ping_at_all_is_told_what_to_do() -> None:
    async def scenario() -> None:
        async with Ping(QUICK):
            pass

    with pytest.raises(ConfigurationError, match="may not send ICMP") as caught:
        run_in_private_network(scenario, (("ipv4/ping_group_range", "1 0"),), is_privileged=False)
    for way_out in ("CAP_NET_RAW", "net.ipv4.ping_group_range", "tcp"):
        assert way_out in caught.value.fix


def test_a_cancelled_poll_leaves_nothing_in_flight() -> None:
    async def scenario() -> int:
        async with Ping(PingSettings(timeout_seconds=60)) as ping:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await ping.poll(device(HOST), PING_METRICS)
            return len(ping._requests._in_flight)

    assert run_in_private_network(scenario, ScriptedHosts.SYSCTLS) == 0


def test_who_is_cancelled_before_its_turn_is_not_asked() -> None:
    async def scenario() -> set[str]:
        hosts = ScriptedHosts()
        settings = PingSettings(timeout_seconds=0.1, tries=1, max_in_flight=1)
        with hosts.listening():
            async with Ping(settings) as ping:
                polls = [
                    asyncio.create_task(ping.poll(device(address), PING_METRICS))
                    for address in (HOST, "127.9.0.2", "127.9.0.3")
                ]
                while not hosts.requests:
                    await asyncio.sleep(0.001)
                polls[1].cancel()
                await asyncio.gather(polls[0], polls[2])
        return set(hosts.requests)

    asked = run_in_private_network(scenario, ScriptedHosts.SYSCTLS)
    assert asked == {HOST, "127.9.0.3"}


def test_a_sweep_that_is_left_early_waits_for_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_arguments: object, **_options: object) -> list[Any]:
        released.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def scenario() -> int:
        async with Ping(PingSettings(resolve_timeout_seconds=60)) as ping:
            polled = [device("127.0.0.1"), device("slow.example")]
            sweep = ping.sweep(polled, PING_METRICS, BUDGET_SECONDS)
            assert (await anext(sweep)).is_up
            await sweep.aclose()  # type: ignore[attr-defined]
            left = len(asyncio.all_tasks()) - 1
        released.set()
        return left

    assert run_in_private_network(scenario) == 0


def test_a_slow_resolver_and_many_names_cost_no_device_with_an_address_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up: list[str] = []

    def take_a_while(host: str, *_arguments: object, **_options: object) -> list[Any]:
        looked_up.append(host)
        time.sleep(0.1)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", take_a_while)
    named = [device(f"host{n}.example") for n in range(2000)]

    async def scenario() -> tuple[dict[str, DeviceReading], int]:
        async with Ping(QUICK) as ping:
            readings = await swept(ping, [*named, *devices(300)], budget_seconds=1.5)
            return readings, len(looked_up)

    readings, count = run_in_private_network(scenario)
    assert all(readings[each.id].values[PING_STATUS] == 1.0 for each in devices(300))
    late = [readings[each.id] for each in named if not readings[each.id].is_up]
    assert {reading.reason for reading in late} == {Miss.RESOLVE}
    assert all(reading.values == {} and "within its 1.5 s" in reading.detail for reading in late)
    assert len(late) >= len(named) - count
    assert count < len(named)  # all would have taken eight budgets


def test_packets_that_are_lost_are_waited_for_no_longer_than_the_budget() -> None:
    settings = PingSettings(timeout_seconds=0.05, packets=20)
    once_then_never = in_turn(answer, *[nothing] * 19)
    readings, hosts = ping_scripted({HOST: once_then_never}, settings, budget_seconds=0.12)
    assert readings[HOST].is_up
    assert readings[HOST].values[PING_RTT] > 0
    assert readings[HOST].took_seconds >= 0.12
    assert 2 <= len(hosts.requests[HOST]) <= 4


def test_tries_end_with_the_budget_as_well_and_the_device_is_down() -> None:
    settings = PingSettings(timeout_seconds=0.05, tries=10)
    readings, hosts = ping_scripted({HOST: nothing}, settings, budget_seconds=0.12)
    assert readings[HOST].values == {PING_STATUS: 0.0}
    assert readings[HOST].detail == f"no reply from {HOST} to {len(hosts.requests[HOST])} requests"
    assert 1 <= len(hosts.requests[HOST]) <= 3


def test_who_was_looked_up_late_has_all_its_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_a_while(*_arguments: object, **_options: object) -> list[Any]:
        time.sleep(1.0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", take_a_while)

    async def scenario() -> DeviceReading:
        hosts = ScriptedHosts()
        hosts.behaviour[HOST] = in_turn(nothing, answer)
        settings = PingSettings(timeout_seconds=1.0, tries=2)
        with hosts.listening():
            async with Ping(settings) as ping:
                late = device("late.example")
                return (await swept(ping, [late], budget_seconds=2.0))[late.id]

    assert run_in_private_network(scenario, ScriptedHosts.SYSCTLS).is_up


def test_a_sweep_that_is_left_early_leaves_nothing_in_flight() -> None:
    async def scenario() -> int:
        async with Ping(PingSettings(timeout_seconds=60)) as ping:
            polled = [device("127.255.255.255"), *devices(20)]
            sweep = ping.sweep(polled, PING_METRICS, BUDGET_SECONDS)
            await anext(sweep)
            await sweep.aclose()  # type: ignore[attr-defined]
            return len(ping._requests._in_flight)

    assert run_in_private_network(scenario, ScriptedHosts.SYSCTLS) == 0


def test_no_more_requests_wait_at_a_time_than_the_settings_say() -> None:
    waiting: list[int] = []

    async def scenario() -> dict[str, DeviceReading]:
        settings = PingSettings(timeout_seconds=0.02, tries=1, max_in_flight=3)
        async with Ping(settings) as ping:

            def look() -> None:
                waiting.append(len(ping._requests._in_flight))
                asyncio.get_running_loop().call_later(0.001, look)

            look()
            return await swept(ping, devices(10))

    readings = run_in_private_network(scenario, ScriptedHosts.SYSCTLS)
    assert all(reading.reason is Miss.TIMEOUT for reading in readings.values())
    assert max(waiting) == 3


def test_the_kernel_drops_no_reply_even_with_the_buffer_of_an_unprivileged_process() -> None:
    async def scenario() -> tuple[int, dict[str, DeviceReading]]:
        async with Ping(PingSettings(tries=1)) as ping:
            readings = await swept(ping, devices(2000))
            return sum(each.dropped for each in ping._sockets.values()), readings

    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(icmp_socket, "RECEIVE_BUFFER_BYTES", 212_992)  # Linux's usual rmem_max
        dropped, readings = run_in_private_network(scenario)
    assert dropped == 0
    assert all(reading.is_up for reading in readings.values())


@pytest.mark.parametrize(
    ("requests_per_second", "bytes_per_packet", "least_seconds"),
    [
        pytest.param(200, 100, 0.9, id="the settings say so"),
        pytest.param(1_000_000, 4_608, 1.9, id="there is room for 10 replies"),
    ],
)
def test_requests_are_sent_no_faster_than(
    monkeypatch: pytest.MonkeyPatch,
    requests_per_second: float,
    bytes_per_packet: int,
    least_seconds: float,
) -> None:
    monkeypatch.setattr(icmp_socket, "RECEIVE_BUFFER_BYTES", 23_040)  # Linux doubles it
    monkeypatch.setattr(icmp_socket, "BYTES_IN_BUFFER_PER_PACKET", bytes_per_packet)
    started = time.monotonic()
    readings = sweep_alive(200, PingSettings(requests_per_second=requests_per_second))
    assert time.monotonic() - started >= least_seconds
    assert all(reading.is_up for reading in readings.values())


def test_replies_the_kernel_had_no_room_for_are_reported_and_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(icmp_socket, "RECEIVE_BUFFER_BYTES", 1)
    monkeypatch.setattr(icmp_socket, "BYTES_IN_BUFFER_PER_PACKET", 1)
    with caplog.at_level(logging.WARNING):
        readings = sweep_alive(64, PingSettings(timeout_seconds=0.05, tries=10))
    assert any(reading.is_up for reading in readings.values())
    assert "receive buffer was full" in caplog.text


def test_what_is_not_a_pings_to_know_is_unsupported() -> None:
    async def scenario() -> DeviceReading:
        async with Ping(QUICK) as ping:
            return await ping.poll(device("127.0.0.1"), [PING_RTT, CPU_UTILIZATION, *DETAILS])

    reading = run_in_private_network(scenario)
    assert set(reading.values) == {PING_RTT}
    assert reading.misses == dict.fromkeys([CPU_UTILIZATION, *DETAILS], Miss.UNSUPPORTED)


def test_the_trace_tells_each_step() -> None:
    async def scenario() -> list[str]:
        told: list[str] = []
        hosts = ScriptedHosts()
        hosts.behaviour[HOST] = in_turn(lambda r: [icmp_error(r, 3, 1)], answer)
        with hosts.listening():
            async with Ping(QUICK) as ping:
                await ping.poll(device(HOST), PING_METRICS, told.append)
        return told

    told = run_in_private_network(scenario, ScriptedHosts.SYSCTLS)
    assert told[0] == f"{HOST} is {HOST}"
    assert told[1].startswith(f"echo request to {HOST}, sequence ")
    assert told[2] == "127.200.0.1 says: host unreachable"
    assert told[3] == "no reply within 0.1 s"
    assert told[4].startswith("echo request")
    assert told[5].startswith(f"reply from {HOST} after ")


@pytest.mark.parametrize(
    "wrong",
    [{"tries": 0}, {"packets": 0}, {"timeout_seconds": 0}, {"max_in_flight": 70_000}, {"x": 1}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PingSettings(**wrong)
