"""The shipped configuration in a real Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from metrics_pipeline_tests.docker.container_files import DOCKER, SERVICES, bind_mounts
from metrics_pipeline_tests.servers import PLAIN_HTTP, prometheus


@contextmanager
def shipped_prometheus(folder: Path, exporter: str, every: str = "200ms") -> Iterator[str]:
    """Prometheus with docker/prometheus.yml, but scraping so often; gives its URL. `exporter` is
    host:port of the exporter that it scrapes.
    """
    shipped = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    often = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), every)
    shipped["global"] |= often
    shipped["scrape_configs"][0]["static_configs"] = [{"targets": [exporter]}]
    mounted = bind_mounts(SERVICES["prometheus"])["/etc/prometheus/rules"]
    named = [file.replace("/etc/prometheus/rules", str(mounted)) for file in shipped["rule_files"]]
    with prometheus(folder, {**shipped, "rule_files": named}) as url:
        yield url


def get(url: str, **parameters: str) -> Any:
    """The `data` of an answer of Prometheus."""
    return PLAIN_HTTP.get(url, params=parameters).json()["data"]


def loaded_rules(url: str) -> list[Mapping[str, Any]]:
    return [rule for group in get(f"{url}/api/v1/rules")["groups"] for rule in group["rules"]]


def names(url: str) -> set[str]:
    """Of all series there are."""
    return set(get(f"{url}/api/v1/label/__name__/values"))


def alerts(url: str) -> list[Mapping[str, Any]]:
    """Those that are pending or firing."""
    return list(get(f"{url}/api/v1/alerts")["alerts"])


def states(url: str) -> dict[str, str]:
    """By the name of an alert, whether it is inactive, pending or firing."""
    return {r["name"]: r["state"] for r in loaded_rules(url) if r["type"] == "alerting"}


def target_is_up(url: str) -> bool:
    rows = get(f"{url}/api/v1/query", query='up{job="metrics_pipeline"}')["result"]
    return [row["value"][1] for row in rows] == ["1"]


def all_are_healthy(url: str) -> bool:
    """Whether each rule has been evaluated, without an error."""
    return {rule["health"] for rule in loaded_rules(url)} == {"ok"}


def series(url: str) -> dict[str, set[str]]:
    """The labels of the series of our target, by the name of the metric."""
    rows = get(f"{url}/api/v1/query", query='{job="metrics_pipeline"}')["result"]
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["metric"].get("__name__", ""), set()).update(row["metric"])
    return found
