"""The embedded store: the contract, several processes, sudden death, and a disk that says no."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics_pipeline_tests
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.errors import PartialWrite, StoreError, StoreUnavailable
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.storage import embedded
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.embedded_rows import SERIES_AT_ONCE
from metrics_pipeline_tests.file_size_limit import file_size_limit
from metrics_pipeline_tests.not_root import not_root
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.storage.contract import (
    TIME_NS,
    ExactStoreContract,
    StoreUnderTest,
    poll,
)

END_NS = 2**63 - 1
ROOT = Path(metrics_pipeline_tests.__file__).parents[1]


@contextmanager
def opened(path: Path, busy_timeout_seconds: float = 10) -> Iterator[EmbeddedStore]:
    given = EmbeddedStoreSettings(path=path, busy_timeout_seconds=busy_timeout_seconds)
    with closing(EmbeddedStore(given)) as store:
        yield store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "points.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[EmbeddedStore]:
    with opened(path) as store:
        yield store


def reason_for(store: EmbeddedStore, point: Point) -> str:
    with pytest.raises(PartialWrite) as caught:
        store.write([point])
    (reason,) = caught.value.rejected
    return reason


class TestEmbeddedStore(ExactStoreContract):
    @pytest.fixture
    def tested(self, tmp_path: Path) -> Iterator[StoreUnderTest]:
        with opened(tmp_path / "state" / "points.sqlite") as store:
            yield StoreUnderTest(store, lambda measurement: store.read(measurement, 0, END_NS))


# --- points ---------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
STORABLE = st.builds(
    Point,
    TEXT,
    st.dictionaries(TEXT, TEXT.filter(bool), max_size=3),
    st.dictionaries(
        TEXT,
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-(2**63), 2**63 - 1),
            st.booleans(),
            TEXT,
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 2**63 - 2),
)


@settings(max_examples=50)
@given(STORABLE)
def test_any_point_comes_back_as_it_went_in(point: Point) -> None:
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "p.sqlite") as store:
        store.write([point])
        (found,) = store.read(point.measurement, point.time_ns, point.time_ns + 1)
    assert found == point
    for name, value in point.fields.items():
        assert type(found.fields[name]) is type(value)


def test_points_are_there_for_the_next_process(path: Path) -> None:
    with opened(path) as first:
        first.write([poll({"value": 1.5})])
    with opened(path) as second:
        assert second.read("polls", 0, END_NS) == (poll({"value": 1.5}),)


def test_reading_starts_at_the_first_time_and_ends_before_the_last(store: EmbeddedStore) -> None:
    points = [poll({"value": i + 0.5}, TIME_NS + i) for i in range(4)]
    store.write(list(reversed(points)))
    assert store.read("polls", TIME_NS + 1, TIME_NS + 3) == tuple(points[1:3])


def test_reading_what_was_never_written_gives_nothing(store: EmbeddedStore) -> None:
    assert store.read("polls", 0, END_NS) == ()


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_tags_are_kept_as_json_with_sorted_keys(tags: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.sqlite"
        with opened(path) as store:
            store.write([Point("m", tags, {"f": 1.0}, 1)])
        with closing(sqlite3.connect(path)) as connection:
            ((kept,),) = connection.execute("SELECT tags FROM series")
    shown = {key: value for key, value in tags.items() if value}
    assert kept == json.dumps(shown, sort_keys=True, separators=(",", ":"))


def test_a_batch_of_more_series_than_one_statement_finds_is_written_twice_as_one(
    store: EmbeddedStore,
) -> None:
    points = [
        Point("m", {"n": str(number)}, {"f": float(number)}, 1)
        for number in range(2 * SERIES_AT_ONCE + 1)
    ]
    store.write(points)
    store.write(points)
    assert sorted(p.tags["n"] for p in store.read("m", 0, 2)) == sorted(p.tags["n"] for p in points)
    assert store.check().endswith(f"{len(points)} series, {len(points)} points")


def test_the_order_of_tags_makes_no_other_series(store: EmbeddedStore) -> None:
    store.write([Point("polls", {"device_id": "a", "name": "b"}, {"value": 1.5}, TIME_NS)])
    store.write([Point("polls", {"name": "b", "device_id": "a"}, {"value": 2.5}, TIME_NS)])
    assert store.read("polls", 0, END_NS) == (poll({"value": 2.5}, name="b"),)
    assert "1 series, 1 points" in store.check()


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (poll({}), "no_fields"),
        (poll({"value": float("inf")}), "not_finite"),
        (poll({"count": 2**63}), "out_of_range"),
        (poll({"text": "half \ud800"}), "not_unicode"),
        (poll({"value": 1.5}, 2**63), "time_out_of_range"),
    ],
)
def test_what_sqlite_cannot_give_back_is_refused(
    store: EmbeddedStore, point: Point, reason: str
) -> None:
    assert reason_for(store, point) == reason


def test_a_refused_point_does_not_settle_the_type_of_its_other_fields(
    store: EmbeddedStore,
) -> None:
    store.write([poll({"value": 1.5})])
    assert reason_for(store, poll({"new": 1, "value": 2})) == "field_type_conflict"
    store.write([poll({"new": "text"})])


def test_another_measurement_may_use_a_field_of_the_same_name_otherwise(
    store: EmbeddedStore,
) -> None:
    store.write([poll({"value": 1.5}), Point("others", {}, {"value": "text"}, TIME_NS)])
    assert store.read("others", 0, END_NS) == (Point("others", {}, {"value": "text"}, TIME_NS),)


def test_a_check_counts_no_further_than_it_must(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "COUNTED_POINTS", 2)
    store.write([poll({"value": 1.5}, TIME_NS + i) for i in range(3)])
    assert store.check() == f"{store.name}, 1 series, more than 2 points"


def test_threads_may_share_a_store(store: EmbeddedStore) -> None:
    def write(device_id: str) -> None:
        for i in range(20):
            store.write([poll({"count": i}, TIME_NS + i, device_id)])

    threads = [threading.Thread(target=write, args=(f"d{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.read("polls", 0, END_NS)) == 80


def test_a_reader_may_meet_a_writer_that_adds_fields(path: Path) -> None:
    def write(store: EmbeddedStore) -> None:
        for i in range(150):
            store.write([poll({f"field_{i}": i})])

    with opened(path) as store, opened(path) as other:
        writer = threading.Thread(target=write, args=(other,))
        writer.start()
        while writer.is_alive():
            for point in store.read("polls", 0, END_NS):
                assert list(point.fields.values()) == list(range(len(point.fields)))
        writer.join()
        (found,) = store.read("polls", 0, END_NS)
    assert len(found.fields) == 150


# --- several processes ----------------------------------------------------------------------------


def start_writer(path: Path, device_id: str, writes: int, points: int) -> subprocess.Popen[str]:
    module = "metrics_pipeline_tests.storage.embedded_writer"
    argv = [sys.executable, "-m", module, str(path), device_id, str(writes), str(points)]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_processes_that_start_and_write_at_once_lose_nothing(path: Path) -> None:
    writers = [start_writer(path, f"d{n}", writes=50, points=20) for n in range(4)]
    for writer in writers:
        printed, _ = writer.communicate(timeout=PATIENCE_SECONDS)
        assert writer.returncode == 0
        assert printed.split() == [str(number) for number in range(50)]
    with opened(path) as store:
        found = Counter(point.tags["device_id"] for point in store.read("polls", 0, END_NS))
    assert found == {f"d{n}": 1000 for n in range(4)}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_killed_process_tears_nothing_and_loses_nothing_it_acknowledged(path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for round_number in range(5):
        device_id = f"d{round_number}"
        with start_writer(path, device_id, writes=1_000_000, points=37) as writer:
            assert writer.stdout is not None
            for _ in range(3 + 20 * round_number):
                writer.stdout.readline()
            writer.kill()
            printed = writer.stdout.read().split()
        acknowledged[device_id] = int(printed[-1]) + 1 if printed else 3 + 20 * round_number
    with opened(path) as store:
        found = Counter(point.tags["device_id"] for point in store.read("polls", 0, END_NS))
        assert reads_as_sound(path)
    for device_id, writes in acknowledged.items():
        assert found[device_id] % 37 == 0
        assert found[device_id] >= writes * 37


def reads_as_sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        found: list[tuple[str]] = connection.execute("PRAGMA integrity_check").fetchall()
        return found == [("ok",)]


@contextmanager
def another_writer(path: Path) -> Iterator[None]:
    """Someone else in the middle of a write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_a_store_that_stays_locked_is_unavailable_and_can_still_be_read(path: Path) -> None:
    with opened(path, busy_timeout_seconds=0.1) as store:
        store.write([poll({"value": 1.5})])
        with another_writer(path):
            with pytest.raises(StoreUnavailable, match=r"database is locked.*busy_timeout_seconds"):
                store.write([poll({"value": 2.5})])
            with pytest.raises(StoreUnavailable):
                store.check()
            assert store.read("polls", 0, END_NS) == (poll({"value": 1.5}),)
        store.write([poll({"value": 2.5})])
        assert store.read("polls", 0, END_NS) == (poll({"value": 2.5}),)


