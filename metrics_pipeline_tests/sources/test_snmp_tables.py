"""Interfaces and disks one by one over SNMP: right for real gear, and free at later polls.

The figures of RECORDED were read off the walks by eye, in the order of their rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DETAILS,
    DISK_USAGE,
    DISKS,
    HOST_METRICS,
    INTERFACES,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    UPTIME,
    Device,
    DeviceReading,
    Miss,
    Rows,
)
from metrics_pipeline.sources import snmp_facts as facts
from metrics_pipeline.sources.snmp import Snmp
from metrics_pipeline.sources.snmp_memory import DeviceMemory
from metrics_pipeline.sources.snmp_poll import REDISCOVER_AFTER, Polled, poll_values
from metrics_pipeline.sources.snmp_session import (
    Oid,
    SnmpMalformed,
    SnmpRefused,
    SnmpTimeout,
    SnmpValue,
)
from metrics_pipeline.sources.snmp_settings import SnmpCommunity, SnmpSettings
from metrics_pipeline.sources.snmp_ways import TABLES
from metrics_pipeline_tests.snmp_agents import COMMUNITY, net_snmp, snmpd, snmpsim
from metrics_pipeline_tests.snmp_recordings import RECORDINGS, RecordedSession, recorded

NAMES = sorted(path.stem for path in RECORDINGS.glob("*.snmprec"))
EVERYTHING = (*HOST_METRICS, *DETAILS)


def port(received: int, sent: int) -> dict[str, float]:
    return {NETWORK_RECEIVE: received, NETWORK_TRANSMIT: sent}


def disk(percent: float) -> dict[str, float]:
    return {DISK_USAGE: percent}


RECORDED: Mapping[str, Mapping[str, Rows]] = {
    "cisco-c3560": {
        INTERFACES: {
            "Gi0/49": port(1050166720685, 6575276732753),
            "Gi0/50": port(18783802582465, 2599249566949),
            "Gi0/51": port(1179783651924, 11956652008927),
            "Gi0/52": port(405667120638, 323747877668),
        }
    },
    "paloalto-pa-5000": {
        INTERFACES: {
            "mgmt": port(9643701234, 11227576295),
            "ethernet1/13": port(5482356348097, 6060869500276),
            "ethernet1/19": port(11203910871735, 30296571751166),
            "ethernet1/20": port(30294262085751, 11135587821781),
        },
        DISKS: {
            "Slot-0 Management Config Partition": disk(100 * 3092500 / 7882448),
            "Slot-0 Management Log Partition": disk(100 * 124585096 / 207076296),
            "Slot-0 Management Root Partition": disk(100 * 3261068 / 3945072),
        },
    },
    "linux-bonded": {
        INTERFACES: {
            "eth0": port(9517030783, 250693331412),
            "eth1": port(100835118873, 107129680619),
            "eth2": port(348720181700, 498530942484),
            "eth3": port(34000071392, 468),
        },
        DISKS: {"/": disk(100 * 36340754 / 63788685)},
    },
    "isilon-onefs": {
        INTERFACES: {"igb0": port(1338058221, 2499810)},
        DISKS: {"/ifs": disk(46)},  # by dskTable: hrStorage has more used than there is
    },
    "windows-xp": {
        # There is no ifName; ifDescr ends in NUL.
        INTERFACES: {"Intel(R) PRO/Wireless 2200BG Network Connection": port(911220674, 21194412)},
        DISKS: {
            "C:/ Label: Serial Number 1848504c": disk(100 * 1884128 / 1952447),
            "Z:/ Label: Serial Number ba85e1bf": disk(100 * 20191655 / 21304198),
        },
    },
    "windows-2003": {
        # 1 Gbit/s with a 32-bit counter; A: and D: have no size
        DISKS: {"C:/ Label: Serial Number d8e9b3d8": disk(100 * 1736055 / 13105015)}
    },
}
"""What a device's walk says; a table that is not named is unsupported by it."""


def poll(
    session: RecordedSession,
    memory: DeviceMemory | None = None,
    metrics: Collection[str] = EVERYTHING,
) -> Polled:
    return asyncio.run(poll_values(session, metrics, DeviceMemory() if memory is None else memory))


def known(name: str, metrics: Collection[str] = EVERYTHING) -> tuple[RecordedSession, DeviceMemory]:
    """A device that was polled once, with its requests forgotten."""
    session, memory = recorded(name), DeviceMemory()
    poll(session, memory, metrics)
    session.forget_requests()
    return session, DeviceMemory.from_json(memory.to_json())


