"""Names of a sweep: looked up in threads, each once, never longer than the limit."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.host_addresses import (
    Address,
    HostAddresses,
    NameNotFound,
    literal_address,
)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.0.0.1", Address(socket.AF_INET, ("10.0.0.1", 0))),
        ("2001:DB8::0:1", Address(socket.AF_INET6, ("2001:db8::1", 0, 0, 0))),
        ("10.0.0.256", None),
        ("10.1", None),
        ("router", None),
        ("::1%lo", None),
        ("", None),
        ("\0", None),
        (":\0", None),
        ("ü:ü", None),
    ],
)
def test_an_address_is_told_from_a_name(host: str, expected: Address | None) -> None:
    assert literal_address(host) == expected


@given(st.text(max_size=60))
def test_no_text_makes_it_fail(host: str) -> None:
    literal_address(host)


def test_an_address_takes_a_port() -> None:
    address = literal_address("2001:db8::1")
    assert address is not None
    assert address.with_port(22) == ("2001:db8::1", 22, 0, 0)


def test_the_file_of_hosts_is_heeded() -> None:
    async def scenario() -> set[str]:
        addresses = HostAddresses(timeout_seconds=10)
        try:
            return {each.socket_address[0] for each in await addresses.find("localhost")}
        finally:
            addresses.close()

    assert asyncio.run(scenario()) & {"127.0.0.1", "::1"}


def test_a_resolver_that_does_not_answer_costs_the_limit_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()

    def hang(*_arguments: object, **_options: object) -> list[Any]:
        released.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def scenario() -> None:
        clock = Clock()
        addresses = HostAddresses(timeout_seconds=0.05, seconds_now=clock)
        try:
            asked = asyncio.create_task(addresses.find("slow.example"))
            await asyncio.sleep(0)
            clock.seconds += 0.05
            with pytest.raises(NameNotFound, match=r"no answer from the resolver within 0\.05 s"):
                await asked
            released.set()
            # The look-up went on, and whoever asks for the name again has it.
            assert await addresses.find("slow.example")
        finally:
            released.set()
            addresses.close()

    asyncio.run(scenario())


def test_who_gives_up_waiting_does_not_take_the_name_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()

    def wait(*_arguments: object, **_options: object) -> list[Any]:
        released.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", wait)

    async def scenario() -> None:
        addresses = HostAddresses(timeout_seconds=10)
        try:
            first, second = (asyncio.create_task(_find(addresses)) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            released.set()
            assert await second == 1
        finally:
            released.set()
            addresses.close()

    asyncio.run(scenario())


def test_many_names_wait_for_few_threads_as_long_as_the_resolver_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Semaphore(0)

    def answer_when_told(*_arguments: object, **_options: object) -> list[Any]:
        answers.acquire()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", answer_when_told)

    async def scenario() -> int:
        clock = Clock()
        addresses = HostAddresses(timeout_seconds=0.01, seconds_now=clock)
        try:
            finding = [asyncio.create_task(addresses.find(f"host{n}.example")) for n in range(100)]
            for answered in range(10, 101, 10):
                await asyncio.sleep(0.02)  # whoever has no patience left gives up here
                answers.release(10)
                while sum(each.done() for each in finding) < answered:
                    await asyncio.sleep(0.001)
                clock.seconds += 0.009
            return len(await asyncio.gather(*finding))
        finally:
            answers.release(100)
            addresses.close()

    assert asyncio.run(scenario()) == 100


class Clock:
    """A clock that is moved by hand, in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def _find(addresses: HostAddresses) -> int:
    return len(await addresses.find("shared.example"))
