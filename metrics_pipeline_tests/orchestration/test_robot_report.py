"""Robots in the lineage: what is new is reported once, whatever becomes of the sensor."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from metrics_pipeline.core.catalog import ROBOT_MESSAGES
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.robots import ASSET, CONNECTED, GATEWAY
from metrics_pipeline.orchestration.robot_report import build_robot_sensor, report
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage import snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase

NAMES = ("metrics_pipeline_robot_messages_total", "metrics_pipeline_robot_connections_total")


def totals(stored: int, **refused: int) -> dict[str, dict[str, int]]:
    return {NAMES[0]: {"stored": stored, **refused}, NAMES[1]: {"established": 2}}


def metadata_of(result: dg.SensorResult) -> dict[str, object]:
    (event,) = result.asset_events
    return {name: value.value for name, value in event.metadata.items()}


def test_what_is_new_since_the_last_report_is_reported() -> None:
    first = report(totals(10, not_finite=1), 3, None)
    assert metadata_of(first)["messages_stored"] == 10
    second = report(totals(15, not_finite=3), 4, first.cursor)
    said = metadata_of(second)
    assert (said["messages_stored"], said["messages_refused"], said["robots_connected"]) == (
        5,
        2,
        4,
    )


def test_nothing_new_is_no_event_so_that_the_asset_grows_stale() -> None:
    cursor = report(totals(10), 3, None).cursor
    again = report(totals(10, not_finite=9), 3, cursor)
    assert not again.asset_events
    assert again.cursor is None  # what was refused comes with the next that was stored


def test_totals_that_fell_are_of_another_database() -> None:
    cursor = report(totals(10), 3, None).cursor
    assert metadata_of(report(totals(4), 3, cursor))["messages_stored"] == 4


def test_a_cursor_of_another_kind_is_none() -> None:
    for cursor in ("", "{", "[]", "7", '{"x": 1}'):
        assert metadata_of(report(totals(4), 3, cursor))["messages_stored"] == 4


def test_the_sensor_reads_what_the_gateway_left(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "version": 1,
            "sources": {},
            "gateway": {"tokens": {"all": {"token": {"env": "X"}}}},
            "operational_database": {"url": f"sqlite:///{tmp_path}/o.sqlite"},
        }
    )
    assert settings.gateway is not None
    sensor = build_robot_sensor(settings, settings.gateway)
    with dg.DagsterInstance.ephemeral() as instance:
        empty = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        assert "No message" in str(empty.skip_message)
        database = OperationalDatabase(settings.operational_database)
        with database.writing() as connection:
            tallies.add(connection, ROBOT_MESSAGES.name, {"stored": 7})
            snapshots.replace(connection, ASSET, (Point(GATEWAY, {}, {CONNECTED: 2}, 5),), 5)
        database.close()
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        again = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=tick.cursor))
    (event,) = tick.asset_events
    assert event.asset_key == dg.AssetKey(["telemetry", "robot_metrics"])
    assert event.metadata["robots_connected"].value == 2
    assert not again.asset_events
