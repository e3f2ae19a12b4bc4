"""Names of a sweep: looked up in threads, each once, never longer than the limit."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.host_addresses import (
    THREADS,
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
        addresses = HostAddresses(timeout_seconds=0.05)
        try:
            with pytest.raises(NameNotFound, match=r"no answer from the resolver within 0\.05 s"):
                await addresses.find("slow.example")
            released.set()
            # The look-up goes on, and whoever asks for the name after its end has it.
            while not await _is_found(addresses):
                await asyncio.sleep(0.01)
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


def test_the_limit_of_a_name_begins_when_a_thread_takes_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def take_a_while(*_arguments: object, **_options: object) -> list[Any]:
        time.sleep(0.02)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", take_a_while)

    async def scenario() -> list[Sequence[Address]]:
        addresses = HostAddresses(timeout_seconds=0.5)
        try:
            # One after the other in each thread, they take more than the limit.
            names = (f"host{number}.example" for number in range(60 * THREADS))
            return await asyncio.gather(*(addresses.find(name) for name in names))
        finally:
            addresses.close()

    assert all(asyncio.run(scenario()))


def test_names_that_hang_keep_no_thread_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def look_up(host: str, *_arguments: object, **_options: object) -> list[Any]:
        if host.startswith("slow"):
            released.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    async def scenario() -> list[bool]:
        addresses = HostAddresses(timeout_seconds=0.5)
        try:
            names = [f"slow{number}.example" for number in range(2 * THREADS)] + ["quick.example"]
            return await asyncio.gather(*(_is_found(addresses, name) for name in names))
        finally:
            released.set()
            addresses.close()

    *slow, quick = asyncio.run(scenario())
    assert (any(slow), quick) == (False, True)


def test_a_name_that_stands_in_line_at_the_end_is_not_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()
    asked: list[str] = []

    def hang(host: str, *_arguments: object, **_options: object) -> list[Any]:
        asked.append(host)
        released.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def scenario() -> None:
        addresses = HostAddresses(timeout_seconds=10)
        names = (f"host{number}.example" for number in range(2 * THREADS))
        polls = [asyncio.create_task(addresses.find(name)) for name in names]
        while len(asked) < THREADS:
            await asyncio.sleep(0.01)
        addresses.close()
        released.set()
        outcomes = await asyncio.gather(*polls, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)

    asyncio.run(scenario())
    assert len(asked) == THREADS


async def _is_found(addresses: HostAddresses, host: str = "slow.example") -> bool:
    try:
        return bool(await addresses.find(host))
    except NameNotFound:
        return False


async def _find(addresses: HostAddresses) -> int:
    return len(await addresses.find("shared.example"))
