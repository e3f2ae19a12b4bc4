"""The simulated agents answer net-snmp's clients, and our own probe finds what they have."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.snmp_ber import OCTETS, SEQUENCE, encode, encode_integer
from metrics_pipeline.access.snmp_messages import (
    VERSION_1,
    VERSION_2C,
    Pdu,
    encode_community_message,
    encode_request,
)
from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DISK_USAGE,
    HOST_METRICS,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
    Device,
    DeviceReading,
    Miss,
)
from metrics_pipeline.simulators.device_fleet import impossible
from metrics_pipeline.simulators.snmp_agent import (
    MAX_REPLY_BYTES,
    Mib,
    SimulatedAgent,
    SnmpAgents,
    answer,
)
from metrics_pipeline.simulators.snmp_objects import AgentKind, Identity, show
from metrics_pipeline.simulators.ssh_host import HostFigures
from metrics_pipeline.sources.snmp import Snmp
from metrics_pipeline.sources.snmp_settings import SnmpCommunity, SnmpSettings
from metrics_pipeline_tests import servers
from metrics_pipeline_tests.snmp_agents import net_snmp

COMMUNITY = "a community"
VARIABLE = "P4_TEST_COMMUNITY"
SYS_NAME, SYS_UPTIME = "1.3.6.1.2.1.1.5.0", "1.3.6.1.2.1.1.3.0"
IF_DESCR, IF_HC_IN = "1.3.6.1.2.1.2.2.1.2", "1.3.6.1.2.1.31.1.1.1.6"
FIGURES = HostFigures().wander(Random(1))
ADDRESSES = {
    AgentKind.NET_SNMP: "127.20.200.1",
    AgentKind.CISCO: "127.20.200.2",
    AgentKind.STANDARD: "127.20.200.3",
}


@pytest.fixture
def agents() -> Iterator[SnmpAgents]:
    found = [
        SimulatedAgent(address, Identity(kind, f"a {kind} agent"), FIGURES)
        for kind, address in ADDRESSES.items()
    ]
    with SnmpAgents(found, community=COMMUNITY) as serving:
        yield serving


def ask(agents: SnmpAgents, kind: AgentKind, command: str, *arguments: str) -> list[str]:
    """The lines that a client of net-snmp prints, with names and values alone."""
    where = f"{ADDRESSES[kind]}:{agents.port}"
    options = ["-v2c", "-c", COMMUNITY, "-On", "-r", "0", "-t", "5"]
    return net_snmp(command, *options, where, *arguments).splitlines()


def names(lines: list[str]) -> list[str]:
    return [line.split(" = ")[0].lstrip(".") for line in lines]


def poll(agents: SnmpAgents, kind: AgentKind, monkeypatch: pytest.MonkeyPatch) -> DeviceReading:
    monkeypatch.setenv(VARIABLE, COMMUNITY)
    credential = SnmpCommunity(community=SecretReference(env=VARIABLE))
    device = Device("id", "", ADDRESSES[kind], "any", "snmp", agents.port, "name")

    async def ask_once() -> DeviceReading:
        async with Snmp(SnmpSettings(timeout_seconds=0.5), {"name": credential}) as probe:
            return await probe.poll(device, HOST_METRICS)

    return asyncio.run(ask_once())


@pytest.mark.parametrize("kind", AgentKind)
def test_a_walk_gives_every_object_in_order(agents: SnmpAgents, kind: AgentKind) -> None:
    objects = show(Identity(kind, f"a {kind} agent"), FIGURES)
    in_order = sorted(objects, key=lambda oid: [int(part) for part in oid.split(".")])
    *walked, end = ask(agents, kind, "snmpwalk", "1.3")
    assert names(walked) == in_order
    assert "No more variables left in this MIB View" in end
    assert names(ask(agents, kind, "snmpbulkwalk", "-Cr40", "1.3"))[:-1] == in_order


def test_a_get_says_what_is_missing_and_why(agents: SnmpAgents) -> None:
    asked = (SYS_NAME, f"{IF_DESCR}.999", "1.3.6.1.2.1.1.99.0")
    found, instance, absent = ask(agents, AgentKind.CISCO, "snmpget", *asked)
    assert found.endswith('STRING: "a cisco agent"')
    assert "No Such Instance" in instance
    assert "No Such Object" in absent


def test_a_bulk_get_has_non_repeaters_and_rows(agents: SnmpAgents) -> None:
    options = ["-Cn1", "-Cr3", "1.3.6.1.2.1.1.5", IF_DESCR, IF_HC_IN]
    lines = ask(agents, AgentKind.CISCO, "snmpbulkget", *options)
    rows = [f"{column}.{row}" for row in (1, 2, 3) for column in (IF_DESCR, IF_HC_IN)]
    assert names(lines) == [SYS_NAME, *rows]


def test_a_bulk_get_stops_where_all_are_at_the_end(agents: SnmpAgents) -> None:
    lines = ask(agents, AgentKind.CISCO, "snmpbulkget", "-Cn0", "-Cr50", "1.3.9", "1.4")
    assert len(lines) == 2
    assert all("No more variables" in line for line in lines)


def test_a_set_is_refused(agents: SnmpAgents) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        ask(agents, AgentKind.CISCO, "snmpset", SYS_NAME, "s", "another")
    assert "noAccess" in refused.value.stderr


def test_another_community_gets_no_answer(agents: SnmpAgents) -> None:
    servers.require("snmpget")
    where = f"{ADDRESSES[AgentKind.CISCO]}:{agents.port}"
    with pytest.raises(subprocess.CalledProcessError) as silence:
        net_snmp("snmpget", "-v2c", "-c", "another", "-r0", "-t0.2", where, SYS_NAME)
    assert "Timeout" in silence.value.stderr


@pytest.mark.parametrize("kind", AgentKind)
def test_a_poll_finds_the_figures(
    agents: SnmpAgents, kind: AgentKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = poll(agents, kind, monkeypatch)
    expected = dict(FIGURES.values())
    if kind is AgentKind.CISCO:
        del expected[DISK_USAGE]
    assert reading.is_up
    assert reading.values == pytest.approx(expected, abs=0.51)
    assert set(reading.misses.values()) <= {Miss.UNSUPPORTED}


def test_figures_that_change_are_seen(agents: SnmpAgents, monkeypatch: pytest.MonkeyPatch) -> None:
    before = poll(agents, AgentKind.CISCO, monkeypatch).values
    agent = agents.agents[ADDRESSES[AgentKind.CISCO]]
    agent.figures = agent.figures.after(100).wander(Random(2))
    after = poll(agents, AgentKind.CISCO, monkeypatch).values
    assert after[UPTIME] == pytest.approx(before[UPTIME] + 100, abs=0.01)
    assert after[NETWORK_RECEIVE] > before[NETWORK_RECEIVE]
    assert after[CPU_UTILIZATION] != before[CPU_UTILIZATION]


@pytest.mark.parametrize("kind", AgentKind)
def test_an_agent_that_lies_is_not_believed(
    agents: SnmpAgents, kind: AgentKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents.agents[ADDRESSES[kind]].figures = impossible(FIGURES)
    reading = poll(agents, kind, monkeypatch)
    assert reading.is_up
    assert reading.misses[CPU_UTILIZATION] is Miss.PARSE
    assert reading.misses[TEMPERATURE] is Miss.PARSE
    # Cisco gives used and free memory, and no total that could contradict them.
    full = {MEMORY_UTILIZATION} if kind is AgentKind.CISCO else set()
    assert set(reading.values) == {UPTIME, NETWORK_RECEIVE, NETWORK_TRANSMIT, *full}


def test_a_silent_agent_is_down_and_comes_back(
    agents: SnmpAgents, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agents.agents[ADDRESSES[AgentKind.CISCO]]
    agent.is_silent = True
    reading = poll(agents, AgentKind.CISCO, monkeypatch)
    assert (reading.is_up, reading.reason) == (False, Miss.TIMEOUT)
    assert poll(agents, AgentKind.STANDARD, monkeypatch).is_up
    agent.is_silent = False
    assert poll(agents, AgentKind.CISCO, monkeypatch).is_up


def test_a_slow_agent_answers_late(agents: SnmpAgents) -> None:
    agents.agents[ADDRESSES[AgentKind.CISCO]].delay_seconds = 0.2
    began = time.monotonic()
    ask(agents, AgentKind.CISCO, "snmpget", SYS_NAME)
    assert time.monotonic() - began >= 0.2


def test_who_sends_nonsense_does_not_stop_an_agent(agents: SnmpAgents) -> None:
    where = (ADDRESSES[AgentKind.CISCO], agents.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for nonsense in (b"", b"\x30", b"\x30\x80", b"GET / HTTP/1.1", bytes(1400)):
            asker.sendto(nonsense, where)
    assert ask(agents, AgentKind.CISCO, "snmpget", SYS_NAME)


def test_the_port_that_is_asked_for_is_taken() -> None:
    agent = SimulatedAgent("127.20.200.9", Identity(AgentKind.CISCO, ""))
    with (
        SnmpAgents([agent], community=COMMUNITY) as serving,
        pytest.raises(OSError, match="in use"),
    ):
        SnmpAgents([agent], community=COMMUNITY, port=serving.port)


# --- datagrams ---

MIB = Mib(show(Identity(AgentKind.CISCO, "a name"), FIGURES))


def question(tag: Pdu, *oids: str, version: int = VERSION_2C, repetitions: int = 0) -> bytes:
    pdu = encode_request(tag, 0x0100_0001, oids, repetitions)
    return encode_community_message(version, b"c", pdu)


def test_another_version_gets_no_answer() -> None:
    assert answer(question(Pdu.GET, SYS_NAME), b"c", MIB) is not None
    assert answer(question(Pdu.GET, SYS_NAME, version=VERSION_1), b"c", MIB) is None


def test_a_response_gets_no_answer() -> None:
    assert answer(question(Pdu.RESPONSE, SYS_NAME), b"c", MIB) is None


def test_a_get_for_more_than_a_reply_holds_is_too_big() -> None:
    reply = answer(question(Pdu.GET, *[SYS_UPTIME] * 200), b"c", MIB)
    assert reply is not None
    assert len(reply) < 50
    assert encode_integer(1) in reply


@given(st.integers(0, 2**31 - 1), st.integers(1, 10))
def test_a_bulk_reply_is_never_too_long(repetitions: int, columns: int) -> None:
    asked = question(Pdu.GET_BULK, *["1.3"] * columns, repetitions=repetitions)
    reply = answer(asked, b"c", MIB)
    assert reply is not None
    assert len(reply) <= MAX_REPLY_BYTES


@given(st.binary(max_size=80), st.sampled_from([0xA0, 0xA1, 0xA5, 0xA3]))
def test_whatever_bytes_come_in_nothing_is_raised(content: bytes, tag: int) -> None:
    answer(content, b"c", MIB)
    head = encode_integer(VERSION_2C) + encode(OCTETS, b"c")
    answer(encode(SEQUENCE, head + encode(tag, content)), b"c", MIB)
