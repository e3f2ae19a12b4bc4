"""Fleet counts through Dagster: from a hub and a database to history and latest values."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import dagster as dg
import pytest
import yaml

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.core.fetches import from_label, histograms
from metrics_pipeline.orchestration.run_time import SCHEDULED_TAG
from metrics_pipeline.simulators.iot_hub import error_answer, json_answer, throttled
from metrics_pipeline.storage.embedded import EmbeddedStoreSettings
from metrics_pipeline_tests.orchestration.pipeline import (
    COUNTS,
    FLEET,
    Pipeline,
    failure_text,
    list_concentrators,
    pipeline,
)
from metrics_pipeline_tests.servers import wait_until

UNAVAILABLE = error_answer(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable")
KEY = dg.AssetKey(["fleet", "device_counts"])


def test_every_count_reaches_the_history_and_the_latest_values(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        assert it.run().success
        assert it.latest() == COUNTS
        history = {k: v for point in it.history() for k, v in point.fields.items()}
    assert history == COUNTS
    assert all(type(value) is int for value in history.values())


def test_points_name_the_source_they_are_from(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        it.run()
        providers = {f: p.tags["provider"] for p in it.latest_points() for f in p.fields}
    assert providers.pop("concentrator_count") == "inventory"
    assert set(providers.values()) == {"azure_iot_hub"}


def test_a_count_that_falls_is_followed_down_to_zero(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        seen = []
        for count in (15, 8, 0):
            it.fleet.put(replace(FLEET, devices=FLEET.devices[:count]))
            assert it.run("device_counts").success
            seen.append(it.latest()["device_count"])
    assert seen == [15, 8, 0]


def test_a_hub_that_is_gone_changes_no_value_and_shows_no_zero(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        it.run()
        before = it.history()
        it.lose_hub()
        result = it.run("device_counts", "edge_device_counts")
        assert not result.success
        assert it.latest() == COUNTS
        assert it.history() == before
    assert "azure_iot_hub: reading device_count" in failure_text(result)


def test_the_inventory_is_counted_while_the_hub_is_gone(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        it.run()
        it.lose_hub()
        list_concentrators(it.settings, FLEET.concentrators[:1])
        assert not it.run().success
        assert it.latest() == {**COUNTS, "concentrator_count": 1}


def test_one_count_that_is_throttled_does_not_lose_the_others(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        it.hub.faults.extend([None, throttled(600)])
        result = it.run("edge_device_counts")
        event = it.instance.get_latest_materialization_event(
            dg.AssetKey(["fleet", "edge_device_counts"])
        )
        latest = it.latest()
    assert not result.success
    assert latest == {"edge_device_count": 4, "failed_deployment_count": 2}
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["points_stored"].value == 2
    assert "connected_edge_device_count" in failure_text(result)
    assert "429" in failure_text(result)


@pytest.mark.parametrize(
    "reply",
    [
        json_answer([{"totalNumber": "15"}]),
        json_answer([{"totalNumber": -1}]),
        json_answer([]),
        json_answer([{"totalNumber": 1}, {"totalNumber": 2}]),
        replace(json_answer([]), body=b"<html>maintenance</html>"),
        replace(json_answer([]), body=b'[{"totalNumber": 1'),
        error_answer(HTTPStatus.UNAUTHORIZED, "Unauthorized"),
    ],
    ids=["string", "negative", "no row", "two rows", "html", "half a json", "unauthorized"],
)
def test_a_wrong_answer_fails_the_step_and_the_last_good_value_stays(
    tmp_path: Path, reply: object
) -> None:
    with pipeline(tmp_path) as it:
        it.run("device_counts")
        it.hub.faults.extend([reply, reply])  # type: ignore[list-item]
        result = it.run("device_counts")
        assert not result.success
        assert it.latest() == {"device_count": 15, "connected_device_count": 9}
    assert "azure_iot_hub: reading" in failure_text(result)


def test_a_hub_that_did_not_answer_at_all_is_asked_once_more(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        it.hub.faults.extend([UNAVAILABLE, UNAVAILABLE])
        assert it.run("device_counts").success
        assert it.latest() == {"device_count": 15, "connected_device_count": 9}
        assert len(it.hub.requests) == 4


def test_a_refusal_is_not_asked_again(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        it.hub.faults.append(error_answer(HTTPStatus.UNAUTHORIZED, "Unauthorized"))
        assert not it.run("device_counts").success
        assert len(it.hub.requests) == 1


def test_without_lora_there_is_no_concentrator_asset_and_no_value(tmp_path: Path) -> None:
    with pipeline(tmp_path, fleet={"lora_enabled": False}) as it:
        assert it.run().success
        assert not [name for name in it.latest() if "concentrator" in name]


def test_a_store_that_is_gone_fails_no_run_and_gets_all_of_it_when_it_is_back(
    tmp_path: Path,
) -> None:
    store, aside = tmp_path / "store", tmp_path / "aside"
    with pipeline(tmp_path, store={"kind": "embedded", "path": "store/points.sqlite"}) as it:
        it.run("device_counts")
        store.rename(aside)
        store.write_text("a file where the folder was")
        it.fleet.put(replace(FLEET, devices=FLEET.devices[1:]))
        assert it.run("device_counts").success
        event = it.instance.get_latest_materialization_event(KEY)
        assert event is not None
        assert event.asset_materialization is not None
        shown = event.asset_materialization.metadata
        assert (shown["points_stored"].value, shown["points_spooled"].value) == (0, 2)
        assert it.latest()["device_count"] == 14
        store.unlink()
        aside.rename(store)
        assert it.run("device_counts").success
        counts = [p.fields["device_count"] for p in it.history() if "device_count" in p.fields]
        assert counts == [15, 14, 14]
        assert it.totals()["metrics_pipeline_points_written_total"] == {"fleet_counts": 6}


def test_without_a_spool_a_store_that_is_gone_fails_the_step_without_asking_the_hub_again(
    tmp_path: Path,
) -> None:
    store = {"kind": "embedded", "path": "store/points.sqlite"}
    with pipeline(tmp_path, store=store, spool=None) as it:
        it.run("device_counts")
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "store").write_text("a file where the folder was")
        asked = len(it.hub.requests)
        result = it.run("device_counts")
        assert not result.success
        assert len(it.hub.requests) - asked == 2
        assert it.latest()["device_count"] == 15
    assert "store" in failure_text(result)


def test_the_metadata_shows_the_values_and_where_they_are(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        it.run("device_counts")
        event = it.instance.get_latest_materialization_event(KEY)
    assert event is not None
    assert event.asset_materialization is not None
    shown = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert shown["device_count"] == 15
    assert shown["connected_device_count"] == 9
    assert shown["points_stored"] == 2
    assert shown["points_rejected"] == 0
    assert shown["snapshot"] == {"asset": "fleet/device_counts", "revision": 1}


def test_what_was_fetched_is_counted_once_and_shown(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        it.run()
        it.lose_hub()
        it.run("device_counts")
        totals = it.totals()
        event = it.instance.get_latest_materialization_event(KEY)
    asked = len(COUNTS) - 1  # of the hub; the inventory counts the concentrators
    found = {from_label(label): n for label, n in totals["artifacts_total"].items()}
    assert found["azure_iot_hub", "ok"] == asked
    assert found["azure_iot_hub", "failed"] >= 2  # both counts, perhaps at two tries
    assert found["inventory", "ok"] == 1
    assert totals["database_queries_total"] == {'["inventory","true"]': 1}
    fetched = histograms(totals)
    # Three assets, of which one was read again without its hub.
    assert fetched["azure_iot_hub",].buckets[-1][1] >= 3
    assert fetched["inventory",].buckets[-1] == ("+Inf", 1.0)
    assert event is not None
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata["fetches"]
    assert isinstance(shown, dg.JsonMetadataValue)
    assert isinstance(shown.data, list)
    (row,) = shown.data
    assert (row["source"], row["ok"], row["failed"]) == ("azure_iot_hub", 2, 0)


def test_points_carry_the_time_the_run_was_due(tmp_path: Path) -> None:
    due = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=20)
    with pipeline(tmp_path) as it:
        it.run("device_counts", tags={SCHEDULED_TAG: due.isoformat()})
        times = {point.time_ns for point in it.latest_points()}
    assert times == {int(due.timestamp()) * 1_000_000_000}


def test_running_an_old_run_again_leaves_history_as_it_was(tmp_path: Path) -> None:
    due = datetime.now(UTC) - timedelta(hours=3)
    with pipeline(tmp_path) as it:
        it.run("device_counts", tags={SCHEDULED_TAG: due.isoformat()})
        times = {point.time_ns for point in it.latest_points()}
    assert min(times) > due.timestamp() * 1e9 + 3600e9


def test_a_total_that_drops_sharply_warns_and_is_stored_all_the_same(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it:
        it.run("device_counts")
        it.fleet.put(replace(FLEET, devices=FLEET.devices[:3]))
        result = it.run("device_counts")
        latest = it.latest()
    outcomes = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert result.success
    assert latest["device_count"] == 3
    assert not outcomes["total_drop_is_plausible"].passed
    assert outcomes["total_drop_is_plausible"].severity is dg.AssetCheckSeverity.WARN
    assert outcomes["total_drop_is_plausible"].description == "device_count fell from 15 to 3"
    assert outcomes["counts_are_never_negative"].passed
    assert outcomes["connected_within_total"].passed


RUN = """
import dagster as dg
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.settings_file import load_settings

