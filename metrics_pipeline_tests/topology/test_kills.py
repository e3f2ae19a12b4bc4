"""Each process of docker/compose.yaml is killed while it works, and started again: nothing is lost.

One topology, one story; each test goes on where the one before ended. The variable
METRICS_PIPELINE_KILL_ROUNDS lets each process be killed as often as it says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from metrics_pipeline.core.catalog import (
    EXPORTER_REFRESH_FAILURES,
    FETCH_LATENCY,
    RUNS,
    SAMPLE_SLOTS,
    MetricType,
)
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.core.telemetry_assets import JOB as TELEMETRY_JOB
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.simulators.loopback_server import NoAnswer
from metrics_pipeline_tests.alert_rules.rule_files import ALERTS, families, rules
from metrics_pipeline_tests.alert_rules.running_prometheus import all_are_healthy, loaded_rules
from metrics_pipeline_tests.dashboards.exported import SELECTOR, queries
from metrics_pipeline_tests.dashboards.live import has_data
from metrics_pipeline_tests.ingestion.ingesting import not_once
from metrics_pipeline_tests.orchestration.pipeline import COUNTS, FLEET
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.topology.faster import SAMPLE_SECONDS
from metrics_pipeline_tests.topology.running_topology import (
    CODE_SERVER,
    DAEMON,
    EXPORTER,
    INFLUXDB,
    POSTGRESQL,
    PROMETHEUS,
    WATCHING,
    WEBSERVER,
    Account,
    Topology,
    running_topology,
)

ROUNDS = int(os.environ.get("METRICS_PIPELINE_KILL_ROUNDS", "1"))
SLOTS_AWAY = 3
MINUTE_SECONDS = 60
BACK_AFTER_SECONDS = 180
"""A process that was killed answers again, however slow the machine."""


DEVICES = "iot_hub_portal_device_count"
CONCENTRATORS = "iot_hub_portal_concentrator_count"
HEARTBEAT = "min(metrics_pipeline_daemon_heartbeat_timestamp_seconds)"
REFRESH_FAILURES = EXPORTER_REFRESH_FAILURES.name
DOWN = "MetricsPipelineDown"
DATABASE_DOWN, NEAR_LIMIT = "DatabaseDown", "DatabaseConnectionsNearLimit"
CONNECTIONS_SHARE = 0.84
"""Enough for the alert; the rest is for what runs."""

DATABASE_HEALTH = "database_health: "
NOT_HERE = {
    *("postgres_replication_lag_bytes", "postgres_replication_lag_seconds"),
    *("postgres_slot_active", "postgres_slot_retained_bytes", "postgres_standby_lag_seconds"),
}
"""What only a server with standbys has."""

TELL_OF_FAILED_RUNS = {"RunFailuresFast", "RunFailuresSlow"}
"""Runs that are killed fail, and these say so for hours."""

ASKED = (Outcome.SAMPLED, Outcome.FAILED)
MATERIALIZED = "Materialized value fleet device_counts"
PATIENT_LOOKS = 60
OURS = '{job="metrics_pipeline"}'
OF_THE_EXPORTER = {EXPORTER_REFRESH_FAILURES.name, "metrics_pipeline_process_cpu_seconds_total"}
"""Counters that begin anew with their process, as Prometheus expects; all others are kept."""

pytestmark = pytest.mark.timeout(6 * PATIENCE_SECONDS)
each_round = pytest.mark.usefixtures("kill_round")


@pytest.fixture(params=range(ROUNDS))
def kill_round() -> None:
    """Lets a test run as often as there are rounds."""


@dataclass(slots=True)
class Story:
    """The topology, and what was seen of it so far."""

    it: Topology
    first: Account
    killed: set[str] = field(default_factory=set)
    """Runs that were in flight when something was killed."""
    kills: list[tuple[float, str]] = field(default_factory=list)
    """When what was killed, in seconds since the epoch."""

    def kill(self, name: str) -> None:
        """While it works."""
        self.killed |= {run.id for run in self.it.runs_in_flight()}
        self.kills.append((time.time(), name))
        self.it.kill(name)

    def could_not_be_evaluated(self, tick: float) -> bool:
        """Whether shortly before it one was killed without whom there are no ticks.

        Of several that are due when all are back the schedule takes the last one.
        """
        return any(
            name in (CODE_SERVER, DAEMON, POSTGRESQL) and 0 <= tick - at < BACK_AFTER_SECONDS
            for at, name in self.kills
        )

    def wait_for_slots(self, count: int) -> None:
        """So long that so many more samples are due."""
        until = time.time() + count * SAMPLE_SECONDS
        self.it.wait_until(lambda: time.time() > until, "some slots are over")


@dataclass(slots=True)
class BothRun:
    """Waits for a moment at which the fleet is counted, and telemetry stored.

    And, on a machine on which that comes, at which no run is about to start: one that dies then is
    ended after two minutes.
    """

    it: Topology
    counting: str = ""
    looks: int = 0

    def look(self) -> bool:
        """Whether it has come; where no run counts, one is launched, which will take a while."""
        in_flight = {run.id: run for run in self.it.runs_in_flight()}
        if self.counting not in in_flight:
            self.it.hub.faults.append(NoAnswer())
            self.counting = self.it.webserver.launch(JOB)
            return False
        self.looks += 1
        started = [run for run in in_flight.values() if run.status == "STARTED"]
        is_tidy = len(started) == len(in_flight) or self.looks > PATIENT_LOOKS
        return is_tidy and {JOB, TELEMETRY_JOB} <= {run.job for run in started}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder: Path = tmp_path_factory.mktemp("topology")
    with running_topology(folder) as topology:
        topology.wait_until(lambda: topology.account().slot_ns > 0, "the first slot is sampled")
        yield Story(topology, topology.account())


def test_what_ships_collects_stores_and_shows(story: Story) -> None:
    it = story.it
    it.webserver.launch(JOB)
    it.wait_until_it_goes_on()
    it.wait_until(lambda: it.value(DEVICES) == COUNTS["device_count"], "the fleet is shown")
    assert it.value(CONCENTRATORS) == 1  # in the inventory
    it.wait_until(lambda: all_are_healthy(it.prometheus_url), "every rule was evaluated")
    assert len(loaded_rules(it.prometheus_url)) == len(list(rules()))
    # Nothing is written but to volumes, such as what runs print.
    assert it.machine.written() == {"/var/lib/metrics_pipeline/dagster/dagster.yaml"}
    it.wait_until(lambda: MATERIALIZED in printed_by_runs(it), "what a run printed is kept")


def printed_by_runs(it: Topology) -> str:
    """What is in the volume that the webserver shows."""
    files = it.machine.image.rglob("compute_logs/*.err")
    return "".join(file.read_text() for file in files)


def test_the_health_of_the_database_is_drawn(story: Story) -> None:
    it = story.it
    silent: list[str] = []

    def is_rest_empty_by_nature() -> bool:
        silent[:] = [
            query.expression
            for query in queries()
            if query.panel.startswith(DATABASE_HEALTH)
            and not has_data(it.prometheus_url, query, {})
        ]
        print("without data:", silent)
        return {name for each in silent for name, _ in SELECTOR.findall(each)} <= NOT_HERE

    it.wait_until(is_rest_empty_by_nature, "every panel has data")


def test_a_database_that_lets_nobody_in_is_told_of(story: Story) -> None:
    it = story.it
    it.wait_until(lambda: it.alerts()[DATABASE_DOWN] == "inactive", "no alert on it")
    it.postgresql.execute(
        f"ALTER ROLE {WATCHING} NOLOGIN",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{WATCHING}'",
    )
    it.wait_until(lambda: it.alerts()[DATABASE_DOWN] == "firing", "it is told of")
    it.postgresql.execute(f"ALTER ROLE {WATCHING} LOGIN")
    it.wait_until(lambda: it.alerts()[DATABASE_DOWN] == "inactive", "it lets them in again")


def test_a_database_with_hardly_a_connection_left_is_told_of(story: Story) -> None:
    it = story.it
    url = it.postgresql.url("metrics", it.postgresql.password)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with ExitStack() as stack:
        taken = it.value("postgres_connections")
        for _ in range(round(CONNECTIONS_SHARE * it.value("postgres_max_connections") - taken)):
            stack.enter_context(engine.connect())
        it.wait_until(lambda: it.alerts()[NEAR_LIMIT] == "firing", "it is told of")
    it.wait_until(lambda: it.alerts()[NEAR_LIMIT] == "inactive", "they are back")


@each_round
def test_a_code_server_that_is_killed_with_its_runs_is_followed(story: Story) -> None:
    it = story.it
    it.wait_until(BothRun(it).look, "a run of each has started")
    story.kill(CODE_SERVER)
    shown = it.value(DEVICES)
    it.start(CODE_SERVER)
    it.wait_until_it_goes_on()
    assert it.value(DEVICES) == shown  # by the last run that ended


@each_round
def test_an_exporter_that_is_killed_is_missed_and_shows_the_same_again(story: Story) -> None:
    it = story.it
    it.wait_until(lambda: it.alerts()[DOWN] == "inactive", "no alert on it")
    story.kill(EXPORTER)
    it.wait_until(lambda: it.alerts()[DOWN] == "firing", "it is missed")
    it.start(EXPORTER)
    it.wait_until_it_goes_on()
    it.wait_until(lambda: it.alerts()[DOWN] == "inactive", "it is not missed any more")
    assert it.value(DEVICES) == COUNTS["device_count"]


@each_round
def test_a_daemon_that_is_killed_is_followed(story: Story) -> None:
    it = story.it
    story.kill(DAEMON)
    it.start(DAEMON)
    moment = time.time()
    it.wait_until(lambda: it.value(HEARTBEAT) > moment, "it says that it is alive")
    it.wait_until_it_goes_on()


@each_round
def test_a_webserver_that_is_killed_costs_nothing(story: Story) -> None:
    it = story.it
    story.kill(WEBSERVER)
    it.start(WEBSERVER)
    it.wait_until_it_goes_on()


@each_round
def test_while_influxdb_is_away_everything_waits(story: Story) -> None:
    it = story.it
    story.kill(INFLUXDB)
    story.wait_for_slots(SLOTS_AWAY)
    it.start(INFLUXDB)
    it.wait_until_it_goes_on()


@each_round
def test_while_postgresql_is_away_the_page_is_the_last_one(story: Story) -> None:
    it = story.it
    failures = it.value(REFRESH_FAILURES)
    story.kill(POSTGRESQL)
    it.wait_until(lambda: it.value(REFRESH_FAILURES) > failures, "the exporter misses it")
    assert it.value(DEVICES) == COUNTS["device_count"]
    it.start(POSTGRESQL)
    it.wait_until_it_goes_on()


@each_round
def test_prometheus_keeps_what_it_had_scraped(story: Story) -> None:
    it = story.it
    story.kill(PROMETHEUS)
    moment = time.time()
    it.start(PROMETHEUS)
    it.wait_until_it_goes_on()
    assert it.value(f"count_over_time({DEVICES}[1m] @ {moment})") > 1


def test_after_all_that_a_count_that_falls_is_shown(story: Story) -> None:
    it = story.it
    it.fleet.put(replace(FLEET, devices=FLEET.devices[:8]))
    it.wait_until(lambda: it.value(DEVICES) == 8, "the schedule counts, and it is shown")


def test_every_uplink_is_stored_exactly_once(story: Story) -> None:
    it = story.it
    it.sending.stop()
    count = it.sending.count
    it.wait_until(lambda: it.uplink_count() >= count, "all is stored")
    assert not_once(it.uplinks(), count) == {}


def test_every_slot_is_stored_or_counted_as_missed(story: Story) -> None:
    it = story.it
    last = it.account()
    assert sum(last.since(story.first).values()) == last.slots_since(story.first)
    step = SAMPLE_SECONDS * NS_PER_SECOND
    due = set(range(story.first.slot_ns + step, last.slot_ns + step, step))
    stored = it.sampled_ns()
    asked = sum(last.since(story.first).get(what, 0) for what in ASKED)
    assert {at for at in stored if at % step} == set()
    assert len(due & stored) >= asked
    assert Outcome.NOT_STORED not in last.since(story.first)


def test_every_minute_is_counted_or_told_of(story: Story) -> None:
    it = story.it
    it.wait_until(lambda: untold(it) == [], "each tick is counted, or said why not")
    due = {round(tick["timestamp"]) for tick in it.ticks()}
    left_out = set(range(min(due), max(due) + 1, MINUTE_SECONDS)) - due
    assert [tick for tick in left_out if not story.could_not_be_evaluated(tick)] == []


def untold(it: Topology) -> list[Mapping[str, Any]]:
    """The ticks of which no count is stored, and no reason is known."""
    statuses, counted = {run.id: run.status for run in it.runs()}, it.counted_ns()

    def is_told(tick: Mapping[str, Any]) -> bool:
        ended = {statuses.get(run, "") for run in tick["runIds"]}
        if ended == {"SUCCESS"}:
            return round(tick["timestamp"]) * NS_PER_SECOND in counted
        return bool(ended & {"FAILURE", "CANCELED"} or tick["skipReason"] or tick["error"])

    return [tick for tick in it.ticks() if not is_told(tick)]


def test_no_run_is_in_flight_for_ever(story: Story) -> None:
    it = story.it
    assert story.killed
    it.wait_until(
        lambda: not story.killed & {run.id for run in it.runs_in_flight()}, "they have ended"
    )


def test_no_counter_in_prometheus_fell(story: Story) -> None:
    it = story.it
    counters = {name for name in it.series_names() & set(counter_names()) if is_ours(name)}
    assert {RUNS.name, SAMPLE_SLOTS.name, f"{FETCH_LATENCY.name}_bucket"} <= counters
    fell = {name for name in counters if it.query(f"resets({name}{OURS}[1h]) > 0")}
    assert fell <= OF_THE_EXPORTER


def is_ours(name: str) -> bool:
    """PostgreSQL's own begin anew when it has died, as Prometheus expects."""
    return not name.startswith("postgres_")


def counter_names() -> Iterator[str]:
    """Of all series that only grow."""
    for family in families().values():
        if family.type is MetricType.COUNTER:
            yield family.name
        elif family.type is MetricType.HISTOGRAM:
            yield from (f"{family.name}_{part}" for part in ("bucket", "count", "sum"))


def test_the_alerts_are_quiet_again_and_the_one_that_had_to_fire_has_fired(story: Story) -> None:
    it = story.it
    quiet = set(ALERTS) - TELL_OF_FAILED_RUNS
    it.wait_until(
        lambda: {it.alerts()[name] for name in quiet} == {"inactive"}, "all others are quiet"
    )
    fired = it.query('count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))')
    names = {dict(labels)["alertname"] for labels in fired}
    assert DOWN in names
    assert not names & {"TelemetryEventsLost", "DeadLetters"}


def test_nothing_has_died_of_the_death_of_another(story: Story) -> None:
    assert all(child.is_running for child in story.it.children.values())
