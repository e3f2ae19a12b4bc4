"""Concentrators counted and devices read in real databases, and what is said when that fails."""

from __future__ import annotations

import socket
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.access.inventory_schema import UPGRADES, VERSIONS, upgrade_inventory
from metrics_pipeline.access.inventory_tables import CONCENTRATORS, DEVICES, INVENTORY
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.catalog import CONCENTRATOR_COUNT, DEVICE_COUNT
from metrics_pipeline.core.device_rows import COLUMNS
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.errors import (
    CredentialRefused,
    SourceError,
    SourceRefused,
    SourceUnreachable,
)
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sources.inventory import (
    NAME,
    DeviceRows,
    DeviceTableSettings,
    Inventory,
    InventorySettings,
)
from metrics_pipeline_tests.engines import engine_of
from metrics_pipeline_tests.postgresql import PostgresqlDatabase, PostgresqlServer

TIME_NS = 1_700_000_000_000_000_000
SECRET = "not-the-password-of-anybody"


def on_sqlite(folder: Path, **changes: Any) -> DatabaseSettings:
    return DatabaseSettings(url=f"sqlite:///{folder}/inventory.sqlite", **changes)


def on_postgresql(
    database: PostgresqlDatabase, folder: Path, password: str | None = None, **changes: Any
) -> DatabaseSettings:
    file = folder / "password"
    file.write_text(password or database.password)
    return DatabaseSettings(
        **{"url": database.plain_url, "password": SecretReference(file=file), **changes}
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    if request.param == "sqlite":
        return on_sqlite(tmp_path)
    return on_postgresql(request.getfixturevalue("postgresql"), tmp_path)


@contextmanager
def opened(database: DatabaseSettings) -> Iterator[Inventory]:
    with closing(Inventory(InventorySettings(database=database))) as inventory:
        yield inventory


def read(database: DatabaseSettings) -> Reading:
    with opened(database) as inventory:
        return inventory.read([CONCENTRATOR_COUNT], TIME_NS)


def failure(database: DatabaseSettings) -> SourceError:
    reading = read(database)
    assert reading.points == ()
    (failure,) = reading.failures
    assert (failure.source, failure.target) == (NAME, "concentrator_count")
    return failure


def list_concentrators(database: DatabaseSettings, count: int, disabled: int = 0) -> None:
    """Make the table hold `count` concentrators, `disabled` of which are not enabled."""
    rows = [
        {"id": f"c{n}", "name": f"C {n}", "eui": f"{n:016X}", "enabled": n >= disabled}
        for n in range(count)
    ]
    engine = open_engine(database)
    INVENTORY.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.delete(CONCENTRATORS))
        if rows:
            connection.execute(sa.insert(CONCENTRATORS), rows)
    engine.dispose()


# --- tables of another release --------------------------------------------------------------------


def test_tables_of_a_later_release_are_refused_and_another_s_are_not_asked(
    database: DatabaseSettings,
) -> None:
    with engine_of(database) as engine:
        upgrade_inventory(engine)
        list_concentrators(database, 3)
        assert read(database).points[0].fields == {"concentrator_count": 3}
        with engine.begin() as connection:
            connection.execute(sa.insert(VERSIONS).values(version=len(UPGRADES) + 1))
    found = failure(database)
    assert isinstance(found, SourceRefused)
    says = f"of version {len(UPGRADES) + 1}, and this release knows {len(UPGRADES)}"
    assert says in found.problem
    with opened(database) as inventory, pytest.raises(SourceRefused, match=says):
        inventory.read_device_rows()
    with opened(database) as inventory, pytest.raises(SourceRefused, match=says):
        inventory.read_rows_at_one_place()
    mapped = DeviceTableSettings(
        table="devices", columns={"id": "id", "ip_address": "ip_address", "protocol": "protocol"}
    )
    with closing(Inventory(InventorySettings(database=database, devices=mapped))) as inventory:
        assert inventory.read_device_rows().rows == ()


# --- counting -------------------------------------------------------------------------------------


def test_a_count_falls_and_the_next_reading_follows(database: DatabaseSettings) -> None:
    with opened(database) as inventory:
        for count in (15, 8, 0):
            list_concentrators(database, count)
            assert inventory.read([CONCENTRATOR_COUNT], TIME_NS) == Reading(
                (Point("fleet_counts", {"provider": NAME}, {"concentrator_count": count}, TIME_NS),)
            )


