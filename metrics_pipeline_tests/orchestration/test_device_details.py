"""Interfaces and disks one by one, through Dagster: into the store, and not onto the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from metrics_pipeline.access.database import open_engine
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.devices import (
    DETAILS,
    DISK_USAGE,
    DISKS,
    INTERFACES,
    NETWORK_RECEIVE,
    NETWORK_TRANSMIT,
)
from metrics_pipeline.core.points import Point
from metrics_pipeline.orchestration.assets.devices import build_device_assets
from metrics_pipeline.orchestration.resources import build_resources
from metrics_pipeline.settings import Settings
from metrics_pipeline.simulators.device_servers import serve_device_fleet
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.open import open_writer

SNMP, SSH = "devices/snmp_metrics", "devices/ssh_metrics"
KEY = {"user": "metrics", "key_file": "devices/ssh_key"}
PASSWORD = {"user": "metrics", "password": {"file": "devices/ssh_password"}}
COMMUNITY = {"community": {"file": "devices/snmp_community"}}


def settings_with(folder: Path, details: list[str]) -> Settings:
    document: dict[str, Any] = {
        "version": 1,
        "sources": {"inventory": {"database": {"url": "sqlite:///inventory.sqlite"}}},
        "polling": {
            "enabled": True,
            "details": details,
            "snmp": {"timeout_seconds": 1, "credentials": {"simulated-snmp": COMMUNITY}},
            "ssh": {
                "known_hosts": "devices/known_hosts",
                "credentials": {"simulated-ssh-key": KEY, "simulated-ssh-password": PASSWORD},
            },
        },
    }
    return Settings.model_validate(document, context={STATE_DIR_KEY: folder})


@contextmanager
def fleet(folder: Path, settings: Settings) -> Iterator[None]:
    """The simulated devices, served and in the inventory."""
    inventory = open_engine(settings.source("inventory").database)  # type: ignore[union-attr]
    served = folder / "devices"
    with serve_device_fleet(directory=served, inventory=inventory, step_seconds=3600, seed=1):
        yield
    inventory.dispose()


def materialize(settings: Settings, key: str, times: int = 1) -> dict[str, Any]:
    """Run the asset; gives the metadata of the last run."""
    wanted = dg.AssetKey.from_user_string(key)
    assets = [asset for asset in build_device_assets(settings) if asset.key == wanted]
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(times):
            resources = dict(build_resources(settings))
            result = dg.materialize(assets, instance=instance, resources=resources)
    [event] = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    return {name: value.value for name, value in metadata.items()}


def stored(settings: Settings, measurement: str) -> list[Point]:
    """The points of the last run in the history."""
    assert isinstance(settings.store, EmbeddedStoreSettings)
    store = EmbeddedStore(settings.store)
    try:
        points = store.read(measurement, 0, 2**63 - 1)
    finally:
        store.close()
    last_ns = max((point.time_ns for point in points), default=0)
    return [point for point in points if point.time_ns == last_ns]


def shown(settings: Settings, key: str) -> tuple[Point, ...]:
    """What the exporter is given of the asset."""
    writer = open_writer(settings.store, settings.operational_database, CATALOG)
    try:
        snapshot = writer.latest(key)
    finally:
        writer.close()
    return snapshot.points if snapshot else ()


@pytest.mark.parametrize(("key", "times"), [(SNMP, 1), (SNMP, 2), (SSH, 1)])
def test_rows_of_detail_reach_the_store_and_add_up_to_what_is_shown(
    tmp_path: Path, key: str, times: int
) -> None:
    settings = settings_with(tmp_path, ["interfaces", "disks"])
    with fleet(tmp_path, settings):
        metadata = materialize(settings, key, times)
    points = shown(settings, key)
    whole = {(p.tags["device_id"], p.tags["metric_name"]): p.fields["value"] for p in points}
    for table, metrics in (
        (INTERFACES, [NETWORK_RECEIVE, NETWORK_TRANSMIT]),
        (DISKS, [DISK_USAGE]),
    ):
        rows = stored(settings, table)
        parts: dict[tuple[str, str], list[float]] = {}
        for point in rows:
            series = point.tags["device_id"], point.tags["metric_name"]
            parts.setdefault(series, []).append(float(point.fields["value"]))
        total = max if table == DISKS else sum
        assert {series: total(values) for series, values in parts.items()} == {
            series: value for series, value in whole.items() if series[1] in metrics
        }
        assert all(point.tags["name"] for point in rows)
    detail = [point for table in DETAILS for point in stored(settings, table)]
    assert metadata["points_stored"] == len(points) + len(detail)
    assert metadata["points_rejected"] == 0


def test_the_latest_values_have_no_rows_of_detail(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, ["interfaces", "disks"])
    with fleet(tmp_path, settings):
        materialize(settings, SSH)
    assert {point.measurement for point in shown(settings, SSH)} == {"device_metrics"}


def test_only_the_table_that_is_asked_for_is_stored(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, ["disks"])
    with fleet(tmp_path, settings):
        materialize(settings, SSH)
    assert {point.tags["name"] for point in stored(settings, DISKS)} == {"/"}
    assert stored(settings, INTERFACES) == []


def test_without_the_setting_no_row_of_detail_is_stored(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, [])
    with fleet(tmp_path, settings):
        materialize(settings, SSH)
    assert shown(settings, SSH)
    assert [stored(settings, table) for table in DETAILS] == [[], []]
