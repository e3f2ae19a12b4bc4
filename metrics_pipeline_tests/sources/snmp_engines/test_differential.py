"""Every value of the fast engine is pysnmp's: over net-snmp's agent, and over recorded walks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics_pipeline.access.snmp_ber import Value
from metrics_pipeline.access.snmp_usm import User
from metrics_pipeline.sources.snmp_engines.asking import AskingSession
from metrics_pipeline.sources.snmp_engines.fast import FastEngine
from metrics_pipeline.sources.snmp_engines.reference import ReferenceEngine
from metrics_pipeline.sources.snmp_engines.spec import Community, EngineSettings
from metrics_pipeline.sources.snmp_session import SnmpFailure
from metrics_pipeline_tests.snmp_agents import ALL_USERS, net_snmp, recordings, snmpd, snmpsim

T = TypeVar("T")

MAX_RECORDED_LINES = 3000
"""Of each recording; the first are those of MIB-2."""

LIMITS = EngineSettings(timeout_seconds=10, tries=1)
V1, V2C = Community(0, "public"), Community(1, "public")

STILL = [
    "1.3.6.1.2.1.1.1.0",
    "1.3.6.1.2.1.1.2.0",
    "1.3.6.1.2.1.1.5.0",
    "1.3.6.1.2.1.1.9.0",
    "1.3.6.1.6.3.10.2.1.1.0",
]
"""What an agent answers the same each time."""
STILL_TABLES = [
    "1.3.6.1.2.1.1.9.1.2",
    "1.3.6.1.2.1.1.9.1.3",
    "1.3.6.1.2.1.2.2.1.2",
    "1.3.6.1.2.1.2.2.1.6",
    "1.3.6.1.2.1.4.20.1.1",
    "1.3.6.1.2.1.31.1.1.1.1",
    "1.3.6.1.2.1.99.1",
]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an snmpd that knows a user of every pair of protocols."""
    with snmpd(tmp_path_factory.mktemp("snmpd"), ALL_USERS) as port:
        yield port


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, dict[str, Path]]]:
    """The port of a simulator, and its recordings by community."""
    folder = tmp_path_factory.mktemp("recordings")
    walks = sorted(recordings().rglob("*.snmprec"))
    for path in walks:
        lines = path.read_bytes().splitlines(keepends=True)
        (folder / path.name).write_bytes(b"".join(lines[:MAX_RECORDED_LINES]))
    chosen = {path.stem: folder / path.name for path in walks}
    with snmpsim(tmp_path_factory.mktemp("index"), folder) as port:
        yield port, chosen


def ask_both(
    port: int,
    credential: Community | User,
    question: Callable[[AskingSession], Awaitable[T]],
    limits: EngineSettings = LIMITS,
) -> tuple[T, T]:
    """What the fast engine is told, and what the reference is."""

    async def run() -> tuple[T, T]:
        address = ("127.0.0.1", port)
        async with FastEngine(limits) as fast, ReferenceEngine(limits) as reference:
            async with fast.session(address, credential) as session:
                ours = await question(session)
            async with reference.session(address, credential) as session:
                return ours, await question(session)

    return asyncio.run(run())


async def everything(session: AskingSession) -> tuple[object, object]:
    """What of an agent does not change."""
    return await session.get([*STILL, "1.3.6.1.4.1.1.0"]), await session.walk(STILL_TABLES)


@pytest.mark.parametrize("credential", [V1, V2C, *ALL_USERS[::4]], ids=str)
def test_both_engines_are_told_the_same_by_net_snmp(
    agent: int, credential: Community | User
) -> None:
    ours, theirs = ask_both(agent, credential, everything)
    assert ours == theirs
    assert ours[0]


