"""The inventory's tables, made and upgraded in real databases, by several processes at once."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from metrics_pipeline.access import inventory_schema
from metrics_pipeline.access.database import DatabaseSettings, open_engine, open_foreign_engine
from metrics_pipeline.access.inventory_schema import UPGRADES, VERSIONS, upgrade_inventory
from metrics_pipeline.access.inventory_tables import CONCENTRATORS, DEVICES, INVENTORY
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

PROCESSES = 4


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    if request.param == "sqlite":
        return DatabaseSettings(url=f"sqlite:///{tmp_path}/new/inventory.sqlite")
    postgresql = request.getfixturevalue("postgresql")
    file = tmp_path / "password"
    file.write_text(postgresql.password)
    return DatabaseSettings(url=postgresql.plain_url, password=SecretReference(file=file))


@pytest.fixture
def engine(database: DatabaseSettings) -> Iterator[sa.Engine]:
    engine = open_engine(database)
    yield engine
    engine.dispose()


def shape(engine: sa.Engine, table: str) -> list[tuple[Any, ...]]:
    """What the database says of the columns of `table`."""
    columns = sa.inspect(engine).get_columns(table)
    return [
        (c["name"], str(c["type"]), c["nullable"], c["default"], c.get("primary_key"))
        for c in columns
    ]


def versions(engine: sa.Engine) -> list[int]:
    with engine.connect() as connection:
        chosen = sa.select(VERSIONS.c.version).order_by(VERSIONS.c.version)
        return list(connection.execute(chosen).scalars())


def insert(engine: sa.Engine, table: sa.Table, **row: Any) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(row))


def test_an_empty_database_gets_every_version(engine: sa.Engine) -> None:
    assert upgrade_inventory(engine) == len(UPGRADES)
    assert versions(engine) == list(range(1, len(UPGRADES) + 1))
    assert set(sa.inspect(engine).get_table_names()) == {*INVENTORY.tables, VERSIONS.name}


def test_the_upgrades_lead_to_the_tables_of_the_code(engine: sa.Engine) -> None:
    upgrade_inventory(engine)
    upgraded = {name: shape(engine, name) for name in INVENTORY.tables}
    INVENTORY.drop_all(engine)
    INVENTORY.create_all(engine)
    assert upgraded == {name: shape(engine, name) for name in INVENTORY.tables}


def test_upgrading_again_changes_nothing(engine: sa.Engine) -> None:
    upgrade_inventory(engine)
    insert(engine, DEVICES, id="a", ip_address="192.0.2.1", protocol="snmp")
    upgrade_inventory(engine)
    assert versions(engine) == list(range(1, len(UPGRADES) + 1))
    with engine.connect() as connection:
        row = connection.execute(sa.select(DEVICES)).one()
    assert (row.id, row.hostname, row.device_type, row.port) == ("a", "", "unknown", 0)
    assert (row.enabled, row.labels) == (True, {})
    assert row.created_at == row.updated_at


def test_concentrators_of_an_earlier_release_are_kept(engine: sa.Engine) -> None:
    INVENTORY.create_all(engine, tables=[CONCENTRATORS])
    insert(engine, CONCENTRATORS, id="c", name="Roof", eui="00800000A0001234")
    upgrade_inventory(engine)
    with engine.connect() as connection:
        assert connection.execute(sa.select(CONCENTRATORS.c.name)).scalars().all() == ["Roof"]
    assert versions(engine) == list(range(1, len(UPGRADES) + 1))


def test_a_failed_upgrade_leaves_the_version_before(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade_inventory(engine)

    def fail(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half_done (id INTEGER)")
        connection.exec_driver_sql("INSERT INTO nothing_of_that_name VALUES (1)")

    monkeypatch.setattr(inventory_schema, "UPGRADES", (*UPGRADES, fail))
    with pytest.raises(sa.exc.DBAPIError):
        upgrade_inventory(engine)
    assert versions(engine) == list(range(1, len(UPGRADES) + 1))
    assert "half_done" not in sa.inspect(engine).get_table_names()


def test_tables_of_a_later_release_are_left_alone(engine: sa.Engine) -> None:
    upgrade_inventory(engine)
    insert(engine, VERSIONS, version=len(UPGRADES) + 1)
    with pytest.raises(ConfigurationError, match="this release knows 2"):
        upgrade_inventory(engine)


def _upgrade_in_a_process(database: DatabaseSettings, at_once: Any) -> None:
    engine = open_engine(database)
    at_once.wait(timeout=PATIENCE_SECONDS)
    upgrade_inventory(engine)
    engine.dispose()


def test_several_processes_may_upgrade_at_once(database: DatabaseSettings) -> None:
    context = multiprocessing.get_context("forkserver")
    at_once = context.Barrier(PROCESSES)
    others = [
        context.Process(target=_upgrade_in_a_process, args=(database, at_once))
        for _ in range(PROCESSES)
    ]
    for process in others:
        process.start()
    for process in others:
        process.join(timeout=PATIENCE_SECONDS)
    assert [process.exitcode for process in others] == [0] * PROCESSES
    engine = open_engine(database)
    assert versions(engine) == list(range(1, len(UPGRADES) + 1))
    engine.dispose()


def test_an_upgrade_waits_for_one_that_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "inventory.sqlite"
    engine = open_engine(DatabaseSettings(url=f"sqlite:///{file}", busy_timeout_seconds=0.05))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            upgrade_inventory(engine)
        other.execute("COMMIT")
    assert upgrade_inventory(engine) == len(UPGRADES)
    engine.dispose()


def test_an_inventory_that_is_up_to_date_is_only_read(database: DatabaseSettings) -> None:
    engine = open_engine(database)
    upgrade_inventory(engine)
    engine.dispose()
    reader = open_foreign_engine(database)
    assert upgrade_inventory(reader) == len(UPGRADES)
    reader.dispose()
