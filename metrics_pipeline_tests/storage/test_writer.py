"""The writer over real stores: what is kept, what is counted, and what a failure leaves alone."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.backoff import Timing
from metrics_pipeline.core.catalog import CATALOG as PRODUCT_CATALOG
from metrics_pipeline.core.catalog import POINTS_REJECTED, POINTS_WRITTEN, Catalog
from metrics_pipeline.core.device_points import metric_points
from metrics_pipeline.core.devices import DISK_USAGE, DISKS, UPTIME, DeviceReading
from metrics_pipeline.core.errors import SourceUnreachable, StoreError, StoreUnavailable
from metrics_pipeline.core.lorawan_payload import Leaves, Limits
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.core.ports import PointStore, Reading
from metrics_pipeline.core.row_names import distinct_names
from metrics_pipeline.simulators.loopback_server import Answer, NoAnswer
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.influx import InfluxStore, InfluxStoreSettings
from metrics_pipeline.storage.open import open_store, open_writer
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.snapshots import Snapshot
from metrics_pipeline.storage.writer import MAX_EXAMPLES, Part, Writer
from metrics_pipeline_tests.at_once import at_once
from metrics_pipeline_tests.storage.contract import CATALOG as POLL_CATALOG
from metrics_pipeline_tests.storage.influx_stub import POISON, TOKEN, InfluxStub
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import TOKEN as ENGINE_TOKEN
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import (
    Influxdb1EngineShim,
    influxdb_1_engine,
)
from metrics_pipeline_tests.storage.operational_databases import sqlite_settings

CATALOG = Catalog(
    [*PRODUCT_CATALOG, *POLL_CATALOG], PRODUCT_CATALOG.stored_only, PRODUCT_CATALOG.open_fields
)
ASSET = "fleet/device_counts"
NOW_NS = 1_700_000_000_000_000_000
MINUTE_NS = 60 * 10**9
ALWAYS = 100
FAILURE = SourceUnreachable("hub", "device_count", "no answer", "Check the network.")


def count(time_ns: int = NOW_NS, provider: str = "hub", **fields: FieldValue) -> Point:
    return Point("fleet_counts", {"provider": provider}, fields, time_ns)


def poll(value: FieldValue, device_id: str = "a") -> Point:
    return Point("polls", {"device_id": device_id, "name": "x"}, {"value": value}, NOW_NS)


def reading(*points: Point) -> Reading:
    return Reading(points)


@dataclass(slots=True)
class World:
    """A clock that moves when one sleeps, and dice that show `dice`."""

    now_ns: int = NOW_NS
    dice: float = 1.0
    slept: list[float] = field(default_factory=list)

    @property
    def timing(self) -> Timing:
        return Timing(lambda: self.now_ns / 10**9, self._sleep, lambda: self.dice)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now_ns += int(seconds * 10**9)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedStore]:
    given = EmbeddedStoreSettings(path=tmp_path / "points.sqlite")
    with closing(EmbeddedStore(given)) as store:
        yield store


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[InfluxStub]:
    monkeypatch.setenv("STUB_TOKEN", TOKEN)
    with InfluxStub() as server:
        yield server


def influx_settings(
    stub: InfluxStub | Influxdb1EngineShim, api: str, **changes: Any
) -> InfluxStoreSettings:
    given = {
        "kind": "influxdb",
        "url": stub.url,
        "api": api,
        "org": "any" if api == "v2" else None,
        "token": {"env": "STUB_TOKEN"},
        "databases": {"network_metrics": "tests"},
        **changes,
    }
    return InfluxStoreSettings.model_validate({k: v for k, v in given.items() if v is not None})


@pytest.fixture(params=["v2", "v3"])
def influx(request: pytest.FixtureRequest, stub: InfluxStub) -> Iterator[InfluxStore]:
    with closing(InfluxStore(influx_settings(stub, request.param), CATALOG)) as store:
        yield store


def writer_to(store: PointStore, operational: OperationalDatabase, world: World) -> Writer:
    return Writer(store, operational, CATALOG, lambda: world.now_ns, world.timing)


@pytest.fixture
def writer(embedded: EmbeddedStore, operational: OperationalDatabase, world: World) -> Writer:
    return writer_to(embedded, operational, world)


@pytest.fixture
def influx_writer(influx: InfluxStore, operational: OperationalDatabase, world: World) -> Writer:
    return writer_to(influx, operational, world)


def kept(store: EmbeddedStore, measurement: str = "fleet_counts") -> list[Point]:
    return list(store.read(measurement, 0, 2**63 - 1))


def written_lines(stub: InfluxStub) -> set[bytes]:
    return {line for _, line in stub.lines}


def totals(operational: OperationalDatabase) -> dict[str, dict[str, int]]:
    with operational.reading() as connection:
        return tallies.totals(connection)


def shown(writer: Writer) -> dict[str, tuple[FieldValue, int]]:
    """The fields of the snapshot, each with its time."""
    snapshot = writer.latest(ASSET)
    assert snapshot is not None
    return {
        name: (value, point.time_ns)
        for point in snapshot.points
        for name, value in point.fields.items()
    }


def failing(status: int, times: int, **headers: str) -> list[Answer]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return [Answer(status, b'{"code":"unavailable","message":"busy"}', names)] * times


# --- validation -----------------------------------------------------------------------------------


def test_what_is_good_is_stored_and_what_is_not_is_counted_by_reason(
    writer: Writer, embedded: EmbeddedStore, operational: OperationalDatabase
) -> None:
    good = [count(device_count=5), poll(1.5)]
    bad = [
        count(edge_device_count=-1),
        count(failed_deployment_count=-7),
        count(connected_device_count="5"),
        count(concentrator_count=1.5),
        count(no_such_count=1),
        count(NOW_NS - 8 * 24 * 60 * MINUTE_NS, device_count=4),
        count(provider="", device_count=4),
        poll(float("nan")),
        Point("nothing", {}, {"value": 1}, NOW_NS),
    ]
    report = writer.write(ASSET, reading(*bad, *good))
    reasons = {
        "out_of_range": 2,
        "wrong_type": 2,
        "unknown_metric": 1,
        "time_out_of_range": 1,
        "empty_tag": 1,
        "not_finite": 1,
        "unknown_measurement": 1,
    }
    assert (report.accepted, report.rejected) == (2, reasons)
    assert len(report.examples) == MAX_EXAMPLES
    assert "fleet_counts.edge_device_count is -1" in report.examples[0]
    assert kept(embedded) + kept(embedded, "polls") == good
    assert totals(operational) == {
        POINTS_WRITTEN.name: {"fleet_counts": 1, "polls": 1},
        POINTS_REJECTED.name: reasons,
    }


@pytest.mark.parametrize("wrong", [-1, "8", 7.5, True, 2**63])
def test_the_last_good_value_of_a_rejected_field_stays_with_its_time(
    writer: Writer, embedded: EmbeddedStore, wrong: FieldValue
) -> None:
    writer.write(ASSET, reading(count(device_count=15), count(edge_device_count=4)))
    later = NOW_NS + 5
    report = writer.write(
        ASSET, reading(count(later, device_count=wrong), count(later, edge_device_count=3))
    )
    assert shown(writer) == {"device_count": (15, NOW_NS), "edge_device_count": (3, later)}
    assert report.snapshot.complete_at_ns == NOW_NS
    assert [p.fields for p in kept(embedded) if p.time_ns == later] == [{"edge_device_count": 3}]


def test_a_whole_float_is_stored_and_shown_as_an_integer(
    writer: Writer, embedded: EmbeddedStore
) -> None:
    writer.write(ASSET, reading(count(device_count=5.0)))
    (value,) = kept(embedded)[0].fields.values()
    assert (value, type(value)) == (5, int)
    ((shown_value, _),) = shown(writer).values()
    assert type(shown_value) is int
    assert writer.write(ASSET, reading(count(NOW_NS + 1, device_count=6))).rejected == {}


def test_an_integer_where_a_float_belongs_is_stored_as_a_float(
    writer: Writer, embedded: EmbeddedStore
) -> None:
    writer.write(ASSET, reading(poll(2)))
    (value,) = kept(embedded, "polls")[0].fields.values()
    assert (value, type(value)) == (2.0, float)


# --- what is shown --------------------------------------------------------------------------------


def test_a_count_that_falls_is_shown(writer: Writer) -> None:
    for time_ns, value in enumerate((15, 8, 0), start=NOW_NS):
        report = writer.write(ASSET, reading(count(time_ns, device_count=value)))
        assert report.snapshot == writer.latest(ASSET)
        assert shown(writer) == {"device_count": (value, time_ns)}


def test_what_is_no_longer_read_is_no_longer_shown(writer: Writer) -> None:
    writer.write(ASSET, reading(count(device_count=15, edge_device_count=4)))
    writer.write(ASSET, reading(count(device_count=15)))
    assert shown(writer) == {"device_count": (15, NOW_NS)}


def test_a_reading_with_a_failure_keeps_what_it_could_not_read(writer: Writer) -> None:
    writer.write(ASSET, reading(count(device_count=15, edge_device_count=4)))
    report = writer.write(ASSET, Reading((count(NOW_NS + 5, edge_device_count=3),), (FAILURE,)))
    assert shown(writer) == {"device_count": (15, NOW_NS), "edge_device_count": (3, NOW_NS + 5)}
    assert report.rejected == {}
    assert report.snapshot.complete_at_ns == NOW_NS


def test_a_reading_that_failed_altogether_changes_no_value(
    writer: Writer, embedded: EmbeddedStore
) -> None:
    writer.write(ASSET, reading(count(device_count=15)))
    writer.write(ASSET, Reading((), (FAILURE,)))
    assert shown(writer) == {"device_count": (15, NOW_NS)}
    assert len(kept(embedded)) == 1


def test_a_first_reading_that_failed_shows_nothing(writer: Writer) -> None:
    assert writer.latest(ASSET) is None
    report = writer.write(ASSET, Reading((), (FAILURE,)))
    assert report.snapshot == Snapshot(ASSET, 1, NOW_NS, None, ())


def test_assets_do_not_touch_each_other(writer: Writer) -> None:
    writer.write(ASSET, reading(count(device_count=15)))
    writer.write("fleet/edge_device_counts", reading(count(edge_device_count=4)))
    assert shown(writer) == {"device_count": (15, NOW_NS)}


def test_the_same_reading_again_changes_nothing_in_the_store(
    writer: Writer, embedded: EmbeddedStore
) -> None:
    same = reading(count(device_count=15, edge_device_count=4), poll(1.5))
    first = writer.write(ASSET, same)
    before = kept(embedded), kept(embedded, "polls"), shown(writer)
    second = writer.write(ASSET, same)
    assert (kept(embedded), kept(embedded, "polls"), shown(writer)) == before
    assert second.snapshot.points == first.snapshot.points
    assert second.snapshot.revision == first.snapshot.revision + 1


# --- a store that refuses some --------------------------------------------------------------------


def test_points_the_store_refuses_are_counted_and_not_shown(
    influx_writer: Writer, stub: InfluxStub, operational: OperationalDatabase
) -> None:
    points = [count(provider=f"p{n}", device_count=n) for n in range(7)]
    points[3] = replace(points[3], tags={"provider": POISON.decode()})
    report = influx_writer.write(ASSET, reading(*points))
    (reason,) = report.rejected
    assert (report.accepted, report.rejected[reason]) == (6, 1)
    assert "6 points kept, 1 refused" in report.examples[-1]
    assert len(written_lines(stub)) == 6
    assert sorted(p.tags["provider"] for p in report.snapshot.points) == [
        "p0",
        "p1",
        "p2",
        "p4",
        "p5",
        "p6",
    ]
    assert report.snapshot.complete_at_ns is None
    assert totals(operational) == {
        POINTS_WRITTEN.name: {"fleet_counts": 6},
        POINTS_REJECTED.name: {reason: 1},
    }


def test_points_the_store_refuses_altogether_leave_the_last_ones(
    influx_writer: Writer, stub: InfluxStub
) -> None:
    influx_writer.write(ASSET, reading(count(device_count=15)))
    requests = len(stub.requests)
    report = influx_writer.write(
        ASSET, reading(count(NOW_NS + 5, POISON.decode(), device_count=14))
    )
    assert report.accepted == 0
    assert shown(influx_writer) == {"device_count": (15, NOW_NS)}
    assert len(stub.requests) == requests + 1


def test_a_field_that_changed_its_type_in_the_store_costs_only_itself(
    embedded: EmbeddedStore, operational: OperationalDatabase, world: World
) -> None:
    embedded.write([count(NOW_NS - 1, device_count=1.5)])
    writer = writer_to(embedded, operational, world)
    report = writer.write(ASSET, reading(count(device_count=15), count(edge_device_count=4)))
    assert report.rejected == {"field_type_conflict": 1}
    assert shown(writer) == {"edge_device_count": (4, NOW_NS)}


def test_exactly_the_points_a_store_keeps_are_shown(
    embedded: EmbeddedStore, tmp_path: Path, world: World
) -> None:
    conflict = Point("polls", {"device_id": "bad", "name": "x"}, {"count": 1}, NOW_NS)
    embedded.write([poll(1.5), replace(conflict, fields={"count": 1.5})])
    numbers = itertools.count()

    @hypothesis_settings(max_examples=25, deadline=None)
    @given(refused=st.sets(st.integers(0, 40), max_size=4))
    def check(refused: set[int]) -> None:
        points = [
            replace(conflict, tags={"device_id": f"{n}", "name": "x"})
            if n in refused
            else poll(n + 0.5, f"{n}")
            for n in range(41)
        ]
        # An asset of its own: nothing of another example is shown.
        report = tested.write(f"fleet/example_{next(numbers)}", reading(*points))
        assert report.accepted == 41 - len(refused)
        shown_devices = {int(point.tags["device_id"]) for point in report.snapshot.points}
        assert shown_devices == set(range(41)) - refused

    with closing(OperationalDatabase(sqlite_settings(tmp_path))) as operational:
        tested = writer_to(embedded, operational, world)
        check()


# --- a store that fails ---------------------------------------------------------------------------


def test_a_store_that_fails_leaves_what_is_shown_and_counted(
    influx_writer: Writer, stub: InfluxStub, operational: OperationalDatabase
) -> None:
    influx_writer.write(ASSET, reading(count(device_count=15)))
    before = influx_writer.latest(ASSET), totals(operational)
    stub.faults.extend(failing(HTTPStatus.SERVICE_UNAVAILABLE, 3))
    with pytest.raises(StoreUnavailable, match="HTTP 503"):
        influx_writer.write(ASSET, reading(count(NOW_NS + 5, device_count=0), count(bad=1)))
    assert (influx_writer.latest(ASSET), totals(operational)) == before
    assert not stub.faults


@pytest.mark.parametrize(("dice", "waits"), [(1.0, [0.1, 0.2]), (0.0, [0.05, 0.1])])
def test_three_tries_are_made_with_waits_that_double_and_vary(
    influx_writer: Writer, stub: InfluxStub, world: World, dice: float, waits: list[float]
) -> None:
    world.dice = dice
    stub.faults.extend(failing(HTTPStatus.SERVICE_UNAVAILABLE, ALWAYS))
    with pytest.raises(StoreUnavailable):
        influx_writer.write(ASSET, reading(count(device_count=15)))
    assert len(stub.requests) == 3
    assert world.slept == waits


@pytest.mark.parametrize("failures", [1, 2])
def test_a_try_that_succeeds_is_the_last(
    influx_writer: Writer, stub: InfluxStub, failures: int
) -> None:
    stub.faults.extend(failing(HTTPStatus.BAD_GATEWAY, failures))
    influx_writer.write(ASSET, reading(count(device_count=15)))
    assert len(stub.requests) == failures + 1
    assert shown(influx_writer) == {"device_count": (15, NOW_NS)}


def test_a_store_that_refuses_us_is_not_asked_again(
    influx_writer: Writer, stub: InfluxStub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_TOKEN", "another-token")
    with pytest.raises(StoreError, match="HTTP 401") as caught:
        influx_writer.write(ASSET, reading(count(device_count=15)))
    assert not isinstance(caught.value, StoreUnavailable)
    assert "another-token" not in str(caught.value)
    assert (len(stub.requests), world.slept) == (1, [])


@pytest.mark.parametrize("status", [HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE])
def test_a_wait_the_store_asks_for_is_kept(
    influx_writer: Writer, stub: InfluxStub, world: World, status: int
) -> None:
    stub.faults.extend(failing(status, 2, Retry_After="7"))
    influx_writer.write(ASSET, reading(count(device_count=15)))
    assert world.slept == [7.0, 7.0]


@pytest.mark.parametrize(("asked", "slept"), [("61", []), ("40", [40.0]), ("29", [29.0, 29.0])])
def test_a_wait_beyond_the_deadline_is_not_begun(
    influx_writer: Writer, stub: InfluxStub, world: World, asked: str, slept: list[float]
) -> None:
    stub.faults.extend(failing(HTTPStatus.SERVICE_UNAVAILABLE, ALWAYS, Retry_After=asked))
    with pytest.raises(StoreUnavailable):
        influx_writer.write(ASSET, reading(count(device_count=15)))
    assert world.slept == slept
    assert len(stub.requests) == len(slept) + 1


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_a_store_that_hangs_is_given_up_and_asked_again(
    stub: InfluxStub, operational: OperationalDatabase, world: World, api: str
) -> None:
    stub.faults.extend([NoAnswer()] * 2)
    given = influx_settings(stub, api, timeout_seconds=0.2)
    with closing(InfluxStore(given, CATALOG)) as store:
        writer = writer_to(store, operational, world)
        writer.write(ASSET, reading(count(device_count=15)))
    assert len(stub.requests) == 3
    assert len(written_lines(stub)) == 1


@pytest.mark.parametrize("headers", [{}, {"Retry_After": "600"}])
def test_ten_minutes_of_503_lose_no_shown_value_and_no_later_point(
    influx_writer: Writer, stub: InfluxStub, world: World, headers: Mapping[str, str]
) -> None:
    influx_writer.write(ASSET, reading(count(device_count=15)))
    before = influx_writer.latest(ASSET)
    stub.faults.extend(failing(HTTPStatus.SERVICE_UNAVAILABLE, ALWAYS, **headers))
    lost = []
    for _ in range(10):
        world.now_ns += MINUTE_NS
        point = count(world.now_ns, device_count=world.now_ns // MINUTE_NS)
        with pytest.raises(StoreUnavailable):
            influx_writer.write(ASSET, reading(point))
        assert influx_writer.latest(ASSET) == before
        lost.append(point)
    stub.faults.clear()
    # Whoever kept them may write them now, in one go and with their own times.
    report = influx_writer.write(ASSET, reading(*lost))
    assert (report.accepted, report.rejected) == (10, {})
    assert len(written_lines(stub)) == 11


def test_the_measurements_of_a_reading_are_all_stored_or_the_reading_failed(
    influx_writer: Writer, stub: InfluxStub
) -> None:
    both = reading(poll(1.5), count(device_count=15))
    stub.faults.append(None)  # for the first measurement
    stub.faults.extend(failing(HTTPStatus.SERVICE_UNAVAILABLE, 3))
    with pytest.raises(StoreUnavailable):
        influx_writer.write(ASSET, both)
    assert influx_writer.latest(ASSET) is None
    assert influx_writer.write(ASSET, both).accepted == 2
    assert len(written_lines(stub)) == 2


# --- an operational database that fails -----------------------------------------------------------


@contextmanager
def locked(given: DatabaseSettings) -> Iterator[None]:
    """Somebody else holds the write lock."""
    with closing(OperationalDatabase(given)) as other, other.writing():
        yield


def test_without_the_operational_database_a_write_fails_and_can_be_repeated(
    embedded: EmbeddedStore, tmp_path: Path, world: World
) -> None:
    given = sqlite_settings(tmp_path, busy_timeout_seconds=0.05)
    with closing(OperationalDatabase(given)) as operational:
        writer = writer_to(embedded, operational, world)
        writer.write(ASSET, reading(count(device_count=15)))
        before = writer.latest(ASSET), totals(operational)
        with locked(given), pytest.raises(StoreUnavailable, match="database is locked"):
            writer.write(ASSET, reading(count(NOW_NS + 5, device_count=14)))
        assert world.slept == [0.1, 0.2]
        assert (writer.latest(ASSET), totals(operational)) == before
        writer.write(ASSET, reading(count(NOW_NS + 5, device_count=14)))
        assert shown(writer) == {"device_count": (14, NOW_NS + 5)}
    assert len(kept(embedded)) == 2


def test_a_lock_that_is_gone_at_the_next_try_does_not_matter(
    embedded: EmbeddedStore, tmp_path: Path, world: World
) -> None:
    given = sqlite_settings(tmp_path, busy_timeout_seconds=0.05)
    with ExitStack() as held, closing(OperationalDatabase(given)) as operational:
        held.enter_context(locked(given))
        timing = Timing(lambda: 0.0, lambda _seconds: held.close(), lambda: 1.0)
        writer = Writer(embedded, operational, CATALOG, lambda: world.now_ns, timing)
        writer.write(ASSET, reading(count(device_count=15)))
        assert shown(writer) == {"device_count": (15, NOW_NS)}


# --- interfaces and disks of devices --------------------------------------------------------------

ODD_NAMES = {
    "1": "C:\\ Label:  Serial Number 1848504c",
    "2": "caf\ufffd, a=b\0",
    "3": "\U0001f4a9 'quoted' \"twice\"",
    "4": "x" * 1000,
    "5": "lan",
    "6": "lan",
    "7": "",
}


def disks() -> list[Point]:
    rows = {name: {DISK_USAGE: 5.0} for name in distinct_names(ODD_NAMES).values()}
    return metric_points(DeviceReading("d1", True, {UPTIME: 1.0}, details={DISKS: rows}), NOW_NS)


def test_rows_of_odd_names_are_stored_and_not_among_what_is_shown(
    writer: Writer, embedded: EmbeddedStore
) -> None:
    part = writer.append(disks())
    assert part.written == {"device_metrics": 1, DISKS: len(ODD_NAMES)}
    assert not part.rejected
    assert [point.measurement for point in part.kept] == ["device_metrics"]
    assert {point.tags["name"] for point in kept(embedded, DISKS)} == set(
        distinct_names(ODD_NAMES).values()
    )


def test_influxdb_takes_rows_of_odd_names(influx_writer: Writer, stub: InfluxStub) -> None:
    assert influx_writer.append(disks()).written[DISKS] == len(ODD_NAMES)
    lines = [line.decode() for _database, line in stub.lines]
    assert any(r"name=C:/\ Label:\ Serial\ Number\ 1848504c value=5 " in line for line in lines)


# --- fields whose types others choose -------------------------------------------------------------


def uplink(eui: str, **fields: FieldValue) -> Point:
    return Point("lorawan_uplink", {"device_eui": eui}, fields, NOW_NS)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Influxdb1EngineShim]:
    monkeypatch.setenv("ENGINE_TOKEN", ENGINE_TOKEN)
    with influxdb_1_engine(tmp_path / "engine") as shim:
        yield shim


MODELS = (
    uplink("text", snr_db=1.0, payload_status="ok", payload_on=True, extra_time="t"),
    uplink("number", snr_db=2.0, payload_status=7.0, payload_on=1.0),
    uplink("flag", payload_status=False, payload_status_text="why"),
)
"""Three models of devices that do not agree on what a status is."""

MODELS_STORED: Mapping[str, Mapping[str, FieldValue]] = {
    "text": {"snr_db": 1.0, "payload_status": "ok", "payload_on": True, "extra_time": "t"},
    "number": {"snr_db": 2.0, "payload_status_number": 7.0, "payload_on_number": 1.0},
    "flag": {"payload_status_flag": False, "payload_status_text_text": "why"},
}


def stored_uplinks(points: Iterable[Point]) -> dict[str, Mapping[str, FieldValue]]:
    return {point.tags["device_eui"]: point.fields for point in points}


def test_what_clashes_in_type_is_stored_under_names_of_its_type(
    writer: Writer, embedded: EmbeddedStore, operational: OperationalDatabase
) -> None:
    for _ in range(2):
        part = writer.append(MODELS)
        assert (part.written, part.rejected) == ({"lorawan_uplink": 3}, {})
        assert stored_uplinks(kept(embedded, "lorawan_uplink")) == MODELS_STORED
    assert totals(operational) == {POINTS_WRITTEN.name: {"lorawan_uplink": 6}}


def test_influxdb_stores_what_clashes_in_type_under_names_of_its_type(
    engine: Influxdb1EngineShim, operational: OperationalDatabase, world: World
) -> None:
    settings = influx_settings(engine, "v2", token={"env": "ENGINE_TOKEN"})
    with closing(InfluxStore(settings, CATALOG)) as store:
        writer = writer_to(store, operational, world)
        for model in MODELS:
            part = writer.append([model, model])
            assert (part.written, part.rejected) == ({"lorawan_uplink": 2}, {})
        assert stored_uplinks(engine.read("lorawan_uplink")) == MODELS_STORED
        # Two fields clash at once, and InfluxDB names but one of them: what it kept is written
        # again as well, under both names.
        part = writer.append(MODELS)
        assert (part.written, part.rejected) == ({"lorawan_uplink": 3}, {})
    stored = stored_uplinks(engine.read("lorawan_uplink"))
    assert all(MODELS_STORED[eui].items() <= stored[eui].items() for eui in MODELS_STORED)


def test_a_clash_of_a_field_that_the_catalogue_knows_is_refused_once(
    writer: Writer, embedded: EmbeddedStore
) -> None:
    embedded.write([uplink("early", snr_db="loud")])
    part = writer.append([uplink("a", snr_db=1.0, payload_x=1.0), uplink("b", payload_x=2.0)])
    assert (part.written, part.rejected) == ({"lorawan_uplink": 1}, {"field_type_conflict": 1})
    assert stored_uplinks(kept(embedded, "lorawan_uplink"))["b"] == {"payload_x": 2.0}


def refused_in(part: Part) -> list[tuple[str, str]]:
    return sorted((each.point.tags["device_eui"], each.reason) for each in part.refused)


def test_who_asks_is_told_which_points_were_refused_as_they_were_handed_in(
    writer: Writer, embedded: EmbeddedStore
) -> None:
    embedded.write([uplink("early", snr_db="loud", payload_x="a")])
    points = [
        uplink("good", payload_x=1.0),  # under another name
        uplink("clash", snr_db=1, payload_x=1.0),  # an integer, which is to be a float
        uplink("wrong", rssi_dbm="x"),
        uplink("", rssi_dbm=1.0),
    ]
    part = writer.append(points, names_refused=True)
    assert refused_in(part) == [
        ("", "empty_tag"),
        ("clash", "field_type_conflict"),
        ("wrong", "wrong_type"),
    ]
    assert {id(each.point) for each in part.refused} == set(map(id, points[1:]))
    assert writer.append(points).refused == ()


@pytest.mark.parametrize("clashing", [{1, 40, 77}, set(range(0, 100, 3)), set(range(100))])
def test_which_points_influxdb_refused_is_found_out_where_it_only_counts_them(
    engine: Influxdb1EngineShim, operational: OperationalDatabase, world: World, clashing: set[int]
) -> None:
    settings = influx_settings(engine, "v2", token={"env": "ENGINE_TOKEN"})
    with closing(InfluxStore(settings, CATALOG)) as store:
        store.write([uplink("early", snr_db="loud", rssi_dbm="near")])
        # Two fields clash, of which InfluxDB names but one.
        fields = [{"snr_db": 1.0}, {"rssi_dbm": 1.0}]
        points = [
            uplink(f"{n}", **(fields[n % 2] if n in clashing else {"frequency_mhz": 1.0}))
            for n in range(100)
        ]
        part = writer_to(store, operational, world).append(points, names_refused=True)
    found = {int(each.point.tags["device_eui"]) for each in part.refused}
    assert part.rejected == {"field_type_conflict": len(clashing)}
    assert found == clashing
    assert len(stored_uplinks(engine.read("lorawan_uplink"))) == 101 - len(clashing)


def test_every_good_point_among_many_bad_ones_is_stored(
    influx_writer: Writer, stub: InfluxStub
) -> None:
    bad = [uplink(f"{POISON.decode()}{n}", rssi_dbm=1.0) for n in range(300)]
    good = [uplink(f"{n}", rssi_dbm=1.0) for n in range(100)]
    part = influx_writer.append([*good[:50], *bad, *good[50:]], names_refused=True)
    assert {id(each.point) for each in part.refused} == set(map(id, bad))
    assert (part.written.total(), part.rejected.total()) == (100, 300)
    assert len(written_lines(stub)) == 100


def test_a_search_that_does_not_find_what_was_refused_blames_no_point(
    engine: Influxdb1EngineShim,
    operational: OperationalDatabase,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("metrics_pipeline.storage.writer.MAX_SEARCH_WRITES", 3)
    settings = influx_settings(engine, "v2", token={"env": "ENGINE_TOKEN"})
    fields = [{"snr_db": 1.0}, {"rssi_dbm": 1.0}, {"frequency_mhz": 1.0}]
    with closing(InfluxStore(settings, CATALOG)) as store:
        store.write([uplink("early", snr_db="loud", rssi_dbm="near")])
        writer = writer_to(store, operational, world)
        with pytest.raises(StoreUnavailable, match="not found out in 3 writes"):
            writer.append([uplink(f"{n}", **fields[n % 3]) for n in range(30)], names_refused=True)
    assert totals(operational) == {}


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    batches=st.lists(
        st.lists(
            st.dictionaries(
                st.sampled_from(["a", "a_text", "a_number", "b"]),
                st.sampled_from(["x", 1.0, True]),
                min_size=1,
            ),
            min_size=1,
            max_size=4,
        ),
        max_size=4,
    )
)
def test_no_uplink_is_ever_refused_for_a_type(
    batches: list[list[dict[str, FieldValue]]],
) -> None:
    with TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "points.sqlite"
        store = stack.enter_context(closing(EmbeddedStore(EmbeddedStoreSettings(path=path))))
        database = OperationalDatabase(sqlite_settings(Path(folder)))
        writer = writer_to(store, stack.enter_context(closing(database)), World())
        for place, payloads in enumerate(batches):
            points = [uplink(f"{place}-{n}", **_leaves(data)) for n, data in enumerate(payloads)]
            part = writer.append(points)
            assert (part.written.total(), part.rejected) == (len(points), {})


def _leaves(payload: Mapping[str, FieldValue]) -> dict[str, FieldValue]:
    leaves = Leaves(Limits())
    leaves.add_value(("payload",), payload)
    return leaves.finish()


# --- opened from the settings ---------------------------------------------------------------------


def test_the_settings_choose_the_store(tmp_path: Path, stub: InfluxStub) -> None:
    embedded_settings = EmbeddedStoreSettings(path=tmp_path / "points.sqlite")
    assert isinstance(open_store(embedded_settings, CATALOG), EmbeddedStore)
    assert isinstance(open_store(influx_settings(stub, "v3"), CATALOG), InfluxStore)
    assert not (tmp_path / "points.sqlite").exists()
    assert not stub.requests


ROUNDS = 5


def _write_often(
    store: EmbeddedStoreSettings, given: DatabaseSettings, now_ns: int
) -> Mapping[str, int]:
    rejected: Counter[str] = Counter()
    with closing(open_writer(store, given, CATALOG)) as writer:
        for n in range(ROUNDS):
            values = reading(count(now_ns + n, device_count=n), count(now_ns, device_count=-1))
            rejected.update(writer.write(ASSET, values).rejected)
    return dict(rejected)


def test_writers_in_several_processes_count_everything(
    settings: DatabaseSettings, operational: OperationalDatabase, tmp_path: Path
) -> None:
    store = EmbeddedStoreSettings(path=tmp_path / "points.sqlite")
    answers = at_once(_write_often, store, settings, time.time_ns(), processes=4)
    assert answers == [{"out_of_range": ROUNDS}] * 4
    assert totals(operational) == {
        POINTS_WRITTEN.name: {"fleet_counts": 4 * ROUNDS},
        POINTS_REJECTED.name: {"out_of_range": 4 * ROUNDS},
    }
    with closing(EmbeddedStore(store)) as opened:
        assert len(kept(opened)) == ROUNDS
