"""What is said of stores: each thing is made wrong for real, and told."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE
from metrics_pipeline.core.findings import Finding, Severity
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import DeadLetter
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.doctor.connections import most_runs
from metrics_pipeline.doctor.stores import (
    DEAD,
    OPERATIONAL,
    SPOOL,
    STALE,
    examine_operational,
    examine_spool,
    examine_store,
)
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage import snapshots
from metrics_pipeline.storage.dead_letters import DeadLetters
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.operational_schema import UPGRADES, VERSIONS
from metrics_pipeline.storage.spool import Spool, SpoolSettings, segments
from metrics_pipeline_tests.doctor.findings import of, the_bad_one, the_wrong_one
from metrics_pipeline_tests.not_root import not_root
from metrics_pipeline_tests.postgresql import PostgresqlDatabase
from metrics_pipeline_tests.storage.influx_stub import TOKEN, InfluxStub
from metrics_pipeline_tests.storage.schema_1 import write_schema_1

HOUR = 3600.0
POINT = Point("polls", {"device_id": "a"}, {"value": 1.5}, 1)
CLOSED_PORT = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory, of nobody else."""
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path / "state"))
    return tmp_path / "state"


def settings_of(folder: Path, **sections: Any) -> Settings:
    given = {
        "version": 1,
        "sources": {},
        "operational_database": {"url": f"sqlite:///{folder}/operational.sqlite"},
        "store": {"kind": "embedded", "path": str(folder / "points.sqlite")},
        **sections,
    }
    return Settings.model_validate(given)


# --- the time-series store ------------------------------------------------------------------------


def influx(url: str, folder: Path, token: str = TOKEN) -> Settings:
    (folder / "token").write_text(token)
    store = {"kind": "influxdb", "url": url, "api": "v2", "org": "plant"}
    renamed = {"network_metrics": "tests", "system_metrics": "renamed"}
    store |= {"token": {"file": str(folder / "token")}, "databases": renamed}  # type: ignore[dict-item]
    return settings_of(folder, store=store)


def test_a_store_that_answers_is_well_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    with InfluxStub() as stub:
        [found] = examine_store(influx(stub.url, tmp_path))
    assert found.severity is Severity.OK
    assert not stub.lines


def test_a_store_that_does_not_answer_is_wrong(tmp_path: Path) -> None:
    found = the_bad_one(examine_store(influx(CLOSED_PORT, tmp_path)))
    assert "Connection refused" in found.found
    assert "spool" in found.fix


def test_a_store_that_refuses_the_token_is_wrong_and_the_token_not_shown(tmp_path: Path) -> None:
    with InfluxStub() as stub:
        found = the_bad_one(examine_store(influx(stub.url, tmp_path, "hunter2-hunter2")))
    assert "401" in found.found
    assert "hunter2" not in repr(found)


def test_a_store_without_our_databases_is_a_warning(tmp_path: Path) -> None:
    with InfluxStub() as stub:
        settings = influx(stub.url, tmp_path)
        store = settings.store.model_copy(update={"databases": {"network_metrics": "gone"}})
        found = the_bad_one(examine_store(settings.model_copy(update={"store": store})))
    assert found.severity is Severity.WARNING
    assert "gone is not there" in found.found


def test_no_file_of_the_embedded_store_is_no_fault_and_none_is_made(tmp_path: Path) -> None:
    [found] = examine_store(settings_of(tmp_path))
    assert found.severity is Severity.UNKNOWN
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_an_earlier_schema_is_a_warning_and_stays_so(tmp_path: Path) -> None:
    write_schema_1(tmp_path / "points.sqlite", [POINT])
    for _ in range(2):
        found = the_bad_one(examine_store(settings_of(tmp_path)))
        assert found.severity is Severity.WARNING
        assert "of schema 1" in found.found


def test_a_file_of_a_later_schema_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    with closing(EmbeddedStore(EmbeddedStoreSettings(path=path))) as store:
        store.write([POINT])
    [found] = examine_store(settings_of(tmp_path))
    assert found.severity is Severity.OK
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "of schema 99" in the_wrong_one(examine_store(settings_of(tmp_path)), found.name).found


