"""What a newcomer sees: `make run` in an empty checkout, gauges, lineage, and a clean end."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from metrics_pipeline.core.catalog import FLEET_METRICS
from metrics_pipeline_tests.alert_rules.rule_files import ALERTS, families, rules, terms
from metrics_pipeline_tests.alert_rules.running_prometheus import (
    alerts,
    all_are_healthy,
    loaded_rules,
    names,
    series,
    shipped_prometheus,
    target_is_up,
)
from metrics_pipeline_tests.dashboards.exported import queries
from metrics_pipeline_tests.dashboards.live import has_data, used_names, values_of_variables
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.running_stack import (
    READY,
    RunningStack,
    processes_in,
    running_stack,
)
from metrics_pipeline_tests.servers import require

ROOT = Path(__file__).parents[1]
LINEAGE = "/locations/metrics_pipeline/asset-groups/{group}/lineage"

PIPELINE_NAMES = (
    "fetch_latency_seconds_bucket",
    "fetch_latency_seconds_sum",
    "fetch_latency_seconds_count",
    "artifacts_total",
    "review_rate_percent",
    "database_queries_total",
    "scrape_runs",
    "scrape_run_duration_seconds",
    "scrape_artifacts",
    "scrape_artifact_body_bytes",
    "price_changes_24h",
    "price_average_24h",
    "variants_updated_24h",
    "pipeline_health_score",
    "pipeline_health_component",
)

NOT_WITH_MAKE_RUN = {
    "metrics_pipeline_dead_letters_total",  # only after the first one
    "metrics_pipeline_spool_oldest_timestamp_seconds",  # only while something waits
    "postgres_connections",
    "postgres_healthy",
    "postgres_max_connections",
}
"""Metrics of alert rules that a stack without PostgreSQL need not show."""

EMPTY_BY_NATURE = {
    "postgres_": "there is no PostgreSQL: metrics_pipeline_tests/topology has one",
    "metrics_pipeline_spool_oldest_timestamp_seconds": "only while something waits in the spool",
    "metrics_pipeline_dead_letters_": "only after the first dead letter",
    "metrics_pipeline_points_rejected_total": "only after the first point that was refused",
    "metrics_pipeline_exporter_series_dropped": "only where a family has too many series",
    'success="false"': "only after the first query that failed",
    '(device_ping_rtt_ms{job="$job"}) and on': "the worst devices need not be ones that are pinged",
    'status=~"success|failure"}[24h]': "only after a run ended since it is scraped",
}
"""What a query has in it that need not give data with `make run`, and why."""

CHROMIUM_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1000",
    "--dump-dom",
)
BUDGETS_MS = (8_000, 20_000, 60_000)
"""Of the page's own time, in which it asks again and again; the first is nearly always enough."""


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """A copy of what git knows, in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="checkout-") as folder:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        for name in listed.stdout.decode().split("\0"):
            source = ROOT / name
            if name and source.exists():
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        yield Path(folder)


@pytest.fixture(scope="module")
def ready_seconds() -> list[float]:
    """How long a stack took on this machine until it was ready, if one was started."""
    return []


@pytest.fixture(scope="module")
def stack(checkout: Path, ready_seconds: list[float]) -> Iterator[RunningStack]:
    """`make run` in the copy, ready."""
    environment = {"METRICS_PIPELINE_STATE_DIR": "", "METRICS_PIPELINE_SETTINGS": ""}
    with running_stack(["make", "run", "ARGS=PORTS"], checkout, environment) as running:
        running.wait_until(lambda: READY in running.output, "it is ready")
        ready_seconds.append(seconds_of(READY, running))
        yield running


@pytest.fixture(scope="module")
def scraping(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with the shipped configuration and rules that scrapes it; its URL."""
    folder = tmp_path_factory.mktemp("prometheus")
    with shipped_prometheus(folder, f"127.0.0.1:{stack.exporter_port}", "1s") as url:
        yield url


def is_empty_by_nature(expression: str) -> bool:
    return any(part in expression for part in EMPTY_BY_NATURE)


