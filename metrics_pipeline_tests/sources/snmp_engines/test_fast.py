"""The fast engine against what no agent should send, and SNMPv3 against net-snmp's agent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_pipeline.access.snmp_ber import encode
from metrics_pipeline.access.snmp_usm import Engine, User
from metrics_pipeline.core.devices import Miss
from metrics_pipeline.sources.snmp_engines.asking import AskingSession
from metrics_pipeline.sources.snmp_engines.fast import FastEngine
from metrics_pipeline.sources.snmp_engines.spec import (
    Community,
    EngineSettings,
    SnmpUnreachable,
)
from metrics_pipeline.sources.snmp_session import (
    SnmpAuthFailed,
    SnmpFailure,
    SnmpMalformed,
    SnmpTimeout,
)
from metrics_pipeline_tests.descriptors import open_descriptors
from metrics_pipeline_tests.hostile_snmp_agent import (
    Answer,
    Mib,
    Question,
    hostile_agent,
    number,
    relay,
    text,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.snmp_agents import snmpd, user

T = TypeVar("T")

UPTIME, OBJECT_ID = "1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.1.2.0"
NET_SNMP = {OBJECT_ID: "1.3.6.1.4.1.8072.3.2.10"}
V2C = Community(1, "public")
USER = user("sha256", "aes128")
LIMITS = EngineSettings(timeout_seconds=5, tries=1)
HASTY = EngineSettings(timeout_seconds=0.1, tries=1)
A_YEAR_SECONDS = 365 * 86_400
ENGINE_ID = "exactEngineID 0x80001f8804736f6d6520656e67696e65"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an snmpd that knows USER."""
    with snmpd(tmp_path_factory.mktemp("snmpd"), [USER], [ENGINE_ID]) as port:
        yield port


def run(main: Callable[[FastEngine], Awaitable[T]], limits: EngineSettings = LIMITS) -> T:
    """What `main` gives with an engine that is open."""

    async def opened() -> T:
        async with FastEngine(limits) as engine:
            return await main(engine)

    return asyncio.run(opened())


def ask(answer: Answer, limits: EngineSettings = LIMITS) -> object:
    """What comes of asking an agent for UPTIME that answers with `answer`."""

    async def main(engine: FastEngine) -> object:
        async with hostile_agent(answer) as address:
            return await engine.session(address, V2C).get([UPTIME])

    return run(main, limits)


def get_as(who: User, port: int, limits: EngineSettings = LIMITS) -> object:
    """What the agent at `port` tells `who`."""

    async def main(engine: FastEngine) -> object:
        return await engine.session(("127.0.0.1", port), who).get([OBJECT_ID])

    return run(main, limits)


def good(question: Question) -> bytes:
    return question.reply([(UPTIME, number(7))])


def test_replies_to_another_request_and_from_another_address_are_ignored() -> None:
    async def main(engine: FastEngine) -> object:
        loop = asyncio.get_running_loop()
        stranger, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )

        def answer(question: Question) -> list[bytes]:
            stranger.sendto(question.reply([(UPTIME, number(1))]), question.asker)
            wrong = question.reply([(UPTIME, number(2))], identifier=question.identifier ^ 1)
            return [wrong, good(question), question.reply([(UPTIME, number(3))])]

        async with hostile_agent(answer, delay_seconds=0.05) as address:
            found = await engine.session(address, V2C).get([UPTIME])
        stranger.close()
        return found

    assert run(main) == {UPTIME: 7}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda whole: whole[:-1], "truncated"),
        (lambda whole: whole[:3], "truncated"),
        (lambda whole: whole + b"\x00", "after the message"),
        (lambda whole: b"\x30\x80" + whole[2:], "length"),
        (lambda whole: whole.replace(number(7), b"\x02\x00"), "0 bytes|truncated|fill|after"),
        (lambda whole: b"SSH-2.0-OpenSSH_9.2", "tag"),
    ],
    ids=["cut", "a stump", "trailing", "indefinite", "no number", "not SNMP"],
)
def test_what_cannot_be_read_is_malformed_and_not_a_time_out(
    spoil: Callable[[bytes], bytes], words: str
) -> None:
    with pytest.raises(SnmpMalformed, match=words):
        ask(lambda question: [spoil(good(question))], HASTY)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"\x02\x00", "integer of 0 bytes"),
        (encode(0x02, b"\x01" * 9), "integer of 9 bytes"),
        (encode(0x41, b"\x01" * 5), "32 bits are most"),
        (encode(0x46, b"\xff" * 9), "64 bits are most"),
        (encode(0x40, b"\x7f\x00\x01"), "IP address of 3 bytes"),
        (encode(0x06, b"\x2b\x86"), "identifier"),
        (encode(0x06, b""), "identifier"),
        (encode(0x06, b"\x2b" + b"\xff" * 6 + b"\x01"), "beyond 32 bits"),
        (encode(0x30, number(1)), "tag 0x30"),
        (encode(0x5F, b"x"), "tag 0x5f"),
    ],
)
def test_a_value_that_cannot_be_is_malformed(value: bytes, words: str) -> None:
    with pytest.raises(SnmpMalformed, match=words):
        ask(lambda question: question.reply([(UPTIME, value)]))


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        (encode(0x02, b"\x00" * 7 + b"\x07"), 7),
        (encode(0x02, b"\xff\xff\xff\xff"), -1),
        (encode(0x02, b"\x00\xff\xff\xff\xff"), 2**32 - 1),
        (encode(0x41, b"\xff\xff\xff\xff"), 2**32 - 1),
        (encode(0x46, b"\xff" * 8), 2**64 - 1),
        (encode(0x44, bytes.fromhex("9f78043f800000")), 1.0),
        (encode(0x44, bytes.fromhex("9f7908") + b"\x3f\xf0" + bytes(6)), 1.0),
        (encode(0x44, b"\x9f\x78\x04\x00"), b"\x9f\x78\x04\x00"),
        (encode(0x40, b"\x0a\x00\x00\x01"), "10.0.0.1"),
        (text("x" * 60_000), b"x" * 60_000),
        (text(""), b""),
    ],
)
def test_values_mean_what_the_agent_meant(value: bytes, meaning: object) -> None:
    assert ask(lambda question: question.reply([(UPTIME, value)])) == {UPTIME: meaning}


