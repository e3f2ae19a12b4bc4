"""What the page shows while databases change, fail and come back: last values, and their age."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.catalog import CATALOG, FLEET_METRICS, Catalog
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.core.points import Point
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.exporter.refresher import Refresher
from metrics_pipeline.exporter.samples import Asked
from metrics_pipeline.storage import device_labels, sampling_lease, snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.exporter.instance_fixtures import Runs
from metrics_pipeline_tests.exporter.test_samples import ROBOT_CATALOG
from metrics_pipeline_tests.servers import wait_until

ASSET = "fleet/device_counts"
ASKED: set[Asked] = {
    *(("azure_iot_hub", metric.field) for metric in FLEET_METRICS),
    (None, "speed"),
}
COUNT = "iot_hub_portal_device_count"
CONNECTED = "iot_hub_portal_connected_device_count"
LAST_UPDATE = f'metrics_pipeline_last_update_timestamp_seconds{{asset="{ASSET}"}}'
LEASE_END = "metrics_pipeline_sampling_lease_end_timestamp_seconds"
LAST_SUCCESS = f'metrics_pipeline_last_success_timestamp_seconds{{asset="{ASSET}"}}'
LAST_REFRESH = "metrics_pipeline_exporter_last_refresh_timestamp_seconds"
FAILURES = "metrics_pipeline_exporter_refresh_failures_total"
WRITTEN = 'metrics_pipeline_points_written_total{measurement="fleet_counts"}'
SUCCEEDED = f'metrics_pipeline_runs_total{{job="{JOB}",status="success"}}'
FAILED = f'metrics_pipeline_runs_total{{job="{JOB}",status="failure"}}'
DURATION = f'metrics_pipeline_run_duration_seconds{{job="{JOB}"}}'
QUEUE = "metrics_pipeline_run_queue_length"

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA locking_mode = {sys.argv[2]}")
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path, dagster_home: Path) -> Path:
    """Where the operational database is or will be; the instance is another one."""
    return tmp_path / "operational" / "operational.sqlite"


def connect(file: Path) -> OperationalDatabase:
    return OperationalDatabase(DatabaseSettings(url=f"sqlite:///{file}", busy_timeout_seconds=0.2))


@contextlib.contextmanager
def exporting(file: Path, catalog: Catalog = CATALOG, **options: Any) -> Iterator[Refresher]:
    """A refresher whose clock says 1001 at its first refresh that works, then 1002 and so on."""
    operational = connect(file)
    refresher = Refresher(
        operational=operational,
        instance=InstanceReader([JOB], operational),
        catalog=catalog,
        assets={ASSET: ASKED},
        max_series=1000,
        clock=map(float, itertools.count(1001)).__next__,
        **options,
    )
    with contextlib.closing(refresher):
        yield refresher


def write(file: Path, time_ns: int, **counts: int) -> None:
    """What a run leaves when it has counted everything, at `time_ns`."""
    database = connect(file)
    point = Point("fleet_counts", {"provider": "azure_iot_hub"}, dict(counts), time_ns)
    with contextlib.closing(database), database.writing() as connection:
        snapshots.replace(connection, ASSET, (point,), time_ns)
        tallies.add(connection, "metrics_pipeline_points_written_total", {"fleet_counts": 1})


def shown(refresher: Refresher) -> dict[str, float]:
    lines = refresher.page.text.plain.decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {series: float(value) for series, value in pairs}


def refreshed(refresher: Refresher) -> dict[str, float]:
    refresher.refresh()
    return shown(refresher)


@contextlib.contextmanager
def locked(file: Path, mode: str) -> Iterator[None]:
    """Another process holds the database; with mode EXCLUSIVE also against readers."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(file), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
        process.communicate("")


def make_garbage(file: Path) -> None:
    for sidecar in file.parent.glob(f"{file.name}-*"):
        sidecar.unlink()
    new = file.with_suffix(".new")
    new.write_bytes(b"this is no database " * 500)
    new.replace(file)


