"""The simulated devices: they go down and come back, and what opens them is in private files."""

from __future__ import annotations

import asyncio
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.access.inventory_schema import upgrade_inventory
from metrics_pipeline.access.inventory_tables import DEVICES
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.devices import (
    HOST_METRICS,
    PING_METRICS,
    UPTIME,
    Device,
    DeviceReading,
    Miss,
)
from metrics_pipeline.core.ports import DeviceProbe
from metrics_pipeline.simulators.device_fleet import (
    DOWN_SECONDS,
    SNMP_CREDENTIAL,
    SSH_KEY_CREDENTIAL,
    SSH_PASSWORD_CREDENTIAL,
    UP_SECONDS,
    Behaviour,
    SimulatedDevice,
    make_devices,
    step,
)
from metrics_pipeline.simulators.device_servers import (
    COMMUNITY_FILE,
    KEY_FILE,
    KNOWN_HOSTS_FILE,
    PASSWORD_FILE,
    serve_device_fleet,
)
from metrics_pipeline.simulators.fleet_inventory import mirror_devices
from metrics_pipeline.simulators.tcp_targets import TcpTargets
from metrics_pipeline.sources.snmp import Snmp
from metrics_pipeline.sources.snmp_settings import SnmpCommunity, SnmpSettings
from metrics_pipeline.sources.ssh import Ssh
from metrics_pipeline.sources.ssh_settings import SshLogin, SshSettings
from metrics_pipeline.sources.tcp_connect import TcpConnect, TcpConnectSettings
from metrics_pipeline_tests import servers
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

STEP_SECONDS = 5.0
UNTRUTHS = {
    Behaviour.LYING: Miss.PARSE,
    Behaviour.WRONG_TYPES: Miss.PARSE,
    Behaviour.CIRCLING: Miss.PARSE,
    Behaviour.WRONG_REQUEST: Miss.TIMEOUT,
    Behaviour.CHANGED_KEY: Miss.AUTH,
}
"""What is not believed, and the reason it is counted under."""
States = list[tuple[SimulatedDevice, ...]]


def history(seed: int, steps: int) -> States:
    random = Random(seed)
    states = [make_devices(random)]
    for _ in range(steps):
        states.append(step(states[-1], STEP_SECONDS, random))
    return states


def times_between_changes(states: States, at: int) -> dict[bool, list[float]]:
    """How long the device at `at` was down (False) and up (True), each time, in seconds."""
    spans: dict[bool, list[float]] = {False: [], True: []}
    is_up, steps = states[0][at].is_up, 0
    for state in states:
        if state[at].is_up == is_up:
            steps += 1
            continue
        spans[is_up].append(steps * STEP_SECONDS)
        is_up, steps = state[at].is_up, 1
    for each in spans.values():
        del each[:1]  # it had begun before we looked
    return spans


# --- what there is ---


@given(st.integers())
def test_there_are_60_devices_with_names_and_addresses_of_their_own(seed: int) -> None:
    devices = [each.device for each in make_devices(Random(seed))]
    assert len(devices) == 60
    for values in (
        {each.id for each in devices},
        {each.hostname for each in devices},
        {each.address for each in devices},
    ):
        assert len(values) == 60
    assert all(each.id.startswith("simulated-") for each in devices)
    assert all(each.address.startswith("127.20.") for each in devices)


def test_each_protocol_has_devices_that_come_and_go_and_dead_ones() -> None:
    found = {(each.device.protocol, each.behaviour) for each in make_devices(Random(1))}
    for protocol in ("snmp", "ssh", "tcp"):
        for behaviour in (Behaviour.HEALTHY, Behaviour.FLAPPING, Behaviour.DEAD):
            assert (protocol, behaviour) in found
    for protocol in ("snmp", "ssh"):
        assert {(protocol, Behaviour.SLOW), (protocol, Behaviour.LYING)} <= found


def test_most_devices_are_well() -> None:
    behaviours = Counter(each.behaviour for each in make_devices(Random(1)))
    assert behaviours[Behaviour.HEALTHY] > 30
    assert 10 <= behaviours[Behaviour.FLAPPING] <= 20