@pytest.mark.parametrize("content", [b"device,count\n" * 400, b""], ids=["text", "empty"])
def test_a_file_that_is_no_store_is_wrong(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "points.sqlite").write_bytes(content)
    assert the_bad_one(examine_store(settings_of(tmp_path))).severity is Severity.WRONG


@pytest.fixture
def others_folder(folder_for_all: Path) -> Path:
    """With a store and an operational database; everybody may enter it."""
    settings = settings_of(folder_for_all)
    assert isinstance(settings.store, EmbeddedStoreSettings)
    with closing(EmbeddedStore(settings.store)) as store:
        store.write([POINT])
    keep_now(settings)
    return folder_for_all


def keep_now(settings: Settings) -> None:
    database = OperationalDatabase(settings.operational_database)
    with closing(database), database.writing() as connection:
        snapshots.replace(connection, "polls", (POINT,), 1)


def test_a_file_of_another_user_is_not_called_damaged(others_folder: Path) -> None:
    (others_folder / "points.sqlite").chmod(0o000 if os.geteuid() else 0o600)
    with not_root():
        found = the_bad_one(examine_store(settings_of(others_folder)))
    assert "unable to open" in found.found
    assert "as the user of the pipeline's processes" in found.fix
    assert "move it away" not in found.fix


def test_a_file_that_is_damaged_is_to_be_restored(tmp_path: Path) -> None:
    (tmp_path / "points.sqlite").write_bytes(b"device,count\n" * 400)
    assert "Restore it" in the_bad_one(examine_store(settings_of(tmp_path))).fix


def test_a_folder_of_another_user_is_told(others_folder: Path) -> None:
    settings = settings_of(others_folder)
    list(examine_operational(settings, {}))  # imports what nobody else may read
    others_folder.chmod(0o000 if os.geteuid() else 0o700)
    with not_root():
        findings = [*examine_store(settings), *examine_operational(settings, {})]
    assert [each.severity for each in findings] == [Severity.WRONG, Severity.WRONG]
    assert all("cannot be read" in each.found for each in findings)


# --- the spool ------------------------------------------------------------------------------------


def spool_of(folder: Path, max_bytes: int = 100_000) -> tuple[SpoolSettings, Spool]:
    settings = SpoolSettings(directory=folder / "spool", max_bytes=max_bytes)
    return settings, Spool(settings)


def examine_later(settings: SpoolSettings, later: float = 0.0) -> list[Finding]:
    return list(examine_spool(settings, lambda: time.time() + later))


def test_points_that_just_began_to_wait_are_no_fault(tmp_path: Path) -> None:
    settings, spool = spool_of(tmp_path)
    assert not (tmp_path / "spool").exists()
    assert [each.severity for each in examine_later(settings)] == [Severity.OK]
    assert not (tmp_path / "spool").exists()
    spool.append([POINT])
    [found] = examine_later(settings)
    assert found.severity is Severity.OK
    assert "1 points wait" in found.found


def test_points_that_wait_for_long_are_a_warning(tmp_path: Path) -> None:
    settings, spool = spool_of(tmp_path)
    spool.append([POINT])
    found = the_bad_one(examine_later(settings, HOUR))
    assert "the oldest for 60" in found.found
    assert found.runbook.endswith("SpoolGrowing.md")


def test_a_spool_near_its_bound_is_a_warning(tmp_path: Path) -> None:
    settings, spool = spool_of(tmp_path, 10_000)
    noise = [Point("polls", {"id": os.urandom(60).hex()}, {"value": n}, n) for n in range(20)]
    while not of(found := examine_later(settings), SPOOL)[0].is_bad:
        spool.append(noise)
    assert the_bad_one(found).runbook.endswith("SpoolNearlyFull.md")


