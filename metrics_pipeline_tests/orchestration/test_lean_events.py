"""Events are stored without what Dagster repeats in them, and read as if nothing were missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from metrics_pipeline_tests.orchestration.dagster_instances import opened, rows
from metrics_pipeline_tests.postgresql import PostgresqlDatabase


@dg.asset(check_specs=[dg.AssetCheckSpec("is_positive", asset="counted")])
def counted() -> Iterator[dg.MaterializeResult[None]]:
    dg.get_dagster_logger().info("said")
    yield dg.MaterializeResult(
        metadata={"number": 7},
        check_results=[dg.AssetCheckResult(passed=True, check_name="is_positive")],
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    url = None
    if request.param == "postgresql":
        database: PostgresqlDatabase = request.getfixturevalue("postgresql")
        url = database.url
    with opened(tmp_path, url) as made:
        yield made


def test_an_event_is_read_as_it_was_told_but_for_tags_of_loggers(
    instance: dg.DagsterInstance,
) -> None:
    result = dg.materialize([counted], instance=instance)
    stored = instance.all_logs(result.run_id)
    read = [event.dagster_event for event in stored if event.dagster_event is not None]
    of_steps = [event for event in read if event.is_step_event]
    assert of_steps == [
        event._replace(logging_tags={}) for event in result.all_events if event.is_step_event
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
