"""Old points go in batches, new ones stay, and the file gives back what it does not need."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from metrics_pipeline.core.points import Point
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.embedded_retention import POINTS_AT_ONCE, SPARE_SHARE
from metrics_pipeline_tests.at_once import at_once

FOREVER_NS = 2**62


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with closing(open_in(tmp_path)) as opened:
        yield opened


def open_in(folder: Path) -> EmbeddedStore:
    return EmbeddedStore(EmbeddedStoreSettings(path=folder / "embedded.sqlite"))


def fill(store: EmbeddedStore, measurement: str, times_ns: range, devices: int = 1) -> None:
    store.write(
        [
            Point(measurement, {"device_id": f"device-{device}"}, {"value": 1.5}, time_ns)
            for time_ns in times_ns
            for device in range(devices)
        ]
    )


def test_what_is_older_goes_of_every_measurement_and_the_rest_stays(store: EmbeddedStore) -> None:
    fill(store, "polls", range(100))
    fill(store, "counts", range(90, 110))
    assert sum(store.delete_before(95)) == 95 + 5
    assert [point.time_ns for point in store.read("polls", 0, FOREVER_NS)] == [*range(95, 100)]
    assert [point.time_ns for point in store.read("counts", 0, FOREVER_NS)] == [*range(95, 110)]


def test_many_points_of_one_moment_go_in_several_batches(store: EmbeddedStore) -> None:
    fill(store, "polls", range(1, 2), devices=2 * POINTS_AT_ONCE + 10)
    fill(store, "polls", range(2, 3))
    batches = [batch for batch in store.delete_before(2) if batch]
    assert batches == [POINTS_AT_ONCE, POINTS_AT_ONCE, 10]
    assert len(store.read("polls", 0, FOREVER_NS)) == 1


def test_a_purge_that_stops_is_gone_on_with_and_others_write_meanwhile(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    fill(store, "polls", range(1, 2), devices=POINTS_AT_ONCE + 10)
    batches = store.delete_before(2)
    assert next(batches) == POINTS_AT_ONCE
    with closing(open_in(tmp_path)) as other:
        fill(other, "polls", range(3, 4))
    assert sum(store.delete_before(2)) == 10
    assert len(store.read("polls", 0, FOREVER_NS)) == 1


def test_the_file_shrinks_to_what_it_needs_and_a_tenth(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    fill(store, "polls", range(20_000))
    before = store.file_size()
    assert sum(store.delete_before(19_000)) == 19_000
    deleted = store.file_size()
    assert deleted.total_bytes == before.total_bytes
    given = sum(store.give_back())
    after = store.file_size()
    assert given == deleted.total_bytes - after.total_bytes > 0
    assert after.free_bytes <= after.total_bytes * SPARE_SHARE
    store.close()
    assert (tmp_path / "embedded.sqlite").stat().st_size == after.total_bytes
    assert len(store.read("polls", 0, FOREVER_NS)) == 1_000


def test_a_file_of_an_earlier_release_does_not_shrink_and_uses_its_space_again(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    fill(store, "polls", range(1))
    store.close()
    with closing(sqlite3.connect(tmp_path / "embedded.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = WAL")
    fill(store, "polls", range(20_000))
    full = store.file_size()
    assert not full.can_shrink
    assert sum(store.delete_before(20_000)) == 20_000
    assert list(store.give_back()) == []
    fill(store, "polls", range(30_000, 50_000))
    assert store.file_size().total_bytes == pytest.approx(full.total_bytes, rel=0.1)


def _purge(folder: Path) -> int:
    with closing(open_in(folder)) as store:
        return sum(store.delete_before(10)) + 0 * sum(store.give_back())


def test_two_purges_at_once_delete_each_point_once(store: EmbeddedStore, tmp_path: Path) -> None:
    fill(store, "polls", range(11), devices=1_000)
    assert sum(at_once(_purge, tmp_path, processes=2)) == 10_000
    assert len(store.read("polls", 0, FOREVER_NS)) == 1_000
