"""What is the reference engine's own: how it fails, what it opens, how many it asks at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from metrics_pipeline.access.snmp_ber import encode
from metrics_pipeline.access.snmp_messages import ErrorStatus
from metrics_pipeline.sources.snmp_engines.reference import ReferenceEngine
from metrics_pipeline.sources.snmp_engines.spec import Community, EngineSettings
from metrics_pipeline.sources.snmp_session import SnmpAuthFailed, SnmpMalformed, SnmpTimeout
from metrics_pipeline_tests.descriptors import open_descriptors
from metrics_pipeline_tests.hostile_snmp_agent import Answer, Question, hostile_agent, number
from metrics_pipeline_tests.snmp_agents import snmpd, user

UPTIME = "1.3.6.1.2.1.1.3.0"
HASTY = EngineSettings(timeout_seconds=0.2, tries=1)
PATIENT = EngineSettings(timeout_seconds=20, tries=1)
V2C = Community(1, "public")


def ask(answer: Answer) -> object:
    """What comes of asking an agent for UPTIME that answers with `answer`."""

    async def run() -> object:
        async with (
            hostile_agent(answer) as address,
            ReferenceEngine(HASTY) as engine,
            engine.session(address, V2C) as session,
        ):
            return await session.get([UPTIME])

    return asyncio.run(run())


@pytest.mark.parametrize(
    "value",
    [encode(0x41, b"\x01" * 5), b"\x02\x7f\x01", encode(0x5F, b"x")],
    ids=["huge", "truncated", "no such type"],
)
def test_a_reply_pysnmp_cannot_read_is_malformed_and_does_not_hang(value: bytes) -> None:
    with pytest.raises(SnmpMalformed):
        ask(lambda question: question.reply([(UPTIME, value)]))


def test_an_error_index_beyond_the_request_is_malformed_for_pysnmp() -> None:
    with pytest.raises(SnmpMalformed, match="index"):
        ask(lambda question: question.error(ErrorStatus.GENERAL, 99))


def test_silence_is_a_time_out() -> None:
    with pytest.raises(SnmpTimeout):
        ask(lambda _: None)


def test_a_wrong_password_is_an_authentication_failure(tmp_path: Path) -> None:
    known, wrong = user("sha256", "aes128"), user("sha256", None)

    async def run() -> None:
        with snmpd(tmp_path, [known]) as port:
            async with (
                ReferenceEngine(PATIENT) as engine,
                engine.session(("127.0.0.1", port), wrong) as session,
            ):
                await session.get([UPTIME])

    with pytest.raises(SnmpAuthFailed):
        asyncio.run(run())


def test_thirty_requests_are_in_flight_at_most() -> None:
    waiting, most = 0, 0

    def answer(question: Question) -> bytes:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)

        def leave() -> None:
            nonlocal waiting
            waiting -= 1

        asyncio.get_running_loop().call_later(0.02, leave)
        return question.reply([(UPTIME, number(1))])

    async def run() -> list[object]:
        limits = EngineSettings(timeout_seconds=10, tries=1)
        async with hostile_agent(answer, 0.03) as address, ReferenceEngine(limits) as engine:

            async def poll() -> object:
                async with engine.session(address, V2C) as session:
                    return await session.get([UPTIME])

            return list(await asyncio.gather(*(poll() for _ in range(100))))

    assert asyncio.run(run()) == [{UPTIME: 1}] * 100
    assert most <= 30


def test_a_cancelled_session_leaves_no_descriptor_and_no_task() -> None:
    async def run() -> tuple[bool, int]:
        async with hostile_agent(lambda _: None) as address, ReferenceEngine(HASTY) as engine:
            before = open_descriptors()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), engine.session(address, V2C) as session:
                    await session.get([UPTIME])
            await asyncio.sleep(0.01)
            return open_descriptors() <= before, len(asyncio.all_tasks())

    assert asyncio.run(run()) == (True, 1)
