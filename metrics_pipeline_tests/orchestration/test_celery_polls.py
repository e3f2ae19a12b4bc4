"""A poll in shards, over real workers of Celery that are killed in the middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from celery.exceptions import Ignore
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.retries import RetryMode
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import pack_value

from metrics_pipeline.core.device_assets import METRICS_JOB
from metrics_pipeline.orchestration.celery_polls import PollTask
from metrics_pipeline.preflight import check_everything
from metrics_pipeline_tests.orchestration.poll_workers import (
    COMMUNITY,
    SHARDS,
    Site,
    children_of,
    kill,
    site,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.redis_server import PASSWORD
from metrics_pipeline_tests.servers import wait_until

pytestmark = pytest.mark.timeout(6 * PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With two workers."""
    with site(tmp_path_factory.mktemp("workers")) as opened:
        for name in ("one", "two"):
            opened.start_worker(name)
        opened.wait_for_workers()
        yield opened


def test_every_device_is_polled_though_one_of_two_workers_dies_in_the_middle(it: Site) -> None:
    it.hold_up()
    for shard in SHARDS:
        it.run(shard)
    wait_until(lambda: all(map(it.is_polled, SHARDS)), "both shards are polled")
    by = {shard: it.taken_by(shard) for shard in SHARDS}
    assert sorted(by.values()) == [["one"], ["two"]]
    taken = it.scores()
    assert len(taken) == len(SHARDS)
    wait_until(
        lambda: all(it.scores()[message] > at for message, at in taken.items()),
        "both workers say that they have what they took",
    )
    assert [it.stored(shard) for shard in SHARDS] == [[], []]  # in the middle, indeed
    (first,) = by["1"]
    (second,) = by["2"]
    kill(it.workers.pop(first))
    it.go_on()
    succeeded = [dg.DagsterRunStatus.SUCCESS] * len(SHARDS)
    assert [it.status(shard) for shard in SHARDS] == succeeded
    assert it.taken_by("1") == [first, second]
    assert it.taken_by("2") == [second]
    for shard in SHARDS:
        check_all_are_polled(it, shard)


def check_all_are_polled(it: Site, shard: str) -> None:
    """Each device has its points, each once."""
    points = it.stored(shard)
    assert {p.tags["device_id"] for p in points} == it.devices(shard)
    series = [tuple(sorted(p.tags.items())) for p in points]
    assert len(set(series)) == len(series)
    run = it.last_run(shard)
    assert run is not None
    events = [each.dagster_event_type for each in it.instance.all_logs(run.run_id)]
    assert events.count(dg.DagsterEventType.ASSET_MATERIALIZATION) == 1


def test_a_poll_whose_process_dies_is_done_by_the_next_one(it: Site) -> None:
    (name,) = it.workers
    it.hold_up()
    it.run("1")
    wait_until(lambda: it.is_polled("1"), "the shard is polled")
    for child in children_of(it.workers[name]):
        os.kill(child, signal.SIGKILL)
    it.go_on()
    assert it.status("1") is dg.DagsterRunStatus.SUCCESS
    assert it.taken_by("1") == [name, name]
    check_all_are_polled(it, "1")


def test_a_poll_is_left_when_its_run_has_ended(it: Site) -> None:
    run = it.last_run("1")
    assert run is not None
    repository = ReconstructableRepository.for_module("metrics_pipeline.definitions", "defs")
    step = ExecuteStepArgs(
        job_origin=repository.get_reconstructable_job(METRICS_JOB).get_python_origin(),
        run_id=run.run_id,
        step_keys_to_execute=["devices__snmp_metrics"],
        instance_ref=it.instance.get_ref(),
        retry_mode=RetryMode.ENABLED,
    )
    with pytest.raises(Ignore):
        PollTask().before_start("", (), {"execute_step_args_packed": pack_value(step)})


def test_no_secret_is_in_the_list_of_processes(it: Site) -> None:
    for worker in it.workers.values():
        for pid in (worker.process.pid, *children_of(worker)):
            shown = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert b"worker" in shown
            assert PASSWORD.encode() not in shown


def test_check_says_how_many_polls_go_on(it: Site) -> None:
    (worker,) = it.workers.values()
    it.hold_up()
    it.run("1")
    wait_until(lambda: it.is_polled("1"), "the shard is polled")
    assert said_of_workers(it).endswith("0 polls wait, 1 go on")
    kill(worker)
    assert it.stored("1") == []


def said_of_workers(it: Site) -> str:
    """What `check` says of them."""
    (finding,) = (f for f in check_everything(it.settings) if f.name == "workers")
    assert finding.is_well
    return finding.says


def test_runs_fail_while_redis_is_away_and_say_so(it: Site) -> None:
    """One that waits for what nobody does any more, and one that has just begun."""
    it.redis.stop()
    try:
        it.run("2")
        failed = [dg.DagsterRunStatus.FAILURE] * len(SHARDS)
        assert [it.status(shard) for shard in SHARDS] == failed
    finally:
        it.redis.start()
    ended = it.last_run("2")
    assert ended is not None
    messages = [each.message for each in it.instance.all_logs(ended.run_id)]
    assert any("Encountered error during celery task submission" in each for each in messages)


def test_no_secret_is_in_what_was_written(it: Site) -> None:
    written = it.written()
    assert b"Executing steps" in written
    assert PASSWORD.encode() not in written
    assert COMMUNITY.encode() not in written