def test_a_lost_request_is_sent_again() -> None:
    seen: list[int] = []

    def answer(question: Question) -> bytes | None:
        seen.append(question.identifier)
        return good(question) if len(seen) > 1 else None

    assert ask(answer, EngineSettings(timeout_seconds=0.1, tries=2)) == {UPTIME: 7}
    assert seen[0] == seen[1]


def test_silence_is_a_time_out_that_says_how_long_it_waited() -> None:
    with pytest.raises(SnmpTimeout, match=r"2 tries of 0\.1 s"):
        ask(lambda _: None, EngineSettings(timeout_seconds=0.1, tries=2))


def test_a_time_out_tells_of_replies_to_other_requests() -> None:
    def answer(question: Question) -> bytes:
        return question.reply([(UPTIME, number(2))], identifier=question.identifier ^ 1)

    with pytest.raises(SnmpTimeout, match=r"2 tries of 0\.1 s, and 2 to other requests"):
        ask(answer, EngineSettings(timeout_seconds=0.1, tries=2))


def test_a_port_where_nobody_listens_is_known_at_once() -> None:
    async def main(engine: FastEngine) -> object:
        async with hostile_agent(good) as address:
            pass
        return await engine.session(address, V2C).get([UPTIME])

    with pytest.raises(SnmpUnreachable, match="refused"):
        run(main, EngineSettings(timeout_seconds=60, tries=1))


def test_an_unreachable_neighbour_does_not_disturb_the_others() -> None:
    async def main(engine: FastEngine) -> list[object]:
        async with hostile_agent(good) as dead:
            pass
        async with hostile_agent(good) as alive:
            asking = [engine.session(alive, V2C).get([UPTIME]) for _ in range(200)]
            asking += [engine.session(dead, V2C).get([UPTIME]) for _ in range(1)]
            return list(await asyncio.gather(*asking, return_exceptions=True))

    *answers, refused = run(main)
    assert answers == [{UPTIME: 7}] * 200
    assert isinstance(refused, SnmpUnreachable)


def test_a_device_that_dribbles_is_ended_by_its_deadline_and_leaves_nothing_behind() -> None:
    mib = Mib({f"{UPTIME}.{row}": number(row) for row in range(1000)}, cut_at=1)

    async def main(engine: FastEngine) -> tuple[int, int]:
        async with hostile_agent(mib, delay_seconds=0.02) as address:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), engine.session(address, V2C) as session:
                    await session.walk([UPTIME])
        return len(engine.sockets._requests), len(engine.sockets._by_address)

    assert run(main) == (0, 0)
    assert 1 < len(mib.questions) < 1000


def test_a_closed_engine_leaves_no_descriptor() -> None:
    ask(good)
    before = open_descriptors()
    ask(good)
    with pytest.raises(SnmpTimeout):
        ask(lambda _: None, HASTY)
    assert open_descriptors() <= before


