"""What devices are called, kept beside the snapshot of the asset that polls them."""

from __future__ import annotations

from contextlib import closing

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.points import Point
from metrics_pipeline.storage import device_labels, snapshots
from metrics_pipeline.storage.device_labels import LabelledSnapshot
from metrics_pipeline.storage.operational import DEVICE_LABELS, OperationalDatabase

ASSET = "devices/snmp_metrics"
POINT = Point(
    "device_metrics", {"device_id": "a", "metric_name": "uptime_seconds"}, {"value": 1}, 1
)
TEXT = st.text(st.characters(codec=None), max_size=8)


def device(name: str, hostname: str = "core.example", kind: str = "router") -> Device:
    return Device(name, hostname, "192.0.2.1", kind, "snmp")


def sweep(database: OperationalDatabase, *devices: Device, asset: str = ASSET) -> None:
    """What one sweep leaves."""
    with database.writing() as connection:
        snapshots.replace(connection, asset, (POINT,), 7)
        device_labels.replace(connection, asset, devices)


def rename(database: OperationalDatabase, *devices: Device) -> None:
    with database.writing() as connection:
        device_labels.replace(connection, ASSET, devices)


def changed(
    database: OperationalDatabase, known: dict[str, device_labels.State] | None = None
) -> list[LabelledSnapshot]:
    with database.reading() as connection:
        return device_labels.find_changed(connection, [ASSET], known or {})


def names(found: LabelledSnapshot) -> dict[str, tuple[str, str]]:
    assert found.labels is not None
    return device_labels.decode(found.labels)


@given(st.dictionaries(TEXT, st.tuples(TEXT, TEXT), max_size=5))
def test_labels_come_back_as_they_were(labels: dict[str, tuple[str, str]]) -> None:
    assert device_labels.decode(device_labels.encode(labels)) == labels
    backwards = dict(reversed(labels.items()))
    assert device_labels.encode(backwards) == device_labels.encode(labels)


def test_what_a_sweep_leaves_is_found_with_its_snapshot(operational: OperationalDatabase) -> None:
    sweep(operational, device("a"), device("b", "edge.example", "switch"))
    [found] = changed(operational)
    assert (found.asset, found.updated_at_ns, found.complete_at_ns) == (ASSET, 7, 7)
    assert snapshots.decode(found.body) == (POINT,)
    assert names(found) == {"a": ("core.example", "router"), "b": ("edge.example", "switch")}


def test_a_device_that_was_not_asked_again_is_gone(operational: OperationalDatabase) -> None:
    sweep(operational, device("a"), device("b"))
    sweep(operational, device("b"))
    [found] = changed(operational)
    assert set(names(found)) == {"b"}


def test_what_has_not_changed_is_not_found_again(operational: OperationalDatabase) -> None:
    sweep(operational, device("a"))
    [found] = changed(operational)
    assert changed(operational, {ASSET: found.state}) == []
    rename(operational, device("a"))
    assert changed(operational, {ASSET: found.state}) == []


def test_a_new_value_and_a_new_name_are_both_a_change(operational: OperationalDatabase) -> None:
    sweep(operational, device("a"))
    [first] = changed(operational)
    sweep(operational, device("a"))
    [second] = changed(operational, {ASSET: first.state})
    rename(operational, device("a", "renamed.example"))
    [third] = changed(operational, {ASSET: second.state})
    assert names(third) == {"a": ("renamed.example", "router")}


def test_a_snapshot_without_labels_is_found_without(operational: OperationalDatabase) -> None:
    with operational.writing() as connection:
        snapshots.merge(connection, ASSET, (POINT,), 7)
    [found] = changed(operational)
    assert (found.labels, found.state, found.complete_at_ns) == (None, (1, ""), None)


def test_other_assets_are_left_alone(operational: OperationalDatabase) -> None:
    sweep(operational, device("a"))
    sweep(operational, device("b"), asset="devices/ssh_metrics")
    [found] = changed(operational)
    assert set(names(found)) == {"a"}
    with operational.reading() as connection:
        assert device_labels.find_changed(connection, [], {}) == []


def test_a_transaction_that_fails_changes_neither_values_nor_names(
    operational: OperationalDatabase,
) -> None:
    sweep(operational, device("a"))
    before = changed(operational)
    with pytest.raises(ZeroDivisionError):
        _sweep_and_fail(operational)
    assert changed(operational) == before


def _sweep_and_fail(database: OperationalDatabase) -> None:
    with database.writing() as connection:
        snapshots.replace(connection, ASSET, (), 8)
        device_labels.replace(connection, ASSET, [device("b")])
        raise ZeroDivisionError


def test_a_database_of_before_gets_the_table(
    settings: DatabaseSettings, operational: OperationalDatabase
) -> None:
    sweep(operational, device("a"))
    with operational.writing() as connection:
        connection.execute(sa.schema.DropTable(DEVICE_LABELS))
    with closing(OperationalDatabase(settings)) as upgraded:
        [found] = changed(upgraded)
        assert found.labels is None
        sweep(upgraded, device("a"))
        assert set(names(changed(upgraded)[0])) == {"a"}
