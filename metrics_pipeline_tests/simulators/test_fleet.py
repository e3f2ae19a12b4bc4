"""The simulated fleet: it changes, stays around its size, and never contradicts itself."""

from __future__ import annotations

import threading
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.simulators.fleet import (
    Fleet,
    FleetSize,
    FleetState,
    make_fleet,
    step,
)

SMALL = FleetSize(devices=6, edge_devices=3, concentrators=2, deployments=2)
sizes = st.builds(
    FleetSize,
    devices=st.integers(0, 8),
    edge_devices=st.integers(0, 5),
    concentrators=st.integers(0, 4),
    deployments=st.integers(0, 3),
)


def counts(state: FleetState) -> tuple[int, int, int, int]:
    edge = sum(device.is_edge for device in state.devices)
    return len(state.devices) - edge, edge, len(state.concentrators), len(state.deployments)


def history(seed: int, size: FleetSize, steps: int) -> list[FleetState]:
    random = Random(seed)
    fleet = make_fleet(size, random)
    states = [fleet.snapshot()]
    for _ in range(steps):
        fleet.step(random)
        states.append(fleet.snapshot())
    return states


@given(size=sizes, seed=st.integers())
def test_a_new_fleet_has_exactly_its_size(size: FleetSize, seed: int) -> None:
    wanted = (size.devices, size.edge_devices, size.concentrators, size.deployments)
    assert counts(make_fleet(size, Random(seed)).snapshot()) == wanted


@given(size=sizes, seed=st.integers())
def test_no_kind_ever_exceeds_twice_its_size(size: FleetSize, seed: int) -> None:
    limits = (2 * size.devices, 2 * size.edge_devices, 2 * size.concentrators, size.deployments)
    for state in history(seed, size, 30):
        assert all(count <= limit for count, limit in zip(counts(state), limits, strict=True))


@given(seed=st.integers())
def test_a_fleet_never_contradicts_itself(seed: int) -> None:
    for state in history(seed, SMALL, 30):
        ids = [device.id for device in state.devices]
        ids += [concentrator.id for concentrator in state.concentrators]
        assert len(ids) == len(set(ids))
        assert all(id_.startswith("simulated-") for id_ in ids)
        assert len({each.eui for each in state.concentrators}) == len(state.concentrators)
        edge_ids = {device.id for device in state.devices if device.is_edge}
        assert all(deployment.failed_on <= edge_ids for deployment in state.deployments)


def test_the_same_seed_gives_the_same_history() -> None:
    assert history(7, SMALL, 50) == history(7, SMALL, 50)
    assert history(7, SMALL, 50) != history(8, SMALL, 50)


def test_everything_that_is_counted_rises_and_falls() -> None:
    def shown(state: FleetState) -> tuple[int, ...]:
        connected = sum(device.is_connected for device in state.devices)
        failures = sum(len(deployment.failed_on) for deployment in state.deployments)
        return (*counts(state)[:3], connected, failures)

    rows = [shown(state) for state in history(1, FleetSize(), 200)]
    for column in zip(*rows, strict=True):
        changes = {later - earlier for earlier, later in pairwise(column)}
        assert min(changes) < 0 < max(changes)


def test_the_size_stays_around_what_was_asked_for() -> None:
    states = history(1, FleetSize(), 2000)
    average = sum(counts(state)[0] for state in states) / len(states)
    assert 30 < average < 50


def test_some_standard_devices_have_a_tag_and_some_have_none() -> None:
    twins = make_fleet(FleetSize(), Random(1)).snapshot().twins()
    tags = {twin["tags"].get("deviceType") for twin in twins}
    assert {None, "LoRa Concentrator"} < tags


def test_an_eui_is_16_hexadecimal_digits() -> None:
    for concentrator in make_fleet(FleetSize(), Random(1)).snapshot().concentrators:
        assert len(concentrator.eui) == 16
        int(concentrator.eui, 16)


def test_a_step_leaves_the_old_state_as_it_was() -> None:
    state = make_fleet(SMALL, Random(1)).snapshot()
    before = repr(state)
    step(state, SMALL, Random(2))
    assert repr(state) == before


def test_a_device_that_leaves_takes_its_failures_along() -> None:
    for state in history(3, FleetSize(edge_devices=2, deployments=3), 200):
        targeted = counts(state)[1]
        for configuration in state.configurations():
            results = configuration["systemMetrics"]["results"]
            assert 0 <= results["reportedFailedCount"] <= targeted
            assert results["reportedSuccessfulCount"] >= 0


def test_snapshots_are_whole_while_another_thread_steps() -> None:
    fleet: Fleet = make_fleet(SMALL, Random(1))
    stop = threading.Event()

    def step_on() -> None:
        random = Random(2)
        while not stop.is_set():
            fleet.step(random)

    thread = threading.Thread(target=step_on)
    thread.start()
    try:
        for _ in range(200):
            state = fleet.snapshot()
            edge_ids = {device.id for device in state.devices if device.is_edge}
            assert all(each.failed_on <= edge_ids for each in state.deployments)
    finally:
        stop.set()
        thread.join()
