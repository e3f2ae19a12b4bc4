"""Device polls through Dagster: from an inventory of simulated devices to latest values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import open_engine
from metrics_pipeline.access.inventory_tables import DEVICES
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.device_assets import SNMP, SSH, STATUS
from metrics_pipeline.core.points import Point
from metrics_pipeline.orchestration.assets.devices import build_device_assets
from metrics_pipeline.orchestration.resources import build_resources
from metrics_pipeline.settings import Settings
from metrics_pipeline.simulators.device_fleet import Behaviour, make_devices
from metrics_pipeline.simulators.device_servers import serve_device_fleet
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline_tests.orchestration.pipeline import failure_text


@dataclass(slots=True)
class Polls:
    """Runs single assets, and looks at what they left."""

    settings: Settings
    instance: dg.DagsterInstance

    def run(self, key: str) -> dg.ExecuteInProcessResult:
        """One run; a status run sweeps once, now."""
        assets = build_device_assets(self.settings, grid=lambda now: [int(now)])
        wanted = [asset for asset in assets if asset.key == dg.AssetKey.from_user_string(key)]
        return dg.materialize(
            wanted,
            instance=self.instance,
            resources=dict(build_resources(self.settings)),
            raise_on_error=False,
        )

    def latest(self, key: str) -> tuple[Point, ...]:
        """What the exporter would show of the asset."""
        writer = open_writer(self.settings.store, self.settings.operational_database, CATALOG)
        try:
            snapshot = writer.latest(key)
        finally:
            writer.close()
        return snapshot.points if snapshot else ()

    def metadata(self, key: str) -> dict[str, Any]:
        """Of the asset's last materialization."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey.from_user_string(key))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}

    def change(self, statement: sa.Executable) -> None:
        """Change the inventory."""
        engine = open_engine(self.settings.source("inventory").database)  # type: ignore[union-attr]
        with engine.begin() as connection:
            connection.execute(statement)
        engine.dispose()