def test_the_same_seed_gives_the_same_history() -> None:
    assert history(7, 50) == history(7, 50)
    assert history(7, 50) != history(8, 50)


# --- what happens ---


def test_only_flapping_devices_change_and_all_of_them_do() -> None:
    states = history(1, 200)
    for at, device in enumerate(states[0]):
        seen = {state[at].is_up for state in states}
        if device.behaviour is Behaviour.FLAPPING:
            assert seen == {True, False}
        else:
            assert seen == {device.behaviour is not Behaviour.DEAD}


def test_a_device_is_down_for_one_or_two_minutes_and_up_for_longer() -> None:
    states = history(2, 500)
    flapping = [i for i, each in enumerate(states[0]) if each.behaviour is Behaviour.FLAPPING]
    for at in flapping:
        spans = times_between_changes(states, at)
        assert spans[False]
        for is_up, limits in ((False, DOWN_SECONDS), (True, UP_SECONDS)):
            for seconds in spans[is_up]:
                assert limits[0] <= seconds <= limits[1] + STEP_SECONDS


def test_a_device_changes_within_the_first_minutes_of_any_fleet() -> None:
    for seed in range(20):
        states = history(seed, 6)
        assert any(old.is_up != new.is_up for old, new in zip(states[0], states[-1], strict=True))


def test_counters_grow_unless_a_device_has_restarted() -> None:
    states = history(3, 300)
    restarts = 0
    for before, after in pairwise(states):
        for old, new in zip(before, after, strict=True):
            grows = new.figures.uptime_seconds > old.figures.uptime_seconds
            restarts += not grows
            assert grows or (new.is_up and not old.is_up)
            assert not grows or new.figures.received_bytes >= old.figures.received_bytes
    assert restarts > 0


@settings(max_examples=20)
@given(st.integers())
def test_figures_stay_possible(seed: int) -> None:
    for state in history(seed, 20):
        for device in state:
            for name, value in device.figures.values().items():
                assert value >= 0, name
                assert value <= 100 or not name.endswith("_percent")


# --- in the inventory ---


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_engine(DatabaseSettings(url=f"sqlite:///{tmp_path}/inventory.sqlite"))
    yield engine
    engine.dispose()


def rows(inventory: sa.Engine) -> Mapping[str, sa.Row[tuple[object, ...]]]:
    with inventory.connect() as connection:
        return {row.id: row for row in connection.execute(sa.select(DEVICES))}


def test_the_operators_rows_are_left_alone(inventory: sa.Engine) -> None:
    upgrade_inventory(inventory)
    own = {"id": "core-1", "ip_address": "127.20.1.1", "protocol": "snmp", "port": 1161}
    with inventory.begin() as connection:
        connection.execute(sa.insert(DEVICES), [own])
    before = rows(inventory)["core-1"]
    devices = make_devices(Random(1))
    mirror_devices(inventory, devices)
    assert len(rows(inventory)) == 61
    mirror_devices(inventory, devices[:2])
    assert sorted(rows(inventory)) == ["core-1", *(each.device.id for each in devices[:2])]
    mirror_devices(inventory, [])
    assert rows(inventory) == {"core-1": before}


def test_a_device_that_was_disabled_stays_so_and_gets_its_new_port(inventory: sa.Engine) -> None:
    first, second = make_devices(Random(1))[:2]
    mirror_devices(inventory, [first, second])
    with inventory.begin() as connection:
        is_first = DEVICES.c.id == first.device.id
        connection.execute(sa.update(DEVICES).where(is_first).values(enabled=False))
    before = rows(inventory)
    mirror_devices(inventory, [replace(first, device=replace(first.device, port=9)), second])
    after = rows(inventory)
    assert (after[first.device.id].enabled, after[first.device.id].port) == (False, 9)
    assert after[second.device.id] == before[second.device.id]


# --- on the wire ---


