"""Samples through Dagster: the ticks of the sensor, as the daemon evaluates them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.catalog import SAMPLE_SLOTS
from metrics_pipeline.core.fetches import to_label
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.exporter.serve import build_refresher
from metrics_pipeline.orchestration.platform_report import SLOTS_ARE_SAMPLED
from metrics_pipeline.orchestration.platform_sensor import (
    Reported,
    SampleReports,
    build_platform_sensor,
    from_cursor,
    to_cursor,
)
from metrics_pipeline.orchestration.resources import build_sampling
from metrics_pipeline.sampling import Sampled, Sampling
from metrics_pipeline.settings import PlatformSettings, Settings
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.sampled_http import CountServer, count_server, sampled_count
from metrics_pipeline_tests.servers import wait_until

KEY = dg.AssetKey(["platform", "a"])
DAY_SECONDS = 86_400


@dataclass(slots=True)
class Daemon:
    """Evaluates the sensor, reports what it gives, and keeps its cursor."""

    settings: Settings
    instance: dg.DagsterInstance
    sampled: tuple[Sampled, ...]
    sampling: Sampling
    sensor: dg.SensorDefinition
    cursor: str | None = None

    def tick(self) -> str:
        """What the tick says."""
        with dg.build_sensor_context(self.instance, cursor=self.cursor) as context:
            outcome = self.sensor.evaluate_tick(context)
        for event in outcome.asset_events:
            self.instance.report_runless_asset_event(event)
        self.cursor = outcome.cursor
        return outcome.skip_message or ""

    def materializations(self) -> list[dict[str, Any]]:
        """The metadata of each, the oldest first."""
        found = self.instance.fetch_materializations(KEY, limit=100, ascending=True)
        events = [each.asset_materialization for each in found.records]
        return [{k: v.value for k, v in each.metadata.items()} for each in events if each]

    def observations(self) -> list[dict[str, Any]]:
        """The metadata of the reports in which nothing was sampled, the oldest first."""
        found = self.instance.fetch_observations(KEY, limit=100, ascending=True)
        events = [each.asset_observation for each in found.records]
        return [{k: v.value for k, v in each.metadata.items()} for each in events if each]

    def checks(self) -> list[bool]:
        """The outcomes that were reported, the oldest first."""
        key = dg.AssetCheckKey(KEY, SLOTS_ARE_SAMPLED)
        records = self.instance.event_log_storage.get_asset_check_execution_history(key, 100)
        return [each.status.value == "SUCCEEDED" for each in reversed(records)]

    def slots_sampled(self) -> int:
        """As the exporter shows it: asked, answered and stored."""
        with (
            closing(OperationalDatabase(self.settings.operational_database)) as database,
            database.reading() as connection,
        ):
            counted = tallies.totals(connection).get(SAMPLE_SLOTS.name, {})
        return counted.get(to_label(("a", Outcome.SAMPLED)), 0)

    def report_anew(self) -> None:
        """As if the time to the next report had passed."""
        before = from_cursor(self.cursor)
        rows = {
            name: Reported(each.at_seconds - DAY_SECONDS, each.passed)
            for name, each in before.items()
        }
        self.cursor = to_cursor(rows)


@pytest.fixture
def server() -> Iterator[CountServer]:
    with count_server() as running:
        yield running


@pytest.fixture
def it(tmp_path: Path, server: CountServer) -> Iterator[Daemon]:
    document = {"version": 1, "sources": {}}
    settings = Settings.model_validate(document, context={STATE_DIR_KEY: tmp_path})
    sampled = (sampled_count("a", server.url),)
    sampling = build_sampling(settings, sampled)
    with dg.DagsterInstance.ephemeral() as instance, closing(sampling):
        sensor = build_platform_sensor(sampling, settings.platform)
        yield Daemon(settings, instance, sampled, sampling, sensor)


def tick_until_reported(it: Daemon, reports: int = 1) -> None:
    def is_there() -> bool:
        it.tick()
        return len(it.materializations()) + len(it.observations()) >= reports

    wait_until(is_there, f"{reports} reports are there")


def test_the_graph_has_the_asset_what_it_reads_and_a_check_but_no_run_makes_it(
    it: Daemon,
) -> None:
    definitions = build_definitions(it.settings, it.sampled)
    dg.Definitions.validate_loadable(definitions)
    node = definitions.resolve_asset_graph().get(KEY)
    assert node.group_name == "platform"
    assert not node.is_executable
    assert {key.to_user_string() for key in node.parent_keys} == {"services/counts"}
    assert [key.name for key in node.check_keys] == [SLOTS_ARE_SAMPLED]
    (sensor,) = definitions.sensors or []
    assert isinstance(sensor, dg.SensorDefinition)
    assert sensor.name == "platform_samples"
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_where_nothing_is_sampled_there_is_no_sensor(it: Daemon) -> None:
    assert build_definitions(it.settings, ()).sensors == []


def test_loading_the_definitions_samples_nothing(it: Daemon, server: CountServer) -> None:
    dg.Definitions.validate_loadable(build_definitions(it.settings, it.sampled))
    time.sleep(1.2)
    assert server.asked_ns == []


def test_a_tick_waits_for_no_slot_and_the_samples_are_reported_once(
    it: Daemon, server: CountServer
) -> None:
    assert it.tick().startswith("Sampling goes on.")
    tick_until_reported(it)
    wait_until(lambda: len(server.asked_ns) >= 3, "it goes on without a tick")
    for _ in range(3):
        assert "0 events reported; not reported yet: " in it.tick()
    (told,) = it.materializations()
    assert told["slots"] == told["slots_sampled"] == told["points_stored"] == 1
    assert told["slots_without_sample"] == 0
    assert 0 <= told["delay_max_ms"] < 1000
    assert told["duration_p99_ms"] > 0
    assert told["snapshot"] == {"asset": "platform/a"}


def test_the_next_report_has_all_since_the_last_and_the_check_only_what_is_new(
    it: Daemon,
) -> None:
    tick_until_reported(it)
    wait_until(lambda: it.slots_sampled() >= 4, "some slots pass")
    it.report_anew()
    it.tick()
    it.sampling.close()
    it.report_anew()
    it.tick()
    told = it.materializations()
    assert sum(each["slots_sampled"] for each in told) >= 4
    assert it.checks() == [True]


def test_a_report_that_did_not_arrive_is_given_again_with_what_came_since(
    it: Daemon, server: CountServer
) -> None:
    now = [time.time()]
    reports = SampleReports(it.sampling, PlatformSettings(), lambda: now[0])
    it.tick()
    arrived: list[dg.AssetMaterialization] = []

    def take(cursor: Mapping[str, Reported]) -> Mapping[str, Reported]:
        """Of what is given only that counts which is taken last."""
        now[0] += PlatformSettings().report_every_seconds
        events, after = reports.take(cursor)
        arrived.extend(each for each in events if isinstance(each, dg.AssetMaterialization))
        return after

    wait_until(lambda: len(server.asked_ns) >= 2, "some slots pass")
    cursor = take({})
    wait_until(lambda: len(server.asked_ns) >= 4, "some more pass")
    take(cursor)  # somebody tries a tick in the UI, or the daemon dies
    lost = arrived.pop()
    it.sampling.close()  # which may give up a question that is not answered yet
    cursor = take(cursor)
    take(cursor)
    slots = [int(str(each.metadata["slots_sampled"].value)) for each in arrived]
    reported_by_tick = sum(each["slots_sampled"] for each in it.materializations())
    assert sum(slots) + reported_by_tick == it.slots_sampled() >= 3
    assert lost.asset_key == KEY


def test_a_source_that_fails_is_no_materialization_but_an_observation_with_the_reason(
    it: Daemon, server: CountServer
) -> None:
    server.is_ill = True
    tick_until_reported(it)
    assert it.materializations() == []  # else it would be fresh, and nothing is stored
    assert it.checks() == [False]
    (told,) = it.observations()
    assert (told["slots_failed"], told["slots_sampled"]) == (1, 0)
    assert "HTTPStatusError" in told["last_problem"]
    assert [dict(row.data) for row in told["failures_by_reason"].records] == [
        {"reason": "SourceUnreachable", "count": 1}
    ]


def test_slots_that_are_missed_are_a_warning_until_they_are_not(
    it: Daemon, server: CountServer
) -> None:
    tick_until_reported(it)
    server.answers.clear()
    wait_until(lambda: bool(it.tick()) and len(server.asked_ns) >= 2, "it is asked")

    def is_warned() -> bool:
        it.report_anew()
        it.tick()
        return it.checks()[-1] is False

    wait_until(is_warned, "it is a warning")
    server.answers.set()

    def is_well() -> bool:
        it.report_anew()
        it.tick()
        return it.checks()[-1]

    wait_until(is_well, "it is well again")
    assert it.checks() == [True, False, True]


def test_the_check_can_be_run_by_hand_and_looks_at_the_last_report(it: Daemon) -> None:
    definitions = build_definitions(it.settings, it.sampled)
    everything = definitions.resolve_implicit_global_asset_job_def()
    (check,) = (
        key
        for key in everything.asset_layer.asset_graph.asset_check_keys
        if key.asset_key.path[0] == "platform"
    )
    job = everything.get_subset(asset_check_selection={check})
    before = job.execute_in_process(instance=it.instance)
    tick_until_reported(it)
    after = job.execute_in_process(instance=it.instance)
    told = [result.get_asset_check_evaluations()[0] for result in (before, after)]
    assert [(each.passed, each.description) for each in told] == [
        (False, "nothing was reported yet"),
        (True, "0 of 1 slots are without a sample"),
    ]


def test_a_second_code_server_says_who_samples(it: Daemon) -> None:
    it.tick()
    with closing(build_sampling(it.settings, it.sampled)) as other:
        sensor = build_platform_sensor(other, it.settings.platform)
        with dg.build_sensor_context(it.instance) as context:
            said = sensor.evaluate_tick(context).skip_message or ""
    assert said.startswith(f"Another process samples: {it.sampling.owner}.")


def test_an_operational_database_that_does_not_answer_is_no_failed_tick(
    it: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "operational.sqlite").mkdir()
    assert it.tick().startswith("Whether this process may sample was not found out: ")


def test_the_exporter_shows_the_values_their_age_and_the_slots(
    it: Daemon, server: CountServer
) -> None:
    began = time.time()
    it.tick()
    wait_until(lambda: len(server.asked_ns) >= 2, "it is sampled")
    it.sampling.close()  # which may give up a question that is not answered yet
    refresher = build_refresher(it.settings, it.sampled)
    with closing(refresher):
        refresher.refresh()
        page = refresher.page.text.plain.decode().splitlines()
    rows = dict(line.rsplit(" ", 1) for line in page if not line.startswith("#"))
    shown = float(rows["iot_hub_portal_device_count"])
    assert len(server.asked_ns) - 1 <= shown <= len(server.asked_ns)
    age = 'metrics_pipeline_last_success_timestamp_seconds{asset="platform/a"}'
    assert float(rows[age]) >= began
    slots = "metrics_pipeline_sample_slots_total"
    assert float(rows[f'{slots}{{outcome="sampled",source="a"}}']) == shown
    assert float(rows[f'{slots}{{outcome="missed_busy",source="a"}}']) == 0


@pytest.mark.parametrize("text", [None, "", "[]", "7", '{"a": 1}', '{"a": {}}', "{no JSON"])
def test_a_cursor_of_somebody_else_is_as_none(text: str | None) -> None:
    assert from_cursor(text) == {}


def test_a_cursor_is_read_as_it_was_written() -> None:
    cursor = {"a": Reported(1.5, True), "b": Reported(2.0, None)}
    assert from_cursor(to_cursor(cursor)) == cursor


def test_a_report_of_the_future_does_not_hold_up_the_next(it: Daemon) -> None:
    """The clock was set back by an hour."""
    it.tick()
    now = [time.time()]
    reports = SampleReports(it.sampling, PlatformSettings(), lambda: now[0])
    cursor = {"a": Reported(now[0] + 3600, True)}

    def is_told() -> bool:
        return bool(reports.take(cursor)[0])

    wait_until(is_told, "it is told")