job = build_definitions(load_settings()).resolve_job_def(JOB)
with dg.DagsterInstance.ephemeral() as instance:
    job.execute_in_process(instance=instance)
"""


def test_a_run_that_is_killed_before_it_stores_counts_nothing_and_the_next_counts_once(
    tmp_path: Path,
) -> None:
    with pipeline(tmp_path) as it:
        assert it.run().success  # makes the store
        asked, totals, history = len(it.hub.requests), it.totals(), it.history()
        assert artifacts(it) == asked
        kill_between_reading_and_storing(it)
        assert (it.totals(), it.history()) == (totals, history)
        assert it.run().success
        assert artifacts(it) == 2 * asked < len(it.hub.requests)
        assert histograms(it.totals())["azure_iot_hub",].buckets[-1][1] == 2 * 3


def test_what_was_fetched_is_counted_though_it_cannot_be_stored(tmp_path: Path) -> None:
    store = {"kind": "embedded", "path": "store/points.sqlite"}
    with pipeline(tmp_path, store=store, spool=None) as it:
        (tmp_path / "store").write_text("a file where the folder should be")
        assert not it.run("device_counts").success
        assert artifacts(it) == len(it.hub.requests) == 2
        assert histograms(it.totals())["azure_iot_hub",].buckets[-1][1] == 1


def artifacts(it: Pipeline) -> int:
    """What came from the hub; one request each."""
    found = {from_label(k): n for k, n in it.totals()["artifacts_total"].items()}
    return found["azure_iot_hub", "ok"]


def kill_between_reading_and_storing(it: Pipeline) -> None:
    """A run in a process of its own, whose store is held by somebody else."""
    settings = it.settings.model_dump(mode="json", exclude_unset=True)
    (it.folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    names = {
        STATE_DIR_VARIABLE: str(it.folder),
        SETTINGS_VARIABLE: str(it.folder / "settings.yaml"),
    }
    before = len(it.hub.requests)
    assert isinstance(it.settings.store, EmbeddedStoreSettings)
    with closing(sqlite3.connect(it.settings.store.path, isolation_level=None)) as holding:
        holding.execute("BEGIN IMMEDIATE")
        process = subprocess.Popen([sys.executable, "-c", RUN], env={**os.environ, **names})
        try:
            wait_until(lambda: len(it.hub.requests) > before, "it has read", process)
        finally:
            process.kill()
            process.wait()
        holding.execute("ROLLBACK")