def test_a_spool_that_is_damaged_is_wrong_and_is_left_as_it_is(tmp_path: Path) -> None:
    settings, spool = spool_of(tmp_path)
    for n in range(3):
        spool.append([Point("polls", {}, {"value": n}, n)])
    [segment] = segments(settings.directory)
    whole = segment.read_bytes()
    middle = len(whole) // 2
    broken = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    segment.write_bytes(broken)
    found = the_wrong_one(examine_later(settings), SPOOL)
    assert found.found == "1 pieces of what waits are no whole records"
    assert segment.read_bytes() == broken


def test_a_record_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    settings, spool = spool_of(tmp_path)
    spool.append([POINT])
    spool.append([POINT])
    [segment] = segments(settings.directory)
    segment.write_bytes(segment.read_bytes()[:-5])
    assert not any(each.is_bad for each in examine_later(settings))


def test_a_segment_of_another_format_is_wrong(tmp_path: Path) -> None:
    settings, spool = spool_of(tmp_path)
    spool.append([POINT])
    [segment] = segments(settings.directory)
    segment.write_bytes(b"metrics_pipeline spool 9\n" + segment.read_bytes())
    assert the_wrong_one(examine_later(settings), SPOOL).runbook.endswith("SpoolDamaged.md")


def test_damaged_pieces_that_were_set_aside_are_a_warning(tmp_path: Path) -> None:
    settings, _ = spool_of(tmp_path)
    settings.directory.mkdir()
    (settings.directory / "7.damaged").write_bytes(b"?")
    assert "1 damaged pieces" in the_bad_one(examine_later(settings)).found


def test_no_spool_is_told_and_no_fault() -> None:
    [found] = examine_spool(None)
    assert found.severity is Severity.UNKNOWN


@pytest.mark.parametrize("is_off", [True, False], ids=["none", "another"])
def test_what_waits_where_the_settings_no_longer_look_is_a_warning(
    tmp_path: Path, state: Path, is_off: bool
) -> None:
    usual, spool = spool_of(state)
    settings = None if is_off else spool_of(tmp_path)[0]
    spool.append([POINT])
    assert not any(each.is_bad for each in examine_spool(usual))
    left = the_bad_one(list(examine_spool(settings)))
    assert left.looked_at == str(usual.directory)
    assert "1 points wait here" in left.found
    segments(usual.directory)[0].unlink()
    assert not any(each.is_bad for each in examine_spool(settings))


# --- the operational database ---------------------------------------------------------------------


EVERY = {"fleet/device_counts": 300.0, "platform/services": 5.0}
TELEMETRY = {
    "source": {"connection_string": {"env": "NOWHERE"}, "consumer_group": "metrics"},
    "dead_letters": {"max_rows": 10},
}


def examine_it(settings: Settings, later: float = 0.0) -> list[Finding]:
    return list(examine_operational(settings, EVERY, lambda: time.time() + later))


def store(settings: Settings, asset: str, *, is_complete: bool = True) -> None:
    keep = snapshots.replace if is_complete else snapshots.merge
    with (
        closing(OperationalDatabase(settings.operational_database)) as database,
        database.writing() as connection,
    ):
        keep(connection, asset, (POINT,), time.time_ns())


def test_no_operational_database_is_no_fault_and_none_is_made(tmp_path: Path) -> None:
    [found] = examine_it(settings_of(tmp_path))
    assert found.severity is Severity.UNKNOWN
    assert list(tmp_path.iterdir()) == []