def test_a_target_that_is_down_gives_no_sign_and_comes_back() -> None:
    address = "127.20.201.1"
    with TcpTargets([address, "127.20.201.2"]) as targets:
        device = Device("id", "", address, "camera", "tcp", targets.port)

        def is_up() -> bool:
            settings = TcpConnectSettings(timeout_seconds=0.3, tries=1)
            return poll(TcpConnect(settings), device).is_up

        assert is_up()
        for _ in range(2):
            targets.set_up(address, False)
        assert not is_up()
        for _ in range(2):
            targets.set_up(address, True)
        assert is_up()


def poll(probe: DeviceProbe, device: Device) -> DeviceReading:
    async def ask() -> DeviceReading:
        async with probe:
            metrics = PING_METRICS if device.protocol == "tcp" else HOST_METRICS
            return await probe.poll(device, metrics)

    return asyncio.run(ask())


def probe_of(protocol: str, directory: Path) -> DeviceProbe:
    """The probe with the credentials that the served fleet has written."""
    if protocol == "tcp":
        return TcpConnect(TcpConnectSettings(timeout_seconds=0.3, tries=1))
    if protocol == "snmp":
        community = SecretReference(file=directory / COMMUNITY_FILE)
        return Snmp(
            SnmpSettings(timeout_seconds=1, tries=1),
            {SNMP_CREDENTIAL: SnmpCommunity(community=community)},
        )
    password = SecretReference(file=directory / PASSWORD_FILE)
    return Ssh(
        SshSettings(
            known_hosts=directory / KNOWN_HOSTS_FILE,
            connect_timeout_seconds=0.5,
            cpu_window_seconds=0.1,
        ),
        {
            SSH_KEY_CREDENTIAL: SshLogin(user="u", key_file=directory / KEY_FILE),
            SSH_PASSWORD_CREDENTIAL: SshLogin(user="u", password=password),
        },
    )


async def poll_all(devices: list[Device], directory: Path) -> dict[str, DeviceReading]:
    async def poll_some(protocol: str) -> list[DeviceReading]:
        these = [each for each in devices if each.protocol == protocol]
        metrics = PING_METRICS if protocol == "tcp" else HOST_METRICS
        async with probe_of(protocol, directory) as probe:
            return await asyncio.gather(*(probe.poll(each, metrics) for each in these))

    found = await asyncio.gather(*map(poll_some, ("snmp", "ssh", "tcp")))
    return {reading.device_id: reading for some in found for reading in some}


def devices_in(inventory: sa.Engine) -> list[Device]:
    return [
        Device(
            id=row.id,
            hostname=row.hostname,
            address=row.ip_address,
            device_type=row.device_type,
            protocol=row.protocol,
            port=row.port,
            credential=row.credential,
            labels=row.labels,
        )
        for row in rows(inventory).values()
    ]


def test_a_served_fleet_can_be_polled_with_what_it_wrote(
    tmp_path: Path, inventory: sa.Engine
) -> None:
    directory = tmp_path / "simulator"
    with serve_device_fleet(directory=directory, inventory=inventory, step_seconds=3600, seed=1):
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        readings = asyncio.run(poll_all(devices_in(inventory), directory))
    simulated = {each.device.id: each for each in make_devices(Random(1))}
    assert set(readings) == set(simulated)
    for id_, reading in readings.items():
        each = simulated[id_]
        assert reading.is_up == (each.is_up and each.behaviour is not Behaviour.WRONG_REQUEST)
        if not reading.is_up:
            assert reading.reason is Miss.TIMEOUT
        elif each.behaviour not in UNTRUTHS:
            assert set(reading.misses.values()) <= {Miss.UNSUPPORTED}
            assert len(reading.values) >= 2


def test_each_untruth_has_its_reason(tmp_path: Path, inventory: sa.Engine) -> None:
    with serve_device_fleet(directory=tmp_path, inventory=inventory, step_seconds=3600, seed=1):
        liars = [each for each in devices_in(inventory) if each.labels["behaviour"] in UNTRUTHS]
        readings = asyncio.run(poll_all(liars, tmp_path))
    assert {each.labels["behaviour"] for each in liars} == set(UNTRUTHS)
    for each in liars:
        reading, reason = readings[each.id], UNTRUTHS[Behaviour(each.labels["behaviour"])]
        assert reason in reading.misses.values(), reading
        assert set(reading.misses.values()) <= {reason, Miss.UNSUPPORTED}
        for name, value in reading.values.items():
            assert 0 <= value <= 100 or not name.endswith("_percent")