def walked(session: RecordedSession) -> set[Oid]:
    return {column for columns in session.walks for column in columns}


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_device_gives_the_rows_that_its_walk_has(name: str) -> None:
    polled = poll(recorded(name))
    expected = RECORDED[name]
    assert polled.details.keys() == expected.keys()
    for table, rows in expected.items():
        assert list(polled.details[table]) == list(rows)
        for row, values in rows.items():
            assert polled.details[table][row] == pytest.approx(values, rel=1e-12)
    missing = {table for table in DETAILS if table not in expected}
    assert {t: polled.misses[t] for t in missing} == dict.fromkeys(missing, Miss.UNSUPPORTED)


@pytest.mark.parametrize("name", NAMES)
def test_rows_add_up_to_what_the_device_gives_as_a_whole(name: str) -> None:
    polled = poll(recorded(name))
    interfaces = polled.details.get(INTERFACES, {}).values()
    for metric in TABLES[INTERFACES]:
        counters = [row[metric] for row in interfaces if metric in row]
        assert polled.values.get(metric) == (sum(counters) if counters else None)
    disks = [row[DISK_USAGE] for row in polled.details.get(DISKS, {}).values()]
    assert polled.values.get(DISK_USAGE) == (max(disks) if disks else None)
    assert {*polled.details, *(t for t in DETAILS if t in polled.misses)} == set(DETAILS)


@pytest.mark.parametrize("name", NAMES)
def test_the_metrics_are_the_same_with_and_without_detail(name: str) -> None:
    with_detail, without = poll(recorded(name)), poll(recorded(name), metrics=HOST_METRICS)
    assert without.details == {}
    assert with_detail.values == without.values
    assert {m: v for m, v in with_detail.misses.items() if m not in DETAILS} == without.misses


def test_a_table_can_be_asked_for_without_the_metrics_it_is_made_of() -> None:
    polled = poll(recorded("linux-bonded"), metrics=[DISKS, INTERFACES])
    assert (polled.values, polled.misses) == ({}, {})
    assert polled.details == RECORDED["linux-bonded"]


def test_interfaces_of_which_only_one_direction_can_be_read_give_that_one() -> None:
    session = recorded("linux-bonded")
    for column in (facts.IF_HC_OUT_OCTETS, facts.IF_OUT_OCTETS):
        for index in (2, 3, 4, 5, 7):
            session.variables.pop(f"{column}.{index}", None)
    polled = poll(session)
    assert polled.details[INTERFACES]["eth0"] == {NETWORK_RECEIVE: 9517030783}
    assert polled.misses[NETWORK_TRANSMIT] is Miss.UNSUPPORTED
    assert INTERFACES not in polled.misses


def test_a_device_that_shows_nothing_has_no_tables() -> None:
    session, memory = RecordedSession({}), DeviceMemory()
    for _ in range(2):
        assert poll(session, memory).misses == dict.fromkeys(EVERYTHING, Miss.UNSUPPORTED)


# --- what it costs ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_detail_does_not_change_what_a_later_poll_asks(name: str) -> None:
    (plain, plain_memory), (session, memory) = known(name, HOST_METRICS), known(name)
    poll(plain, plain_memory, HOST_METRICS)
    polled = poll(session, memory)
    assert [set(oids) for oids in session.gets] == [set(oids) for oids in plain.gets]
    assert session.walks == plain.walks
    assert polled.details == poll(recorded(name)).details


def test_names_are_one_walk_more_of_a_new_device() -> None:
    plain, session = recorded("cisco-c3560"), recorded("cisco-c3560")
    poll(plain, metrics=HOST_METRICS)
    poll(session)
    assert session.gets == plain.gets
    assert [w for w in session.walks if w not in plain.walks] == [[facts.IF_NAME]]


def test_detail_that_is_asked_for_from_now_on_costs_its_names_alone() -> None:
    session, memory = known("linux-bonded", HOST_METRICS)
    assert poll(session, memory).details == RECORDED["linux-bonded"]
    assert len(session.gets) == 1
    names = {facts.IF_NAME, facts.IF_DESCR, facts.HR_STORAGE_DESCR}
    assert walked(session) == names
    session.forget_requests()
    poll(session, memory)
    assert session.walks == []


def test_a_memory_from_before_detail_is_still_good() -> None:
    _session, memory = known("linux-bonded", HOST_METRICS)
    assert b"names" not in memory.to_json()
    assert DeviceMemory.from_json(memory.to_json()) == memory


# --- when names are read again ----------------------------------------------------------------


def test_a_new_interface_has_its_name() -> None:
    session, memory = known("linux-centos7")
    session.variables |= {
        facts.IF_NUMBER: 12,
        f"{facts.IF_NAME}.12": b"ens99",
        f"{facts.IF_TYPE}.12": 6,
        f"{facts.IF_OPER_STATUS}.12": 1,
        f"{facts.IF_HC_IN_OCTETS}.12": 5,
        f"{facts.IF_HC_OUT_OCTETS}.12": 6,
    }
    assert poll(session, memory).details[INTERFACES]["ens99"] == port(5, 6)
    assert not any(column.startswith("1.3.6.1.2.1.25") for column in walked(session))