def test_every_gauge_is_there_after_the_first_count(stack: RunningStack) -> None:
    gauges = {metric.family.name: stack.gauge(metric.family.name) for metric in FLEET_METRICS}
    assert None not in gauges.values(), stack.output
    assert gauges["iot_hub_portal_device_count"] > 0  # type: ignore[operator]


def test_every_name_of_the_contract_about_pipelines_is_on_the_page(stack: RunningStack) -> None:
    def missing() -> set[str]:
        shown = {line.partition("{")[0].partition(" ")[0] for line in stack.page().splitlines()}
        return set(PIPELINE_NAMES) - shown

    stack.wait_until(lambda: not missing(), f"the page has {PIPELINE_NAMES}")


def test_the_alert_rules_find_what_they_are_about(stack: RunningStack, scraping: str) -> None:
    used = {name for rule in rules() for name in terms(rule["expr"]).metrics} & set(families())
    wanted = used - NOT_WITH_MAKE_RUN
    stack.wait_until(lambda: target_is_up(scraping), "Prometheus scrapes it")
    stack.wait_until(lambda: wanted <= names(scraping), f"Prometheus has {wanted}")
    stack.wait_until(lambda: all_are_healthy(scraping), "every rule was evaluated")
    assert len(loaded_rules(scraping)) == len(list(rules()))
    assert {"job", "exported_job"} <= series(scraping)["metrics_pipeline_runs_total"]


def test_every_name_on_a_dashboard_is_on_the_page(stack: RunningStack, scraping: str) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}

    def missing() -> set[str]:
        shown = {line.partition("{")[0].partition(" ")[0] for line in stack.page().splitlines()}
        return {name for name in used_names() - shown - recorded if not is_empty_by_nature(name)}

    stack.wait_until(lambda: not missing(), "the page has every name on a dashboard")


def test_every_variable_of_a_dashboard_has_values(stack: RunningStack, scraping: str) -> None:
    def have_values() -> bool:
        found = values_of_variables(scraping)
        return set(found) == {"job", "device", "roaster"} and all(found.values())

    stack.wait_until(have_values, "every variable has values")


def test_every_panel_has_data(stack: RunningStack, scraping: str) -> None:
    """But for what is empty by nature, which Prometheus only has to understand."""
    silent = list(queries())

    def is_rest_empty_by_nature() -> bool:
        values = values_of_variables(scraping)
        silent[:] = [query for query in silent if not has_data(scraping, query, values)]
        missing = [each.panel for each in silent if not is_empty_by_nature(each.expression)]
        print("without data:", missing)
        return not missing

    stack.wait_until(is_rest_empty_by_nature, "every panel has data")


def test_it_tells_what_is_where(stack: RunningStack) -> None:
    assert f"Dagster UI  {stack.webserver_url}" in stack.output
    assert f"http://127.0.0.1:{stack.exporter_port}/metrics" in stack.output
    for metric in FLEET_METRICS:
        assert metric.family.name in stack.output


def test_the_status_page_says_what_was_collected_and_links_to_this_dagster(
    stack: RunningStack,
) -> None:
    status = f"http://127.0.0.1:{stack.exporter_port}"
    assert f"status      {status}" in stack.output
    text = stack.status_page()
    assert f'href="{stack.webserver_url}/' in text
    for asset in ("fleet/device_counts", "devices/device_status", "telemetry/lorawan_uplinks"):
        assert asset in text


def test_the_schedule_runs_from_the_start(stack: RunningStack) -> None:
    data = stack.ask("""{ schedulesOrError(repositorySelector: {
        repositoryLocationName: "metrics_pipeline", repositoryName: "__repository__"}) {
        ... on Schedules { results { name cronSchedule scheduleState { status } } } } }""")
    found = {row["name"]: row for row in data["schedulesOrError"]["results"]}
    assert {name: row["cronSchedule"] for name, row in found.items()} == {
        "device_metrics_every_5_minutes": "*/5 * * * *",
        "device_status_every_5_minutes": "*/5 * * * *",
        "fleet_every_5_minutes": "*/5 * * * *",
        "retention_every_60_minutes": "37 * * * *",
    }
    assert {row["scheduleState"]["status"] for row in found.values()} == {"RUNNING"}


