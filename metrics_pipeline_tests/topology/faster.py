"""What the shipped files say of time, said shorter for a test; nothing else of them is changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

SAMPLE_SECONDS = 2
WINDOW_SECONDS = 40
FLEET_MAX_RUNTIME_SECONDS = 60
SCRAPE_SECONDS = 2

SETTINGS: Mapping[str, Any] = {
    "sources": {"azure_iot_hub": {"deadline_seconds": 20, "request_timeout_seconds": 4}},
    "fleet": {"every_minutes": 1, "max_runtime_seconds": FLEET_MAX_RUNTIME_SECONDS},
    "telemetry": {"window_seconds": WINDOW_SECONDS},
    "platform": {"sample_every_seconds": SAMPLE_SECONDS, "report_every_seconds": 10},
    "exporter": {"refresh_seconds": 2},
}
FOR = re.compile(r"^(\d+)(m|h)$")
SECONDS = {"m": 1, "h": 60}
"""Of a rule's `for`: a minute is a second."""


def merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with `changes`, section by section."""
    both = dict(document)
    for key, value in changes.items():
        inner = both.get(key)
        both[key] = merged(inner, value) if isinstance(inner, Mapping) else value
    return both


def change_settings(file: Path, changes: Mapping[str, Any]) -> None:
    """Merge `changes` into the settings in `file`."""
    file.write_text(yaml.safe_dump(merged(yaml.safe_load(file.read_text()), changes)))


def scrape_often(file: Path) -> None:
    """Let Prometheus scrape and evaluate every `SCRAPE_SECONDS`."""
    often = ("scrape_interval", "scrape_timeout", "evaluation_interval")
    change_settings(file, {"global": dict.fromkeys(often, f"{SCRAPE_SECONDS}s")})


def shorten_rules(file: Path) -> None:
    """Make of each minute of each `for` a second."""
    document = yaml.safe_load(file.read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = shorter(rule["for"])
    file.write_text(yaml.safe_dump(document))


def shorter(duration: str) -> str:
    """`10m` as `10s`."""
    found = FOR.match(duration)
    assert found is not None, duration
    return f"{int(found[1]) * SECONDS[found[2]]}s"
