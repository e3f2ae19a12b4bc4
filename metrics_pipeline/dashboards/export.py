"""Dashboards as the JSON files that Grafana provisions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.dashboards.listing import build_dashboards


def export(folder: Path) -> Sequence[Path]:
    """Write each dashboard into `folder`, which is made, and say where. Other files stay.

    Raises ConfigurationError where nothing can be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, dashboard in build_dashboards().items():
            path = folder / f"{name}.json"
            path.write_text(render(dashboard), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise ConfigurationError(
            str(folder),
            f"the dashboards cannot be written there ({error.strerror})",
            "Name a folder that you may write to.",
        ) from error
    return written


def render(dashboard: Dashboard) -> str:
    """The same text for the same dashboard, to the byte."""
    plain = _without_nulls(json.loads(JSONEncoder().encode(dashboard)))
    for variable in plain["templating"]["list"]:
        _drop(variable, ("auto", "auto_min", "auto_count"))
    for panel in plain["panels"]:
        _drop(panel.get("options", {}), ("footer",))
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _drop(node: dict[str, Any], names: tuple[str, ...]) -> None:
    """What the SDK writes unasked, as Grafana 11 had it, and Grafana 12 has no more."""
    for name in names:
        node.pop(name, None)


def _without_nulls(node: Any) -> Any:
    """Grafana's types have no null, but for the value that the first colour of a norm begins at."""
    if isinstance(node, dict):
        return {
            key: _without_nulls(value)
            for key, value in node.items()
            if value is not None or set(node) == {"color", "value"}
        }
    if isinstance(node, list):
        return [_without_nulls(value) for value in node]
    return node