def test_a_disabled_concentrator_is_still_registered(database: DatabaseSettings) -> None:
    list_concentrators(database, 5, disabled=2)
    assert read(database).points[0].fields == {"concentrator_count": 5}


def test_nothing_asked_is_nothing_read(database: DatabaseSettings) -> None:
    with opened(database) as inventory:
        assert inventory.read([], TIME_NS) == Reading(())


def test_a_metric_of_another_source_is_a_failure_and_costs_no_other(
    database: DatabaseSettings,
) -> None:
    list_concentrators(database, 3)
    with opened(database) as inventory:
        reading = inventory.read([DEVICE_COUNT, CONCENTRATOR_COUNT], TIME_NS)
    assert [point.fields for point in reading.points] == [{"concentrator_count": 3}]
    assert [failure.target for failure in reading.failures] == ["device_count"]


def test_a_table_that_is_not_there_is_refused_and_not_made(database: DatabaseSettings) -> None:
    list_concentrators(database, 0)
    engine = open_engine(database)
    INVENTORY.drop_all(engine)
    error = failure(database)
    assert type(error) is SourceRefused
    assert "concentrators" in error.problem
    assert error.fix == "Create the table, or name the right database."
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


# --- SQLite ---------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_unreachable_and_not_made(tmp_path: Path) -> None:
    error = failure(on_sqlite(tmp_path / "new"))
    assert type(error) is SourceUnreachable
    assert f"{tmp_path}/new/inventory.sqlite: unable to open database file" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inventory.sqlite").write_text("This is no database. " * 100)
    error = failure(on_sqlite(tmp_path))
    assert type(error) is SourceRefused
    assert "file is not a database" in error.problem


def test_a_folder_in_the_place_of_the_file_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "inventory.sqlite").mkdir()
    assert type(failure(on_sqlite(tmp_path))) is SourceUnreachable


def test_a_file_that_somebody_locks_is_unreachable_after_a_while(tmp_path: Path) -> None:
    database = on_sqlite(tmp_path, busy_timeout_seconds=0.05)
    list_concentrators(database, 3)
    with closing(sqlite3.connect(tmp_path / "inventory.sqlite")) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        error = failure(database)
    assert type(error) is SourceUnreachable
    assert "database is locked" in error.problem
    assert read(database).failures == ()


def test_reading_does_not_wait_for_somebody_who_writes(tmp_path: Path) -> None:
    database = on_sqlite(tmp_path, busy_timeout_seconds=0.05)
    list_concentrators(database, 3)
    with closing(sqlite3.connect(tmp_path / "inventory.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM concentrators")
        assert read(database).points[0].fields == {"concentrator_count": 3}


# --- PostgreSQL -----------------------------------------------------------------------------------


@pytest.fixture
def reader(
    postgresql: PostgresqlDatabase, postgresql_server: PostgresqlServer, tmp_path: Path
) -> Iterator[DatabaseSettings]:
    """Settings of a user who may connect, and no more; the tables are there."""
    with engine_of(on_postgresql(postgresql, tmp_path)) as engine:
        upgrade_inventory(engine)
    list_concentrators(on_postgresql(postgresql, tmp_path), 3)
    url = sa.engine.make_url(postgresql.plain_url)
    name = f"reader_of_{url.database}"
    postgresql_server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    plain = url.set(username=name).render_as_string()
    yield on_postgresql(postgresql, tmp_path, SECRET, url=plain)
    engine = open_engine(on_postgresql(postgresql, tmp_path))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name}")
    engine.dispose()
    postgresql_server.execute(f"DROP ROLE {name}")


def test_a_user_without_the_right_is_refused(reader: DatabaseSettings) -> None:
    error = failure(reader)
    assert type(error) is SourceRefused
    assert error.problem.endswith("permission denied for table concentrators")
    assert error.fix == "GRANT SELECT on the table to this user."