def test_an_interface_that_is_gone_is_no_row_any_more() -> None:
    session, memory = known("linux-bonded")
    for column in (facts.IF_HC_IN_OCTETS, facts.IF_HC_OUT_OCTETS, facts.IF_TYPE):
        del session.variables[f"{column}.3"]
    assert list(poll(session, memory).details[INTERFACES]) == ["eth0", "eth2", "eth3"]


def test_a_name_that_changed_is_known_at_the_next_discovery() -> None:
    session, memory = known("linux-bonded")
    session.variables[f"{facts.IF_NAME}.2"] = b"lan0"
    for _ in range(REDISCOVER_AFTER - 1):
        assert "eth0" in poll(session, memory).details[INTERFACES]
    assert "lan0" in poll(session, memory).details[INTERFACES]


# --- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "miss"),
    [
        (SnmpTimeout("no answer"), Miss.TIMEOUT),
        (SnmpMalformed("OIDs do not increase"), Miss.PARSE),
        (SnmpRefused("authorizationError"), Miss.REFUSED),
    ],
)
def test_names_that_cannot_be_read_cost_their_table_alone_and_are_asked_for_again(
    failure: SnmpMalformed, miss: Miss
) -> None:
    session, memory = recorded("cisco-c3560"), DeviceMemory()
    session.failures[f"{facts.IF_NAME}."] = failure
    polled = poll(session, memory)
    assert polled.values == poll(recorded("cisco-c3560")).values
    assert polled.misses[INTERFACES] is miss
    session.failures.clear()
    assert poll(session, memory).details == RECORDED["cisco-c3560"]


def test_a_device_that_falls_silent_gives_no_part_of_a_table() -> None:
    session, memory = known("linux-bonded")
    cell = f"{facts.IF_HC_IN_OCTETS}.2"
    answered = {oid: session.variables[oid] for oid in (facts.SYS_OBJECT_ID, cell)}
    session.failures[""] = SnmpTimeout("the second request was not answered", answered)
    polled = poll(session, memory)
    assert polled.details == {}
    assert polled.misses[INTERFACES] is polled.misses[DISKS] is Miss.TIMEOUT


# --- names and sizes --------------------------------------------------------------------------


def ports(names: Mapping[int, bytes], column: Oid = facts.IF_NAME) -> RecordedSession:
    """A device whose interfaces have received as many octets as their index."""
    variables: dict[Oid, SnmpValue] = {facts.SYS_UPTIME: 100, facts.IF_NUMBER: len(names)}
    for index, name in names.items():
        variables |= {
            f"{column}.{index}": name,
            f"{facts.IF_TYPE}.{index}": 6,
            f"{facts.IF_OPER_STATUS}.{index}": 1,
            f"{facts.IF_HC_IN_OCTETS}.{index}": index,
            f"{facts.IF_HC_OUT_OCTETS}.{index}": 0,
        }
    return RecordedSession(variables)


def received(session: RecordedSession) -> dict[str, float]:
    rows = poll(session, metrics=[INTERFACES]).details[INTERFACES]
    return {name: values[NETWORK_RECEIVE] for name, values in rows.items()}


def test_names_are_read_in_whatever_encoding_they_come() -> None:
    names = {1: "Übertragung".encode(), 2: b"caf\xe9", 3: b"a\0b\x1b[2J", 4: b" \0", 5: b"x" * 500}
    assert received(ports(names)) == {
        "Übertragung": 1,
        "caf\ufffd": 2,
        "ab[2J": 3,
        "4": 4,
        "x" * 200: 5,
    }


def test_the_description_names_an_interface_that_has_no_other_name() -> None:
    session = ports({1: b"port one", 2: b"port two"}, facts.IF_DESCR)
    session.variables[f"{facts.IF_NAME}.2"] = b"p2"
    assert received(session) == {"port one": 1, "p2": 2}


def test_interfaces_of_one_name_are_told_apart_by_their_index() -> None:
    assert received(ports({3: b"lan", 14: b"lan", 15: b"wan"})) == {
        "lan#3": 3,
        "lan#14": 14,
        "wan": 15,
    }


def test_a_name_does_not_change_when_an_interface_of_the_same_name_goes_down() -> None:
    session = ports({3: b"lan", 14: b"lan"})
    session.variables[f"{facts.IF_OPER_STATUS}.14"] = 2
    assert received(session) == {"lan#3": 3}


def test_a_name_that_is_no_text_is_shown_as_it_is() -> None:
    session = ports({1: b"a"})
    session.variables[f"{facts.IF_NAME}.1"] = 7
    assert received(session) == {"7": 1}


