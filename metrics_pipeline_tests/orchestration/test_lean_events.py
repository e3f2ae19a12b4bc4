"""Events are stored without what Dagster repeats in them, and read as if nothing were missing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster_graphql.schema import create_schema

from metrics_pipeline_tests.orchestration.dagster_instances import opened, rows
from metrics_pipeline_tests.postgresql import PostgresqlDatabase


@dg.asset(check_specs=[dg.AssetCheckSpec("is_positive", asset="counted")])
def counted() -> Iterator[dg.MaterializeResult[None]]:
    dg.get_dagster_logger().info("said")
    yield dg.MaterializeResult(
        metadata={"number": 7},
        check_results=[
            dg.AssetCheckResult(
                passed=True,
                check_name="is_positive",
                description="seven is",
                metadata={"number": 7},
            )
        ],
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    url = None
    if request.param == "postgresql":
        database: PostgresqlDatabase = request.getfixturevalue("postgresql")
        url = database.url
    with opened(tmp_path, url) as made:
        yield made


def output_of(event: dg.DagsterEvent) -> str | None:
    return event.step_output_data.output_name if event.is_successful_output else None


def test_an_event_is_read_as_it_was_told_but_for_tags_of_loggers(
    instance: dg.DagsterInstance,
) -> None:
    result = dg.materialize([counted], instance=instance)
    stored = instance.all_logs(result.run_id)
    read = [event.dagster_event for event in stored if event.dagster_event is not None]
    of_steps = [event for event in read if event.is_step_event]
    assert of_steps == [
        event._replace(logging_tags={})
        for event in result.all_events
        if event.is_step_event and output_of(event) != "counted_is_positive"
    ]
    assert [event.message for event in stored if event.dagster_event is None] == ["said"]
    assert all(event.message for event in stored if event.step_key is not None)


def test_what_is_repeated_is_not_stored(instance: dg.DagsterInstance) -> None:
    dg.materialize([counted], instance=instance)
    instance.report_runless_asset_event(dg.AssetMaterialization("sampled"))
    texts = [str(text) for (text,) in rows(instance, "SELECT event FROM event_logs")]
    assert len(texts) > 10
    assert not [text for text in texts if "resource_fn_name" in text]
    of_nodes = [text for text in texts if '"step_kind_value": "COMPUTE"' in text]
    assert of_nodes
    assert not [text for text in of_nodes if '"StepHandle"' in text]
    message = "Materialized value counted."
    assert [text.count(message) for text in texts if message in text] == [1]


@dg.op(out={"numbers_first": dg.Out(), "numbers_second": dg.Out(is_required=False)})
def numbers() -> Iterator[dg.Output[int]]:
    yield dg.Output(1, "numbers_first")


@dg.job
def numbering() -> None:
    numbers()


def test_an_output_that_is_called_like_that_of_a_check_is_stored_in_its_place(
    instance: dg.DagsterInstance,
) -> None:
    result = numbering.execute_in_process(instance=instance)
    stored = [event.dagster_event for event in instance.all_logs(result.run_id)]
    kinds = [event.event_type for event in stored if event is not None and event.is_step_event]
    assert kinds == [event.event_type for event in result.all_events if event.is_step_event]
    assert [output_of(event) for event in stored if event and event.is_successful_output] == [
        "numbers_first"
    ]


OUTCOMES = """query($path: [String!]!) {
  assetCheckExecutions(assetKey: {path: $path}, checkName: "is_positive", limit: 5) {
    runId status stepKey
    evaluation {
      checkName success severity description timestamp
      assetKey { path } targetMaterialization { runId storageId }
      metadataEntries { label ... on IntMetadataEntry { intValue } }
    }
  }
}"""

LOG = """query($run: ID!) {
  logsForRun(runId: $run) {
    ... on EventConnection {
      events { __typename ... on MessageEvent { message stepKey level } }
    }
  }
}"""


def ask(instance: dg.DagsterInstance, query: str, **variables: object) -> Any:
    """What the UI is answered."""
    with WorkspaceProcessContext(instance, None) as process:
        context = process.create_request_context()
        found = asyncio.run(
            create_schema().execute_async(query, variables=variables, context=context)
        )
    assert found.errors is None
    return found.data


def test_the_ui_shows_outcomes_of_checks_and_the_log_of_a_run(
    instance: dg.DagsterInstance,
) -> None:
    result = dg.materialize([counted], instance=instance)
    (outcome,) = ask(instance, OUTCOMES, path=["counted"])["assetCheckExecutions"]
    evaluation = outcome.pop("evaluation")
    assert outcome == {"runId": result.run_id, "status": "SUCCEEDED", "stepKey": "counted"}
    target = evaluation.pop("targetMaterialization")
    assert target["runId"] == result.run_id
    assert evaluation.pop("timestamp") > 0
    assert evaluation == {
        "checkName": "is_positive",
        "success": True,
        "severity": "ERROR",
        "description": "seven is",
        "assetKey": {"path": ["counted"]},
        "metadataEntries": [{"label": "number", "intValue": 7}],
    }
    events = ask(instance, LOG, run=result.run_id)["logsForRun"]["events"]
    (judged,) = [event for event in events if event["__typename"] == "AssetCheckEvaluationEvent"]
    assert judged["stepKey"] == "counted"
    assert "seven is" in judged["message"]
    assert "said" in [event["message"] for event in events]
