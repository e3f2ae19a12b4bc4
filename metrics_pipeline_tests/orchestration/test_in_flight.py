"""One run of a job at a time: ticks are skipped, and say why."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.orchestration.in_flight import IN_FLIGHT
from metrics_pipeline_tests.orchestration.pipeline import pipeline

QUEUED = dg.DagsterRunStatus.QUEUED
"""Only a run coordinator can make a queued run: see test_end_to_end.py."""


def evaluate(definitions: dg.Definitions, instance: dg.DagsterInstance) -> tuple[int, str]:
    """The number of runs the tick asks for, and the reason it gives for none."""
    schedule = definitions.resolve_schedule_def("fleet_every_5_minutes")
    with dg.build_schedule_context(instance) as context:
        tick = schedule.evaluate_tick(context)
    return len(tick.run_requests or []), tick.skip_message or ""


def test_a_tick_is_skipped_with_the_reason_while_a_run_is_in_flight(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it, dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        definitions = build_definitions(it.settings)
        job = definitions.resolve_job_def(JOB)
        for status in set(IN_FLIGHT) - {QUEUED}:
            run = instance.create_run_for_job(job, status=status)
            requests, reason = evaluate(definitions, instance)
            assert requests == 0
            assert f"Run {run.run_id} of {JOB} is still {status.value.lower()}" in reason
            instance.delete_run(run.run_id)


def test_a_tick_runs_the_job_when_every_run_has_ended(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it, dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        definitions = build_definitions(it.settings)
        job = definitions.resolve_job_def(JOB)
        for status in set(dg.DagsterRunStatus) - set(IN_FLIGHT):
            instance.create_run_for_job(job, status=status)
        assert evaluate(definitions, instance) == (1, "")


def test_a_run_from_the_asset_graph_that_makes_one_of_the_assets_is_in_flight_too(
    tmp_path: Path,
) -> None:
    with pipeline(tmp_path) as it, dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        definitions = build_definitions(it.settings)
        run = instance.create_run_for_job(
            definitions.resolve_implicit_global_asset_job_def(),
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset({dg.AssetKey(["fleet", "device_counts"])}),
        )
        requests, reason = evaluate(definitions, instance)
    assert requests == 0
    assert f"Run {run.run_id} of __ASSET_JOB is still started" in reason


def test_a_run_of_another_job_skips_nothing(tmp_path: Path) -> None:
    @dg.job
    def another() -> None: ...

    with pipeline(tmp_path) as it, dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.create_run_for_job(another, status=dg.DagsterRunStatus.STARTED)
        assert evaluate(build_definitions(it.settings), instance) == (1, "")
