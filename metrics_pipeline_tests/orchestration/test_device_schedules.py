"""When devices are polled, by settings: cadences, shards, protocols."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.device_assets import METRICS_JOB, STATUS, STATUS_JOB
from metrics_pipeline.core.maintenance_assets import JOB as RETENTION_JOB
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.settings import Settings


def make_settings(folder: Path, **polling: Any) -> Settings:
    document = {
        "version": 1,
        "sources": {"inventory": {"database": {"url": "sqlite:///inventory.sqlite"}}},
        "polling": {"enabled": True, **polling},
    }
    return Settings.model_validate(document, context={STATE_DIR_KEY: folder})


def definitions(folder: Path, **polling: Any) -> dg.Definitions:
    built = build_definitions(make_settings(folder, **polling))
    dg.Definitions.validate_loadable(built)
    return built


def schedules(built: dg.Definitions) -> dict[str, str]:
    """Cron expressions by name, of those of devices."""
    found = built.get_repository_def().schedule_defs
    named = {schedule.name: str(schedule.cron_schedule) for schedule in found}
    return {name: cron for name, cron in named.items() if name.startswith("device")}


def test_both_jobs_are_due_every_five_minutes(tmp_path: Path) -> None:
    assert schedules(definitions(tmp_path)) == {
        "device_status_every_5_minutes": "*/5 * * * *",
        "device_metrics_every_5_minutes": "*/5 * * * *",
    }


@pytest.mark.parametrize(
    ("cadences", "tick"), [([1], 1), ([15], 5), ([3], 1), ([10, 20], 5), ([30], 5)]
)
def test_the_metrics_job_is_due_as_often_as_some_type_may_be(
    tmp_path: Path, cadences: list[int], tick: int
) -> None:
    types = {f"type-{n}": {"metrics_every_minutes": n} for n in cadences}
    found = schedules(definitions(tmp_path, device_types=types))
    assert found[f"device_metrics_every_{tick}_minutes"] == f"*/{tick} * * * *"


def test_a_poll_that_is_rare_may_take_longer(tmp_path: Path) -> None:
    job = definitions(tmp_path, metrics_every_minutes=15).resolve_job_def(METRICS_JOB)
    assert job.tags["dagster/max_runtime"] == "880"


def test_with_no_protocol_of_metrics_there_is_only_the_status(tmp_path: Path) -> None:
    assert list(schedules(definitions(tmp_path, metrics_by=[]))) == [
        "device_status_every_5_minutes"
    ]
    assert make_settings(tmp_path, metrics_by=[]).jobs() == (STATUS_JOB, RETENTION_JOB)


def test_one_shard_looks_unpartitioned(tmp_path: Path) -> None:
    asset = definitions(tmp_path).resolve_asset_graph().get(dg.AssetKey.from_user_string(STATUS))
    assert asset.partitions_def is None
    assert asset.pools == {STATUS_JOB}


def test_shards_are_the_only_partitions_and_as_many_as_the_settings_say(tmp_path: Path) -> None:
    """A partition for each five minutes would be 100,000 a year, which the UI loads as a whole."""
    graph = definitions(tmp_path, shards=3).resolve_asset_graph()
    found = [graph.get(key).partitions_def for key in graph.get_all_asset_keys()]
    parted = [each for each in found if each is not None]
    assert parted
    assert [list(each.get_partition_keys()) for each in parted] == [["1", "2", "3"]] * len(parted)
    assert {type(each) for each in parted} == {dg.StaticPartitionsDefinition}


def partitions_of(built: dg.Definitions, instance: dg.DagsterInstance) -> list[str | None]:
    """Of the runs that the tick of noon asks for."""
    schedule = built.resolve_schedule_def("device_status_every_5_minutes")
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    with dg.build_schedule_context(
        instance, scheduled_execution_time=noon, repository_def=built.get_repository_def()
    ) as context:
        requests = schedule.evaluate_tick(context).run_requests or []
    return [request.partition_key for request in requests]


def test_each_shard_is_a_run_unless_its_last_one_is_in_flight(tmp_path: Path) -> None:
    built = definitions(tmp_path, shards=3)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert partitions_of(built, instance) == ["1", "2", "3"]
        run = instance.create_run_for_job(
            built.resolve_job_def(STATUS_JOB),
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": "2"},
        )
        assert partitions_of(built, instance) == ["1", "3"]
        assert run.job_name == STATUS_JOB


@pytest.mark.parametrize(
    ("polling", "message"),
    [
        ({"status_every_seconds": 45}, "expected one of 10, 20, 30"),
        ({"metrics_every_minutes": 7}, "expected one of 1, 2, 3"),
        ({"device_types": {"camera": {"status_every_seconds": 100}}}, "multiples of the shortest"),
        ({"device_types": {"camera": {"every_minutes": 1}}}, "every_minutes"),
        ({"metrics_by": ["ping"]}, "expected some of snmp, ssh, winrm"),
        ({"metrics_by": ["snmp", "snmp"]}, "each once"),
        ({"shards": 0}, "greater than or equal to 1"),
    ],
)
def test_cadences_that_cannot_be_kept_are_refused(
    tmp_path: Path, polling: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_settings(tmp_path, **polling)
