"""What the shipped rules record for the dashboards: a few series made of those of all devices."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib import resources

import yaml

from metrics_pipeline.core.errors import ConfigurationError

_GROUPED = re.compile(r"(?:histogram_quantile\([\d.]+, )?\w+ by \(([^)]*)\)")
"""How the expression of such a rule begins, and the labels that stay; of a quantile not `le`."""


@functools.cache
def recordings() -> Mapping[str, tuple[str, ...]]:
    """The labels of each series that a shipped rule records over all devices, by its name."""
    folder = resources.files("metrics_pipeline") / "alert_rules"
    found: dict[str, tuple[str, ...]] = {}
    for file in folder.iterdir():
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            found |= _of_rules(group["rules"])
    return found


def find_recording(name: str, labels: tuple[str, ...]) -> None:
    """ConfigurationError if no shipped rule records `name`, or it has not all `labels`."""
    known = recordings().get(name)
    if known is None or not set(labels) <= set(known):
        raise ConfigurationError(
            "dashboards",
            f"no shipped rule records {name} with the labels {list(labels)}",
            "Take one of metrics_pipeline/alert_rules/, or add it there.",
        )


def _of_rules(rules: list[dict[str, str]]) -> dict[str, tuple[str, ...]]:
    grouped = ((rule["record"], _GROUPED.match(rule["expr"])) for rule in rules if "record" in rule)
    return {
        name: tuple(label.strip() for label in match[1].split(",") if label.strip() != "le")
        for name, match in grouped
        if match is not None
    }
