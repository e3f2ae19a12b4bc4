"""Long texts lie deflated in the file, and are read as they were told, as are those of before."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.orchestration.deflated_texts import LONG
from metrics_pipeline_tests.orchestration.dagster_instances import opened

KEY = dg.AssetKey("sampled")
NOTE = "all is well, " * LONG


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with opened(tmp_path) as made:
        made.report_runless_asset_event(dg.AssetMaterialization(KEY, metadata={"note": NOTE}))
        yield made


def note_of(instance: dg.DagsterInstance) -> list[object]:
    """As the log has it, and as the table of assets has it."""
    (record,) = instance.fetch_materializations(KEY, limit=1).records
    latest = instance.get_latest_materialization_event(KEY)
    found = (record.asset_materialization, latest.asset_materialization if latest else None)
    return [made.metadata["note"].value for made in found if made is not None]


def events_in(folder: Path) -> list[object]:
    """As any program finds them in the file."""
    with closing(sqlite3.connect(next(folder.rglob("event_log.db")))) as connection:
        return [row[0] for row in connection.execute("SELECT event FROM event_logs")]


def test_what_an_asset_said_at_length_takes_little_and_is_read_as_it_was(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    (stored,) = events_in(tmp_path)
    assert isinstance(stored, bytes)
    assert len(stored) < len(NOTE) / 10
    assert NOTE in zlib.decompress(stored).decode()
    assert note_of(instance) == [NOTE, NOTE]


def test_what_was_stored_before_is_read_beside_it(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    (stored,) = events_in(tmp_path)
    assert isinstance(stored, bytes)
    with closing(sqlite3.connect(next(tmp_path.rglob("event_log.db")))) as connection:
        connection.execute("UPDATE event_logs SET event = ?", (zlib.decompress(stored).decode(),))
        connection.commit()
    assert note_of(instance) == [NOTE, NOTE]


def test_what_sql_looks_into_stays_text(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = instance.create_run_for_job(dg.GraphDefinition("nothing").to_job())
    instance.report_engine_event(NOTE, run)
    *_, stored = events_in(tmp_path)
    assert isinstance(stored, str)
    assert NOTE in stored


def test_a_file_of_a_later_release_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        made.report_runless_asset_event(dg.AssetMaterialization(KEY))
    file = next(tmp_path.rglob("event_log.db"))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 7")
    before = file.read_bytes()
    with pytest.raises(ConfigurationError, match=r"of format 7.*Upgrade"), opened(tmp_path):
        pass
    assert file.read_bytes() == before
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 0")
    with opened(tmp_path) as again:
        assert again.get_latest_materialization_event(KEY)