# --- files and disks that say no ------------------------------------------------------------------


def write_and_catch(path: Path) -> StoreError:
    with opened(path) as store, pytest.raises(StoreError) as caught:
        store.write([poll({"value": 1.5})])
    assert str(path) in str(caught.value)
    return caught.value


def sqlite_file(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def test_a_file_of_something_else_is_not_touched(path: Path) -> None:
    path.write_text("device,count\na,1\n" * 100)
    error = write_and_catch(path)
    assert type(error) is StoreError
    assert "not a SQLite file" in str(error)
    assert path.read_text() == "device,count\na,1\n" * 100


@pytest.mark.parametrize("statements", ["", "CREATE TABLE theirs (a); PRAGMA user_version = 1"])
def test_a_sqlite_file_of_another_program_is_not_touched(path: Path, statements: str) -> None:
    path.touch()
    sqlite_file(path, statements)
    before = path.read_bytes()
    error = write_and_catch(path)
    assert type(error) is StoreError
    assert "not made by metrics_pipeline" in str(error)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_with_both_versions(path: Path) -> None:
    with opened(path) as store:
        store.check()
    sqlite_file(path, "PRAGMA user_version = 3")
    error = write_and_catch(path)
    assert type(error) is StoreError
    assert "schema version 3, this program knows 2" in str(error)


def test_a_damaged_file_is_a_store_error(path: Path) -> None:
    with opened(path) as store:
        store.write([poll({"value": 1.5})])
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    error = write_and_catch(path)
    assert type(error) is StoreError
    assert "malformed" in str(error)


def test_a_directory_that_is_a_file_is_unavailable(path: Path) -> None:
    path.write_text("in the way")
    error = write_and_catch(path / "points.sqlite")
    assert isinstance(error, StoreUnavailable)
    assert f"Make {path} a directory" in str(error)


def test_a_path_that_is_a_directory_is_unavailable(path: Path) -> None:
    path.mkdir()
    assert "unable to open database file" in str(write_and_catch(path))


def test_a_directory_that_vanishes_is_unavailable_until_it_is_back(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "mounted", tmp_path / "elsewhere"
    with opened(folder / "points.sqlite") as store:
        store.write([poll({"value": 1.5})])
        folder.rename(elsewhere)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="was there and is gone"):
                store.write([poll({"value": 2.5}, TIME_NS + 1)])
        assert not folder.exists()
        elsewhere.rename(folder)
        store.write([poll({"value": 3.5}, TIME_NS + 2)])
        assert len(store.read("polls", 0, END_NS)) == 2


def test_a_file_restored_from_a_backup_gets_the_next_writes(tmp_path: Path) -> None:
    path, backup = tmp_path / "points.sqlite", tmp_path / "backup.sqlite"
    with opened(backup) as other:
        other.write([poll({"value": 0.5}, TIME_NS - 1)])
    with opened(path) as store:
        store.write([poll({"value": 1.5})])
        store.close()
        backup.rename(path)
        store.write([poll({"value": 2.5}, TIME_NS + 1)])
        assert [p.fields["value"] for p in store.read("polls", 0, END_NS)] == [0.5, 2.5]


def test_a_disk_without_room_is_unavailable_and_keeps_what_it_has(path: Path) -> None:
    kept = poll({"value": 1.5})
    many = [poll({"value": i + 0.5}, TIME_NS + i, f"d{i}") for i in range(5000)]
    with opened(path) as store:
        store.write([kept])
        with file_size_limit(100_000), pytest.raises(StoreUnavailable, match="full, over quota"):
            store.write(many)
        assert store.read("polls", 0, END_NS) == (kept,)
        store.write(many)
        assert len(store.read("polls", 0, END_NS)) == 5001


def test_a_disk_that_is_full_says_what_to_do(path: Path) -> None:
    with opened(path) as store:
        # SQLite's own limit gives the very error of a full disk, for this connection only.
        with store._session() as connection:
            connection.execute("PRAGMA max_page_count = 10")
        with pytest.raises(StoreUnavailable, match=r"disk is full.*Free space"):
            store.write([poll({"text": "x" * 100_000})])
        store.write([poll({"text": "x" * 100_000})])


def test_a_file_that_may_not_be_written_says_so(folder_for_all: Path) -> None:
    path = folder_for_all / "points.sqlite"
    with opened(path) as owner:
        owner.write([poll({"value": 1.5})])
        for entry in folder_for_all.iterdir():
            entry.chmod(0o444)
        folder_for_all.chmod(0o555)
        with not_root():
            error = write_and_catch(path)
    assert "readonly" in str(error)
    assert "Let this user write to the file and its directory" in str(error)
    assert not isinstance(error, StoreUnavailable)


def test_a_directory_that_may_not_be_written_says_so(folder_for_all: Path) -> None:
    folder_for_all.chmod(0o555)
    with not_root():
        error = write_and_catch(folder_for_all / "points.sqlite")
    assert "this user may write to" in str(error)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_settings", "expected"),
    [
        ({}, "/state/embedded.sqlite"),
        ({"path": "points/a.sqlite"}, "/state/points/a.sqlite"),
        ({"path": "/elsewhere/a.sqlite"}, "/elsewhere/a.sqlite"),
    ],
)
def test_a_relative_path_is_below_the_state_directory(
    given_settings: Mapping[str, FieldValue], expected: str
) -> None:
    found = EmbeddedStoreSettings.model_validate(given_settings, context={STATE_DIR_KEY: "/state"})
    assert found.path == Path(expected)
