"""Files of earlier schemas: everything in them is there afterwards, whoever opens them and when."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from metrics_pipeline.core.errors import StoreError, StoreUnavailable
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.storage import embedded, embedded_schema
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.embedded_schema import SCHEMA_VERSION
from metrics_pipeline_tests.storage.schema_1 import write_schema_1

END_NS = 2**63 - 1
ODD: dict[str, FieldValue] = {
    "whole": 3.0,
    "seventeen_digits": 0.1 + 0.2,
    "largest": 1.7976931348623157e308,
    "below_zero": -0.0,
    "count": 2**63 - 1,
    "least": -(2**63),
    "up": True,
    "down": False,
    "text": 'é "quoted" \\ \n',
    "nothing": "",
}


def store_of(path: Path, busy_timeout_seconds: float = 10) -> EmbeddedStore:
    given = EmbeddedStoreSettings(path=path, busy_timeout_seconds=busy_timeout_seconds)
    return EmbeddedStore(given)


def read(path: Path, measurement: str) -> tuple[Point, ...]:
    with closing(store_of(path)) as store:
        return store.read(measurement, 0, END_NS)


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "points.sqlite"


def test_every_value_of_a_file_of_schema_1_comes_back_with_its_type(path: Path) -> None:
    points = (
        Point("polls", {"device_id": "a", "site": "é"}, ODD, 1),
        Point("polls", {"device_id": "b"}, {"whole": 1.5}, 2),
        Point("polls", {}, {"whole": 2.5, "text": "x"}, 3),
    )
    other = Point("counts", {"device_id": "a"}, {"whole": 7}, 1)
    write_schema_1(path, (*points, other))
    found = read(path, "polls")
    assert found == points
    assert {name: repr(value) for name, value in found[0].fields.items()} == {
        name: repr(value) for name, value in ODD.items()
    }
    assert read(path, "counts") == (other,)
    assert version(path) == SCHEMA_VERSION


def test_writing_goes_on_where_schema_1_ended(path: Path) -> None:
    write_schema_1(path, [Point("polls", {"device_id": "a"}, {"value": 1.5, "count": 1}, 1)])
    with closing(store_of(path)) as store:
        store.write(
            [
                Point("polls", {"device_id": "a"}, {"value": 2.5}, 1),
                Point("polls", {"device_id": "b"}, {"value": 3.5}, 2),
            ]
        )
    assert read(path, "polls") == (
        Point("polls", {"device_id": "a"}, {"value": 2.5, "count": 1}, 1),
        Point("polls", {"device_id": "b"}, {"value": 3.5}, 2),
    )


def test_several_may_open_a_file_of_schema_1_at_once(path: Path) -> None:
    points = tuple(Point("polls", {"n": str(n % 7)}, {"value": n / 3}, n) for n in range(2_000))
    write_schema_1(path, points)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: read(path, "polls"), range(4)):
            assert found == points


UPGRADE = """
import sys
from pathlib import Path
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
store = EmbeddedStore(EmbeddedStoreSettings(path=Path(sys.argv[1])))
print("begins", flush=True)
store.check()
"""


def test_an_upgrade_that_is_killed_has_changed_nothing(path: Path) -> None:
    points = tuple(
        Point("polls", {"n": str(n % 7)}, {"value": n / 3, "count": n}, n) for n in range(20_000)
    )
    write_schema_1(path, points)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", UPGRADE, str(path)], stdout=subprocess.PIPE, env=os.environ
        )
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        assert version(path) in (1, SCHEMA_VERSION)
    assert read(path, "polls") == points
    assert version(path) == SCHEMA_VERSION


# --- large files ----------------------------------------------------------------------------------


POINTS = tuple(Point("polls", {"n": str(n)}, {"value": n / 3, "count": n}, n) for n in range(20))


@pytest.fixture
def large(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with more values than are changed by whoever opens it."""
    monkeypatch.setattr(embedded, "VALUES_CHANGED_AT_OPENING", 39)
    write_schema_1(path, POINTS)
    return path


def upgrade(path: Path) -> list[str]:
    """What was told of it."""
    told: list[str] = []
    with closing(store_of(path)) as store:
        store.upgrade(told.append)
    return told


def test_a_large_file_is_refused_to_those_who_have_no_time_to_change_it(large: Path) -> None:
    with closing(store_of(large)) as store:
        assert "`metrics-pipeline check --upgrade`" in store.check()
        with pytest.raises(StoreError, match=r"more than 39.*metrics-pipeline check --upgrade"):
            store.read("polls", 0, END_NS)
        with pytest.raises(StoreError, match="while nothing else runs") as caught:
            store.write([Point("polls", {"n": "1"}, {"value": 1.5}, 1)])
        assert not isinstance(caught.value, StoreUnavailable)
        assert version(large) == 1
        upgrade(large)
        assert store.read("polls", 0, END_NS) == POINTS


def test_a_file_at_the_bound_is_changed_by_who_opens_it(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "VALUES_CHANGED_AT_OPENING", 40)
    assert read(large, "polls") == POINTS


def test_the_change_of_a_large_file_is_told_once(large: Path) -> None:
    begun, ended = upgrade(large)
    assert begun.startswith(f"Changing 40 values of embedded store {large} to schema 2: less than")
    assert ended.startswith("All values are changed")
    assert upgrade(large) == []
    assert read(large, "polls") == POINTS


def test_the_minutes_of_a_change_are_told_beforehand_and_its_progress_while_it_lasts(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "VALUES_CHANGED_A_SECOND", 40 / 120)
    monkeypatch.setattr(embedded, "TELL_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(embedded_schema, "PROGRESS_EVERY_VALUES", 15)
    begun, *progress, _ended = upgrade(large)
    assert "about 2 min, more on a slow disk or a busy machine" in begun
    assert progress == ["15 of 40 values are changed.", "30 of 40 values are changed."]


def test_an_upgrade_of_no_file_makes_none(path: Path) -> None:
    assert upgrade(path) == []
    assert not path.exists()


def test_an_upgrade_that_is_interrupted_has_changed_nothing(large: Path) -> None:
    def interrupt(_told: str) -> None:
        raise KeyboardInterrupt

    with closing(store_of(large)) as store, pytest.raises(KeyboardInterrupt):
        store.upgrade(interrupt)
    assert version(large) == 1
    upgrade(large)
    assert read(large, "polls") == POINTS


def test_an_upgrade_of_what_is_no_store_says_so(path: Path) -> None:
    path.write_text("device,count\na,1\n" * 100)
    with pytest.raises(StoreError, match="not a SQLite file"):
        upgrade(path)


def test_who_opens_a_file_that_is_being_changed_is_told_to_wait_and_works_afterwards(
    large: Path,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(_told: str) -> None:
        begun.set()
        assert go_on.wait(60)

    with (
        ThreadPoolExecutor(1) as thread,
        closing(store_of(large)) as changing,
        closing(store_of(large, busy_timeout_seconds=0.1)) as other,
    ):
        changed = thread.submit(changing.upgrade, hold)
        try:
            assert begun.wait(60)
            new = Point("polls", {"n": "new"}, {"value": 1.5}, 100)
            for use in (other.check, lambda: other.write([new])):
                with pytest.raises(StoreUnavailable, match=r"not of schema 2 yet.*wait until"):
                    use()
        finally:
            go_on.set()
        changed.result()
        other.write([new])
        assert other.read("polls", 0, END_NS) == (*POINTS, new)
