"""What a newcomer sees: `make run` in an empty checkout, gauges, lineage, and a clean end."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from metrics_pipeline.core.catalog import FLEET_METRICS
from metrics_pipeline_tests.running_stack import (
    READY,
    READY_WITHIN_SECONDS,
    RunningStack,
    processes_in,
    running_stack,
)
from metrics_pipeline_tests.servers import require

ROOT = Path(__file__).parents[1]
LINEAGE = "/locations/metrics_pipeline/asset-groups/{group}/lineage"

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
    "--virtual-time-budget=20000",
    "--dump-dom",
)


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
        running.wait_until(lambda: READY in running.output, "it is ready", READY_WITHIN_SECONDS)
        ready_seconds.append(seconds_of(READY, running))
        yield running


def test_every_gauge_is_there_after_the_first_count(stack: RunningStack) -> None:
    gauges = {metric.family.name: stack.gauge(metric.family.name) for metric in FLEET_METRICS}
    assert None not in gauges.values(), stack.output
    assert gauges["iot_hub_portal_device_count"] > 0  # type: ignore[operator]


def test_it_tells_what_is_where(stack: RunningStack) -> None:
    assert f"Dagster UI  {stack.webserver_url}" in stack.output
    assert f"http://127.0.0.1:{stack.exporter_port}/metrics" in stack.output
    for metric in FLEET_METRICS:
        assert metric.family.name in stack.output


def test_the_schedule_runs_from_the_start(stack: RunningStack) -> None:
    data = stack.ask("""{ schedulesOrError(repositorySelector: {
        repositoryLocationName: "metrics_pipeline", repositoryName: "__repository__"}) {
        ... on Schedules { results { name cronSchedule scheduleState { status } } } } }""")
    found = {row["name"]: row for row in data["schedulesOrError"]["results"]}
    assert sorted(found) == [
        "device_metrics_every_5_minutes",
        "device_status_every_5_minutes",
        "fleet_every_5_minutes",
    ]
    for row in found.values():
        assert row["cronSchedule"] == "*/5 * * * *"
        assert row["scheduleState"]["status"] == "RUNNING"


def test_the_sensor_of_telemetry_runs_from_the_start(stack: RunningStack) -> None:
    data = stack.ask("""{ sensorsOrError(repositorySelector: {
        repositoryLocationName: "metrics_pipeline", repositoryName: "__repository__"}) {
        ... on Sensors { results { name sensorState { status } } } } }""")
    assert data["sensorsOrError"]["results"] == [
        {"name": "telemetry_backlog", "sensorState": {"status": "RUNNING"}}
    ]


def test_devices_go_up_and_down_in_the_gauges(stack: RunningStack) -> None:
    def states() -> dict[str, str]:
        rows = (line.rsplit(" ", 1) for line in stack.page().splitlines())
        return {row[0]: row[1] for row in rows if row[0].startswith("device_up{")}

    stack.wait_until(lambda: len(states()) == 60, "every device has a status", 120)
    before = states()
    stack.wait_until(lambda: states() != before, "a device changed", 180)
    metrics = ("device_cpu_utilization_percent{", "device_network_receive_bytes_total{")

    def is_shown() -> bool:
        page = stack.page()
        return all(name in page for name in metrics)

    # They are of another run, which may end later.
    stack.wait_until(is_shown, "the metrics are shown", 180)


def test_lorawan_devices_that_send_are_in_the_gauges(stack: RunningStack) -> None:
    def devices() -> set[str]:
        lines = stack.page().splitlines()
        return {line for line in lines if line.startswith("lorawan_device_frame_counter{")}

    stack.wait_until(lambda: len(devices()) == 20, "every LoRaWAN device has sent", 120)
    before = devices()
    stack.wait_until(lambda: devices().isdisjoint(before), "every one has sent again", 120)
    for name in ("lorawan_device_rssi_dbm", "metrics_pipeline_eventhub_lag_seconds"):
        assert f"{name}{{" in stack.page()


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

    stack.wait_until(is_one, "one run goes on", 120)
    (run,) = (run for run, status in runs().items() if status == "STARTED")
    stack.ask("mutation ($id: String!) { terminateRun(runId: $id) { __typename } }", id=run)
    stack.wait_until(lambda: runs()[run] == "CANCELED", "it is cancelled", 60)
    stack.wait_until(lambda: "STARTED" in runs().values(), "the next one has started", 60)


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
    text = browse(stack.webserver_url + LINEAGE.format(group="fleet"), tmp_path)
    for name in ("device_counts", "edge_device_counts", "concentrator_counts", "registry"):
        assert name in text
    text = browse(stack.webserver_url + LINEAGE.format(group="telemetry"), tmp_path)
    for name in ("lorawan_uplinks", "uplinks"):
        assert name in text


def test_ctrl_c_ends_every_process(stack: RunningStack, checkout: Path) -> None:
    stack.interrupt()
    assert "all processes have ended" in stack.output
    assert processes_in(checkout) == []


def test_with_a_time_given_it_ends_by_itself(checkout: Path, ready_seconds: list[float]) -> None:
    environment = {"METRICS_PIPELINE_STATE_DIR": "", "METRICS_PIPELINE_SETTINGS": ""}
    given = 3 * max(ready_seconds, default=30.0)
    options = f"ARGS=PORTS --for {given:.0f}"
    with running_stack(["make", "run", options], checkout, environment) as running:
        assert running.process.wait(given + READY_WITHIN_SECONDS) == 0, running.output
    assert READY in running.output
    assert processes_in(checkout) == []


def test_without_a_value_for_every_gauge_it_ends_with_status_1(checkout: Path) -> None:
    environment = {"METRICS_PIPELINE_STATE_DIR": "", "METRICS_PIPELINE_SETTINGS": ""}
    options = "ARGS=PORTS --for 40 --no-simulator --state-dir .state/empty"
    with running_stack(["make", "run", options], checkout, environment) as running:
        assert running.process.wait(READY_WITHIN_SECONDS) != 0
    assert "no value for iot_hub_portal_device_count" in running.output
    assert processes_in(checkout) == []


def seconds_of(text: str, stack: RunningStack) -> float:
    """When the stack printed the line with `text`: `[ 18.1 s] ...`."""
    line = next(line for line in stack.lines if text in line)
    return float(line.removeprefix("[").split()[0])


def browse(url: str, profile: Path) -> str:
    """The page as a headless Chromium has it once it is drawn, as text of its document."""
    command = [require("chromium"), *CHROMIUM_OPTIONS, f"--user-data-dir={profile}", url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