def test_a_count_that_falls_makes_its_gauge_fall(file: Path) -> None:
    with exporting(file) as refresher:
        for second, number in enumerate((15, 8, 0), start=1):
            write(file, second * 10**9, device_count=number)
            page = refreshed(refresher)
            assert (page[COUNT], page[LAST_SUCCESS], page[WRITTEN]) == (number, second, second)


def test_before_the_first_count_there_is_nothing_instead_of_zeros(file: Path) -> None:
    with exporting(file) as refresher:
        assert not refresher.is_ready
        assert refresher.problems == ("the first look is not finished",)
        page = refreshed(refresher)
        assert refresher.is_ready
        assert refresher.problems == ()
    assert {series.partition("{")[0] for series in page} == {
        "metrics_pipeline_build_info",
        FAILURES,
        LAST_REFRESH,
        QUEUE,
    }


def test_a_value_that_was_not_read_again_stays_beside_those_that_were(file: Path) -> None:
    with exporting(file) as refresher:
        write(file, 1, device_count=15, connected_device_count=9)
        refresher.refresh()
        database = connect(file)
        part = Point("fleet_counts", {"provider": "azure_iot_hub"}, {"device_count": 8}, 2)
        with contextlib.closing(database), database.writing() as connection:
            snapshots.merge(connection, ASSET, (part,), 2)
        page = refreshed(refresher)
    assert (page[COUNT], page[CONNECTED], page[LAST_SUCCESS]) == (8, 9, 1e-9)


def remove(file: Path) -> None:
    shutil.rmtree(file.parent)


