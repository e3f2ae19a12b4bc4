"""Which devices a run polls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.device_assets import shard_names
from metrics_pipeline.core.device_rows import DeviceRow
from metrics_pipeline.core.devices import Device
from metrics_pipeline.orchestration.poll_list import list_devices, select_due, wanted_ids
from metrics_pipeline.orchestration.status_grid import StatusGrid
from metrics_pipeline.settings import STATUS_CADENCES_SECONDS
from metrics_pipeline.sources.inventory import DeviceRows
from metrics_pipeline.sources.probe_registry import PROBES

NOON = 1_795_262_400
CADENCES = {"router": 30, "camera": 60}


def device(name: str, device_type: str = "router") -> Device:
    return Device(name, name, "192.0.2.1", device_type, "snmp")


def due_types(at: int, asked: dict[str, int]) -> set[str]:
    """What is due, where types were last asked as `asked` says; they are asked then."""
    devices = [device(kind, kind) for kind in CADENCES]
    due = select_due(devices, at, asked, lambda kind: CADENCES[kind])
    asked.update({each.id: at for each in due})
    return {each.device_type for each in due}


def row(name: str) -> DeviceRow:
    return DeviceRow(name, "192.0.2.1", "snmp")


def slots() -> Sequence[int]:
    return list(StatusGrid(30).slots(NOON))


@pytest.mark.parametrize("every", STATUS_CADENCES_SECONDS)
def test_who_never_was_asked_is_asked(every: int) -> None:
    [first, *_] = StatusGrid(every).slots(NOON)
    assert select_due([device("a")], first, {"b": first}, lambda _: every)


def test_a_slower_type_is_asked_in_every_other_sweep() -> None:
    asked: dict[str, int] = {}
    assert [due_types(at, asked) for at in slots()] == [{"router", "camera"}, {"router"}] * 5


def test_who_was_due_in_a_sweep_left_out_is_asked_in_the_next() -> None:
    first, second, _, fourth, *_ = slots()
    asked: dict[str, int] = {}
    due_types(first, asked)
    assert "camera" not in due_types(second, asked)
    assert "camera" in due_types(fourth, asked)


def test_who_was_asked_by_a_clock_that_was_ahead_does_not_wait_until_it_is_as_late_again() -> None:
    now, *_ = slots()
    asked = dict.fromkeys(CADENCES, now + 365 * 86_400)
    assert due_types(now, asked) == set(CADENCES)
    assert due_types(now, asked) == set()


@given(st.lists(st.text(min_size=1, max_size=9), unique=True, max_size=50), st.integers(2, 9))
def test_every_device_is_in_one_shard(names: list[str], shards: int) -> None:
    rows = DeviceRows(tuple(DeviceRow(name, "192.0.2.1", "snmp") for name in names), {})
    listed = [
        each.id
        for shard in shard_names(shards)
        for each in list_devices(rows, ["snmp"], shard, shards).devices
    ]
    assert sorted(listed) == sorted(names)


@given(st.lists(st.text(min_size=1, max_size=9), unique=True, max_size=50), st.integers(2, 9))
def test_a_shard_lists_the_same_of_what_it_reads_as_of_all(names: list[str], shards: int) -> None:
    for shard in shard_names(shards):
        is_wanted = wanted_ids(shard, shards)
        read = [name for name in names if is_wanted is None or is_wanted(name)]
        listed = [
            list_devices(DeviceRows(tuple(map(row, each)), {}), ["snmp"], shard, shards)
            for each in (read, names)
        ]
        assert listed[0] == listed[1]


def test_shards_are_of_about_the_same_size() -> None:
    rows = DeviceRows(tuple(DeviceRow(f"d{n}", "192.0.2.1", "snmp") for n in range(4000)), {})
    sizes = [len(list_devices(rows, ["snmp"], shard, 4).devices) for shard in shard_names(4)]
    assert min(sizes) > 900


def test_one_shard_is_no_shard() -> None:
    assert list(shard_names(1)) == []


def test_a_device_that_nobody_can_poll_is_not_silently_missing() -> None:
    rows = (DeviceRow("a", "192.0.2.1", "snmp"), DeviceRow("b", "192.0.2.2", "telnet"))
    found = DeviceRows(rows, {"invalid_port": 2}, ("row 3: …",))
    listed = list_devices(found, list(PROBES), "", 1)
    assert [each.id for each in listed.devices] == ["a"]
    assert listed.unusable == {"invalid_port": 2, "unknown_protocol": 1}
    assert list(listed.examples) == ["row 3: …", "1 of protocol 'telnet'"]


def test_what_nobody_can_poll_is_told_by_who_polls_by_all_protocols() -> None:
    rows = (DeviceRow("b", "192.0.2.2", "telnet"),)
    assert list_devices(DeviceRows(rows, {"invalid_port": 2}), ["snmp"], "", 1).unusable == {}


@given(st.text(max_size=9), st.integers(2, 9))
def test_what_nobody_can_poll_is_read_by_one_shard_also_without_an_id(
    name: str, shards: int
) -> None:
    wanted = [wanted_ids(shard, shards) for shard in shard_names(shards)]
    assert sum(is_wanted is None or is_wanted(name) for is_wanted in wanted) == 1
