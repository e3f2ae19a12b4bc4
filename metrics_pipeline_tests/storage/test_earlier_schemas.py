"""Files that the code of earlier commits made: what is in them is there, as if made today."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.environment import STATE_DIR_VARIABLE
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.core.telemetry import (
    Checkpoint,
    DeadLetter,
    PartitionKey,
    Position,
)
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.storage import snapshots, tallies
from metrics_pipeline.storage.checkpoints import DatabaseCheckpoints
from metrics_pipeline.storage.dead_letters import DeadLetters, DeadLetterSettings
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.operational import TABLES, OperationalDatabase
from metrics_pipeline.storage.spool_records import FORMAT, Record, decode
from metrics_pipeline_tests.storage.operational_databases import sqlite_settings

RECORDED = Path(__file__).parents[1] / "recordings" / "schemas"
OPERATIONAL = sorted(RECORDED.glob("operational-*.sql"))
SPOOLED = sorted(RECORDED.glob("spool-*.base64"))
SETTINGS = sorted(RECORDED.glob("settings-*.yaml"))
EMBEDDED = sorted(RECORDED.glob("embedded-*.sql"))

TIME_NS = 1_700_000_000_000_000_000
ASSET = "fleet/device_counts"
COUNT = Point("fleet_counts", {"provider": "aws_iot"}, {"device_count": 42}, TIME_NS)
WRITTEN = "metrics_pipeline_points_written_total"
HUB = ("plant", "uplinks", "metrics")
KEY = PartitionKey(*HUB, "0")
LETTER = DeadLetter("0", 5, "5", TIME_NS, "not_json", "a brace", b"{")


def name_of(file: Path) -> str:
    return file.stem


def restore(file: Path, path: Path) -> str:
    """Make the database, and say what is in the recording."""
    text = file.read_text()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(text)
    return text


def pictured(settings: DatabaseSettings) -> dict[str, object]:
    """Columns and keys of each table."""
    engine = sa.create_engine(settings.url, poolclass=sa.NullPool)
    inspector = sa.inspect(engine)
    return {
        name: (
            sorted((c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)),
            inspector.get_pk_constraint(name)["constrained_columns"],
            sorted(u["column_names"] for u in inspector.get_unique_constraints(name)),
        )
        for name in (*TABLES.tables, "operational_schema")
    }


@pytest.mark.parametrize("file", OPERATIONAL, ids=name_of)
def test_an_operational_database_of_an_earlier_commit_is_whole(file: Path, tmp_path: Path) -> None:
    settings = sqlite_settings(tmp_path)
    there = restore(file, Path(sa.engine.make_url(settings.url).database or ""))
    new = DeadLetter("0", 6, "6", TIME_NS, "not_json", "a brace", b"{")
    for _ in range(2):
        with closing(OperationalDatabase(settings)) as database:
            with database.writing() as connection:
                found = snapshots.find(connection, ASSET)
                assert found is not None
                assert found.points == (COUNT,)
                assert tallies.totals(connection)[WRITTEN] == {"network_metrics": 7}
            if 'INSERT INTO "telemetry_checkpoints"' in there:
                stored = DatabaseCheckpoints(database, "run-2").find(KEY)
                assert stored == Checkpoint(Position("5", 5), 1)
            letters = DeadLetters(database, DeadLetterSettings(), *HUB)
            old = [LETTER] if 'INSERT INTO "dead_letters"' in there else []
            letters.keep([*old, new])
            assert [each.letter for each in letters.find()] == [*old, new]
    anew = OperationalDatabase(sqlite_settings(tmp_path / "anew"))
    with closing(anew), anew.writing():
        pass
    assert pictured(settings) == pictured(sqlite_settings(tmp_path / "anew"))


@pytest.mark.parametrize("file", EMBEDDED, ids=name_of)
def test_an_embedded_store_of_an_earlier_commit_is_whole(file: Path, tmp_path: Path) -> None:
    restore(file, tmp_path / "embedded.sqlite")
    fields: dict[str, FieldValue] = {
        "whole": 3.0,
        "count": 2**63 - 1,
        "up": True,
        "text": 'é "q" \\ \n',
    }
    points = (
        Point("polls", {"device_id": "a", "site": "é"}, fields, 1),
        Point("polls", {"device_id": "b"}, {"whole": 0.1 + 0.2}, 2),
    )
    for _ in range(2):
        given = EmbeddedStoreSettings(path=tmp_path / "embedded.sqlite")
        with closing(EmbeddedStore(given)) as store:
            found = store.read("polls", 0, 10)
            assert found == points
            assert {k: type(v) for k, v in found[0].fields.items()} == {
                k: type(v) for k, v in fields.items()
            }
            store.write([points[1]])


@pytest.mark.parametrize("file", SPOOLED, ids=name_of)
def test_a_segment_of_the_spool_of_an_earlier_commit_is_whole(file: Path) -> None:
    segment = base64.b64decode(file.read_text())
    assert segment.startswith(FORMAT)
    [record] = decode(segment, len(FORMAT))
    assert isinstance(record, Record)
    assert record.points == (COUNT,)
    assert type(record.points[0].fields["device_count"]) is int


@pytest.mark.parametrize("file", SETTINGS, ids=name_of)
def test_settings_of_an_earlier_commit_are_read(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path))
    assert load_settings(file).version == 1


def test_each_state_of_the_tables_is_recorded_the_present_one_too() -> None:
    newest = OPERATIONAL[-1].read_text()
    made = {line.split()[2] for line in newest.splitlines() if line.startswith("CREATE TABLE")}
    assert {name.strip('"') for name in made} == {*TABLES.tables, "operational_schema"}
