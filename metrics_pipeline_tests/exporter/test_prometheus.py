"""A real Prometheus scrapes the exporter, and promtool judges the page."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from metrics_pipeline.core.catalog import FLEET_METRICS, SELF_FAMILIES
from metrics_pipeline.exporter.page import render
from metrics_pipeline.exporter.samples import Samples
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

PASSWORD = "påss:wörd"
COUNTS = {"device_count": 15, "connected_device_count": 8}


def configure(folder: Path, targets: dict[str, dict[str, Any]]) -> Path:
    """A configuration with one job for each of `targets`: its address, and how to scrape it."""
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [job.pop("target")]}], **job}
        for name, job in targets.items()
    ]
    file = folder / "prometheus.yml"
    file.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
                "scrape_configs": jobs,
            }
        )
    )
    return file


def query(prometheus: str, expression: str) -> dict[str, float]:
    """The value of `expression` in each scraped job."""
    reply = PLAIN_HTTP.get(f"{prometheus}/api/v1/query", params={"query": expression})
    rows = reply.json()["data"]["result"]
    return {row["metric"]["job"]: float(row["value"][1]) for row in rows}


def test_prometheus_scrapes_the_gauges_and_over_basic_auth(tmp_path: Path) -> None:
    program = require("prometheus")
    state = tmp_path / "state"
    auth = {"username": "prometheus", "password": {"file": "password"}}
    write_settings(state, {"basic_auth": auth})
    (state / "password").write_text(PASSWORD)
    store_counts(state, 5 * 10**9, **COUNTS)
    with exporter_process(state) as exporter:
        target = exporter.url.removeprefix("http://").removesuffix("/metrics")
        known = {"username": "prometheus", "password_file": str(state / "password")}
        stranger = {"username": "prometheus", "password": "guessed"}
        config = configure(
            tmp_path,
            {
                "known": {"target": target, "basic_auth": known},
                "stranger": {"target": target, "basic_auth": stranger},
            },
        )
        argv = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        ]
        with running(argv) as pid:
            prometheus = answering_url(pid, "/-/ready")
            wait_until(
                lambda: query(prometheus, "iot_hub_portal_device_count") == {"known": 15.0},
                "Prometheus has the count",
            )
            assert query(prometheus, "iot_hub_portal_connected_device_count") == {"known": 8.0}
            assert query(prometheus, "metrics_pipeline_last_success_timestamp_seconds") == {
                "known": 5.0
            }
            wait_until(
                lambda: query(prometheus, "up") == {"known": 1.0, "stranger": 0.0},
                "Prometheus has tried both",
            )
            store_counts(state, 6 * 10**9, device_count=0, connected_device_count=0)
            wait_until(
                lambda: query(prometheus, "iot_hub_portal_device_count") == {"known": 0.0},
                "Prometheus has the count that fell",
            )


def test_promtool_minds_only_the_names_that_the_contract_has_fixed() -> None:
    families = [*(metric.family for metric in FLEET_METRICS), *SELF_FAMILIES]
    labels = {family.name: ("x",) * len(family.labels) for family in families}
    page = render(
        [Samples(f, {labels[f.name]: 1.0}, {labels[f.name]: [("+Inf", 1.0)]}) for f in families]
    )
    judged = subprocess.run(
        [require("promtool"), "check", "metrics"],
        input=page.text.plain,
        capture_output=True,
        check=False,
    )
    complaint = 'non-histogram and non-summary metrics should not have "_count" suffix'
    assert sorted((judged.stdout + judged.stderr).decode().splitlines()) == sorted(
        f"{metric.family.name} {complaint}" for metric in FLEET_METRICS
    )