def test_the_sensors_run_from_the_start(stack: RunningStack) -> None:
    data = stack.ask("""{ sensorsOrError(repositorySelector: {
        repositoryLocationName: "metrics_pipeline", repositoryName: "__repository__"}) {
        ... on Sensors { results { name sensorState { status } } } } }""")
    assert data["sensorsOrError"]["results"] == [
        {"name": name, "sensorState": {"status": "RUNNING"}}
        for name in ("platform_samples", "robot_metrics", "run_failures", "telemetry_backlog")
    ]


def test_devices_go_up_and_down_in_the_gauges(stack: RunningStack) -> None:
    def states() -> dict[str, str]:
        rows = (line.rsplit(" ", 1) for line in stack.page().splitlines())
        return {row[0]: row[1] for row in rows if row[0].startswith("device_up{")}

    stack.wait_until(lambda: len(states()) == 60, "every device has a status")
    before = states()
    stack.wait_until(lambda: states() != before, "a device changed")
    metrics = ("device_cpu_utilization_percent{", "device_network_receive_bytes_total{")

    def is_shown() -> bool:
        page = stack.page()
        return all(name in page for name in metrics)

    # They are of another run, which may end later.
    stack.wait_until(is_shown, "the metrics are shown")


def test_lorawan_devices_that_send_are_in_the_gauges(stack: RunningStack) -> None:
    def devices() -> set[str]:
        lines = stack.page().splitlines()
        return {line for line in lines if line.startswith("lorawan_device_frame_counter{")}

    stack.wait_until(lambda: len(devices()) == 20, "every LoRaWAN device has sent")
    before = devices()
    stack.wait_until(lambda: devices().isdisjoint(before), "every one has sent again")
    for name in ("lorawan_device_rssi_dbm", "metrics_pipeline_eventhub_lag_seconds"):
        assert f"{name}{{" in stack.page()


def test_services_and_figures_from_sql_are_in_the_gauges(stack: RunningStack) -> None:
    names = (
        'service_healthy{service="ingest"}',
        "service_jobs_pending{",
        "platform_devices_online ",
        'scrape_runs{status="',
        "price_average_24h ",
        'metrics_pipeline_sample_slots_total{outcome="sampled",source="service_health"}',
    )
    stack.wait_until(lambda: all(name in stack.page() for name in names), "all are shown")
    before = stack.gauge(names[-1]) or 0.0
    stack.wait_until(lambda: (stack.gauge(names[-1]) or 0.0) > before, "sampling goes on")


def test_a_run_of_telemetry_that_is_cancelled_ends_and_the_sensor_launches_the_next(
    stack: RunningStack,
) -> None:
    def runs() -> dict[str, str]:
        found = stack.ask("""{ runsOrError(filter: {pipelineName: "telemetry"}) { ... on Runs {
            results { runId status } } } }""")
        return {run["runId"]: run["status"] for run in found["runsOrError"]["results"]}

    def is_one() -> bool:
        """While one takes over from another they are two."""
        return [*runs().values()].count("STARTED") == 1

    stack.wait_until(is_one, "one run goes on")
    (run,) = (run for run, status in runs().items() if status == "STARTED")
    stack.ask("mutation ($id: String!) { terminateRun(runId: $id) { __typename } }", id=run)
    stack.wait_until(lambda: runs()[run] == "CANCELED", "it is cancelled")
    stack.wait_until(lambda: "STARTED" in runs().values(), "the next one has started")


def test_the_ui_shows_nothing_secret(stack: RunningStack, checkout: Path) -> None:
    secret = (checkout / ".state/simulator/iot_hub_connection_string").read_text()
    key = secret.strip().rpartition("SharedAccessKey=")[2]
    answer = stack.ask("""{ repositoriesOrError { ... on RepositoryConnection { nodes {
        allTopLevelResourceDetails { name configuredValues { key value type } } } } }
        instance { info } }""")
    assert key not in str(answer)
    event_hub = (checkout / ".state/simulator/event_hub_connection_string").read_text()
    event_hub_key = event_hub.partition("SharedAccessKey=")[2].partition(";")[0]
    assert event_hub_key not in str(answer)
    devices = checkout / ".state/simulator/devices"
    secrets = [
        key,
        event_hub_key,
        (devices / "snmp_community").read_text(),
        (devices / "ssh_password").read_text(),
    ]
    for log in (checkout / ".state/logs").iterdir():
        text = log.read_text()
        assert not [log.name for secret in secrets if secret.strip() in text]


