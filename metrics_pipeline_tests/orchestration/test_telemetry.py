"""Telemetry through Dagster: from a hub on the wire into the stores, one run at a time."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import dagster as dg
import pytest

from metrics_pipeline.core.catalog import LORAWAN_DEVICES
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import PartitionReader
from metrics_pipeline.core.telemetry import BatchLimits
from metrics_pipeline.core.telemetry_assets import DEVICES, JOB, UPLINKS
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.orchestration.schedules import MAX_RUNTIME_TAG
from metrics_pipeline.orchestration.telemetry_report import CHECKS, FEW_DEAD_LETTERS
from metrics_pipeline.sources.streams import open_stream
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline_tests.orchestration.pipeline import failure_text
from metrics_pipeline_tests.orchestration.telemetry_pipeline import (
    WINDOW_SECONDS,
    Telemetry,
    Ticks,
    telemetry,
)
from metrics_pipeline_tests.servers import wait_until

INTERRUPTED_WITHIN_SECONDS = 60
"""Of a window of ten minutes."""

ASSET = dg.AssetKey.from_user_string(UPLINKS)


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Telemetry]:
    with telemetry(tmp_path) as opened:
        yield opened


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = result.get_asset_materialization_events()
    found = event.step_materialization_data.materialization.metadata
    return {name: value.value for name, value in found.items()}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


def test_a_run_stores_what_there_is_and_tells_what_it_did(it: Telemetry) -> None:
    it.send(10, "0")
    it.send(7, "1", first=100)
    for body in (b"{no JSON", b"\xff\xff"):
        it.send_body(body, "1")
    result = it.run()
    assert result.success
    assert len(it.stored()) == 17
    told = metadata(result)
    assert (told["events"], told["points_stored"], told["uplinks_refused"]) == (19, 17, 2)
    assert (told["lag_events"], told["lag_events_0"], told["lag_events_1"]) == (0, 0, 0)
    assert isinstance(told["longest_lag_seconds"], float)
    assert (told["checkpoint_0"], told["checkpoint_1"], told["events_lost"]) == (9, 8, 0)
    assert {name: row.position.sequence_number for name, row in it.checkpoints().items()} == {
        "0": 9,
        "1": 8,
    }
    assert it.dead_letters() == {"not_json": 1, "not_utf8": 1}
    assert told["dead_letters"] == 2
    assert it.totals()["metrics_pipeline_dead_letters_total"] == it.dead_letters()
    assert checks(result) == {**dict.fromkeys(CHECKS, True), "few_events_are_dead_letters": False}


def test_what_the_store_refuses_counts_among_the_dead_letters(it: Telemetry) -> None:
    assert isinstance(it.settings.store, EmbeddedStoreSettings)
    with closing(EmbeddedStore(it.settings.store)) as store:
        fields = {"rssi_dbm": "near"}
        store.write([Point("lorawan_uplink", {"device_eui": "A" * 16}, fields, time.time_ns())])
    it.send(3)
    result = it.run()
    told = metadata(result)
    assert (told["uplinks_refused"], told["points_rejected"], told["dead_letters"]) == (0, 3, 3)
    assert it.dead_letters() == {"store_field_type_conflict": 3}
    (few,) = (c for c in result.get_asset_check_evaluations() if c.check_name == FEW_DEAD_LETTERS)
    assert not few.passed
    assert few.description == "3 of 3 uplinks were refused: 3 store_field_type_conflict"


def test_what_comes_while_the_run_goes_on_is_stored_too_and_its_devices_are_shown(
    it: Telemetry,
) -> None:
    late = threading.Timer(WINDOW_SECONDS / 3, lambda: it.send(5, "1"))
    it.send(2)
    late.start()
    assert it.run().success
    late.join()
    assert len(it.stored()) == 2 + 5
    shown = it.snapshot(DEVICES)
    assert shown is not None
    rows = [point for point in shown.points if point.measurement == LORAWAN_DEVICES.name]
    assert [row.tags for row in rows] == [{"device_eui": "FEEDFACE10000000", "gateway_id": "G1"}]


def test_after_a_run_there_is_nothing_left_to_launch(it: Telemetry) -> None:
    it.send(3)
    ticks = Ticks(it)
    assert ticks.tick()[0] == ["first"]
    it.run()
    assert "all events of 2 partitions are stored" in ticks.tick()[1]


def test_a_run_without_events_is_fine(it: Telemetry) -> None:
    result = it.run()
    assert result.success
    assert metadata(result)["events"] == 0
    assert all(checks(result).values())


def test_a_second_run_stores_only_what_is_new(it: Telemetry) -> None:
    it.send(4)
    it.run()
    it.send(3, first=4)
    result = it.run()
    assert metadata(result)["events"] == 3
    assert len(it.stored()) == 7


def test_what_the_hub_has_dropped_is_a_warning(it: Telemetry) -> None:
    it.send(10)
    it.move_checkpoint("0", 2)
    it.hub.drop_before("0", 6)
    result = it.run()
    assert result.success
    assert metadata(result)["events_lost"] == 3
    assert not checks(result)["nothing_is_lost_to_retention"]


def test_a_hub_out_of_reach_fails_the_run_and_says_so(it: Telemetry) -> None:
    it.hub.freeze()
    result = it.run()
    assert not result.success
    assert "no answer within 2 s" in failure_text(result)
    assert result.get_asset_materialization_events() == []
    it.hub.freeze(False)


@contextmanager
def taken_by_another(it: Telemetry, *partitions: str) -> Iterator[None]:
    """Somebody reads these with an epoch that no run of ours reaches."""
    assert it.settings.telemetry is not None
    limits = BatchLimits(max_wait_seconds=0.1)
    is_over = threading.Event()

    def keep(readers: Sequence[PartitionReader]) -> None:
        while not is_over.is_set():
            for reader in readers:
                reader.receive(limits)

    with ExitStack() as opened:
        stream = opened.enter_context(closing(open_stream(it.settings.telemetry.source)))
        readers = [stream.open(name, None, 10**6) for name in partitions]
        for reader in readers:
            opened.enter_context(closing(reader))
            reader.receive(limits)
        thread = threading.Thread(target=keep, args=(readers,))
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def test_a_run_that_others_shut_out_of_everything_fails_and_the_next_one_comes_later(
    it: Telemetry,
) -> None:
    it.send(3)
    ticks = Ticks(it)
    with taken_by_another(it, "0", "1"):
        result = it.run()
    assert not result.success
    assert "another reader has taken it" in failure_text(result)
    assert ticks.tick()[1].startswith("The last run failed")


def test_a_run_that_others_shut_out_of_one_partition_is_fine(it: Telemetry) -> None:
    it.send(3)
    with taken_by_another(it, "1"):
        result = it.run()
    assert result.success
    assert len(it.stored()) == 3


def test_a_store_out_of_reach_fails_the_run_and_moves_no_checkpoint(tmp_path: Path) -> None:
    store = {"kind": "influxdb", "api": "v2", "url": "http://127.0.0.1:1", "org": "o"}
    (tmp_path / "token").write_text("t")
    with telemetry(tmp_path, store={**store, "token": {"file": "token"}}) as it:
        it.send(3)
        ticks = Ticks(it)
        ticks.tick()
        result = it.run()
        assert not result.success
        assert "127.0.0.1:1" in failure_text(result)
        assert it.checkpoints() == {}
        assert ticks.tick()[1].startswith("The last run failed")
        lag = it.snapshot(UPLINKS)
        assert lag is not None
        assert lag.points[0].fields["lag_events"] == 3
        assert float(lag.points[0].fields["lag_seconds"]) > WINDOW_SECONDS / 2


def test_a_run_that_is_interrupted_has_lost_nothing(tmp_path: Path) -> None:
    with telemetry(tmp_path, window_seconds=600) as it:
        it.send(5)

        def interrupt() -> None:
            wait_until(lambda: bool(it.checkpoints()), "something is stored")
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        began = time.monotonic()
        thread.start()
        assert not it.run().success
        thread.join()
        assert time.monotonic() - began < INTERRUPTED_WITHIN_SECONDS
        assert len(it.stored()) == 5
        assert it.checkpoints()["0"].position.sequence_number == 4


def test_the_job_has_a_limit_and_the_asset_no_pool_for_runs_overlap(it: Telemetry) -> None:
    definitions = build_definitions(it.settings)
    job = definitions.resolve_job_def(JOB)
    assert job.tags[MAX_RUNTIME_TAG] == str(math.ceil(WINDOW_SECONDS) + 60)
    asset = definitions.resolve_assets_def(ASSET)
    assert asset.op.pool is None
    assert asset.group_names_by_key[ASSET] == "telemetry"
    assert asset.dependency_keys == {dg.AssetKey(["event_hub", "uplinks"])}


def test_without_a_section_there_is_no_asset_job_or_sensor(it: Telemetry) -> None:
    settings = it.settings.model_copy(update={"telemetry": None})
    definitions = build_definitions(settings)
    assert list(definitions.sensors or []) == []
    assert JOB not in definitions.get_repository_def().job_names
    assert JOB not in settings.jobs()
