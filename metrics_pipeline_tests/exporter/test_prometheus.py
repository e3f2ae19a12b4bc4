"""A real Prometheus scrapes the exporter, and promtool judges the page."""

from __future__ import annotations

import re
import subprocess
import textwrap
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
    prometheus,
    require,
    self_signed,
    wait_until,
)

PASSWORD = "påss:wörd"
TOKEN = "a-token-of-the-exporter"
COUNTS = {"device_count": 15, "connected_device_count": 8}


def configuration(targets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A configuration with one job for each of `targets`: its address, and how to scrape it."""
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [job.pop("target")]}], **job}
        for name, job in targets.items()
    ]
    often = {"scrape_interval": "200ms", "scrape_timeout": "200ms"}
    return {"global": often, "scrape_configs": jobs}


def documented(state: Path, target: str, certificate: str) -> dict[str, dict[str, Any]]:
    """The jobs of docs/production.md, with the addresses of this machine."""
    page = (Path(__file__).parents[2] / "docs/production.md").read_text()
    [block] = re.findall(r"^    scrape_configs:\n((?:     .*\n)+)", page, re.MULTILINE)
    [token] = re.findall(r"`(authorization: .*)`", page)
    [job] = yaml.safe_load(textwrap.dedent(block))
    assert job["static_configs"] == [{"targets": ["exporter.example.net:9464"]}]
    job["tls_config"]["ca_file"] = certificate
    job["basic_auth"]["password_file"] = str(state / "password")
    authorization = yaml.safe_load(token)
    authorization["authorization"]["credentials_file"] = str(state / "token")
    here = {"target": target, "scheme": job["scheme"], "tls_config": job["tls_config"]}
    return {
        "known": {**here, "basic_auth": job["basic_auth"]},
        "known by its token": {**here, **authorization},
    }


def in_both(value: float) -> dict[str, float]:
    """`value` in the jobs that may scrape."""
    return dict.fromkeys(("known", "known by its token"), value)


def query(url: str, expression: str) -> dict[str, float]:
    """The value of `expression` in each scraped job."""
    reply = PLAIN_HTTP.get(f"{url}/api/v1/query", params={"query": expression})
    rows = reply.json()["data"]["result"]
    return {row["metric"]["job"]: float(row["value"][1]) for row in rows}


def test_prometheus_scrapes_over_tls_with_a_password_or_a_token(tmp_path: Path) -> None:
    state = tmp_path / "state"
    auth = {"username": "prometheus", "password": {"file": "password"}}
    state.mkdir()
    certificate = str(self_signed(state))
    tls = {"certificate_file": certificate, "key_file": certificate}
    write_settings(state, {"basic_auth": auth, "bearer_token": {"file": "token"}, "tls": tls})
    (state / "password").write_text(PASSWORD)
    (state / "token").write_text(f"{TOKEN}\n")
    store_counts(state, 5 * 10**9, **COUNTS)
    with exporter_process(state) as exporter:
        target = exporter.url.removeprefix("https://").removesuffix("/metrics")
        known = {"username": "prometheus", "password_file": str(state / "password")}
        stranger = {"username": "prometheus", "password": "guessed"}
        here = {"target": target, "scheme": "https", "tls_config": {"ca_file": certificate}}
        guessed = {"credentials": TOKEN[:-1]}
        strangers = ("stranger", "another token", "without the certificate", "in the clear")
        nobody = dict.fromkeys(strangers, 0.0)
        config = configuration(
            {
                **documented(state, target, certificate),
                "stranger": {**here, "basic_auth": stranger},
                "another token": {**here, "authorization": guessed},
                "without the certificate": {**here, "basic_auth": known, "tls_config": {}},
                "in the clear": {**here, "basic_auth": known, "scheme": "http"},
            }
        )
        with prometheus(tmp_path, config) as url:
            wait_until(
                lambda: query(url, "iot_hub_portal_device_count") == in_both(15.0),
                "Prometheus has the count",
            )
            assert query(url, "iot_hub_portal_connected_device_count") == in_both(8.0)
            assert query(url, "metrics_pipeline_last_success_timestamp_seconds") == in_both(5.0)
            wait_until(
                lambda: query(url, "up") == {**in_both(1.0), **nobody},
                "Prometheus has tried all",
            )
            store_counts(state, 6 * 10**9, device_count=0, connected_device_count=0)
            wait_until(
                lambda: query(url, "iot_hub_portal_device_count") == in_both(0.0),
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
