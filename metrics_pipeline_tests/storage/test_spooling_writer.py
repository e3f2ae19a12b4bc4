"""The writer with a spool, over real stores that go away and come back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http import HTTPStatus
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrics_pipeline.core.catalog import (
    CATALOG,
    POINTS_REJECTED,
    POINTS_SPOOLED,
    POINTS_WRITTEN,
)
from metrics_pipeline.core.errors import StoreError, StoreUnavailable
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.simulators.loopback_server import Answer
from metrics_pipeline.storage import spool_replay, tallies
from metrics_pipeline.storage.influx import InfluxStoreSettings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.operational_schema import VERSIONS
from metrics_pipeline.storage.spool import Spool, SpoolSettings
from metrics_pipeline.storage.spool_replay import Drain, Patience
from metrics_pipeline.storage.writer import Writer
from metrics_pipeline_tests.servers import wait_until
from metrics_pipeline_tests.storage.influx_stub import POISON, TOKEN, InfluxStub
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import TOKEN as ENGINE_TOKEN
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import influxdb_1_engine
from metrics_pipeline_tests.storage.operational_databases import sqlite_settings

ASSET = "fleet/device_counts"
BEGIN_NS = time.time_ns() // 10**9 * 10**9
BUSY = Answer(HTTPStatus.SERVICE_UNAVAILABLE, b'{"code":"unavailable","message":"busy"}')
ALWAYS = 1000


def count(number: int, provider: str = "hub", **fields: FieldValue) -> Point:
    """The one of second `number`."""
    given = fields or {"device_count": number}
    return Point("fleet_counts", {"provider": provider}, given, BEGIN_NS + number * 10**9)


def status(number: int, text: str = "online") -> Point:
    return Point("device_status", {"device_id": "a"}, {"status": text}, BEGIN_NS + number * 10**9)


def reading(*points: Point) -> Reading:
    return Reading(points)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_replay, "Patience", lambda: Patience(between=0.05, at_end=5.0))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[InfluxStub]:
    monkeypatch.setenv("STORE_TOKEN", TOKEN)
    with InfluxStub() as server:
        yield server


def store_settings(url: str) -> InfluxStoreSettings:

    databases = {m.database: "tests" for m in CATALOG.measurements.values()}

    return InfluxStoreSettings.model_validate(
        {
            "kind": "influxdb",
            "url": url,
            "api": "v2",
            "org": "any",
            "token": {"env": "STORE_TOKEN"},
            "databases": databases,
            "timeout_seconds": 5,
        }
    )


Open = Callable[[str], Writer]


@pytest.fixture
def open_it(tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as opened:

        def open_one(url: str, max_bytes: int = 100_000) -> Writer:
            spool = SpoolSettings(directory=tmp_path / "spool", max_bytes=max_bytes)
            made = open_writer(store_settings(url), sqlite_settings(tmp_path), CATALOG, spool)
            return opened.enter_context(closing(made))

        yield open_one


def spool(folder: Path) -> Spool:
    return Spool(SpoolSettings(directory=folder / "spool"))


def totals(folder: Path) -> dict[str, dict[str, int]]:
    with (
        closing(OperationalDatabase(sqlite_settings(folder))) as database,
        database.reading() as connection,
    ):
        return tallies.totals(connection)


def test_while_influxdb_is_killed_everything_is_kept_and_shown_and_afterwards_stored(
    tmp_path: Path, open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_TOKEN", ENGINE_TOKEN)
    with influxdb_1_engine(tmp_path / "engine") as engine:
        writer = open_it(engine.url)
        assert writer.write(ASSET, reading(count(0))).accepted == 1
        with engine.outage():
            for number in range(1, 6):
                report = writer.write(ASSET, reading(count(number), status(number)))
                assert (report.accepted, report.spooled, report.rejected) == (0, 2, {})
                assert report.snapshot.complete_at_ns is not None
                shown = writer.latest(ASSET)
                assert shown is not None
                assert count(number) in shown.points
            assert totals(tmp_path)[POINTS_WRITTEN.name] == {"fleet_counts": 1}
        wait_until(spool(tmp_path).is_empty, "everything is stored")
        assert writer.write(ASSET, reading(count(6))).accepted == 1
        found = engine.read("fleet_counts")
        assert sorted(found, key=lambda p: p.time_ns) == [count(number) for number in range(7)]
        assert {type(p.fields["device_count"]) for p in found} == {int}
        assert len(engine.read("device_status")) == 5
    counted = totals(tmp_path)
    assert counted[POINTS_SPOOLED.name] == {"fleet_counts": 5, "device_status": 5}
    assert counted[POINTS_WRITTEN.name] == {"fleet_counts": 7, "device_status": 5}


def test_an_outage_costs_one_try_and_then_no_write_asks_the_store(
    stub: InfluxStub, open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_replay, "Patience", lambda: Patience(between=60, at_end=0))
    writer = open_it(stub.url)
    stub.faults.extend([BUSY] * ALWAYS)
    for number in range(20):
        assert writer.append([count(number)]).spooled == {"fleet_counts": 1}
    asked = ALWAYS - len(stub.faults)
    assert 1 <= asked <= 4  # its own, and the three of who replays


def test_what_comes_after_the_outage_waits_behind_what_is_in_the_spool(
    tmp_path: Path, stub: InfluxStub, open_it: Open
) -> None:
    spool(tmp_path).append([count(0, device_count=1)])
    writer = open_it(stub.url)
    part = writer.append([count(0, device_count=2)])
    assert part.spooled == {"fleet_counts": 1}
    wait_until(spool(tmp_path).is_empty, "everything is stored")
    values = [line.split(b" ")[1] for _, line in stub.lines]
    assert values == [b"device_count=1i", b"device_count=2i"]


def test_a_point_that_the_store_refuses_at_last_is_counted_and_blocks_nothing(
    tmp_path: Path, stub: InfluxStub, open_it: Open
) -> None:
    writer = open_it(stub.url)
    stub.faults.append(BUSY)
    poison = count(1, POISON.decode())
    assert writer.append([count(0), poison, count(2)]).spooled == {"fleet_counts": 3}
    wait_until(spool(tmp_path).is_empty, "everything is stored")
    assert len(stub.lines) == 2
    wait_until(lambda: POINTS_REJECTED.name in totals(tmp_path), "it is counted")
    assert totals(tmp_path)[POINTS_REJECTED.name] == {"store_rejected": 1}
    assert totals(tmp_path)[POINTS_WRITTEN.name] == {"fleet_counts": 2}
    assert list((tmp_path / "spool").glob("*.damaged")) == []


def test_points_older_than_a_point_may_be_are_stored_all_the_same(
    tmp_path: Path, stub: InfluxStub, open_it: Open
) -> None:
    old = count(-30 * 86_400)
    assert open_it(stub.url).append([old]).rejected == {"time_out_of_range": 1}
    spool(tmp_path).append([old])
    assert open_it(stub.url).append([count(0)]).spooled == {"fleet_counts": 1}
    wait_until(spool(tmp_path).is_empty, "everything is stored")
    assert len(stub.lines) == 2


def test_a_token_that_is_refused_fails_the_write_and_spools_nothing(
    tmp_path: Path, stub: InfluxStub, open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_TOKEN", "of-somebody-else")
    with pytest.raises(StoreError, match="401"):
        open_it(stub.url).append([count(0)])
    assert spool(tmp_path).is_empty()


def test_a_token_that_is_refused_during_the_replay_loses_nothing(
    tmp_path: Path, stub: InfluxStub, open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_it(stub.url)
    stub.faults.append(BUSY)
    monkeypatch.setenv("STORE_TOKEN", "of-somebody-else")
    assert writer.append([count(0)]).spooled == {"fleet_counts": 1}
    assert writer.append([count(1)]).spooled == {"fleet_counts": 1}
    assert not spool(tmp_path).is_empty()
    monkeypatch.setenv("STORE_TOKEN", TOKEN)
    wait_until(spool(tmp_path).is_empty, "everything is stored")
    assert len(stub.lines) == 2


def test_a_bucket_that_is_missing_during_the_replay_loses_nothing_and_costs_nobody_else(
    tmp_path: Path, stub: InfluxStub
) -> None:
    settings = store_settings(stub.url)
    other = CATALOG.measurements["service_metrics"].database
    assert other != CATALOG.measurements["fleet_counts"].database
    settings = settings.model_copy(update={"databases": {**settings.databases, other: "missing"}})
    for number in range(5):
        spool(tmp_path).append([count(number)])
        fields = {"healthy": 1}
        spool(tmp_path).append(
            [Point("service_metrics", {"service": "a"}, fields, BEGIN_NS + number)]
        )
    given = SpoolSettings(directory=tmp_path / "spool")
    with closing(open_writer(settings, sqlite_settings(tmp_path), CATALOG, given)) as writer:
        assert writer.append([count(5)]).spooled == {"fleet_counts": 1}
        wait_until(lambda: len(stub.lines) > 0, "the bucket that is there has some")
        wait_until(lambda: stub.lines.most_common(1)[0][1] > 2, "it was tried again")
        assert not spool(tmp_path).is_empty()
        stub.databases.add("missing")
        wait_until(spool(tmp_path).is_empty, "everything is stored")
    assert Counter(database for database, _ in stub.lines) == {"tests": 6, "missing": 5}
    assert list((tmp_path / "spool").glob("*.damaged")) == []
    assert totals(tmp_path)[POINTS_WRITTEN.name] == {"fleet_counts": 6, "service_metrics": 5}


def test_what_the_store_takes_is_not_set_aside_because_it_cannot_be_counted(
    tmp_path: Path, stub: InfluxStub
) -> None:
    for number in range(10):
        spool(tmp_path).append([count(number)])
    with (
        closing(OperationalDatabase(sqlite_settings(tmp_path))) as database,
        closing(
            open_writer(store_settings(stub.url), sqlite_settings(tmp_path), CATALOG)
        ) as writer,
    ):
        drain = Drain(spool(tmp_path), writer, threading.Event())
        with database.writing() as connection:
            connection.execute(sa.insert(VERSIONS).values(version=99))
        with pytest.raises(StoreError, match="99"):
            drain.run()
        with database.writing() as connection:
            connection.execute(sa.delete(VERSIONS).where(VERSIONS.c.version == 99))
        assert list((tmp_path / "spool").glob("*.damaged")) == []
        drain.run()
    assert spool(tmp_path).is_empty()
    assert len(stub.lines) == 10
    assert totals(tmp_path)[POINTS_WRITTEN.name] == {"fleet_counts": 10}


def test_a_spool_that_is_full_fails_the_write_and_shows_nothing_of_it(
    tmp_path: Path, stub: InfluxStub
) -> None:
    given = SpoolSettings(directory=tmp_path / "spool", max_bytes=10_000)
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "1.damaged").write_bytes(b"x" * 9_990)
    opened = open_writer(store_settings(stub.url), sqlite_settings(tmp_path), CATALOG, given)
    with closing(opened) as writer:
        writer.write(ASSET, reading(count(0)))
        stub.faults.extend([BUSY] * ALWAYS)
        with pytest.raises(StoreUnavailable, match=r"is full.*HTTP 503: busy.*spool\.max_bytes"):
            writer.write(ASSET, reading(count(1)))
        shown = writer.latest(ASSET)
        assert shown is not None
        assert shown.points == (count(0),)


def test_text_that_is_no_unicode_is_refused_and_the_rest_is_spooled(
    tmp_path: Path, stub: InfluxStub, open_it: Open
) -> None:
    writer = open_it(stub.url)
    stub.faults.extend([BUSY] * ALWAYS)
    part = writer.append([status(0), status(1, "\ud800")])
    assert (part.spooled, part.rejected) == ({"device_status": 1}, {"not_unicode": 1})
    assert part.kept == (status(0),)
    stub.faults.clear()
    wait_until(spool(tmp_path).is_empty, "it is stored")


def test_without_a_spool_an_outage_fails_the_write(tmp_path: Path, stub: InfluxStub) -> None:
    """As of telemetry: no checkpoint moves then."""
    stub.faults.extend([BUSY] * ALWAYS)
    opened = open_writer(store_settings(stub.url), sqlite_settings(tmp_path), CATALOG)
    with closing(opened) as writer, pytest.raises(StoreUnavailable, match="busy"):
        writer.append([count(0)], names_refused=True)
    assert not (tmp_path / "spool").exists()
