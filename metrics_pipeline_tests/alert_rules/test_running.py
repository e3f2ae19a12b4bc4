"""The shipped configuration in a real Prometheus and a real Alertmanager."""

from __future__ import annotations

import datetime
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from metrics_pipeline_tests.alert_rules.rule_files import ALERTS, ROOT, RULES, rules
from metrics_pipeline_tests.alert_rules.running_prometheus import (
    all_are_healthy,
    loaded_rules,
    shipped_prometheus,
    states,
    target_is_up,
)
from metrics_pipeline_tests.docker.container_files import DOCKER, SERVICES, bind_mounts
from metrics_pipeline_tests.exporter.exporter_process import (
    exporter_process,
    store_counts,
    write_settings,
)
from metrics_pipeline_tests.servers import (
    PLAIN_HTTP,
    answering_url,
    require,
    running,
    wait_until,
)

ALERTMANAGER = DOCKER / "alertmanager.example.yml"


def test_the_target_is_up_and_every_rule_healthy(tmp_path: Path) -> None:
    state = tmp_path / "state"
    write_settings(state, {})
    store_counts(state, time.time_ns(), device_count=10, connected_device_count=8)
    with exporter_process(state) as exporter:
        target = exporter.url.removeprefix("http://").removesuffix("/metrics")
        with shipped_prometheus(tmp_path, target) as url:
            wait_until(lambda: target_is_up(url), "the exporter is scraped")
            wait_until(lambda: all_are_healthy(url), "every rule was evaluated")
            assert len(loaded_rules(url)) == len(list(rules()))
            assert set(states(url)) == set(ALERTS)
            wait_until(lambda: states(url)["MetricsPipelineDown"] == "inactive", "no alert on it")
            assert states(url)["FleetCountsStale"] == "inactive"
            store_counts(state, time.time_ns() - 3600 * 10**9, device_count=10)
            wait_until(lambda: states(url)["FleetCountsStale"] == "pending", "the count is stale")
            exporter.process.kill()
            wait_until(lambda: states(url)["MetricsPipelineDown"] == "pending", "it is missed")


def test_amtool_accepts_the_example() -> None:
    command = [require("amtool"), "check-config", str(ALERTMANAGER)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One with the example's configuration; gives its URL."""
    argv = [
        require("prometheus-alertmanager"),
        f"--config.file={ALERTMANAGER}",
        f"--storage.path={tmp_path_factory.mktemp('alertmanager')}",
        "--web.listen-address=127.0.0.1:0",
        "--cluster.listen-address=",
    ]
    with running(argv) as pid:
        yield answering_url(pid, "/-/ready")


Alert = tuple[str, str]
"""Its job and its name."""


def raise_alerts(url: str, raised: Iterable[Alert]) -> None:
    """All at once."""
    ends = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).isoformat()
    labels = [{"alertname": name, "job": job, **ALERTS[name]["labels"]} for job, name in raised]
    body = [{"labels": each, "endsAt": ends} for each in labels]
    PLAIN_HTTP.post(f"{url}/api/v2/alerts", json=body).raise_for_status()


def inhibited(url: str, jobs: str) -> dict[Alert, bool]:
    """Whether another one keeps it from being told, of each alert of the jobs of this pattern."""
    rows = PLAIN_HTTP.get(f"{url}/api/v2/alerts", params={"filter": f'job=~"{jobs}"'}).json()
    return {
        (row["labels"]["job"], row["labels"]["alertname"]): bool(row["status"]["inhibitedBy"])
        for row in rows
    }


STALE = {"FleetCountsStale", "DevicePollsStale", "TelemetryStale", "PlatformSamplesStale"}
INHIBITED = {
    "ManyDevicesDown": {"DeviceDown"},
    "DevicePollsStale": {"DeviceDown", "ManyDevicesDown"},
    "DaemonHeartbeatLost": {*STALE, "CodeServerSilent"},
    "DaemonNeverSeen": {"AssetNeverCollected"},
    "CodeServerSilent": STALE,
    "ExporterPageStale": {
        *STALE,
        *("DeviceDown", "ManyDevicesDown", "DaemonHeartbeatLost"),
        *("CodeServerSilent", "RobotGatewaySilent"),
    },
    "RunFailuresFast": {"RunFailuresSlow"},
}
LAST = "RunFailuresFast"


def judge_all_raised(url: str, job: str) -> None:
    """Return once Alertmanager has judged all that was raised, which it does one by one.

    The last of them is one, of `job`, that another keeps from being told.
    """
    (follows,) = INHIBITED[LAST]
    raise_alerts(url, [(job, LAST), (job, follows)])
    wait_until(lambda: inhibited(url, job).get((job, follows)) is True, "all are judged")


@pytest.mark.parametrize("cause", ALERTS)
def test_an_alert_keeps_quiet_only_what_follows_from_it(alertmanager: str, cause: str) -> None:
    """Each other one with it, in a job of their own."""
    jobs = {other: f"{cause} and {other}" for other in set(ALERTS) - {cause}}
    raised = {(job, name) for other, job in jobs.items() for name in (cause, other)}
    raise_alerts(alertmanager, raised)
    judge_all_raised(alertmanager, f"after {cause}")
    found = inhibited(alertmanager, f"{cause} and .*")
    assert set(found) == raised
    follow = {other for other, job in jobs.items() if found[job, other]}
    assert follow == INHIBITED.get(cause, set())


def test_a_device_of_another_deployment_is_told(alertmanager: str) -> None:
    down = ("other", "DeviceDown")
    raise_alerts(alertmanager, [("one", "ManyDevicesDown"), down])
    judge_all_raised(alertmanager, "after the other")
    assert inhibited(alertmanager, "other") == {down: False}


def amtool(url: str, command: str) -> str:
    """What it prints when it is told `command`, as on the page of alerts."""
    said = command.replace("amtool", require("amtool"), 1)
    done = subprocess.run(
        ["sh", "-euc", f"{said} --alertmanager.url {url}"],
        check=False,
        capture_output=True,
        text=True,
        env={"USER": "operator", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_page_says_to_type_tries_an_alert_and_silences_them(alertmanager: str) -> None:
    page = (ROOT / "docs" / "alerts.md").read_text()
    (tried,) = re.findall(r"`(amtool alert add [^`]+)`", page)
    amtool(alertmanager, tried)
    wait_until(
        lambda: ("metrics_pipeline", "Try") in inhibited(alertmanager, "metrics_pipeline"),
        "it is there",
    )
    (silenced,) = re.findall(r"^ +(amtool silence add .+)$", page, re.MULTILINE)
    silence = amtool(alertmanager, silenced).strip()

    def silences() -> list[list[str]]:
        rows = PLAIN_HTTP.get(
            f"{alertmanager}/api/v2/alerts", params={"filter": 'job="metrics_pipeline"'}
        ).json()
        return [row["status"]["silencedBy"] for row in rows]

    wait_until(lambda: silences() == [[silence]], "it is silent")


def test_every_rule_file_is_mounted() -> None:
    assert bind_mounts(SERVICES["prometheus"])["/etc/prometheus/rules"].resolve() == RULES
