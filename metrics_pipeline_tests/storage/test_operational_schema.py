"""Operational databases of earlier releases: changed once, by whoever comes first."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.telemetry import DeadLetter
from metrics_pipeline.storage.dead_letters import DeadLetters, DeadLetterSettings
from metrics_pipeline.storage.operational import (
    DEAD_LETTER_SIZE,
    DEAD_LETTERS,
    TABLES,
    OperationalDatabase,
)
from metrics_pipeline.storage.operational_schema import UPGRADES, VERSIONS
from metrics_pipeline_tests.at_once import at_once
from metrics_pipeline_tests.engines import engine_of
from metrics_pipeline_tests.storage.operational_databases import sqlite_settings

HUB = ("plant", "uplinks", "$default")
TIME_NS = 1_700_000_000_000_000_000
OLD_IDENTITY = (
    *("namespace", "hub", "consumer_group"),
    *("partition", "sequence_number", "uplink_index"),
)


def letter(number: int, time_ns: int = TIME_NS) -> DeadLetter:
    return DeadLetter("0", number, f"{number}", time_ns, "not_json", "a brace", b"{")


def make_version_0(settings: DatabaseSettings, count: int) -> None:
    """As the release before made it, with dead letters of which the last was removed."""
    columns = [
        sa.Column(c.name, c.type, primary_key=c.primary_key, nullable=c.nullable)
        for c in DEAD_LETTERS.columns
    ]
    unique = sa.UniqueConstraint(*OLD_IDENTITY)
    old = sa.Table("dead_letters", sa.MetaData(), *columns, unique, sqlite_autoincrement=True)
    names = dict(zip(OLD_IDENTITY, HUB, strict=False))
    rest = {"kept_at_ns": 7, "uplink_index": 0, "enqueued_time_ns": TIME_NS, "size_bytes": 300}
    texts = {"reason": "not_json", "detail": "a brace", "body": b"{", "body_bytes": 1}
    rows = [
        {**names, **rest, **texts, "partition": "0", "sequence_number": n, "offset": f"{n}"}
        for n in range(count + 1)
    ]
    size = {"id": 0, "row_count": count, "size_bytes": 300 * count}
    with engine_of(settings) as engine, engine.begin() as connection:
        old.create(connection)
        connection.execute(sa.insert(old), rows)
        connection.execute(sa.delete(old).where(old.c.sequence_number == count))
        DEAD_LETTER_SIZE.create(connection)
        connection.execute(sa.insert(DEAD_LETTER_SIZE), [size])


def keep(settings: DatabaseSettings, letters: list[DeadLetter]) -> int:
    """How many were new."""
    with closing(OperationalDatabase(settings)) as database:
        report = DeadLetters(database, DeadLetterSettings(), *HUB).keep(letters)
    return sum(report.kept.values())


def found(settings: DatabaseSettings) -> list[tuple[int, DeadLetter]]:
    with closing(OperationalDatabase(settings)) as database:
        kept = DeadLetters(database, DeadLetterSettings(), *HUB).find()
    return [(each.id, each.letter) for each in kept]


def test_dead_letters_of_an_earlier_release_stay_and_shadow_none_of_a_hub_made_anew(
    settings: DatabaseSettings,
) -> None:
    make_version_0(settings, 3)
    assert found(settings) == [(n + 1, letter(n)) for n in range(3)]
    anew = [letter(n, TIME_NS + 10**9) for n in range(2)]
    assert keep(settings, [letter(0), *anew]) == 2
    # An id that was given once is not given again.
    assert found(settings)[3:] == [(5, anew[0]), (6, anew[1])]


def test_what_is_upgraded_is_as_what_is_made(
    settings: DatabaseSettings,
) -> None:
    make_version_0(settings, 0)
    keep(settings, [letter(0)])
    upgraded = pictured(settings)
    with engine_of(settings) as engine:
        TABLES.drop_all(engine)
        VERSIONS.drop(engine)
    keep(settings, [letter(0)])
    assert upgraded == pictured(settings)


def pictured(settings: DatabaseSettings) -> tuple[object, ...]:
    with engine_of(settings) as engine:
        inspector = sa.inspect(engine)
        columns = [(c["name"], str(c["type"])) for c in inspector.get_columns("dead_letters")]
        unique = [c["column_names"] for c in inspector.get_unique_constraints("dead_letters")]
        with engine.connect() as connection:
            versions = list(connection.execute(sa.select(VERSIONS.c.version)).scalars())
    assert versions == list(range(1, len(UPGRADES) + 1))
    return columns, unique, versions


def keep_one(settings: DatabaseSettings) -> str:
    keep(settings, [letter(99)])
    return ""


def test_several_processes_upgrade_at_once(settings: DatabaseSettings) -> None:
    make_version_0(settings, 3)
    assert at_once(keep_one, settings) == [""] * 6
    assert [letter.sequence_number for _, letter in found(settings)] == [0, 1, 2, 99]


def test_tables_of_a_later_release_are_left_alone(settings: DatabaseSettings) -> None:
    keep(settings, [letter(0)])
    with engine_of(settings) as engine, engine.begin() as connection:
        connection.execute(sa.insert(VERSIONS).values(version=len(UPGRADES) + 1))
    with pytest.raises(StoreError, match="Upgrade metrics-pipeline"):
        keep(settings, [letter(1)])


def test_an_upgrade_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sqlite_settings(tmp_path)
    make_version_0(settings, 3)

    def fail(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT nothing")

    module = "metrics_pipeline.storage.operational_schema.UPGRADES"
    with monkeypatch.context() as patched:
        patched.setattr(module, (*UPGRADES, fail))
        with pytest.raises(StoreError):
            keep(settings, [letter(99)])
    assert keep(settings, [letter(0), letter(0, TIME_NS + 1)]) == 1


def test_a_rehearsed_upgrade_is_taken_back(settings: DatabaseSettings) -> None:
    make_version_0(settings, 3)
    due = "its tables will be upgraded from 0 to 1 when the product starts"
    with closing(OperationalDatabase(settings)) as database:
        assert [database.rehearse(), database.what_is_due()] == [due, due]
        with engine_of(settings) as engine:
            tables = set(sa.inspect(engine).get_table_names())
            assert tables == {"dead_letters", "dead_letter_size"}
            [unique] = sa.inspect(engine).get_unique_constraints("dead_letters")
            assert unique["column_names"] == list(OLD_IDENTITY)
        with database.writing():
            pass
        assert database.rehearse() == ""