@pytest.mark.parametrize("harm", [make_garbage, remove])
def test_a_database_that_fails_leaves_the_page_as_it_was_and_counts_it(
    harm: Callable[[Path], None], file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(file, 5 * 10**9, device_count=15)
    with exporting(file) as refresher:
        before = refreshed(refresher)
        shutil.copytree(file.parent, tmp_path / "saved")
        harm(file)
        after = refreshed(refresher)
        assert after == {**before, FAILURES: 1.0}
        [problem] = refresher.problems
        assert problem.startswith("operational database: StoreUnavailable: ")
        assert "the page keeps its last values" in caplog.text

        shutil.rmtree(file.parent)
        shutil.copytree(tmp_path / "saved", file.parent)
        write(file, 6 * 10**9, device_count=8)
        page = refreshed(refresher)
        assert refresher.problems == ()
    assert page == {
        **before,
        COUNT: 8.0,
        LAST_SUCCESS: 6.0,
        LAST_UPDATE: 6.0,
        WRITTEN: 2.0,
        LAST_REFRESH: 1002.0,
        FAILURES: 1.0,
    }


def test_a_database_that_begins_anew_empty_keeps_the_page_until_something_is_counted(
    file: Path,
) -> None:
    write(file, 5 * 10**9, device_count=15)
    with exporting(file) as refresher:
        before = refreshed(refresher)
        remove(file)
        refresher.refresh()
        assert refreshed(refresher) == {**before, FAILURES: 1.0, LAST_REFRESH: 1002.0}
        write(file, 6 * 10**9, device_count=8)
        write(file, 7 * 10**9, device_count=7)
        page = refreshed(refresher)
    assert (page[COUNT], page[LAST_SUCCESS]) == (7.0, 7.0)


def test_a_writers_lock_does_not_keep_the_exporter_from_reading(file: Path) -> None:
    write(file, 1, device_count=15)
    with exporting(file) as running, exporting(file) as starting:
        running.refresh()
        with locked(file, "NORMAL"):
            for refresher in (running, starting):
                page = refreshed(refresher)
                assert (page[COUNT], page[FAILURES]) == (15.0, 0.0)


def test_an_exporter_that_starts_while_the_database_is_locked_shows_it_when_it_is_free(
    file: Path,
) -> None:
    write(file, 1, device_count=15)
    with exporting(file) as refresher:
        with locked(file, "EXCLUSIVE"):
            page = refreshed(refresher)
            assert COUNT not in page
            assert page[FAILURES] == 1.0
            assert page[QUEUE] == 0.0
            assert not refresher.is_ready
        page = refreshed(refresher)
        assert refresher.is_ready
    assert (page[COUNT], page[FAILURES]) == (15.0, 1.0)


def test_a_locked_instance_does_not_keep_the_counts_from_moving(
    file: Path, runs: Runs, dagster_home: Path
) -> None:
    runs.finish()
    runs.instance.dispose()  # a file that somebody has open cannot be locked against readers
    write(file, 1, device_count=15)
    with exporting(file) as refresher:
        with locked(dagster_home / "history" / "runs.db", "EXCLUSIVE"):
            before = refreshed(refresher)
            write(file, 2, device_count=8)
            page = refreshed(refresher)
        moved = {COUNT: 8.0, WRITTEN: 2.0, LAST_SUCCESS: 2e-9, LAST_UPDATE: 2e-9}
        assert before[FAILURES] == 1.0
        assert page == {**before, **moved, FAILURES: 2.0}
        [problem] = refresher.problems
        assert problem.startswith("Dagster instance: OperationalError: ")
        assert "database is locked" in problem
        page = refreshed(refresher)
    assert (page[SUCCEEDED], page[LAST_REFRESH]) == (1.0, 1001.0)


def test_counts_move_on_the_page_while_the_instance_has_not_answered_yet(
    file: Path, dagster_home: Path
) -> None:
    seen: list[dict[str, float]] = []

    class SlowReader(InstanceReader):
        def read(self) -> Any:
            seen.append(shown(refresher))
            return super().read()

    write(file, 1, device_count=15)
    operational = connect(file)
    refresher = Refresher(
        operational=operational,
        instance=SlowReader([JOB], operational),
        catalog=CATALOG,
        assets={ASSET: ASKED},
        max_series=1000,
    )
    with contextlib.closing(refresher):
        refresher.refresh()
    assert seen[0][COUNT] == 15.0


def test_an_instance_of_garbage_does_not_keep_the_counts_from_moving(
    file: Path, runs: Runs, dagster_home: Path
) -> None:
    runs.finish()
    write(file, 1, device_count=15)
    with exporting(file) as refresher:
        before = refreshed(refresher)
        make_garbage(dagster_home / "history" / "runs.db")
        write(file, 2, device_count=8)
        page = refreshed(refresher)
    moved = {COUNT: 8.0, WRITTEN: 2.0, LAST_SUCCESS: 2e-9, LAST_UPDATE: 2e-9}
    assert page == {**before, **moved, FAILURES: 1.0}


def test_failures_are_counted_one_a_refresh_however_many_parts_fail(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, 1, device_count=15)
    make_garbage(file)
    monkeypatch.setenv("DAGSTER_HOME", str(file.parent / "nowhere"))
    with exporting(file) as refresher:
        refresher.refresh()
        page = refreshed(refresher)
        assert len(refresher.problems) == 2
    assert page[FAILURES] == 2.0


def test_who_samples_is_shown_until_when_where_the_settings_have_something_sampled(
    file: Path,
) -> None:
    write(file, 1, device_count=15)
    with exporting(file, every_seconds={"platform/service_health": 5.0}) as refresher:
        assert LEASE_END not in refreshed(refresher)
        with contextlib.closing(connect(file)) as database, database.writing() as connection:
            sampling_lease.take(connection, "a", 7 * 10**9, 10 * 10**9)
        assert refreshed(refresher)[LEASE_END] == 17.0
        with contextlib.closing(connect(file)) as database, database.writing() as connection:
            sampling_lease.give_back(connection, "a")
        assert refreshed(refresher)[LEASE_END] == 0.0
    with exporting(file, every_seconds={ASSET: 300.0}) as refresher:
        assert LEASE_END not in refreshed(refresher)


def test_a_failure_is_logged_once_and_so_is_its_end(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="metrics_pipeline")
    write(file, 1, device_count=15)
    good = file.read_bytes()
    make_garbage(file)
    with exporting(file) as refresher:
        for _ in range(3):
            refresher.refresh()
        file.write_bytes(good)
        for _ in range(3):
            refresher.refresh()
    ours = [record.getMessage() for record in caplog.records if "refresh" in record.name]
    assert len(ours) == 2, ours
    assert ours[0].startswith("refresh failed, the page keeps its last values: operational")
    assert ours[1] == "refresh works"


def test_runs_and_their_duration_are_shown(file: Path, runs: Runs) -> None:
    runs.finish()
    runs.finish(fails=True)
    with exporting(file) as refresher:
        page = refreshed(refresher)
        assert (page[SUCCEEDED], page[FAILED]) == (1.0, 1.0)
        assert page[DURATION] > 0
        runs.finish()
        runs.wait_in_queue()
        page = refreshed(refresher)
    assert (page[SUCCEEDED], page[FAILED], page[QUEUE]) == (2.0, 1.0, 1.0)


def test_after_a_restart_the_last_values_are_shown_with_their_true_age(file: Path) -> None:
    write(file, 5 * 10**9, device_count=15)
    with exporting(file) as refresher:
        before = refreshed(refresher)
    with exporting(file) as restarted:
        assert COUNT not in shown(restarted)
        assert LAST_SUCCESS not in shown(restarted)
        assert refreshed(restarted) == before
    assert before[LAST_SUCCESS] == 5.0


def test_two_exporters_show_the_same(file: Path, runs: Runs) -> None:
    runs.finish()
    with exporting(file) as one, exporting(file) as other:
        for second, number in enumerate((15, 8), start=1):
            write(file, second * 10**9, device_count=number, connected_device_count=number)
            one.refresh()
            other.refresh()
            assert one.page == other.page
            assert shown(one)[COUNT] == number


def test_a_page_that_cannot_be_made_is_told_also_where_nothing_is_new(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> NoReturn:
        raise ValueError("of a version to come")

    with exporting(file) as refresher:
        before = refreshed(refresher)
        with monkeypatch.context() as patch:
            patch.setattr("metrics_pipeline.exporter.refresher.render", fail)
            assert refreshed(refresher) == before
            assert refresher.problems == ("page: ValueError: of a version to come",)
        assert refreshed(refresher)[FAILURES] == 1.0
        assert not refresher.problems


def test_openmetrics_is_rendered_before_it_is_asked_for_only_where_it_is(file: Path) -> None:
    def is_rendered() -> bool:
        return "openmetrics" in vars(refresher.page)

    with exporting(file) as refresher:
        refresher.body("text/plain")
        refresher.refresh()
        assert not is_rendered()
        first = refresher.body("application/openmetrics-text")
        assert first.plain.endswith(b"# EOF\n")
        for _ in range(3):
            refresher.refresh()
            assert is_rendered()


def test_a_value_that_cannot_be_shown_leaves_the_page_as_it_was(file: Path) -> None:
    def store(name: str, speed: float) -> None:
        database = connect(file)
        point = Point("robots", {"robot": name, "place": "hall"}, {"speed": speed}, 1)
        with contextlib.closing(database), database.writing() as connection:
            snapshots.replace(connection, ASSET, (point,), 1)

    store("r1", 1.0)
    with exporting(file, ROBOT_CATALOG) as refresher:
        before = refreshed(refresher)
        store("half a character: \ud800", 2.0)
        assert refreshed(refresher) == before
        [problem] = refresher.problems
        assert problem.startswith("page: UnicodeEncodeError: ")
        store("r1", 3.0)
        page = refreshed(refresher)
    assert page['robot_speed{place="hall",robot="r1"}'] == 3.0
    assert page[FAILURES] == 1.0


def test_it_refreshes_until_it_is_told_to_stop(file: Path) -> None:
    stop = threading.Event()
    with exporting(file) as refresher:
        thread = threading.Thread(target=refresher.run, args=(0.01, stop))
        thread.start()
        try:
            wait_until(lambda: shown(refresher).get(LAST_REFRESH, 0) > 1002, "it refreshed twice")
        finally:
            stop.set()
            thread.join()


def test_an_exporter_does_not_write_to_the_instance(file: Path, dagster_home: Path) -> None:
    database = dagster_home / "history" / "runs.db"
    before = (database.read_bytes(), database.stat().st_mtime_ns)
    with exporting(file) as refresher:
        refresher.refresh()
        refresher.refresh()
    assert (database.read_bytes(), database.stat().st_mtime_ns) == before


# --- gauges of single devices --------------------------------------------------------------------

POLLS = "devices/device_status"
UP = 'device_up{{device_id="{0}",device_type="router",hostname="{0}.example"}}'
LAST_POLL = f'metrics_pipeline_last_success_timestamp_seconds{{asset="{POLLS}"}}'


def poll(file: Path, time_ns: int, **devices: str) -> None:
    """What a sweep leaves: the status of every device, and what they are called."""
    database = connect(file)
    points = tuple(
        Point("device_status", {"device_id": name}, {"status": word}, time_ns)
        for name, word in devices.items()
    )
    known = [Device(name, f"{name}.example", "192.0.2.1", "router", "snmp") for name in devices]
    with contextlib.closing(database), database.writing() as connection:
        snapshots.replace(connection, POLLS, points, time_ns)
        device_labels.replace(connection, POLLS, known)


def showing_devices(file: Path, **options: Any) -> contextlib.AbstractContextManager[Refresher]:
    return exporting(file, device_assets=[POLLS], device_families=["device_up"], **options)


def test_devices_go_up_and_down_and_away(file: Path) -> None:
    poll(file, 10**9, a="online", b="online")
    with showing_devices(file) as refresher:
        page = refreshed(refresher)
        assert (page[UP.format("a")], page[UP.format("b")], page[LAST_POLL]) == (1.0, 1.0, 1.0)
        poll(file, 2 * 10**9, a="offline")
        page = refreshed(refresher)
    assert (page[UP.format("a")], page[LAST_POLL]) == (0.0, 2.0)
    assert UP.format("b") not in page


def test_counts_and_devices_stand_on_one_page(file: Path) -> None:
    write(file, 1, device_count=15)
    poll(file, 1, a="online")
    with showing_devices(file) as refresher:
        page = refreshed(refresher)
    assert (page[COUNT], page[UP.format("a")]) == (15.0, 1.0)


def test_devices_stay_as_they_were_while_the_database_cannot_be_read(file: Path) -> None:
    poll(file, 1, a="online")
    with showing_devices(file) as refresher:
        before = refreshed(refresher)
        make_garbage(file)
        page = refreshed(refresher)
    assert page == {**before, FAILURES: 1.0}


def test_devices_that_are_too_many_are_said_to_be_cut(file: Path) -> None:
    poll(file, 1, **{f"d{n:04}": "online" for n in range(1002)})
    with showing_devices(file) as refresher:
        page = refreshed(refresher)
    assert page['metrics_pipeline_exporter_series_dropped{metric="device_up"}'] == 2.0
    assert sum(name.startswith("device_up") for name in page) == 1000


def test_without_families_of_devices_only_the_age_of_their_polls_is_shown(file: Path) -> None:
    poll(file, 10**9, a="online")
    with exporting(file, device_assets=[POLLS]) as refresher:
        page = refreshed(refresher)
    assert page[LAST_POLL] == 1.0
    assert not any(name.startswith("device_") for name in page)