def test_a_host_whose_key_has_changed_is_told_from_one_that_lies(
    tmp_path: Path, inventory: sa.Engine
) -> None:
    device, reading = poll_one(tmp_path, inventory, Behaviour.CHANGED_KEY)
    assert (reading.is_up, reading.reason, reading.values) == (True, Miss.AUTH, {})
    assert f"ssh-keygen -R '[{device.address}]:{device.port}'" in reading.detail


def test_replies_to_other_requests_are_told_of(tmp_path: Path, inventory: sa.Engine) -> None:
    _, reading = poll_one(tmp_path, inventory, Behaviour.WRONG_REQUEST)
    assert (reading.is_up, reading.reason, reading.values) == (False, Miss.TIMEOUT, {})
    assert "and 1 to other requests" in reading.detail


@pytest.mark.parametrize("protocol", ["snmp", "ssh"])
def test_a_clock_that_is_a_year_behind_changes_no_figure(
    tmp_path: Path, inventory: sa.Engine, protocol: str
) -> None:
    device, reading = poll_one(tmp_path, inventory, Behaviour.WRONG_CLOCK, protocol)
    simulated = next(each for each in make_devices(Random(1)) if each.device.id == device.id)
    assert reading.misses == {}
    # Within 0.1 s, a host with SSH counts ten ticks of its processor.
    figures = simulated.figures.values()
    assert reading.values == pytest.approx(figures, abs=10 if protocol == "ssh" else 0.51)
    assert reading.values[UPTIME] == pytest.approx(simulated.figures.uptime_seconds, abs=0.01)


def poll_one(
    directory: Path, inventory: sa.Engine, behaviour: Behaviour, protocol: str = ""
) -> tuple[Device, DeviceReading]:
    """The first device of this behaviour, and what a poll of it gives."""
    with serve_device_fleet(directory=directory, inventory=inventory, step_seconds=3600, seed=1):
        device = next(
            each
            for each in devices_in(inventory)
            if each.labels["behaviour"] == behaviour
            and each.protocol in {protocol or each.protocol}
        )
        return device, poll(probe_of(device.protocol, directory), device)


def test_a_served_fleet_changes_while_it_is_polled(tmp_path: Path, inventory: sa.Engine) -> None:
    with serve_device_fleet(directory=tmp_path, inventory=inventory, step_seconds=0.05, seed=1):
        device = next(each for each in devices_in(inventory) if each.protocol == "snmp")
        first = poll(probe_of("snmp", tmp_path), device).values
        assert first
        servers.wait_until(
            lambda: poll(probe_of("snmp", tmp_path), device).values != first, "it changes"
        )


def test_a_served_fleet_can_be_started_again(tmp_path: Path, inventory: sa.Engine) -> None:
    for _ in range(2):
        with serve_device_fleet(directory=tmp_path, inventory=inventory, step_seconds=9, seed=1):
            device = next(each for each in devices_in(inventory) if each.protocol == "tcp")
            assert poll(probe_of("tcp", tmp_path), device).is_up
    assert len(rows(inventory)) == 60


def test_a_locked_inventory_gets_its_devices_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/locked.sqlite"
    engine = sa.create_engine(url, connect_args={"timeout": 0.01})
    patient = sa.create_engine(url, connect_args={"timeout": PATIENCE_SECONDS})
    upgrade_inventory(engine)
    try:
        with engine.connect() as blocker:
            blocker.exec_driver_sql("BEGIN EXCLUSIVE")
            with serve_device_fleet(
                directory=tmp_path, inventory=engine, step_seconds=0.05, seed=1
            ):
                assert "database is locked" in caplog.text
                blocker.rollback()
                servers.wait_until(lambda: len(rows(patient)) == 60, "the devices are there")
    finally:
        engine.dispose()
        patient.dispose()