def test_nothing_listens_beyond_loopback(stack: RunningStack, checkout: Path) -> None:
    listeners = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    for port in (stack.webserver_port, stack.exporter_port):
        rows = [
            line for line in listeners.splitlines() if f":{port:04X} " in line and " 0A " in line
        ]
        assert rows
        assert all("0100007F:" in row.split()[1] for row in rows), rows


def test_the_lineage_page_shows_the_assets(stack: RunningStack, tmp_path: Path) -> None:
    fleet = ("device_counts", "edge_device_counts", "concentrator_counts", "registry")
    for group, assets in (("fleet", fleet), ("telemetry", ("lorawan_uplinks", "uplinks"))):
        url = stack.webserver_url + LINEAGE.format(group=group)
        assert missing_on(url, assets, tmp_path) == set()


def test_no_alert_about_the_product_itself_fires(stack: RunningStack, scraping: str) -> None:
    """What is simulated fails now and then, and alerts say so."""
    about_the_simulated = {
        *("DeviceDown", "ManyDevicesDown", "ServiceDown", "HealthScoreLow", "DeadLetters"),
        *("FleetConnectivityDrop", "FailedDeploymentsRising"),
    }
    assert about_the_simulated <= ALERTS.keys()
    firing = {each["labels"]["alertname"] for each in alerts(scraping) if each["state"] == "firing"}
    assert firing <= about_the_simulated


def test_ctrl_c_ends_every_process(stack: RunningStack, checkout: Path) -> None:
    stack.interrupt()
    assert "all processes have ended" in stack.output
    assert processes_in(checkout) == []


def test_with_a_time_given_it_ends_by_itself(checkout: Path, ready_seconds: list[float]) -> None:
    environment = {"METRICS_PIPELINE_STATE_DIR": "", "METRICS_PIPELINE_SETTINGS": ""}
    # What was counted before is shown from the start: alone, it has to count in this time.
    given = max(ready_seconds, default=90.0)
    options = f"ARGS=PORTS --for {given:.0f}"
    with running_stack(["make", "run", options], checkout, environment) as running:
        assert running.process.wait(given + PATIENCE_SECONDS) == 0, running.output
    assert READY in running.output
    assert processes_in(checkout) == []


def test_ended_before_every_gauge_has_a_value_it_ends_with_status_1(checkout: Path) -> None:
    environment = {"METRICS_PIPELINE_STATE_DIR": "", "METRICS_PIPELINE_SETTINGS": ""}
    options = "ARGS=PORTS --for 10 --no-simulator --state-dir .state/empty"
    with running_stack(["make", "run", options], checkout, environment) as running:
        assert running.process.wait(PATIENCE_SECONDS) != 0
    assert "no value for iot_hub_portal_device_count" in running.output
    assert processes_in(checkout) == []


def seconds_of(text: str, stack: RunningStack) -> float:
    """When the stack printed the line with `text`: `[ 18.1 s] ...`."""
    line = next(line for line in stack.lines if text in line)
    return float(line.removeprefix("[").split()[0])


def missing_on(url: str, texts: Collection[str], profile: Path) -> set[str]:
    """Those of `texts` that are not on the page, however long it is given to draw itself."""
    missing = set(texts)
    for budget_ms in BUDGETS_MS:
        page = browse(url, budget_ms, profile)
        missing = {text for text in texts if text not in page}
        if not missing:
            break
    return missing


def browse(url: str, budget_ms: int, profile: Path) -> str:
    """The page as a headless Chromium has it once it is drawn, as text of its document."""
    budget = f"--virtual-time-budget={budget_ms}"
    command = [require("chromium"), *CHROMIUM_OPTIONS, budget, f"--user-data-dir={profile}", url]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    ).stdout