def test_a_thousand_devices_that_are_silent_wait_together() -> None:
    async def main(engine: FastEngine) -> list[object]:
        async with hostile_agent(lambda _: None) as (_, port):
            addresses = [(f"127.0.{n // 250}.{n % 250 + 1}", port) for n in range(1000)]
            asking = (engine.session(address, V2C).get([UPTIME]) for address in addresses)
            return list(await asyncio.gather(*asking, return_exceptions=True))

    async def bounded(engine: FastEngine) -> list[object]:
        return await asyncio.wait_for(main(engine), PATIENCE_SECONDS)

    failures = run(bounded, EngineSettings(timeout_seconds=0.5, tries=2))
    assert all(isinstance(failure, SnmpTimeout | SnmpUnreachable) for failure in failures)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_reply_that_was_changed_on_its_way_is_a_value_or_a_failure(data: st.DataObject) -> None:
    place = data.draw(st.floats(0, 1, exclude_max=True))
    kind = data.draw(st.sampled_from(["change", "cut", "insert", "repeat"]))
    bytes_ = data.draw(st.binary(min_size=1, max_size=4))
    variables = [(UPTIME, number(7)), (OBJECT_ID, text("x" * 200)), (f"{UPTIME}.1", number(-9))]

    def answer(question: Question) -> list[bytes]:
        whole = question.reply(variables)
        at = int(place * len(whole))
        return [
            {
                "change": whole[:at] + bytes_ + whole[at + len(bytes_) :],
                "cut": whole[:at],
                "insert": whole[:at] + bytes_ + whole[at:],
                "repeat": whole[:at] + whole,
            }[kind]
        ]

    async def main(engine: FastEngine) -> None:
        async with hostile_agent(answer) as address:
            session = engine.session(address, V2C)
            with contextlib.suppress(SnmpFailure):
                await session.get([name for name, _ in variables])
            with contextlib.suppress(SnmpFailure):
                await asyncio.wait_for(session.walk([UPTIME]), 5)

    run(main, EngineSettings(timeout_seconds=0.01, tries=1))


@pytest.mark.parametrize(
    ("who", "words"),
    [
        (replace(USER, name="nobody"), "unknown user"),
        (replace(USER, authentication_password="wrong password"), "wrong digest"),
        (replace(USER, authentication="sha1"), "wrong digest"),
        (replace(USER, privacy=None), "."),
        (user("sha512", "aes128"), "unknown user"),
    ],
    ids=["name", "password", "protocol", "level", "stranger"],
)
def test_a_user_whom_the_agent_does_not_know_is_told_why(agent: int, who: User, words: str) -> None:
    with pytest.raises(SnmpFailure, match=words) as failed:
        get_as(who, agent)
    assert failed.value.miss is not Miss.TIMEOUT


def test_a_wrong_privacy_password_is_an_authentication_failure_or_silence(agent: int) -> None:
    with pytest.raises((SnmpAuthFailed, SnmpTimeout)):
        get_as(replace(USER, privacy_password="wrong password"), agent, HASTY)


@pytest.mark.parametrize("wrong", ["a year ahead", "a year behind", "boots", "another engine"])
def test_what_is_remembered_of_an_agent_may_be_wrong(agent: int, wrong: str) -> None:
    address = ("127.0.0.1", agent)

    async def main(engine: FastEngine) -> object:
        session = engine.session(address, USER)
        await session.get([OBJECT_ID])
        known, heard_at = engine.agents[address]
        engine.agents[address] = {
            "a year ahead": (replace(known, time_seconds=A_YEAR_SECONDS), heard_at),
            "a year behind": (known, heard_at - A_YEAR_SECONDS),
            "boots": (replace(known, boots=known.boots + 5), heard_at),
            "another engine": (Engine(b"\x80\x00\x1f\x88\x04other", 1, 1), heard_at),
        }[wrong]
        return await session.get([OBJECT_ID])

    assert run(main) == NET_SNMP


def test_an_agent_that_starts_anew_with_its_boots_reset_is_answered_again(tmp_path: Path) -> None:
    async def main(engine: FastEngine) -> list[object]:
        found: list[object] = []
        async with relay(0) as between:
            for life in ("first", "second"):
                (tmp_path / life).mkdir()
                with snmpd(tmp_path / life, [USER], [ENGINE_ID]) as between.port:
                    session = engine.session(between.address, USER)
                    found.append(await session.get([OBJECT_ID]))
        return found

    assert run(main) == [NET_SNMP, NET_SNMP]


def test_two_devices_with_one_engine_id_are_told_apart(agent: int, tmp_path: Path) -> None:
    async def main(engine: FastEngine) -> list[object]:
        with snmpd(tmp_path, [USER], [ENGINE_ID]) as other:
            sessions: list[AskingSession] = [
                engine.session(("127.0.0.1", port), USER) for port in (agent, other) * 3
            ]
            return [await session.get([OBJECT_ID]) for session in sessions]

    assert run(main) == [NET_SNMP] * 6
