"""Sockets that requests share: whose reply is whose, what is lost, and what stays open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from metrics_pipeline.access.snmp_messages import (
    FIRST_ID,
    VERSION_1,
    VERSION_2C,
    Pdu,
    encode_community_message,
    encode_request,
)
from metrics_pipeline.access.snmp_sockets import NoAnswer, SnmpSockets, Unreachable
from metrics_pipeline_tests.hostile_snmp_agent import Question, hostile_agent

T = TypeVar("T")
UPTIME = "1.3.6.1.2.1.1.3.0"
REQUESTS = 100
"""As many as the one socket of the agent has room for."""


def run(
    main: Callable[[SnmpSockets], Awaitable[T]], timeout_seconds: float = 5, tries: int = 1
) -> T:
    """What `main` gives with sockets that are open."""

    async def opened() -> T:
        with SnmpSockets(timeout_seconds, tries) as sockets:
            return await main(sockets)

    return asyncio.run(opened())


def datagram(identifier: int) -> bytes:
    pdu = encode_request(Pdu.GET, identifier, (UPTIME,), 0)
    return encode_community_message(VERSION_2C, b"public", pdu)


async def ask(sockets: SnmpSockets, address: tuple[str, int]) -> bytes:
    identifier = sockets.new_id()
    return (await sockets.ask(datagram(identifier), identifier, address)).data


def test_many_replies_at_once_find_their_requests() -> None:
    async def main(sockets: SnmpSockets) -> int:
        async with hostile_agent(lambda question: question.reply([])) as address:
            replies = await asyncio.gather(*(ask(sockets, address) for _ in range(REQUESTS)))
            return len(set(replies))

    assert run(main) == REQUESTS


def test_identifiers_take_four_bytes_and_are_not_used_twice() -> None:
    async def main(sockets: SnmpSockets) -> set[int]:
        return {sockets.new_id() for _ in range(5000)}

    identifiers = run(main)
    assert len(identifiers) > 4990
    assert all(FIRST_ID <= identifier < 2**31 for identifier in identifiers)


def test_each_try_is_sent_once_and_then_it_is_over() -> None:
    seen: list[int] = []

    def answer(question: Question) -> None:
        seen.append(question.identifier)

    async def main(sockets: SnmpSockets) -> None:
        async with hostile_agent(answer) as address:
            with pytest.raises(NoAnswer):
                await ask(sockets, address)

    run(main, timeout_seconds=0.05, tries=3)
    assert len(seen) == 3
    assert len(set(seen)) == 1


def test_requests_that_began_at_different_times_each_wait_their_time() -> None:
    async def main(sockets: SnmpSockets) -> list[float]:
        loop = asyncio.get_running_loop()
        async with hostile_agent(lambda _: None) as address:

            async def waited(delay_seconds: float) -> float:
                await asyncio.sleep(delay_seconds)
                started = loop.time()
                with pytest.raises(NoAnswer):
                    await ask(sockets, address)
                return loop.time() - started

            return list(await asyncio.gather(*(waited(n / 50) for n in range(10))))

    # Two tries of 0.4 s; a third wait would be 1.2 s.
    assert all(0.79 < seconds < 1.15 for seconds in run(main, timeout_seconds=0.4, tries=2))


def test_a_reply_in_another_version_is_delivered_with_its_version() -> None:
    async def main(sockets: SnmpSockets) -> int:
        async with hostile_agent(lambda q: q._replace(version=VERSION_1).reply([])) as address:
            identifier = sockets.new_id()
            received = await sockets.ask(datagram(identifier), identifier, address)
            return received.version

    assert run(main) == VERSION_1


def test_an_address_that_nobody_may_send_to_is_unreachable() -> None:
    async def main(sockets: SnmpSockets) -> None:
        await ask(sockets, ("255.255.255.255", 161))

    with pytest.raises(Unreachable, match="sending failed"):
        run(main)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_a_closed_port_of_ipv6_is_unreachable() -> None:
    async def main(sockets: SnmpSockets) -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as closed:
            try:
                closed.bind(("::1", 0))
            except OSError:
                pytest.skip("this machine has no ::1")
            address = closed.getsockname()
        identifier = sockets.new_id()
        await sockets.ask(datagram(identifier), identifier, address)

    with pytest.raises(Unreachable):
        run(main)