def test_the_right_to_select_is_enough(
    reader: DatabaseSettings, postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    name = sa.engine.make_url(reader.url).username
    engine = open_engine(on_postgresql(postgresql, tmp_path))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"GRANT SELECT ON concentrators TO {name}")
    engine.dispose()
    (tmp_path / "password").write_text(SECRET)
    assert read(reader).points[0].fields == {"concentrator_count": 3}


def test_a_wrong_password_is_refused_and_not_shown(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    error = failure(on_postgresql(postgresql, tmp_path, SECRET))
    assert type(error) is CredentialRefused
    assert 'password authentication failed for user "postgres"' in error.problem
    assert error.fix == "Check user and password."
    shown = "".join(traceback.format_exception(error))
    assert SECRET not in shown
    assert postgresql.password not in shown


def test_no_password_at_all_is_refused(postgresql: PostgresqlDatabase) -> None:
    error = failure(DatabaseSettings(url=postgresql.plain_url))
    assert type(error) is CredentialRefused
    assert "no password supplied" in error.problem


def test_a_user_who_does_not_exist_is_refused(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    url = sa.engine.make_url(postgresql.plain_url).set(username="nobody_of_that_name")
    error = failure(on_postgresql(postgresql, tmp_path, url=url.render_as_string()))
    assert type(error) is CredentialRefused


def test_a_database_that_does_not_exist_is_refused(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    url = sa.engine.make_url(postgresql.plain_url).set(database="nothing_of_that_name")
    error = failure(on_postgresql(postgresql, tmp_path, url=url.render_as_string()))
    assert type(error) is SourceRefused
    assert error.fix == "Create the database, or name the right one."


def test_a_secret_that_is_not_there_is_named(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    database = on_postgresql(postgresql, tmp_path)
    (tmp_path / "password").unlink()
    error = failure(database)
    assert type(error) is SourceRefused
    assert f"file {tmp_path / 'password'}: cannot be read (FileNotFoundError)" in error.problem


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        error = failure(DatabaseSettings(url=f"postgresql://user@127.0.0.1:{port}/inventory"))
    assert type(error) is SourceUnreachable
    assert "Connection refused" in error.problem


def test_a_table_that_somebody_locks_is_unreachable_after_a_while(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    database = on_postgresql(postgresql, tmp_path, statement_timeout_seconds=1)
    list_concentrators(database, 3)
    engine = open_engine(database)
    with opened(database) as inventory:
        with engine.begin() as other:
            other.exec_driver_sql("LOCK TABLE concentrators IN ACCESS EXCLUSIVE MODE")
            (error,) = inventory.read([CONCENTRATOR_COUNT], TIME_NS).failures
            assert inventory._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert type(error) is SourceUnreachable
        assert "canceling statement due to statement timeout" in error.problem
        assert inventory.read([CONCENTRATOR_COUNT], TIME_NS).failures == ()
    engine.dispose()


def test_reading_leaves_no_transaction_open(postgresql: PostgresqlDatabase, tmp_path: Path) -> None:
    database = on_postgresql(postgresql, tmp_path)
    list_concentrators(database, 3)
    engine = open_engine(database)
    with opened(database) as inventory:
        inventory.read([CONCENTRATOR_COUNT], TIME_NS)
        with engine.connect() as connection:
            states = connection.exec_driver_sql(
                "SELECT state FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND application_name = 'metrics_pipeline'"
            )
            assert set(states.scalars()) == {"idle"}
    engine.dispose()


# --- devices --------------------------------------------------------------------------------------


def keep(database: DatabaseSettings, *rows: dict[str, Any]) -> None:
    """Make the table of devices, with `rows` in it."""
    engine = open_engine(database)
    INVENTORY.create_all(engine)
    with engine.begin() as connection:
        for row in rows:
            connection.execute(sa.insert(DEVICES).values(row))
    engine.dispose()


def device(name: str, **changes: Any) -> dict[str, Any]:
    return {"id": name, "ip_address": f"{name}.example", "protocol": "snmp", **changes}


def test_enabled_devices_of_the_protocols_that_are_asked_are_read(
    database: DatabaseSettings,
) -> None:
    labels = {"site": "berlin"}
    full = {"hostname": "SW 2", "device_type": "switch", "port": 1161, "credential": "core"}
    keep(
        database,
        device("b", **full, labels=labels),
        device("a", protocol="ssh"),
        device("c", protocol="winrm"),
        device("d", enabled=False),
    )
    with opened(database) as inventory:
        assert inventory.read_device_rows().devices(("snmp", "ssh")) == [
            Device("a", "", "a.example", "unknown", "ssh"),
            Device("b", "SW 2", "b.example", "switch", "snmp", 1161, "core", labels),
        ]
        listed = inventory.read_device_rows()
    assert [row.id for row in listed.rows] == ["a", "b", "c", "d"]
    assert listed.by_protocol() == {"snmp": 1, "ssh": 1, "winrm": 1}
    assert listed.wrong == {}


def test_devices_that_are_not_wanted_are_not_read_and_the_others_as_among_all(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.sources.inventory.ROWS_AT_ONCE", 2)
    names = ["a", " b ", "b", "c", "d", "e", "f", ""]
    ports = {"d": -1}
    rows = (device(each, ip_address="192.0.2.1", port=ports.get(each, 0)) for each in names)
    keep(database, *rows)
    with opened(database) as inventory:
        everything = inventory.read_device_rows()
        some = inventory.read_device_rows(lambda name: name != "a")
        assert [row.id for row in some.rows] == ["b", "c", "e", "f"]
        assert list(some.rows) == [row for row in everything.rows if row.id != "a"]
        assert (some.wrong["duplicate_id"], some.wrong["invalid_port"]) == (1, 1)
        assert some.wrong == everything.wrong
        none = inventory.read_device_rows(lambda name: not name)
        assert (none.rows, none.wrong) == ((), {"missing_id": 1})
        assert inventory.read_device_rows(lambda name: False).wrong == {}
        assert inventory.read_device_rows() == everything


def test_of_all_devices_those_at_one_place_are_read(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.sources.inventory.ROWS_AT_ONCE", 2)
    here, there = {"ip_address": "192.0.2.1"}, {"ip_address": "2001:db8::1"}
    keep(
        database,
        device("a", **here),
        device("b", **here, port=161),
        device("c", **here, protocol="ssh"),
        device("d", ip_address=" 192.0.2.1 "),
        device("e", **here, enabled=False),
        device("f", **there),
        device("g", ip_address="2001:DB8:0::1"),
        device("h", **there, labels={"rack": ["of", "many"]}),
        device("i", ip_address="10.0.0.256"),
        device("j", ip_address="10.0.0.256"),
    )
    with opened(database) as inventory:
        found = inventory.read_rows_at_one_place().devices(("snmp", "ssh"))
        assert [each.id for each in found] == ["a", "d", "f", "g"]


def test_an_inventory_without_devices_is_read(database: DatabaseSettings) -> None:
    keep(database)
    with opened(database) as inventory:
        assert inventory.read_device_rows().devices(("snmp",)) == []
        assert inventory.read_rows_at_one_place().rows == ()


def test_rows_that_somebody_wrote_by_hand_are_counted_when_they_are_wrong(
    database: DatabaseSettings,
) -> None:
    keep(
        database,
        device("a"),
        device("b", ip_address="  "),
        device("c", ip_address="10.0.0.256"),
        device("d", port=70_000),
        device("e", mac_address="no mac"),
        device("f", port=-1, enabled=False),
    )
    with opened(database) as inventory:
        assert [each.id for each in inventory.read_device_rows().devices(("snmp",))] == ["a", "e"]
        listed = inventory.read_device_rows()
    assert listed.wrong == {
        "missing_ip_address": 1,
        "invalid_ip_address": 1,
        "invalid_port": 1,
    }
    assert listed.examples[1] == (
        "id 'c': ip_address: expected an IP address or a host name, got '10.0.0.256'"
    )


def test_types_that_sqlite_lets_pass_are_counted_and_crash_nothing(tmp_path: Path) -> None:
    database = on_sqlite(tmp_path)
    keep(database, device("a"), device("b"), device("c"), device("d"))
    with closing(sqlite3.connect(tmp_path / "inventory.sqlite")) as other:
        other.execute("UPDATE devices SET labels = '{no json' WHERE id = 'a'")
        other.execute("UPDATE devices SET enabled = 'perhaps' WHERE id = 'b'")
        other.execute("UPDATE devices SET port = x'00' WHERE id = 'c'")
        other.commit()
    with opened(database) as inventory:
        listed = inventory.read_device_rows()
    assert [row.id for row in listed.rows] == ["d"]
    assert listed.wrong == {"invalid_labels": 1, "invalid_enabled": 1, "invalid_port": 1}


def test_a_table_of_devices_that_is_not_there_is_refused(database: DatabaseSettings) -> None:
    list_concentrators(database, 0)
    engine = open_engine(database)
    DEVICES.drop(engine)
    engine.dispose()
    with opened(database) as inventory, pytest.raises(SourceRefused, match="devices"):
        inventory.read_device_rows().devices(("snmp",))


def test_devices_behind_a_secret_that_is_not_there_are_refused(
    postgresql: PostgresqlDatabase, tmp_path: Path
) -> None:
    database = on_postgresql(postgresql, tmp_path)
    (tmp_path / "password").unlink()
    with opened(database) as inventory, pytest.raises(SourceRefused, match="cannot be read"):
        inventory.read_device_rows().devices(("snmp",))


# --- devices of another's inventory ---------------------------------------------------------------

UUID_BEGINS = "00000000-0000-0000-0000-00000000000"
ASSETS = """
CREATE SCHEMA "Assets";
CREATE TYPE "Assets".state AS ENUM ('active', 'retired');
CREATE TABLE "Assets"."Node ""list" (
    device_uuid uuid,
    "Name" text,
    mgmt inet,
    hw macaddr,
    "select" text,
    tags jsonb,
    state "Assets".state,
    on_duty boolean
);
INSERT INTO "Assets"."Node ""list" VALUES
    ('{U}1', 'core-1', '192.0.2.1/24', '00:00:5e:00:53:01',
     'SNMP', '{"rack": 7, "spare": true, "none": null}', 'active', true),
    ('{U}2', NULL, '2001:db8::2', NULL, NULL, NULL, 'active', true),
    ('{U}2', NULL, '192.0.2.9', NULL, NULL, NULL, 'active', true),
    ('{U}2', NULL, '192.0.2.8', NULL, NULL, NULL, 'active', false),
    (NULL, 'nameless', '192.0.2.3', NULL, NULL, NULL, 'active', true),
    ('{U}4', 'lost', NULL, NULL, NULL, NULL, 'active', true),
    ('{U}5', 'off', NULL, NULL, NULL, NULL, 'active', false),
    ('{U}6', 'list', '192.0.2.6', NULL, NULL, '[1]', 'active', true),
    ('{U}7', 'old', '192.0.2.7', NULL, NULL, NULL, 'retired', true);
"""
MAPPING: dict[str, Any] = {
    "in_schema": "Assets",
    "table": 'Node "list',
    "columns": {
        "id": "device_uuid",
        "hostname": "Name",
        "ip_address": "mgmt",
        "mac_address": "hw",
        "protocol": "select",
        "labels": "tags",
        "enabled": "on_duty",
    },
    "defaults": {"protocol": "ping", "credential": "core"},
    "where": {"state": "active"},
}


@pytest.fixture
def foreign(postgresql: PostgresqlDatabase, tmp_path: Path) -> DatabaseSettings:
    """An inventory of somebody else's making."""
    database = on_postgresql(postgresql, tmp_path)
    engine = open_engine(database)
    with engine.begin() as connection:
        connection.exec_driver_sql(ASSETS.replace("{U}", UUID_BEGINS))
    engine.dispose()
    return database


def read_mapped(
    database: DatabaseSettings, is_wanted: Callable[[str], bool] | None = None, **changes: Any
) -> DeviceRows:
    mapping = DeviceTableSettings(**{**MAPPING, **changes})
    settings = InventorySettings(database=database, devices=mapping)
    with closing(Inventory(settings)) as inventory:
        return inventory.read_device_rows(is_wanted)


def test_an_inventory_that_is_there_already_is_read_as_it_is(foreign: DatabaseSettings) -> None:
    listed = read_mapped(foreign)
    first, second = listed.devices(("snmp", "ping"))
    assert (first.id[-1], first.hostname, first.address) == ("1", "core-1", "192.0.2.1")
    assert (first.protocol, first.credential) == ("snmp", "core")
    assert first.labels == {"rack": "7", "spare": "true"}
    assert (second.id[-1], second.hostname, second.protocol) == ("2", "", "ping")
    assert listed.rows[0].mac_address == "00:00:5e:00:53:01"


def test_duplicates_and_rows_without_an_address_are_counted(foreign: DatabaseSettings) -> None:
    listed = read_mapped(foreign)
    assert len(listed.rows) == 2
    assert listed.wrong == {
        "duplicate_id": 1,
        "missing_id": 1,
        "missing_ip_address": 1,
        "invalid_labels": 1,
    }
    assert any("and 2001:db8::2 on an earlier row" in each for each in listed.examples)


def test_of_another_inventory_only_what_is_wanted_is_read(foreign: DatabaseSettings) -> None:
    everything = read_mapped(foreign)
    (second,) = read_mapped(foreign, lambda name: name.endswith("2")).rows
    assert second == everything.rows[1]
    columns: dict[str, Any] = {"id": "tags", "ip_address": "mgmt"}
    assert read_mapped(foreign, lambda name: True, columns=columns).rows == ()
    defaults: dict[str, Any] = {"id": "the-one", "protocol": "ping"}
    (named,) = read_mapped(foreign, lambda name: name == "the-one", defaults=defaults).rows[-1:]
    assert named.id == "the-one"


def test_a_filter_has_values_and_no_sql(foreign: DatabaseSettings) -> None:
    (old,) = read_mapped(foreign, where={"state": "retired"}).rows
    assert old.hostname == "old"
    assert read_mapped(foreign, where={"Name": "' OR true --"}).rows == ()
    only = read_mapped(foreign, where={"on_duty": False}).rows
    assert [row.ip_address for row in only] == ["192.0.2.8"]


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"table": "nodes; DROP TABLE x"}, "Create the table, or name the right database."),
        ({"in_schema": None}, "Create the table, or name the right database."),
        ({"where": {'x" = 1 --': 1}}, "Name columns that the table has in sources."),
        ({"columns": {"id": "none", "ip_address": "mgmt"}}, "Name columns that the table has"),
    ],
)
def test_names_that_are_not_there_are_refused_and_never_run(
    foreign: DatabaseSettings, changes: dict[str, Any], fix: str
) -> None:
    with pytest.raises(SourceRefused) as raised:
        read_mapped(foreign, **changes)
    assert raised.value.fix.startswith(fix)


def test_a_mapping_reads_sqlite_as_well(tmp_path: Path) -> None:
    database = on_sqlite(tmp_path)
    keep(database, device("a"))
    columns = {"id": "id", "ip_address": "nothing"}
    mapping: dict[str, Any] = {"table": "devices", "columns": columns}
    with pytest.raises(SourceRefused, match="no such column"):
        read_mapped(database, **mapping, in_schema=None, where={})
    mapping["columns"] = {"id": "id", "ip_address": "ip_address"}
    (row,) = read_mapped(database, **mapping, in_schema=None, where={}).rows
    assert (row.id, row.protocol, row.credential) == ("a", "ping", "core")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"columns": {"ip_address": "mgmt"}}, "expected the key id"),
        ({"columns": {"id": "x"}}, "expected the key ip_address, here or in defaults"),
        ({"columns": {"id": "x", "serial": "y"}}, "columns.serial"),
        ({"where": {"a": 1.5}}, "where.a"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        DeviceTableSettings(**{**MAPPING, **changes})


def test_every_column_of_a_device_can_be_mapped() -> None:
    mapping = {"table": "t", "columns": {name: name for name in COLUMNS}}
    assert str(DeviceTableSettings.model_validate(mapping).select()).count("AS") == len(COLUMNS)


def test_who_is_there_twice_is_found_in_another_inventory(foreign: DatabaseSettings) -> None:
    mapping = {**MAPPING, "defaults": {"protocol": "ping", "ip_address": "2001:DB8::2"}}
    settings = InventorySettings(database=foreign, devices=DeviceTableSettings(**mapping))
    with closing(Inventory(settings)) as inventory:
        found = inventory.read_rows_at_one_place().devices(("ping",))
    assert [each.id[-1] for each in found] == ["2", "4"]
