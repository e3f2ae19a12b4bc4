"""How a device is polled: how often it is asked, what is remembered, what failures leave."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from metrics_pipeline.core.devices import (
    CPU_UTILIZATION,
    DISK_USAGE,
    HOST_METRICS,
    MEMORY_UTILIZATION,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
    TEMPERATURE,
    UPTIME,
    Miss,
)
from metrics_pipeline.sources import snmp_facts as facts
from metrics_pipeline.sources.snmp_engines.fast import FastEngine
from metrics_pipeline.sources.snmp_engines.spec import Community, EngineSettings
from metrics_pipeline.sources.snmp_memory import SHARED_KIND_BYTES, DeviceMemory, Plan
from metrics_pipeline.sources.snmp_poll import (
    LOOK_AFTER,
    RANGES,
    REDISCOVER_AFTER,
    Polled,
    poll_values,
)
from metrics_pipeline.sources.snmp_session import (
    Oid,
    SnmpAuthFailed,
    SnmpMalformed,
    SnmpRefused,
    SnmpTimeout,
    SnmpValue,
)
from metrics_pipeline.sources.snmp_ways import GENERIC, VENDORS, WAYS
from metrics_pipeline_tests.snmp_agents import snmpsim
from metrics_pipeline_tests.snmp_recordings import RECORDINGS, RecordedSession, recorded

NAMES = sorted(path.stem for path in RECORDINGS.glob("*.snmprec"))
INTERFACES = "1.3.6.1.2.1.2.2."
SENSORS = facts.ENTITY_SENSOR


def poll(
    session: RecordedSession,
    memory: DeviceMemory,
    metrics: Collection[str] = HOST_METRICS,
    trace: list[str] | None = None,
) -> Polled:
    """One poll, as if by a process of its own: the memory goes through what is stored."""
    return asyncio.run(
        poll_values(session, metrics, memory, trace.append if trace is not None else None)
    )


def known(name: str) -> tuple[RecordedSession, DeviceMemory]:
    """A device that was polled once, with its requests forgotten."""
    session, memory = recorded(name), DeviceMemory()
    poll(session, memory)
    session.forget_requests()
    return session, DeviceMemory.from_json(memory.to_json())


def walked(session: RecordedSession) -> set[Oid]:
    return {column for columns in session.walks for column in columns}


# --- how often a device is asked --------------------------------------------------------------


def test_a_new_linux_is_asked_once_and_walked_by_table() -> None:
    session = recorded("linux-centos7")
    poll(session, DeviceMemory())
    assert len(session.gets) == 1
    # ifTable, its second counter, hrStorage, the sensors: processor and memory are scalars
    assert len(session.walks) == 4


@pytest.mark.parametrize("name", [n for n in NAMES if n != "isilon-onefs"])
def test_a_known_device_is_asked_once_and_not_walked(name: str) -> None:
    session, memory = known(name)
    poll(session, memory)
    assert len(session.gets) == 1
    assert session.walks == []


def test_what_could_not_be_read_is_looked_for_again() -> None:
    session, memory = known("isilon-onefs")
    assert poll(session, memory).misses[MEMORY_UTILIZATION] is Miss.PARSE
    assert walked(session) == {*WAYS["hrStorageRam"].known, *WAYS["hrStorageRam"].asked}


def test_only_what_a_metric_needs_is_asked() -> None:
    session, memory = known("windows-xp")
    poll(session, memory, [CPU_UTILIZATION])
    assert set(session.gets[0]) == {
        facts.SYS_OBJECT_ID,
        facts.SYS_UPTIME,
        facts.HR_SYSTEM_UPTIME,
        facts.IF_NUMBER,
        f"{facts.HR_PROCESSOR_LOAD}.5",
    }


def test_a_stored_memory_is_small() -> None:
    _session, memory = known("arista-7150s")
    assert len(memory.to_json()) < 4000


def test_the_trace_names_the_way_to_each_metric() -> None:
    trace: list[str] = []
    poll(recorded("cisco-c3560"), DeviceMemory(), trace=trace)
    assert "cpu_utilization_percent: 28.0 by cpmCPUTotal5minRev" in trace
    assert any(
        line.startswith("disk_usage_percent: not by dskTable: there is no") for line in trace
    )


def test_a_metric_nobody_knows_is_unsupported() -> None:
    polled = poll(recorded("windows-xp"), DeviceMemory(), [UPTIME, "ping_rtt_ms"])
    assert set(polled.values) == {UPTIME}
    assert polled.misses == {"ping_rtt_ms": Miss.UNSUPPORTED}


def test_a_device_that_shows_nothing_is_up_and_has_nothing() -> None:
    session, memory = RecordedSession({}), DeviceMemory()
    for _ in range(2):
        assert poll(session, memory).misses == dict.fromkeys(HOST_METRICS, Miss.UNSUPPORTED)
    assert session.gets[1]


# --- what has a device discovered anew --------------------------------------------------------


def test_a_missing_instance_has_its_metric_discovered_anew() -> None:
    session, memory = known("linux-centos7")
    for column in (facts.IF_HC_IN_OCTETS, facts.IF_HC_OUT_OCTETS, facts.IF_TYPE):
        del session.variables[f"{column}.11"]
    polled = poll(session, memory)
    assert polled.values[NETWORK_RECEIVE] == 1400411147 - 115831430
    assert not any(column.startswith("1.3.6.1.2.1.25") for column in walked(session))
    session.forget_requests()
    poll(session, memory)
    assert session.walks == []


def test_a_changed_number_of_interfaces_has_traffic_discovered_anew() -> None:
    session, memory = known("linux-centos7")
    session.variables |= {
        facts.IF_NUMBER: 12,
        f"{facts.IF_TYPE}.12": 6,
        f"{facts.IF_OPER_STATUS}.12": 1,
        f"{facts.IF_HC_IN_OCTETS}.12": 5,
        f"{facts.IF_HC_OUT_OCTETS}.12": 5,
    }
    assert poll(session, memory).values[NETWORK_RECEIVE] == 1400411147 + 5
    assert all(
        column.startswith(("1.3.6.1.2.1.2.", "1.3.6.1.2.1.31.")) for column in walked(session)
    )


def test_a_changed_entity_has_temperature_discovered_anew() -> None:
    session, memory = known("arista-7150s")
    memory.watched[facts.ENT_LAST_CHANGE_TIME] = 1
    session.variables[facts.ENT_LAST_CHANGE_TIME] = 2
    poll(session, memory)
    assert walked(session) == {f"{SENSORS}.{column}" for column in range(1, 6)}


def test_another_device_at_the_address_is_discovered_anew() -> None:
    session, memory = known("cisco-c3750")
    session.variables = recorded("windows-xp").variables
    assert poll(session, memory).values[CPU_UTILIZATION] == 0
    assert memory.found.plans[CPU_UTILIZATION].way == "hrProcessorLoad"


def test_a_restarted_device_is_discovered_anew() -> None:
    session, memory = known("cisco-c3750")
    session.variables[facts.SYS_UPTIME] = 100
    session.variables[facts.SNMP_ENGINE_TIME] = 1
    assert poll(session, memory).values[UPTIME] == 1
    assert session.walks


def test_so_many_polls_after_a_discovery_comes_the_next() -> None:
    session, memory = known("windows-xp")
    for _ in range(REDISCOVER_AFTER - 1):
        poll(session, memory)
    assert session.walks == []
    poll(session, memory)
    assert session.walks != []


def test_devices_that_restart_together_are_not_discovered_together_ever_after() -> None:
    fleet = [
        (recorded("linux-centos7"), DeviceMemory(polls=begun))
        for begun in range(1, REDISCOVER_AFTER, 8)
    ]
    for session, memory in fleet:
        poll(session, memory)
        session.variables[facts.SYS_UPTIME] = session.variables[facts.HR_SYSTEM_UPTIME] = 100
        session.forget_requests()
        poll(session, memory)
        assert session.walks
    rounds = [_discovered_and_looked(fleet) for _ in range(REDISCOVER_AFTER)]
    assert sum(discovered for discovered, _ in rounds) == len(fleet)
    assert max(discovered for discovered, _ in rounds) == 1
    assert max(looked for _, looked in rounds) == len(fleet) / 3  # of 12 numbers, 3 are 8 apart


def _discovered_and_looked(fleet: Sequence[tuple[RecordedSession, DeviceMemory]]) -> list[int]:
    """How many of `fleet` are walked, and of how many the ports are looked at, in one poll each."""
    for session, memory in fleet:
        session.forget_requests()
        poll(session, memory)
    looked = [
        any(oid.startswith(facts.IF_OPER_STATUS) for get in session.gets for oid in get)
        or bool(session.walks)
        for session, _ in fleet
    ]
    return [sum(bool(session.walks) for session, _ in fleet), sum(looked)]


def test_a_way_of_another_version_is_discovered_anew() -> None:
    session, memory = known("windows-xp")
    memory.learn(CPU_UTILIZATION, Plan(way="an older way", asked={}), {})
    assert CPU_UTILIZATION in poll(session, memory).values
    assert memory.found.plans[CPU_UTILIZATION].way == "hrProcessorLoad"


def test_devices_that_are_alike_do_not_share_what_happens_to_one_of_them() -> None:
    session, memory = known("windows-xp")
    stored = memory.to_json()
    one, twin = DeviceMemory.from_json(stored), DeviceMemory.from_json(stored)
    poll(session, twin)
    del session.variables[f"{facts.HR_PROCESSOR_LOAD}.5"]
    poll(session, one)
    assert one.found.plans != twin.found.plans
    assert twin.found == DeviceMemory.from_json(stored).found == memory.found
    assert DeviceMemory.from_json(one.to_json()) == one


def test_what_is_asked_of_devices_that_are_alike_is_worked_out_once() -> None:
    session, memory = known("windows-xp")
    stored = memory.to_json()
    one, twin = DeviceMemory.from_json(stored), DeviceMemory.from_json(stored)
    assert one.kind is twin.kind
    poll(session, one)
    asked = dict(one.kind.questions)
    poll(session, twin)
    assert twin.kind.questions == asked
    assert stored.startswith(one.kind.to_json() + b"\n")


def test_a_memory_that_is_large_is_not_kept_at_hand() -> None:
    _, memory = known("windows-xp")
    memory.learn_names("interfaces", {str(row): "a port" for row in range(SHARED_KIND_BYTES // 10)})
    stored = memory.to_json()
    assert len(memory.kind.to_json()) > SHARED_KIND_BYTES
    one, twin = DeviceMemory.from_json(stored), DeviceMemory.from_json(stored)
    assert one == twin == memory
    assert one.kind is not twin.kind
    assert one.to_json() == stored


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"polls": 3}',  # of one line, as memories were before
        b'{}\n{"polls": "x"}',
        b'{"plans": 3}\n{"polls": 3}',
        b"{}\n[]",
    ],
)
def test_a_memory_that_cannot_be_read_is_an_error(stored: bytes) -> None:
    with pytest.raises(ValidationError):
        DeviceMemory.from_json(stored)


def test_a_port_that_goes_down_keeps_its_counter_in_the_sum_until_ports_are_looked_at() -> None:
    session, memory = known("linux-centos7")
    counter = session.variables[f"{facts.IF_HC_IN_OCTETS}.2"]
    session.variables[f"{facts.IF_OPER_STATUS}.2"] = 2
    for _ in range(LOOK_AFTER - 1):
        assert poll(session, memory).values[NETWORK_RECEIVE] == 1400411147
    assert session.walks == []
    assert poll(session, memory).values.get(NETWORK_RECEIVE, 0) == 1400411147 - int(counter)
    assert all(c.startswith(("1.3.6.1.2.1.2.", "1.3.6.1.2.1.31.")) for c in walked(session))


def test_a_port_that_comes_up_is_in_the_sum_from_the_next_look_at_the_ports() -> None:
    session, memory = recorded("arista-7150s"), DeviceMemory()
    state, counter = f"{facts.IF_OPER_STATUS}.2", session.variables[f"{facts.IF_HC_IN_OCTETS}.2"]
    session.variables[state] = 2
    before = poll(session, memory).values[NETWORK_RECEIVE]
    session.variables[state] = 1
    sums = [poll(session, memory).values[NETWORK_RECEIVE] for _ in range(LOOK_AFTER)]
    assert sums == [before] * (LOOK_AFTER - 1) + [before + int(counter)]


def test_ports_that_stay_as_they_are_cost_one_request_at_a_look_and_no_walk() -> None:
    session, memory = known("arista-7150s")
    for _ in range(REDISCOVER_AFTER - 1):
        poll(session, memory)
    assert session.walks == []
    assert len(session.gets) == REDISCOVER_AFTER - 1


# --- clocks -----------------------------------------------------------------------------------


def test_a_clock_that_wraps_goes_on() -> None:
    end = facts.TICKS_WRAP - 20_000
    session, memory = RecordedSession({facts.SYS_UPTIME: end}), DeviceMemory()
    assert poll(session, memory, [UPTIME]).values == {UPTIME: end / 100}
    session.variables[facts.SYS_UPTIME] = 10_000
    after = (facts.TICKS_WRAP + 10_000) / 100
    assert poll(session, memory, [UPTIME]).values == {UPTIME: after}
    memory = DeviceMemory.from_json(memory.to_json())
    assert poll(session, memory, [UPTIME]).values == {UPTIME: after}
    session.variables[facts.SYS_UPTIME] = 500
    assert poll(session, memory, [UPTIME]).values == {UPTIME: 5}


def test_the_engine_knows_what_a_wrapped_clock_forgot() -> None:
    clocks: dict[Oid, SnmpValue] = {facts.SYS_UPTIME: 500, facts.SNMP_ENGINE_TIME: 42949677}
    polled = poll(RecordedSession(clocks), DeviceMemory(), [UPTIME])
    assert polled.values == {UPTIME: 42949677}


@pytest.mark.parametrize("odd", [-1, b"", "1.2", 2**63, 1.5])
def test_an_uptime_that_cannot_be_is_no_number(odd: SnmpValue) -> None:
    polled = poll(RecordedSession({facts.SYS_UPTIME: odd}), DeviceMemory(), [UPTIME])
    assert polled.misses == {UPTIME: Miss.PARSE}


# --- ticks between two polls -------------------------------------------------------------------

TICKS = {
    facts.UCD_CPU_RAW_USER: 50,
    facts.UCD_CPU_RAW_NICE: 10,
    facts.UCD_CPU_RAW_SYSTEM: 20,
    facts.UCD_CPU_RAW_IDLE: 300,
    facts.UCD_CPU_RAW_WAIT: 15,
    facts.UCD_CPU_RAW_INTERRUPT: 2,
    facts.UCD_CPU_RAW_SOFT_IRQ: 3,
}
"""400 ticks, of which 300 idle."""


def advance(session: RecordedSession, ticks: Mapping[Oid, int]) -> None:
    for oid, more in ticks.items():
        now = session.variables.get(oid, 0)
        assert isinstance(now, int)
        session.variables[oid] = (now + more) % 2**32


def busy(name: str, ticks: Mapping[Oid, int]) -> float:
    session, memory = known(name)
    advance(session, ticks)
    return poll(session, memory).values[CPU_UTILIZATION]


def test_the_processor_is_measured_between_two_polls() -> None:
    assert busy("linux-slackware", TICKS) == 25


def test_system_ticks_with_kernel_ticks_have_interrupts_in_them() -> None:
    # 50 + 10 + 20 + 300 + 15, of which 20 = 15 kernel + 2 + 3
    busy_share = 100 - 100 * 300 / 395
    ticks = TICKS | {facts.UCD_CPU_RAW_KERNEL: 15}
    assert busy("linux-32bit", ticks) == pytest.approx(busy_share)


def test_system_ticks_that_are_kernel_and_wait_are_counted_once() -> None:
    ticks = TICKS | {facts.UCD_CPU_RAW_KERNEL: 5}
    assert busy("linux-32bit", ticks) == pytest.approx(100 - 100 * 300 / 380)


def test_a_counter_of_ticks_wraps() -> None:
    session, memory = known("linux-slackware")
    memory.before[facts.UCD_CPU_RAW_IDLE] = 2**32 - 100
    advance(session, TICKS)
    session.variables[facts.UCD_CPU_RAW_IDLE] = 200
    assert poll(session, memory).values[CPU_UTILIZATION] == 25


def test_after_a_restart_the_idle_percentage_is_taken() -> None:
    session, memory = known("linux-slackware")
    session.variables[facts.SYS_UPTIME] = 6000
    session.variables[facts.UCD_CPU_RAW_IDLE] = 10
    assert poll(session, memory).values[CPU_UTILIZATION] == 100 - 79


def test_ticks_that_stand_still_say_nothing_and_the_percentage_is_taken() -> None:
    assert busy("linux-slackware", {}) == 100 - 79


def test_an_agent_in_its_first_minute_has_no_processor_yet() -> None:
    session, memory = RecordedSession(TICKS), DeviceMemory()
    assert poll(session, memory, [CPU_UTILIZATION]).misses == {CPU_UTILIZATION: Miss.UNSUPPORTED}
    advance(session, TICKS)
    assert poll(session, memory, [CPU_UTILIZATION]).values == {CPU_UTILIZATION: 25}


def test_counters_that_had_not_begun_are_no_start() -> None:
    walk = {**dict.fromkeys(TICKS, 0), facts.UCD_CPU_IDLE: 90}
    session, memory = RecordedSession(walk), DeviceMemory()
    poll(session, memory, [CPU_UTILIZATION])
    advance(session, TICKS)
    assert poll(session, memory, [CPU_UTILIZATION]).values == {CPU_UTILIZATION: 10}


# --- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SnmpTimeout, SnmpAuthFailed, SnmpRefused, SnmpMalformed])
def test_a_device_that_answers_nothing_is_a_failure(kind: type[SnmpTimeout]) -> None:
    session = recorded("windows-xp")
    session.failures[""] = kind("as the engine said it")
    with pytest.raises(kind):
        poll(session, DeviceMemory())


def test_a_failure_leaves_the_memory_as_it_was() -> None:
    session, memory = known("windows-xp")
    before = memory.model_copy(deep=True)
    session.failures[""] = SnmpTimeout("no answer")
    with pytest.raises(SnmpTimeout):
        poll(session, memory)
    assert memory == before


def test_what_was_answered_before_a_timeout_is_kept() -> None:
    session, memory = known("windows-xp")
    plan = memory.found.plans[CPU_UTILIZATION]
    assert plan.asked == {facts.HR_PROCESSOR_LOAD: "5"}
    oids = [facts.SYS_OBJECT_ID, facts.SYS_UPTIME, f"{facts.HR_PROCESSOR_LOAD}.5"]
    answered = {oid: session.variables[oid] for oid in oids}
    session.failures[""] = SnmpTimeout("the second request was not answered", answered)
    polled = poll(session, memory)
    assert polled.values == {UPTIME: 827.95, CPU_UTILIZATION: 0}
    assert polled.misses == {
        MEMORY_UTILIZATION: Miss.TIMEOUT,
        DISK_USAGE: Miss.TIMEOUT,
        NETWORK_RECEIVE: Miss.TIMEOUT,
        NETWORK_TRANSMIT: Miss.TIMEOUT,
        TEMPERATURE: Miss.UNSUPPORTED,
    }
    assert session.walks == []
    session.failures.clear()
    assert len(poll(session, memory).values) == 6
    assert session.walks == []


def test_a_table_that_times_out_ends_the_poll_with_what_there_is() -> None:
    session, memory = recorded("arista-7150s"), DeviceMemory()
    session.failures[f"{facts.HR_STORAGE_UNITS}."] = SnmpTimeout("no answer")
    polled = poll(session, memory)
    assert set(polled.values) == {UPTIME, CPU_UTILIZATION}
    assert set(polled.misses.values()) == {Miss.TIMEOUT}
    session.failures.clear()
    session.forget_requests()
    assert len(poll(session, memory).values) == 7
    assert facts.HR_PROCESSOR_LOAD not in walked(session)


@pytest.mark.parametrize(
    ("failure", "miss"),
    [(SnmpMalformed("OIDs do not increase"), Miss.PARSE), (SnmpRefused("noAccess"), Miss.REFUSED)],
)
def test_a_table_that_cannot_be_walked_costs_its_metric_only(
    failure: SnmpMalformed, miss: Miss
) -> None:
    session = recorded("arista-7150s")
    session.failures[f"{SENSORS}."] = failure
    polled = poll(session, DeviceMemory())
    assert polled.misses == {TEMPERATURE: miss}


def test_a_failed_table_is_not_walked_twice_in_a_poll() -> None:
    session = recorded("arista-7150s")
    session.failures[INTERFACES] = SnmpMalformed("OIDs do not increase")
    polled = poll(session, DeviceMemory())
    assert polled.misses == {NETWORK_RECEIVE: Miss.PARSE, NETWORK_TRANSMIT: Miss.PARSE}
    assert sum(facts.IF_TYPE in columns for columns in session.walks) == 1


def test_a_failure_is_counted_under_its_miss_and_is_one_of_ours() -> None:
    kinds = (SnmpTimeout, SnmpAuthFailed, SnmpRefused, SnmpMalformed)
    assert [kind.miss for kind in kinds] == [Miss.TIMEOUT, Miss.AUTH, Miss.REFUSED, Miss.PARSE]
    assert SnmpTimeout("no answer").answered == {}


# --- over the wire -----------------------------------------------------------------------------


def test_recorded_devices_say_the_same_over_udp(tmp_path: Path) -> None:
    async def poll_all(port: int) -> dict[str, tuple[Polled, Polled]]:
        found = {}
        async with FastEngine(EngineSettings(timeout_seconds=10, tries=2)) as engine:
            for name in NAMES:
                memory = DeviceMemory()
                async with engine.session(("127.0.0.1", port), Community(1, name)) as session:
                    first = await poll_values(session, HOST_METRICS, memory)
                    again = await poll_values(session, HOST_METRICS, memory)
                found[name] = first, again
        return found

    with snmpsim(tmp_path, RECORDINGS) as port:
        found = asyncio.run(poll_all(port))
    for name, polls in found.items():
        expected = poll(recorded(name), DeviceMemory())
        assert polls == (expected, expected), name


# --- whatever a device says -------------------------------------------------------------------

ODD_VALUES = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 100, 101, 2**31 - 1, 2**32 - 1, 2**64 - 1, 10**400]),
    st.binary(max_size=8),
    st.sampled_from(["", "1.3.6.1.2.1.25.2.1.2", "1.3.6.1.2.1.25.2.1.4", "10.0.0.1"]),
    st.floats(allow_nan=True, allow_infinity=True),
)
COLUMNS = sorted({column for way in WAYS.values() for column in (*way.asked, *way.known)})
SCALAR_OIDS = sorted({oid for way in WAYS.values() for oid in way.scalars} | set(facts.CLOCKS))
MAKERS = st.sampled_from([*(f"{prefix}1" for prefix in VENDORS), "1.3.6.1.4.1.311.1", ""])
CELLS = st.builds(
    lambda column, index: f"{column}.{index}",
    st.sampled_from(COLUMNS),
    st.sampled_from(["1", "2", "7.1.0.0", "0"]),
)


def check_in_range(polled: Polled, metrics: Sequence[str] = HOST_METRICS) -> None:
    assert set(polled.values) | set(polled.misses) == set(metrics)
    assert not set(polled.values) & set(polled.misses)
    for metric, value in polled.values.items():
        lowest, highest = RANGES[metric]
        assert type(value) is float
        assert lowest <= value <= highest
    assert set(polled.misses.values()) <= {Miss.PARSE, Miss.UNSUPPORTED}


@given(
    variables=st.dictionaries(CELLS | st.sampled_from(SCALAR_OIDS), ODD_VALUES, max_size=60),
    maker=MAKERS,
)
@settings(max_examples=150, deadline=None)
def test_no_answer_crashes_a_poll_or_gives_a_number_out_of_range(
    variables: dict[Oid, SnmpValue], maker: str
) -> None:
    session = RecordedSession({**variables, facts.SYS_OBJECT_ID: maker})
    memory = DeviceMemory()
    for _ in range(3):
        check_in_range(poll(session, memory))
        memory = DeviceMemory.from_json(memory.to_json())


SMALL = ["linux-centos7", "windows-xp", "cisco-c3750", "samsung-camera", "isilon-onefs"]


@given(
    name=st.sampled_from(SMALL),
    changes=st.lists(st.tuples(st.integers(0, 10**6), ODD_VALUES | st.none()), max_size=12),
    later=st.lists(st.tuples(st.integers(0, 10**6), ODD_VALUES | st.none()), max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_a_device_that_begins_to_lie_gives_misses_or_numbers_in_range(
    name: str,
    changes: list[tuple[int, SnmpValue | None]],
    later: list[tuple[int, SnmpValue | None]],
) -> None:
    session, memory = recorded(name), DeviceMemory()
    for lies in (changes, later, []):
        oids = sorted(session.variables)
        for place, value in lies:
            oid = oids[place % len(oids)]
            if value is None:
                session.variables.pop(oid, None)
            else:
                session.variables[oid] = value
        check_in_range(poll(session, memory))


def test_every_way_is_found_by_its_name_and_leads_to_a_metric() -> None:
    for ways in (GENERIC, *VENDORS.values()):
        assert set(ways) == set(HOST_METRICS) - {UPTIME}
        for choices in ways.values():
            assert all(WAYS[way.name] is way for way in choices)