def test_assets_that_are_too_old_for_their_cadence_are_named(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    for asset in EVERY:
        store(settings, asset)
    assert not any(each.is_bad for each in examine_it(settings))
    found = the_wrong_one(examine_it(settings, later=120), STALE)
    assert "platform/services (2" in found.found
    assert "fleet/device_counts" not in found.found
    found = the_wrong_one(examine_it(settings, later=HOUR), STALE)
    assert "2 of 2 are older" in found.found


def test_an_asset_that_was_never_complete_is_named(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    store(settings, "platform/services")
    store(settings, "fleet/device_counts", is_complete=False)
    found = the_wrong_one(examine_it(settings), STALE)
    assert "fleet/device_counts (never complete)" in found.found


def keep_letters(settings: Settings, count: int) -> None:
    assert settings.telemetry is not None
    letters = [
        DeadLetter("0", n, f"{n}", n * NS_PER_SECOND, "not_json", "a brace", b"{")
        for n in range(count)
    ]
    with closing(OperationalDatabase(settings.operational_database)) as database:
        kept = DeadLetters(database, settings.telemetry.dead_letters, "plant", "hub", "metrics")
        kept.keep(letters)


def test_dead_letters_that_come_and_that_fill_their_table_are_told(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, telemetry=TELEMETRY)
    keep_letters(settings, 4)
    assert [each.severity for each in of(examine_it(settings), DEAD)] == [Severity.OK]
    keep_letters(settings, 7)
    assert the_bad_one(of(examine_it(settings), DEAD)).found == "7 in the last hour: not_json 7"
    keep_letters(settings, 9)
    assert len(of(examine_it(settings), DEAD)) == 2
    found = the_bad_one(of(examine_it(settings, later=2 * HOUR), DEAD))
    assert "90% full" in found.found


def change_versions(settings: Settings, statement: sa.Executable) -> None:
    engine = sa.create_engine(settings.operational_database.url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(statement)


def test_tables_of_another_release_are_told_and_left_as_they_are(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    store(settings, "platform/services")
    change_versions(settings, sa.insert(VERSIONS).values(version=99))
    found = the_wrong_one(examine_it(settings), OPERATIONAL)
    assert f"of schema 99, and this release knows {len(UPGRADES)}" in found.found
    change_versions(settings, sa.delete(VERSIONS))
    for _ in range(2):
        [found] = of(examine_it(settings), OPERATIONAL)
        assert found.severity is Severity.WARNING


def test_a_table_that_is_missing_is_told(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    store(settings, "platform/services")
    change_versions(settings, sa.text("DROP TABLE told_failures"))
    [found] = of(examine_it(settings), OPERATIONAL)
    assert found.found == "there is no table told_failures"


def test_a_file_that_is_no_database_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "operational.sqlite").write_bytes(b"device,count\n" * 400)
    found = the_wrong_one(examine_it(settings_of(tmp_path)), OPERATIONAL)
    assert "file is not a database" in found.found


def test_a_postgresql_is_read_with_its_clock_and_refused_with_a_wrong_password(
    tmp_path: Path, postgresql: PostgresqlDatabase
) -> None:
    (tmp_path / "password").write_text(postgresql.password)
    database = {"url": postgresql.plain_url, "password": {"file": str(tmp_path / "password")}}
    settings = settings_of(tmp_path, operational_database=database)
    assert [each.name for each in examine_it(settings)] == [OPERATIONAL, "clock", "connections"]
    for asset in EVERY:
        store(settings, asset)
    assert {each.severity for each in examine_it(settings)} == {Severity.OK}
    found = the_wrong_one(examine_it(settings, later=-HOUR), "clock")
    assert "s ahead of this machine's" in found.found
    (tmp_path / "password").write_text("hunter2")
    found = the_wrong_one(examine_it(settings), OPERATIONAL)
    assert "password authentication failed" in found.found
    assert "hunter2" not in repr(found)


def test_a_postgresql_that_lets_in_fewer_than_its_runs_may_want_is_a_warning(
    tmp_path: Path, postgresql: PostgresqlDatabase
) -> None:
    (tmp_path / "password").write_text(postgresql.password)
    database = {"url": postgresql.plain_url, "password": {"file": str(tmp_path / "password")}}
    for shards, severity in ((1, Severity.OK), (50, Severity.WARNING)):
        settings = settings_of(
            tmp_path,
            operational_database=database,
            sources={"inventory": {"database": database}},
            polling={"enabled": True, "metrics_by": ["snmp"], "shards": shards},
        )
        [found] = of(examine_it(settings), "connections")
        assert (found.severity, most_runs(settings)) == (severity, 2 * shards + 1)
    assert "97 are let in, 101 runs at once" in found.found
    assert "Raise max_connections by 125" in found.fix