def test_twenty_thousand_interfaces_of_one_name_are_twenty_thousand_rows() -> None:
    memory = DeviceMemory()
    session = Table(20_000)
    polled = poll(session, memory, [INTERFACES])
    assert len(polled.details[INTERFACES]) == 20_000
    assert polled.details[INTERFACES]["lan#20000"] == port(20_000, 0)
    session.forget_requests()
    again = poll(session, DeviceMemory.from_json(memory.to_json()), [INTERFACES])
    assert again == polled
    assert (len(session.gets), session.walks) == (1, [])


class Table(RecordedSession):
    """As `ports`, and quick to walk however long."""

    def __init__(self, count: int) -> None:
        super().__init__(ports(dict.fromkeys(range(1, count + 1), b"lan")).variables)

    async def walk(self, columns: Collection[Oid]) -> Mapping[Oid, Mapping[str, SnmpValue]]:
        self.walks.append(list(columns))
        tables: dict[Oid, dict[str, SnmpValue]] = {column: {} for column in columns}
        for oid, value in self.variables.items():
            column, _, index = oid.rpartition(".")
            if column in tables:
                tables[column][index] = value
        return tables


ODD = st.one_of(
    st.binary(max_size=30),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["10.0.0.1", "1.3.6.1.2.1.25.2.1.4", ""]),
)
CELLS = st.sampled_from(
    [
        *(facts.IF_NAME, facts.IF_DESCR, facts.IF_HC_IN_OCTETS, facts.IF_HC_OUT_OCTETS),
        *(facts.IF_TYPE, facts.HR_STORAGE_DESCR, facts.HR_STORAGE_SIZE, facts.HR_STORAGE_USED),
    ]
)


@given(
    changes=st.lists(
        st.dictionaries(st.tuples(CELLS, st.sampled_from([2, 3, 4, 31])), ODD, max_size=6),
        max_size=3,
    )
)
@settings(max_examples=100, deadline=None)
def test_whatever_a_device_says_each_table_is_there_or_a_miss(
    changes: list[dict[tuple[Oid, int], SnmpValue]],
) -> None:
    session, memory = recorded("linux-bonded"), DeviceMemory()
    for cells in [*changes, {}]:
        session.variables |= {
            f"{column}.{index}": value for (column, index), value in cells.items()
        }
        polled = poll(session, memory)
        assert {*polled.details, *polled.misses, *polled.values} == set(EVERYTHING)
        assert not polled.details.keys() & polled.misses.keys()
        for table, rows in polled.details.items():
            assert all(row.keys() <= set(TABLES[table]) for row in rows.values())
            assert all(type(value) is float for row in rows.values() for value in row.values())


# --- over the wire ----------------------------------------------------------------------------


def read(port_number: int, engine: str) -> list[DeviceReading]:
    """Two polls, one after the other, with the community that is in the environment."""
    secret = SnmpCommunity.model_validate({"community": {"env": "TEST_COMMUNITY"}})
    snmp = Snmp(SnmpSettings.model_validate({"engine": engine}), {"c": secret})
    device = Device("d1", "d1", "127.0.0.1", "server", "snmp", port_number, "c")

    async def run() -> list[DeviceReading]:
        async with snmp:
            return [await snmp.poll(device, EVERYTHING) for _ in range(2)]

    return asyncio.run(run())


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_snmpd_gives_its_interfaces_by_the_names_it_has_for_them(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_COMMUNITY", COMMUNITY)
    with snmpd(tmp_path) as agent:
        readings = read(agent, engine)
        lines = net_snmp(
            "snmpwalk", "-v2c", "-cpublic", "-Oqv", f"127.0.0.1:{agent}", facts.IF_NAME
        )
    names = {line.strip('"') for line in lines.splitlines()}
    for reading in readings:
        assert set(reading.details) | set(reading.misses) >= set(DETAILS)
        for row in reading.details.get(INTERFACES, {}):
            assert row.partition("#")[0] in names
        for table, sums in ((INTERFACES, NETWORK_RECEIVE), (DISKS, DISK_USAGE)):
            assert (table in reading.details) == (sums in reading.values)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one simulator of all recordings: to start it takes 2 s of CPU."""
    with snmpsim(tmp_path_factory.mktemp("index"), RECORDINGS) as port_number:
        yield port_number


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("name", ["cisco-c3560", "paloalto-pa-5000", "windows-xp"])
def test_a_simulated_agent_gives_what_was_recorded(
    simulated: int, engine: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_COMMUNITY", name)
    first, second = read(simulated, engine)
    assert first.values[UPTIME] == second.values[UPTIME]
    assert CPU_UTILIZATION in second.values
    assert first.details == second.details == poll(recorded(name)).details