@pytest.mark.parametrize("user", ALL_USERS, ids=lambda user: user.name)
def test_every_protocol_of_version_3_is_spoken(agent: int, user: User) -> None:
    async def run() -> object:
        async with FastEngine(LIMITS) as engine:
            return await engine.session(("127.0.0.1", agent), user).get(["1.3.6.1.2.1.1.2.0"])

    assert asyncio.run(run()) == {"1.3.6.1.2.1.1.2.0": "1.3.6.1.4.1.8072.3.2.10"}


def test_a_walk_finds_the_rows_that_net_snmp_finds(agent: int) -> None:
    column = "1.3.6.1.2.1.2.2.1.2"
    lines = net_snmp("snmpwalk", "-v2c", "-cpublic", "-On", f"127.0.0.1:{agent}", column)
    ours, _ = ask_both(agent, V2C, lambda session: session.walk([column]))
    assert list(ours[column]) == [
        line.partition(" ")[0].removeprefix(f".{column}.") for line in lines.splitlines()
    ]


def test_recorded_walks_are_read_as_they_were_recorded(
    recorded: tuple[int, dict[str, Path]],
) -> None:
    port, walks = recorded
    for community, path in walks.items():
        cells = _cells(path)
        oids = list(cells)[:: max(1, len(cells) // 300)]
        ours, theirs = ask_both(port, Community(1, community), lambda session: session.get(oids))  # noqa: B023
        assert ours == theirs
        for oid in oids:
            assert _is_recorded(cells[oid], ours.get(oid)), oid


def test_recorded_tables_are_walked_whole(recorded: tuple[int, dict[str, Path]]) -> None:
    port, walks = recorded
    community, path = max(walks.items(), key=lambda walk: walk[1].stat().st_size)
    cells = _cells(path)
    columns = sorted({oid.rpartition(".")[0] for oid in cells})[:40]
    for version in (0, 1):
        credential = Community(version, community)
        ours, theirs = ask_both(port, credential, lambda session: session.walk(columns))
        assert ours == theirs
    for column in columns:
        assert {f"{column}.{index}" for index in ours[column]} == {
            oid for oid in cells if oid.startswith(f"{column}.") and cells[oid][0] != "5"
        }


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), version=st.sampled_from([0, 1]), max_varbinds=st.integers(1, 60))
def test_any_question_has_the_same_answer_from_both_engines(
    recorded: tuple[int, dict[str, Path]], data: st.DataObject, version: int, max_varbinds: int
) -> None:
    port, walks = recorded
    community = data.draw(st.sampled_from(sorted(walks)))
    cells = list(_cells(walks[community]))
    oids = data.draw(st.lists(st.sampled_from(cells) | OIDS, max_size=30, unique=True))
    columns = data.draw(
        st.lists(st.sampled_from(cells).map(lambda oid: oid.rpartition(".")[0]), max_size=4)
    )

    async def question(session: AskingSession) -> object:
        with contextlib.suppress(SnmpFailure):
            return await session.get(oids), await session.walk(columns)
        return None

    limits = EngineSettings(timeout_seconds=10, tries=1, max_varbinds=max_varbinds)
    ours, theirs = ask_both(port, Community(version, community), question, limits)
    assert ours == theirs


OIDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12).map(
    lambda parts: ".".join(map(str, (1, 3, 6, *parts)))
)


def _cells(path: Path) -> dict[str, tuple[str, str]]:
    """What is recorded: type and value by OID (snmprec: `OID|TAG|VALUE`)."""
    lines = path.read_text(encoding="latin-1").splitlines()
    rows = (line.split("|", 2) for line in lines if line.count("|") >= 2)
    return {oid: (tag, value) for oid, tag, value in rows if tag.rstrip("x").isdigit()}


def _is_recorded(recorded: tuple[str, str], value: Value | None) -> bool:
    tag, text = recorded
    if tag == "4":
        return value == text.encode("latin-1")
    if tag == "4x":
        return value == bytes.fromhex(text)
    if tag in {"2", "65", "66", "67", "70"}:
        return value == int(text)
    return tag != "6" or value == text.removeprefix(".")