@contextmanager
def polls(folder: Path, **sweeps: Any) -> Iterator[Polls]:
    """The simulated devices, served and in the inventory."""
    settings = make_settings(folder, **sweeps)
    inventory = open_engine(settings.source("inventory").database)  # type: ignore[union-attr]
    with (
        serve_device_fleet(
            directory=folder / "devices", inventory=inventory, step_seconds=3600, seed=1
        ),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        yield Polls(settings, instance)
    inventory.dispose()


def make_settings(folder: Path, **sweeps: Any) -> Settings:
    polling = {
        "enabled": True,
        "status_by": "protocol",
        "snmp": {
            "timeout_seconds": 1,
            "tries": 1,
            "credentials": {"simulated-snmp": {"community": {"file": "devices/snmp_community"}}},
        },
        "ssh": {
            "known_hosts": "devices/known_hosts",
            "credentials": {
                "simulated-ssh-key": {"user": "metrics", "key_file": "devices/ssh_key"},
                "simulated-ssh-password": {
                    "user": "metrics",
                    "password": {"file": "devices/ssh_password"},
                },
            },
        },
        **sweeps,
    }
    document = {
        "version": 1,
        "sources": {"inventory": {"database": {"url": "sqlite:///inventory.sqlite"}}},
        "polling": polling,
    }
    return Settings.model_validate(document, context={STATE_DIR_KEY: folder})


def test_every_device_of_the_inventory_has_a_status(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        result = it.run(STATUS)
        points = it.latest(STATUS)
        metadata = it.metadata(STATUS)
    assert result.success
    assert len({point.tags["device_id"] for point in points}) == metadata["devices"] == 60
    assert {point.fields["status"] for point in points} == {"online", "offline"}
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks["every_device_has_a_result"]
    assert checks["values_are_in_range"]


@pytest.mark.parametrize(("key", "protocol"), [(SNMP, "snmp"), (SSH, "ssh")])
def test_metrics_of_devices_reach_the_latest_values(
    tmp_path: Path, key: str, protocol: str
) -> None:
    with polls(tmp_path) as it:
        assert it.run(key).success
        names = {point.tags["metric_name"] for point in it.latest(key)}
        metadata = it.metadata(key)
    assert {"uptime_seconds", "memory_utilization_percent"} <= names
    assert metadata["points_stored"] == len(it.latest(key))
    assert metadata["devices_complete"] > metadata["devices"] / 2


@pytest.mark.parametrize(
    ("key", "counted"),
    [
        (SNMP, {Behaviour.LYING: "partial", Behaviour.CIRCLING: "partial"}),
        (SNMP, {Behaviour.WRONG_TYPES: "parse", Behaviour.WRONG_REQUEST: "timeout"}),
        (SSH, {Behaviour.LYING: "parse", Behaviour.CHANGED_KEY: "auth"}),
        (SSH, {Behaviour.DEAD: "timeout", Behaviour.WRONG_CLOCK: "complete"}),
    ],
)
def test_each_device_that_lies_is_counted_with_its_reason_and_costs_no_other(
    tmp_path: Path, key: str, counted: dict[Behaviour, str]
) -> None:
    protocol = "snmp" if key == SNMP else "ssh"
    everybody = [each for each in make_devices(Random(1)) if each.device.protocol == protocol]
    some = [e for e in everybody if e.behaviour in {Behaviour.HEALTHY, *counted}]
    with polls(tmp_path) as it:
        it.change(sa.delete(DEVICES).where(DEVICES.c.id.not_in([e.device.id for e in some])))
        assert it.run(key).success
        metadata = it.metadata(key)
    expected = Counter(counted.get(each.behaviour, "complete") for each in some)
    found = {name.removeprefix("devices_"): n for name, n in metadata.items() if "devices_" in name}
    assert found == dict(expected)
    assert metadata["devices"] == len(some)


def test_a_device_that_is_disabled_or_gone_is_neither_asked_nor_shown(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        it.change(sa.update(DEVICES).values(enabled=False).where(DEVICES.c.protocol != "tcp"))
        assert it.run(STATUS).success
        assert len(it.latest(STATUS)) == 10


def test_half_of_the_fleet_dead_is_a_result_and_a_warning(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        nobody = sa.update(DEVICES).values(port=9).where(DEVICES.c.protocol == "snmp")
        it.change(nobody)
        result = it.run(STATUS)
        offline = [p for p in it.latest(STATUS) if p.fields["status"] == "offline"]
    assert result.success
    assert len(offline) >= 40
    checks = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert not checks["few_devices_are_silent"].passed
    assert checks["few_devices_are_silent"].severity is dg.AssetCheckSeverity.WARN


def test_a_credential_that_is_not_there_costs_its_devices_and_no_others(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        (tmp_path / "devices" / "snmp_community").unlink()
        assert it.run(SNMP).success
        assert it.latest(SNMP) == ()
        assert it.metadata(SNMP)["devices_credential"] == 40
        assert it.run(SSH).success
        assert it.latest(SSH) != ()


def test_an_inventory_that_cannot_be_read_fails_the_step_and_the_values_stay(
    tmp_path: Path,
) -> None:
    with polls(tmp_path) as it:
        it.run(SSH)
        before = it.latest(SSH)
        it.change(sa.text("ALTER TABLE devices RENAME TO elsewhere"))
        result = it.run(SSH)
        assert not result.success
        assert it.latest(SSH) == before
    assert "inventory: reading" in failure_text(result)


def test_a_store_that_is_gone_fails_the_step_in_words(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        (tmp_path / "embedded.sqlite").mkdir()
        result = it.run(SSH)
    assert not result.success
    assert "embedded store" in failure_text(result)


def test_what_a_probe_learned_is_there_in_the_next_run(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        it.run(SNMP)
        writer = open_writer(it.settings.store, it.settings.operational_database, CATALOG)
        memories = writer.load_memories("snmp")
        writer.close()
        assert len(memories) > 20
        assert it.run(SNMP).success
